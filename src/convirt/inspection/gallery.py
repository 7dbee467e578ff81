"""Pictures for the page: a sample of pairs, and the images that were found to be the same or nearly so."""

import base64
import hashlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from convirt.data.corpora import decode
from convirt.data.records import ImageRecord
from convirt.inspection.collections import Collection

SAMPLE = 12
SHOWN = 12
"""Pairs of alike images."""
_SIDE = 168
_TEXT = 420


def thumbnail(image: ImageRecord, side: int = _SIDE) -> str:
    """A small image as a data address."""
    values_HW = decode(image).numpy()[0]
    if values_HW.dtype == np.uint16:
        values_HW = (values_HW >> 8).astype(np.uint8)
    small = Image.fromarray(values_HW)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def sample_rows(collection: Collection, count: int = SAMPLE) -> list[dict[str, Any]]:
    """Rows drawn by a hash of their place, the same in every report of a collection."""
    places = range(len(collection))
    if len(places) > 10_000:  # spread evenly, then drawn: millions of hashes would take longer than the page
        places = range(0, len(places), len(places) // 10_000)
    ranked = sorted(places, key=lambda place: hashlib.sha256(f"sample {place}".encode()).digest())
    shown: list[dict[str, Any]] = []
    for place in ranked[: 3 * count]:
        pair = collection.row(place)
        if pair.images and len(shown) < count:
            shown.append(
                {
                    "row": place,
                    "split": pair.split,
                    "views": [image.view for image in pair.images],
                    "images": [thumbnail(image) for image in pair.images[:3]],
                    "text": pair.text if len(pair.text) <= _TEXT else f"{pair.text[:_TEXT]} ...",
                }
            )
    return shown


def alike_images(
    pairs_P2: np.ndarray,
    readers: tuple[Callable[[int], ImageRecord], Callable[[int], ImageRecord]],
    captions: list[str],
) -> list[dict[str, Any]]:
    """Show two images beside each other.

    Args:
        pairs_P2: Places of the images, one column for each reader.
        readers: What reads an image by its place.
        captions: What stands below each pair.
    """
    return [
        {"images": [thumbnail(read(int(place))) for read, place in zip(readers, pair, strict=True)], "caption": caption}
        for pair, caption in zip(pairs_P2[:SHOWN], captions, strict=False)
    ]
