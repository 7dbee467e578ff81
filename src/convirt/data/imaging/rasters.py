"""Grey pixels of a PNG or JPEG file.

Shapes: H, W = height and width of the source, in pixels.
"""

import io
import warnings
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from convirt.data.imaging.codestreams import read_jpeg_header
from convirt.data.imaging.pixels import Pixels, Unreadable, check_size

REPAIR_GREY = "colour made grey"
REPAIR_ORIENTATION = "EXIF orientation applied"

_BIT_RANGES = (8, 10, 12, 14, 16)
_GREY_MODES = frozenset({"L", "1", "I;16", "I;16B", "I"})


def read_raster(data: bytes, *, at_least: int | None = None, recipe: dict[str, Any] | None = None) -> Pixels:
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
                return _read(image, data, at_least, recipe)
    except Image.DecompressionBombError as error:
        raise Unreadable("image too large", str(error)) from error


def _read(image: Image.Image, data: bytes, at_least: int | None, decided: dict[str, Any] | None) -> Pixels:
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
        recipe["bits_used"] = (decided or {}).get("bits_used") or _bits_used(values_HW)
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
