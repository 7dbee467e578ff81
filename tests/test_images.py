"""PNG and JPEG files made grey, resized and encoded (ConVIRT, appendix A)."""

import hashlib
import io
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from convirt.data.imaging.pixels import Pixels, Unreadable
from convirt.data.imaging.prepared import REPAIR_GREY, REPAIR_ORIENTATION, encode, prepare_image, read_pixels, resize


def encoded(values: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, form, **options)
    return buffer.getvalue()


def noise(height: int, width: int, *, channels: int = 0, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(512, 400, (256, 200)), (300, 900, (85, 256)), (40, 64, (160, 256)), (256, 256, (256, 256)), (2000, 3, (256, 1))],
)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_larger_side_is_exactly_the_image_size(
    tmp_path: Path, height: int, width: int, expected: tuple[int, int], form: str
) -> None:
    file = tmp_path / "image"
    file.write_bytes(encoded(noise(height, width), form))
    record, repairs = prepare_image(file, source="image", image_size=256, view="PA")
    assert (record.height, record.width) == expected == decoded(record.encoded).shape
    assert decoded(record.encoded).dtype == np.uint8
    assert repairs == ()
    assert record.view == "PA"
    assert record.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    recipe = json.loads(record.recipe)
    assert (recipe["format"], recipe["height"], recipe["width"], recipe["bits"]) == (form, height, width, 8)


def test_reduction_does_not_alias() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (512, 256))  # the finest stripes: their mean is grey
    reduced = resize(stripes, 128)
    assert abs(reduced[4:-4, 4:-4].astype(int) - 127.5).max() <= 2


def test_same_size_keeps_every_pixel(tmp_path: Path) -> None:
    values = noise(64, 48)
    (tmp_path / "a.png").write_bytes(encoded(values))
    record, _ = prepare_image(tmp_path / "a.png", source="a.png", image_size=64)
    np.testing.assert_array_equal(decoded(record.encoded), values)


@pytest.mark.parametrize(("largest", "bits"), [(255, 8), (1000, 10), (4095, 12), (4096, 14), (40000, 16), (65535, 16)])
def test_sixteen_bits_are_scaled_by_the_used_range_and_not_clipped(tmp_path: Path, largest: int, bits: int) -> None:
    values = np.linspace(0, largest, 64 * 64).astype(np.uint16).reshape(64, 64)
    (tmp_path / "a.png").write_bytes(encoded(values))
    record, _ = prepare_image(tmp_path / "a.png", source="a.png", image_size=64)
    expected = [[round(float(x) / (2**bits - 1) * 255) for x in row] for row in values]
    assert np.abs(decoded(record.encoded).astype(int) - np.array(expected)).max() <= 1
    assert len(np.unique(decoded(record.encoded))) > 200 * largest / 2**bits
    recipe = json.loads(record.recipe)
    assert (recipe["bits"], recipe["bits_used"]) == (16, bits)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_colour_becomes_grey(form: str) -> None:
    colour = np.zeros((32, 32, 3), dtype=np.uint8)
    colour[..., 0] = 200
    pixels = read_pixels(encoded(colour, form), at_least=16)
    assert pixels.repairs == (REPAIR_GREY,)
    assert pixels.recipe["grey"] == "luma"
    assert abs(pixels.values_HW.astype(float).mean() - 0.299 * 200) < 3


def test_transparent_parts_become_black() -> None:
    values = np.full((8, 8, 4), 255, dtype=np.uint8)
    values[:, :4, 3] = 0
    pixels = read_pixels(encoded(values))
    assert (pixels.values_HW[:, :4] == 0).all()
    assert (pixels.values_HW[:, 4:] == 255).all()


def test_palette_and_bilevel() -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(16, 16)).convert("P").save(buffer, "PNG")
    assert read_pixels(buffer.getvalue()).values_HW.shape == (16, 16)
    pixels = read_pixels(encoded(noise(16, 16) > 128))
    assert set(np.unique(pixels.values_HW)) == {0, 255}
    assert pixels.repairs == ()


def test_exif_orientation_is_applied() -> None:
    values = np.zeros((20, 40), dtype=np.uint8)
    values[:, :20] = 255  # left half bright
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: left becomes top
    pixels = read_pixels(encoded(values, "JPEG", exif=exif, quality=95))
    assert pixels.values_HW.shape == (40, 20)
    assert pixels.values_HW[:18].mean() > 250 > 5 > pixels.values_HW[22:].mean()
    assert pixels.repairs == (REPAIR_ORIENTATION,)


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_truncated_files_are_refused(form: str, keep: float) -> None:
    data = encoded(noise(200, 200), form)
    with pytest.raises(Unreadable, match=r"truncated or damaged image|not a PNG"):
        read_pixels(data[: int(len(data) * keep)], at_least=64)


def test_jpeg_whose_end_is_zeros_is_refused() -> None:
    data = encoded(noise(200, 200), "JPEG")
    with pytest.raises(Unreadable, match="truncated or damaged image"):
        read_pixels(data[: len(data) // 2] + b"\0" * (len(data) // 2))


def test_nobody_else_can_let_truncated_files_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(noise(200, 200), "PNG")
    with pytest.raises(Unreadable, match="truncated or damaged image"):
        read_pixels(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "suffix", "reason"),
    [
        (b"", ".png", "empty file"),
        (b"hello", ".png", "not a PNG, JPEG or DICOM file"),
        (b"hello" * 100, ".dcm", "DICOM|not a PNG"),
        (
            encoded(noise(8, 8), "BMP"),
            ".bmp",
            "not a PNG, JPEG or DICOM file BMP, which is not read: convert it to PNG",
        ),
        (encoded(noise(8, 8), "TIFF"), ".png", "not a PNG, JPEG or DICOM file TIFF, which is not read"),
        (encoded(noise(8, 8), "WEBP"), ".jpg", "not a PNG, JPEG or DICOM file WebP, which is not read"),
        (encoded(noise(8, 8), "GIF"), ".dat", "not a PNG, JPEG or DICOM file GIF, which is not read"),
        (b"%PDF-1.7\n", ".png", "not a PNG, JPEG or DICOM file PDF, which is not read"),
    ],
)
def test_other_files_are_refused(data: bytes, suffix: str, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_pixels(data, suffix=suffix)
    assert re.match(reason, f"{caught.value.reason} {caught.value.detail}")


def test_a_forged_size_is_refused_before_memory_is_taken() -> None:
    data = bytearray(encoded(noise(8, 8)))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(Unreadable, match="image too large"):
        read_pixels(bytes(data))


@pytest.mark.parametrize("largest", [4095, 65535])
def test_sixteen_bits_stay_sixteen(tmp_path: Path, largest: int) -> None:
    values = np.linspace(0, largest, 64 * 48).astype(np.uint16).reshape(64, 48)
    (tmp_path / "a.png").write_bytes(encoded(values))
    record, _ = prepare_image(tmp_path / "a.png", source="a.png", image_size=64, bits=16)
    prepared = decoded(record.encoded)
    assert prepared.dtype == np.uint16
    expected = values.astype(np.float64) / largest * 65535
    assert np.abs(prepared - expected).max() <= 1
    assert len(np.unique(prepared)) == len(np.unique(values))


def test_reduced_eight_bits_have_more_than_eight(tmp_path: Path) -> None:
    values = noise(512, 512)
    (tmp_path / "a.png").write_bytes(encoded(values))
    deep, _ = prepare_image(tmp_path / "a.png", source="a.png", image_size=128, bits=16)
    flat, _ = prepare_image(tmp_path / "a.png", source="a.png", image_size=128)
    assert len(np.unique(decoded(deep.encoded))) > 1000
    off = decoded(deep.encoded) / 65535 - decoded(flat.encoded) / 255
    assert np.abs(off).max() < 1.5 / 255


def film(height: int = 2500, width: int = 2048, seed: int = 0) -> np.ndarray:
    """A radiograph-like image: dark background, soft tissue, ribs with sharp edges, a marker, and film noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y / height - 0.5, x / width - 0.5
    body = 1 / (1 + np.exp((np.hypot(x, y * 0.8) - 0.42) * 60))
    lungs = sum(np.exp(-((((x - side) / 0.12) ** 2 + ((y + 0.05) / 0.28) ** 2) ** 2)) for side in (-0.2, 0.2))
    ribs = (np.sin((y + 0.3 * np.abs(x)) * 70) > 0.7) * np.asarray(lungs) * 0.15
    values = 20 + 180 * body * (1 - 0.6 * np.asarray(lungs) + ribs)
    values[100:180, 150:200] = 250
    values += rng.normal(0, 6, (height, width)).astype(np.float32)
    return values.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [75, 95])
def test_scaled_decoding_stays_within_forty_decibels(tmp_path: Path, quality: int) -> None:
    """Against decoding in full and one antialiased reduction; without noise the edges would count alone."""
    data = encoded(film(), "JPEG", quality=quality)
    (tmp_path / "a.jpg").write_bytes(data)
    for size in (224, 256):
        record, _ = prepare_image(tmp_path / "a.jpg", source="a.jpg", image_size=size)
        assert json.loads(record.recipe)["decoded_at"] == [313, 256]
        full = resize(read_pixels(data).values_HW, size).astype(float)
        error = np.mean((decoded(record.encoded) - full) ** 2)
        assert 10 * np.log10(255**2 / error) > 40


@pytest.mark.parametrize(("size", "scaled"), [((512, 400), False), ((1023, 1023), False), ((1024, 1100), True)])
def test_scaled_decoding_keeps_twice_the_prepared_size(size: tuple[int, int], scaled: bool) -> None:
    pixels = read_pixels(encoded(noise(*size), "JPEG"), at_least=512)
    assert ("decoded_at" in pixels.recipe) == scaled
    assert min(pixels.values_HW.shape) >= min(512, *size)


@pytest.mark.parametrize("shape", [(2501, 2048), (2500, 2049), (2503, 2043), (1030, 2900)])
def test_scaled_decoding_keeps_shape_and_place(tmp_path: Path, shape: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    slope = (255 * (x / shape[1] + y / shape[0]) / 2).astype(np.uint8)
    (tmp_path / "a.jpg").write_bytes(encoded(slope, "JPEG", quality=98))
    record, _ = prepare_image(tmp_path / "a.jpg", source="a.jpg", image_size=256)
    expected = resize(slope, 256).astype(int)
    assert "decoded_at" in json.loads(record.recipe)
    assert np.abs(decoded(record.encoded) - expected).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (64, 48)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_encoding_loses_nothing(shape: tuple[int, int], dtype: type) -> None:
    limit = np.iinfo(dtype).max
    for values in (
        np.random.default_rng(0).integers(0, limit, shape, dtype=dtype, endpoint=True),
        np.linspace(0, limit, shape[0] * shape[1]).astype(dtype).reshape(shape),
        np.full(shape, limit, dtype=dtype),
    ):
        image = decoded(encode(values))
        assert image.dtype == dtype
        np.testing.assert_array_equal(image, values)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="file that cannot be opened"):
        prepare_image(tmp_path / "a.png", source="a.png", image_size=32)


@pytest.mark.parametrize("stray", [65535, 60000, 40000])
def test_a_stray_pixel_does_not_darken_a_16_bit_film(stray: int) -> None:
    rng = np.random.default_rng(0)
    film_HW = rng.integers(0, 4096, (64, 64)).astype(np.uint16)
    marked_HW = film_HW.copy()
    marked_HW[5, 7] = stray

    def pixels(values_HW: np.ndarray) -> Pixels:
        buffer = io.BytesIO()
        Image.fromarray(values_HW).save(buffer, format="PNG")
        return read_pixels(buffer.getvalue())

    plain, marked = pixels(film_HW), pixels(marked_HW)
    keep_HW = np.ones((64, 64), bool)
    keep_HW[5, 7] = False
    np.testing.assert_array_equal(marked.values_HW[keep_HW], plain.values_HW[keep_HW])
    assert any("stray pixels" in repair for repair in marked.repairs)
    assert not plain.repairs
