"""Prepared images: a PNG, JPEG or DICOM file made grey, resized and encoded (ConVIRT, appendix A).

The larger side becomes exactly `image_size` (A: 256); the aspect stays. Resampling is bilinear over the support of the
reduction, so it does not alias. Shapes: H, W = height and width in pixels.
"""

import hashlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from convirt.data.dicom import read_dicom
from convirt.data.pixels import MAX_PIXELS, Pixels, Unreadable
from convirt.data.records import ImageRecord

REPAIR_GREY = "colour made grey"
REPAIR_ORIENTATION = "EXIF orientation applied"

_DICOM_SUFFIXES = frozenset({"", ".dcm", ".dicom", ".dic", ".ima"})
_BIT_RANGES = (8, 10, 12, 14, 16)
_GREY_MODES = frozenset({"L", "1", "I;16", "I;16B", "I"})


def prepare_image(path: Path, *, source: str, image_size: int, view: str = "") -> tuple[ImageRecord, tuple[str, ...]]:
    """Read one source image and make its record.

    Args:
        path: File to read: PNG, JPEG or DICOM, told by its content.
        source: How the record names it, relative to the image root.
        image_size: Larger side of the prepared image, pixels.
        view: Projection, as the source table names it.

    Returns:
        The record, and what had to be repaired.

    Raises:
        Unreadable: The file is missing, truncated, or not such an image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable("file that cannot be opened", error.strerror or type(error).__name__) from error
    pixels = read_pixels(data, suffix=path.suffix.lower(), at_least=2 * image_size)
    prepared_HW = resize(pixels.values_HW, image_size)
    encoded = io.BytesIO()
    Image.fromarray(prepared_HW).save(encoded, "PNG", compress_level=4)  # a third faster than 6, half a percent larger
    height, width = prepared_HW.shape
    record = ImageRecord(
        encoded=encoded.getvalue(),
        height=height,
        width=width,
        view=view,
        source=source,
        sha256=hashlib.sha256(data).hexdigest(),
        recipe=json.dumps(pixels.recipe, sort_keys=True),
    )
    return record, pixels.repairs


def read_pixels(data: bytes, *, suffix: str = "", at_least: int | None = None) -> Pixels:
    """Decode the bytes of a PNG, JPEG or DICOM file.

    Args:
        data: The whole file.
        suffix: Its file name extension; it only decides whether bytes without any signature are tried as DICOM.
        at_least: A JPEG may be decoded at a fraction of its size, with neither side of the result below this.

    Raises:
        Unreadable: The bytes are not such an image, or it is truncated.
    """
    if not data:
        raise Unreadable("empty file")
    if data[128:132] == b"DICM":
        return read_dicom(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's are about metadata and size; both are judged below
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                return _read_raster(image, data, at_least)
    except UnidentifiedImageError as error:
        if suffix in _DICOM_SUFFIXES:
            return read_dicom(data)
        raise Unreadable("not a PNG, JPEG or DICOM file") from error
    except Image.DecompressionBombError as error:
        raise Unreadable("image too large", str(error)) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise Unreadable("truncated or damaged image", str(error).splitlines()[0][:200]) from error


def _read_raster(image: Image.Image, data: bytes, at_least: int | None) -> Pixels:
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable("image too large", f"{image.height} x {image.width} pixels")
    # Half an image must never pass: PIL can be told elsewhere to fill the rest with grey.
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise Unreadable("truncated or damaged image", "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set; unset it")
    if image.format == "JPEG" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise Unreadable("truncated or damaged image", "JPEG without its end marker")
    recipe: dict[str, Any] = {
        "format": image.format,
        "height": image.height,
        "width": image.width,
        "mode": image.mode,
        "bits": 16 if image.mode.startswith("I") else 8,
    }
    repairs = [] if image.mode in _GREY_MODES else [REPAIR_GREY]
    if image.format == "JPEG" and at_least is not None:
        image.draft("L", (at_least, at_least))
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
        image = ImageOps.exif_transpose(image)
        recipe["exif_orientation"] = True
        repairs.append(REPAIR_ORIENTATION)
    if recipe["bits"] == 16:
        values_HW = _scale_used_range(np.asarray(image), recipe)
    else:
        values_HW = np.asarray(_to_grey(image, recipe))
    return Pixels(values_HW=values_HW, recipe=recipe, repairs=tuple(repairs))


def _scale_used_range(values_HW: np.ndarray, recipe: dict[str, Any]) -> np.ndarray:
    """Scale 16-bit values by the smallest usual bit range that holds them all: 12-bit data stays bright, none clips."""
    largest = int(values_HW.max())
    bits = next(bits for bits in _BIT_RANGES if largest < 1 << bits)
    recipe["bits_used"] = bits
    return (values_HW.astype(np.float32) / np.float32((1 << bits) - 1)).clip(0, 1)


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


def resize(values_HW: np.ndarray, image_size: int) -> np.ndarray:
    """Resize grey pixels, uint8 or float32 in [0, 1], so that the larger side is `image_size`; returns uint8."""
    height, width = values_HW.shape
    larger = max(height, width)
    size = (max(1, round(width * image_size / larger)), max(1, round(height * image_size / larger)))
    image = Image.fromarray(values_HW)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    resized_HW = np.asarray(image)
    if resized_HW.dtype == np.uint8:
        return resized_HW
    return np.rint(resized_HW.clip(0, 1) * 255).astype(np.uint8)
