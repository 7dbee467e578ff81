"""Compressed transfer syntaxes: the values that come out are those that went in, or as near as the codec says."""

import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file

from convirt.data.imaging import codecs
from convirt.data.imaging.codecs import REPAIR_PRECISION, read_jpeg2000_header, read_jpeg_header, stored_values
from convirt.data.imaging.dicom import REPAIR_EQUAL_CHANNELS, read_dicom
from convirt.data.imaging.pixels import Choice, Unreadable
from dicom_files import compressed, dicom, jpeg_2000, jpeg_lossless, rle, texture


def stored(data: bytes, frame: int = 1) -> np.ndarray:
    return stored_values(pydicom.dcmread(io.BytesIO(data)), frame, [])


def shipped(name: str) -> bytes:
    """One of the files in pydicom's own wheel."""
    path = get_testdata_file(name, download=False)
    assert path is not None
    return Path(str(path)).read_bytes()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_jpeg_lossless(bits: int, predictor: int) -> None:
    values = texture(bits)
    syntax = uid.JPEGLosslessSV1 if predictor == 1 else uid.JPEGLossless
    data = compressed(jpeg_lossless(values, bits, predictor), values, syntax, bits=bits)
    np.testing.assert_array_equal(stored(data), values)
    assert read_dicom(data).recipe["transfer_syntax"] == syntax.name


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("near", [0, 3])
def test_jpeg_ls(bits: int, near: int) -> None:
    values = texture(bits)
    syntax = uid.JPEGLSNearLossless if near else uid.JPEGLSLossless
    data = compressed(imagecodecs.jpegls_encode(values, near), values, syntax, bits=bits)
    assert np.abs(stored(data).astype(int) - values).max() <= near


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_2000_lossless(bits: int, signed: bool) -> None:
    values = texture(bits)
    if signed:
        values = (values.astype(int) - (1 << (bits - 1))).astype(f"i{values.dtype.itemsize}")
    data = compressed(jpeg_2000(values, reversible=True), values, uid.JPEG2000Lossless, bits=bits)
    np.testing.assert_array_equal(stored(data), values)


def test_high_throughput_jpeg_2000() -> None:
    values = texture(12)
    data = compressed(imagecodecs.htj2k_encode(values), values, uid.HTJ2KLossless, bits=12)
    np.testing.assert_array_equal(stored(data), values)


@pytest.mark.parametrize("bits", [8, 12])
def test_lossy_jpeg(bits: int) -> None:
    values = texture(bits)
    encoded = imagecodecs.jpeg8_encode(values, 95, bitspersample=bits)
    syntax = uid.JPEGBaseline8Bit if bits == 8 else uid.JPEGExtended12Bit
    off = np.abs(stored(compressed(encoded, values, syntax, bits=bits)).astype(int) - values)
    assert off.mean() < 0.01 * (1 << bits)


def test_lossy_jpeg_2000() -> None:
    values = texture(12)
    encoded = jpeg_2000(values, level=60, reversible=False, bitspersample=12)
    off = np.abs(stored(compressed(encoded, values, uid.JPEG2000, bits=12)).astype(int) - values)
    assert 0 < off.mean() < 0.02 * 4096


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<i2", "<u4"])
def test_rle(dtype: str) -> None:
    values = texture(8).astype(dtype) * (1 if dtype == "|u1" else 113) - (5000 if dtype == "<i2" else 0)
    values = values.astype(dtype)
    data = compressed(rle(values), values, uid.RLELossless, bits=values.dtype.itemsize * 8)
    np.testing.assert_array_equal(stored(data), values)


def test_rle_with_stray_bits() -> None:
    values = texture(12)
    data = compressed(rle(values | 0xF000), values, uid.RLELossless, bits=12)
    np.testing.assert_array_equal(stored(data), values)


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless])
def test_negative_values_of_twelve_bits(syntax: str) -> None:
    """Codecs without a sign carry two's complement of the stored bits, which may or may not fill the cell."""
    values = texture(12).astype(int) - 2048
    for carried in (values & 0xFFF, values & 0xFFFF):
        cells = carried.astype("<u2")
        if syntax == uid.RLELossless:
            encoded = rle(cells)
        elif syntax == uid.JPEG2000Lossless:
            encoded = jpeg_2000(cells, reversible=True)
        elif syntax == uid.JPEGLSLossless:
            encoded = imagecodecs.jpegls_encode(cells)
        else:
            encoded = jpeg_lossless(cells, 16, 1)
        np.testing.assert_array_equal(stored(compressed(encoded, cells.view("<i2"), syntax, bits=12)), values)


def test_frames_of_compressed_files() -> None:
    frames = [texture(12, seed=seed) for seed in range(3)]
    encoded = [jpeg_lossless(frame, 12, 1) for frame in frames]
    data = compressed(encoded, np.stack(frames), uid.JPEGLosslessSV1, NumberOfFrames=3)
    for number, frame in enumerate(frames, 1):
        np.testing.assert_array_equal(stored(data, number), frame)
    with pytest.raises(Unreadable, match="DICOM with several frames"):
        read_dicom(data)
    assert read_dicom(data, choice=Choice(frame=2)).recipe["frame"] == 2


@pytest.mark.parametrize(
    ("photometric", "options"),
    [
        ("RGB", {"colorspace": "RGB", "outcolorspace": "RGB"}),
        ("YBR_FULL_422", {"colorspace": "RGB", "outcolorspace": "YCBCR"}),
    ],
)
def test_grey_in_a_colour_jpeg_is_kept(photometric: str, options: dict[str, Any]) -> None:
    grey = texture(8)
    channels = np.repeat(grey[..., None], 3, axis=2)
    encoded = imagecodecs.jpeg8_encode(channels, 95, **options)
    data = compressed(encoded, channels, uid.JPEGBaseline8Bit, bits=8, PhotometricInterpretation=photometric)
    pixels = read_dicom(data)
    assert pixels.repairs == (REPAIR_EQUAL_CHANNELS,)
    assert np.abs(pixels.values_HW * 255 - grey).mean() < 2
    colour = channels.copy()
    colour[:20, :, 0] = 200
    encoded = imagecodecs.jpeg8_encode(colour, 95, **options)
    with pytest.raises(Unreadable, match="DICOM in colour"):
        read_dicom(compressed(encoded, colour, uid.JPEGBaseline8Bit, bits=8, PhotometricInterpretation=photometric))


SAME = ("MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_bigendian", "MR_small_implicit")


@pytest.mark.parametrize("name", SAME)
def test_files_of_other_writers_agree(name: str) -> None:
    """One image in six transfer syntaxes, written by other programs."""
    plain = read_dicom(shipped("MR_small.dcm"))
    other = read_dicom(shipped(f"{name}.dcm"))
    np.testing.assert_array_equal(other.values_HW, plain.values_HW)
    assert {**other.recipe, "transfer_syntax": ""} == {**plain.recipe, "transfer_syntax": ""}


def test_lossy_files_of_other_writers_agree() -> None:
    """One bone scan as JPEG extended of 12 bits, twice, and as JPEG 2000."""
    extended, lossy, wavelet = (stored(shipped(name)) for name in ("JPGExtended.dcm", "JPEG-lossy.dcm", "JPEG2000.dcm"))
    np.testing.assert_array_equal(extended, lossy)
    assert np.corrcoef(extended.ravel(), wavelet.ravel())[0, 1] > 0.95
    assert np.abs(extended.astype(int) - wavelet).mean() < 5


# Codestreams that contradict their file


def test_a_codestream_larger_than_its_file_says_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = texture(8, height=32, width=32)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a decoder was called")

    cases = [
        (imagecodecs.jpeg8_encode(values), uid.JPEGBaseline8Bit, b"\xff\xc0", 5, ">HH"),
        (jpeg_lossless(values, 8, 1), uid.JPEGLosslessSV1, b"\xff\xc3", 5, ">HH"),
        (imagecodecs.jpegls_encode(values), uid.JPEGLSLossless, b"\xff\xf7", 5, ">HH"),
        (jpeg_2000(values, reversible=True), uid.JPEG2000Lossless, b"\xff\x51", 6, ">II"),
    ]
    for name in ("jpeg8_decode", "jpegls_decode", "jpeg2k_decode"):
        monkeypatch.setattr(codecs, name, never)
    for encoded, syntax, marker, offset, form in cases:
        forged = bytearray(encoded)
        struct.pack_into(form, forged, forged.find(marker) + offset, 4000, 4000)
        with pytest.raises(Unreadable, match="under a header of 32 x 32"):
            stored(compressed(bytes(forged), values, syntax, bits=8))


def test_jpeg_2000_of_a_million_tiles_is_not_decoded() -> None:
    forged = bytearray(jpeg_2000(texture(8, height=300, width=300), reversible=True))
    struct.pack_into(">II", forged, forged.find(b"\xff\x51") + 22, 1, 1)
    with pytest.raises(Unreadable, match="tiles of 1 x 1"):
        read_jpeg2000_header(bytes(forged))


def test_jpeg_of_many_scans_is_not_decoded() -> None:
    """Each scan costs the decoder a pass over the image, and its author a few bytes."""
    buffer = io.BytesIO()
    Image.fromarray(texture(8, height=200, width=200)).save(buffer, "JPEG", progressive=True)
    encoded = buffer.getvalue()
    scan = encoded[encoded.rfind(b"\xff\xda") : -2]
    assert read_jpeg_header(encoded).bits == 8
    with pytest.raises(Unreadable, match=r"JPEG of 2\d\d scans"):
        read_jpeg_header(encoded[:-2] + scan[:12] * 200 + encoded[-2:])


def test_codestream_cut_short() -> None:
    values = texture(8, height=200, width=200)
    for encoded, syntax in (
        (imagecodecs.jpeg8_encode(values), uid.JPEGBaseline8Bit),
        (jpeg_lossless(values, 8, 1), uid.JPEGLosslessSV1),
        (imagecodecs.jpegls_encode(values), uid.JPEGLSLossless),
        (jpeg_2000(values, reversible=True), uid.JPEG2000Lossless),
        (rle(values), uid.RLELossless),
    ):
        for share in (0.02, 0.3, 0.6, 0.9):
            cut = bytes(encoded)[: int(len(encoded) * share)]
            with pytest.raises(Unreadable):
                read_dicom(compressed(cut, values, syntax, bits=8))


def test_other_transfer_syntaxes_are_named() -> None:
    data = compressed(b"\0" * 20, texture(8), uid.MPEG2MPML, bits=8)
    with pytest.raises(Unreadable, match="DICOM of a transfer syntax that is not read") as caught:
        read_dicom(data)
    assert "MPEG2" in caught.value.detail
    assert read_dicom(dicom(texture(12))).recipe["transfer_syntax"] == "Explicit VR Little Endian"


@pytest.mark.parametrize("bits", [9, 11, 12, 15])
@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEG2000Lossless])
def test_the_precision_of_the_codestream_decides_the_sign(bits: int, syntax: str) -> None:
    """Its header says 16 signed bits; the codestream has fewer."""
    values = texture(bits).astype(int) - (1 << (bits - 1))
    carried = (values & ((1 << bits) - 1)).astype("<u2")
    if syntax == uid.JPEGLosslessSV1:
        encoded = jpeg_lossless(carried, bits, 1)
    else:
        encoded = jpeg_2000(carried, reversible=True, bitspersample=bits)
    data = compressed(encoded, carried.view("<i2"), syntax, bits=16)
    np.testing.assert_array_equal(stored(data), values)
    assert read_dicom(data).repairs == (REPAIR_PRECISION,)
