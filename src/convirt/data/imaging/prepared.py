"""Prepared images: a PNG, JPEG or DICOM file made grey, resized and encoded (ConVIRT, appendix A).

The larger side becomes exactly `image_size` (A: 256); the aspect stays. Resampling is bilinear over the support of the
reduction, so it does not alias. Shapes: H, W = height and width in pixels.
"""

import hashlib
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from imagecodecs import PNG, png_encode
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from convirt.data.imaging import sandbox
from convirt.data.imaging.codecs import read_jpeg_header
from convirt.data.imaging.dicom import REPAIR_STRAY, read_dicom
from convirt.data.imaging.display import distinct, without_strays
from convirt.data.imaging.pixels import FIRST, Choice, Pixels, Unreadable, check_size
from convirt.data.records import ImageRecord, content_of

Bits = Literal[8, 16]

REPAIR_GREY = "colour made grey"
REPAIR_ORIENTATION = "EXIF orientation applied"

_BIT_RANGES = (8, 10, 12, 14, 16)
_GREY_MODES = frozenset({"L", "1", "I;16", "I;16B", "I"})
_OTHER_FORMATS = (  # how files of other formats begin
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"BM.{8}", "BMP"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"GIF8", "GIF"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"....ftyp(?:heic|heix|mif1|avif)", "HEIC or AVIF"),
    (rb"%PDF", "PDF"),
    (rb".{344}(?:n\+1|ni1)\0|\x5c\x01\0\0", "NIfTI"),
    (rb"\x1f\x8b", "gzip"),
    (rb"PK\x03\x04", "ZIP"),
)
_DICOM_SUFFIXES = frozenset({"", ".dcm", ".dicom", ".dic", ".ima"})


def prepare_image(
    path: Path,
    *,
    source: str,
    image_size: int,
    view: str = "",
    bits: Bits = 8,
    frame: int | None = None,
    window: int = 1,
) -> tuple[ImageRecord, tuple[str, ...]]:
    """Read one source image and make its record.

    Args:
        path: File to read: PNG, JPEG or DICOM, told by its content.
        source: How the record names it, relative to the image root.
        image_size: Larger side of the prepared image, pixels.
        view: Projection, as the source table names it.
        bits: Depth of the prepared image.
        frame: Which frame of a DICOM file with several, from 1; without it such a file is set aside.
        window: Which window, or VOI LUT, of a DICOM file with several, from 1.

    Returns:
        The record, and what had to be repaired or deserves a look.

    Raises:
        Unreadable: The file is missing, truncated, or not such an image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable("file that cannot be opened", error.strerror or type(error).__name__) from error
    return prepare_bytes(
        data,
        suffix=path.suffix.lower(),
        source=source,
        image_size=image_size,
        view=view,
        bits=bits,
        frame=frame,
        window=window,
    )


def prepare_bytes(
    data: bytes,
    *,
    source: str,
    image_size: int,
    suffix: str = "",
    view: str = "",
    bits: Bits = 8,
    frame: int | None = None,
    window: int = 1,
    recipe: dict[str, Any] | None = None,
) -> tuple[ImageRecord, tuple[str, ...]]:
    """Make the record of one source image from its bytes.

    Args:
        data: The whole file.
        source: How the record names it.
        image_size: Larger side of the prepared image, pixels.
        suffix: File name extension; it only decides whether bytes without any signature are tried as DICOM.
        view: Projection, as the source table names it.
        bits: Depth of the prepared image.
        frame: Which frame of a DICOM file with several, from 1.
        window: Which window, or VOI LUT, of a DICOM file with several, from 1.
        recipe: What an earlier reading of the same bytes decided; it is followed.

    Returns:
        The record, and what had to be repaired or deserves a look.

    Raises:
        Unreadable: The bytes are not such an image, or damaged.
    """
    work = (data, suffix, image_size, bits, Choice(frame=frame, window=window), recipe)
    encoded, content, (height, width), used, repairs = sandbox.call(_prepare, *work)
    record = ImageRecord(
        encoded=encoded,
        height=height,
        width=width,
        view=view,
        source=source,
        sha256=hashlib.sha256(data).hexdigest(),
        recipe=json.dumps(used, sort_keys=True),
        content=content,
    )
    return record, repairs


def _prepare(
    data: bytes, suffix: str, image_size: int, bits: Bits, choice: Choice, recipe: dict[str, Any] | None
) -> tuple[bytes, str, tuple[int, int], dict[str, Any], tuple[str, ...]]:
    """Everything that runs decoders: what `sandbox` may move to another process."""
    try:
        pixels = read_pixels(data, suffix=suffix, at_least=image_size, choice=choice, recipe=recipe)
        prepared_HW = resize(pixels.values_HW, image_size, bits=bits, extent_HW=pixels.extent_HW)
        height, width = prepared_HW.shape
        return encode(prepared_HW), content_of(prepared_HW), (height, width), pixels.recipe, pixels.repairs
    except MemoryError as error:
        raise Unreadable("image too large", "not enough memory") from error


def read_pixels(
    data: bytes,
    *,
    suffix: str = "",
    at_least: int | None = None,
    choice: Choice = FIRST,
    recipe: dict[str, Any] | None = None,
) -> Pixels:
    """Decode the bytes of a PNG, JPEG or DICOM file.

    Args:
        data: The whole file.
        suffix: Its file name extension; it only decides whether bytes without any signature are tried as DICOM.
        at_least: A JPEG may be decoded at a fraction of its size, with neither side of the result below this.
        choice: Which frame and window of a DICOM file with several.
        recipe: What an earlier reading of the same bytes decided; it is followed.

    Raises:
        Unreadable: The bytes are not such an image, or it is truncated.
    """
    if not data:
        raise Unreadable("empty file")
    if data[128:132] == b"DICM" or _is_bare_dicom(data) or (recipe or {}).get("format") == "DICOM":
        return read_dicom(data, choice=choice, recipe=recipe)
    try:
        return _read_raster(data, at_least=at_least, recipe=recipe)
    except UnidentifiedImageError as error:
        kind = next((name for start, name in _OTHER_FORMATS if re.match(start, data, re.DOTALL)), "")
        if suffix in _DICOM_SUFFIXES and not kind:
            return read_dicom(data, choice=choice)
        remedy = f"{kind}, which is not read: convert it to PNG" if kind else ""
        raise Unreadable("not a PNG, JPEG or DICOM file", remedy) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise Unreadable("truncated or damaged image", f"{error}\n".splitlines()[0][:200]) from error
    except (MemoryError, OverflowError) as error:
        raise Unreadable("image too large", type(error).__name__) from error


def _is_bare_dicom(data: bytes) -> bool:
    """Whether bytes begin as a DICOM data set without the preamble does: with an element of group 2 or 8."""
    group, element = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")
    if group not in (2, 8) or element not in (0, 1, 5, 8, 16, 18, 20, 22, 24):
        return False
    explicit = data[4:6] in (b"UL", b"OB", b"CS", b"UI", b"SH", b"DA", b"TM")
    return explicit or int.from_bytes(data[4:8], "little") <= 64  # implicit: the length of a short first value


def resize(
    values_HW: np.ndarray, image_size: int, *, bits: Bits = 8, extent_HW: tuple[float, float] | None = None
) -> np.ndarray:
    """Resize grey pixels, uint8 or float32 in [0, 1], so that the larger side is `image_size`.

    Args:
        values_HW: The pixels.
        image_size: Larger side of the result.
        bits: Depth of the result.
        extent_HW: How much of them the image fills, if not all; see `Pixels`.

    Returns:
        uint8, or uint16 where 16 bits are asked for: 0 is black, 65535 white.
    """
    height, width = extent_HW or values_HW.shape
    larger = max(height, width)
    size = (max(1, round(width * image_size / larger)), max(1, round(height * image_size / larger)))
    if bits == 16 and values_HW.dtype == np.uint8:  # the mean of many 8-bit pixels has more than 8 bits
        values_HW = values_HW.astype(np.float32) / np.float32(255)
    image = Image.fromarray(values_HW)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR, box=(0, 0, width, height))
    resized_HW = np.asarray(image)
    if resized_HW.dtype == np.uint8:
        return resized_HW
    white = np.float32((1 << bits) - 1)
    return np.rint(resized_HW.clip(0, 1) * white).astype(np.uint8 if bits == 8 else np.uint16)


def encode(prepared_HW: np.ndarray) -> bytes:
    """Return grey pixels, uint8 or uint16, as a PNG file; every row is filtered as Paeth proposed."""
    # 8-bit rows have long runs once filtered; those of 16 bits do not, and need matches at a distance.
    strategy = PNG.STRATEGY.RLE if prepared_HW.dtype == np.uint8 else PNG.STRATEGY.DEFAULT
    return bytes(png_encode(np.ascontiguousarray(prepared_HW), 1, strategy=strategy, filter=PNG.FILTER.PAETH))


def _read_raster(data: bytes, *, at_least: int | None = None, recipe: dict[str, Any] | None = None) -> Pixels:
    """Decode the bytes of a PNG or JPEG file.

    Args:
        data: The whole file.
        at_least: A JPEG may be decoded at a fraction of its size, with neither side of the result below this.
        recipe: What an earlier reading decided; it is followed.

    Raises:
        UnidentifiedImageError: Neither PNG nor JPEG.
        Unreadable: It is too large, or truncated.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's are about metadata and size; both are judged below
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                return _read_open(image, data, at_least, recipe)
    except Image.DecompressionBombError as error:
        raise Unreadable("image too large", str(error)) from error


def _read_open(image: Image.Image, data: bytes, at_least: int | None, decided: dict[str, Any] | None) -> Pixels:
    check_size(image.height, image.width)
    # Half an image must never pass: PIL can be told elsewhere to fill the rest with grey.
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise Unreadable("truncated or damaged image", "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set; unset it")
    if image.format == "JPEG":
        read_jpeg_header(data)
    recipe: dict[str, Any] = {
        "format": image.format,
        "height": image.height,
        "width": image.width,
        "mode": image.mode,
        "bits": 16 if image.mode.startswith("I") else 8,
    }
    repairs = [] if image.mode in _GREY_MODES else [REPAIR_GREY]
    turned = image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
    extent_HW = _draft(image, at_least, recipe) if image.format == "JPEG" and at_least and not turned else None
    image.load()
    if turned:
        image = ImageOps.exif_transpose(image)
        recipe["exif_orientation"] = True
        repairs.append(REPAIR_ORIENTATION)
    if recipe["bits"] == 16:
        values_HW = np.asarray(image)
        different_V = distinct(values_HW)
        usual_V = without_strays(values_HW, different_V)
        if len(usual_V) < len(different_V) and _bits_used(usual_V) < _bits_used(different_V):
            repairs.append(REPAIR_STRAY)
        recipe["bits_used"] = (decided or {}).get("bits_used") or _bits_used(usual_V)
        scale = np.float32((1 << recipe["bits_used"]) - 1)
        values_HW = (values_HW.astype(np.float32) / scale).clip(0, 1)
    else:
        values_HW = np.asarray(_to_grey(image, recipe))
    return Pixels(values_HW=values_HW, extent_HW=extent_HW, recipe=recipe, repairs=tuple(repairs))


def _draft(image: Image.Image, at_least: int, recipe: dict[str, Any]) -> tuple[float, float] | None:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8 of its size, neither side below `at_least`; return what it then fills.

    The decoder then makes fewer pixels of each block of 8 x 8, which is their mean: much faster, and not aliased.
    """
    if image.draft("L", (at_least, at_least)) is None or image.size == (recipe["width"], recipe["height"]):
        return None
    recipe["decoded_at"] = [image.height, image.width]
    scale = next(n for n in (2, 4, 8) if -(-recipe["width"] // n) == image.width)
    return recipe["height"] / scale, recipe["width"] / scale


def _bits_used(values_HW: np.ndarray) -> int:
    """Return the smallest usual bit range that holds all 16-bit values: 12-bit data stays bright, none clips."""
    largest = int(values_HW.max())
    return next((bits for bits in _BIT_RANGES if largest < 1 << bits), 16)


def _to_grey(image: Image.Image, recipe: dict[str, Any]) -> Image.Image:
    if image.mode == "L":
        if recipe["mode"] != "L":
            recipe["grey"] = "luma"
        return image
    recipe["grey"] = "luma"
    if image.has_transparency_data:
        recipe["grey"] = "luma, transparent parts black"
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB").convert("L") if image.mode not in ("1", "RGB") else image.convert("L")
