"""Pictures with shades and detail of their own, and corpora of them, for tests of repetition and leakage."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from conftest import write_pairs
from convirt.data.records import ImageRecord, Pair

SIZE = 96


def picture(seed: int, height: int = SIZE, width: int = 80) -> np.ndarray:
    """A body that all pictures share, and spots of many sizes that are this picture's alone, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / (height, width)[0]
    body = 120 * np.exp(-((x - 0.4) ** 2 + (y - 0.5) ** 2) / 0.08)
    own = sum(gaussian_filter(rng.normal(0, 1, (height, width)), sigma) * sigma * 22 for sigma in (1, 2, 5, 12))
    return np.clip(body + 60 + own, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int = 40) -> np.ndarray:
    """The picture after a lossy round trip."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return np.array(Image.open(buffer))


def gamma(pixels: np.ndarray, exponent: float = 1.5) -> np.ndarray:
    """The picture seen through another tone curve."""
    return (255 * (pixels / 255) ** exponent).astype(np.uint8)


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture at another size."""
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def padded(pixels: np.ndarray) -> np.ndarray:
    """The picture on a black square."""
    side = max(pixels.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = ((side - length) // 2 for length in pixels.shape)
    square[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return square


def record(pixels: np.ndarray, source: str = "", content: str = "", **changes: Any) -> ImageRecord:
    """Pixels as a prepared image; `content` stands for the bytes of its source."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    digest = hashlib.sha256((content or source).encode()).hexdigest() if content or source else ""
    height, width = pixels.shape
    recipe = json.dumps({"format": "PNG", "height": 4 * height, "width": 4 * width, "bits": 8})
    values: dict[str, Any] = {"view": "PA", "source": source, "sha256": digest, "recipe": recipe, **changes}
    return ImageRecord(encoded=buffer.getvalue(), height=height, width=width, **values)


@dataclass
class Row:
    """One pair to write."""

    pixels: np.ndarray
    patient: str
    split: str = "train"
    text: str = ""
    source: str = ""
    content: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


def write_rows(out: Path, rows: Sequence[Row], settings: dict[str, Any] | None = None, audit: Any = None) -> Path:
    """Write a corpus of one image a pair; a pair without text gets one that no other has."""
    return write_pairs(
        out,
        (_pair(out.name, number, row) for number, row in enumerate(rows)),
        image_size=SIZE,
        settings=settings,
        audit=audit,
    )


def _pair(corpus: str, number: int, row: Row) -> Pair:
    own = hashlib.sha256(f"{corpus} {number}".encode()).hexdigest()
    text = row.text or f"nothing of note in study {own[:8]} {own[8:16]} ."
    return Pair(
        pair_id=f"{corpus}-pair-{number}",
        patient_id=row.patient,
        split=row.split,
        images=(record(row.pixels, row.source or f"{corpus}-{number}.png", row.content),),
        sentences=tuple(part.strip() + " ." for part in text.split(".") if part.strip()),
        text=text,
        attributes=row.attributes,
    )


def innocent_rows(count: int, first: int = 0, splits: Sequence[str] = ("train", "val", "test")) -> list[Row]:
    """Rows that share nothing."""
    return [
        Row(pixels=picture(first + number), patient=f"person-{first + number}", split=splits[number % len(splits)])
        for number in range(count)
    ]
