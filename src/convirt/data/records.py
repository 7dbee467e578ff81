"""Records: what one prepared pair (x_v, x_u) is (ConVIRT, section 2.1)."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One prepared image of a study."""

    encoded: bytes
    """The grey image, larger side as the corpus says, as PNG or JPEG bytes."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    view: str = ""
    """Projection or view as the source names it, for example `PA`; empty when unknown."""
    source: str = ""
    """Path of the source file relative to the image root."""
    sha256: str = ""
    """Hash of the source file's bytes."""
    recipe: str = "{}"
    """How pixels were made from the source (windowing, inversion, depth), as JSON."""
    content: str = field(default="", compare=False, repr=False)
    """What `content_of` says of the pixels, if who made them said it; it is not stored."""


def content_of(values_HW: np.ndarray) -> str:
    """Depth, size and hash of prepared pixels, uint8 or uint16."""
    height, width = values_HW.shape
    return f"{values_HW.dtype} {height} {width} {hashlib.sha256(values_HW.tobytes()).hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image-report pair: one image or a group of images x_v, and the text x_u that describes them."""

    pair_id: str
    patient_id: str
    split: str
    """`train`, `val` or `test`."""
    images: tuple[ImageRecord, ...]
    sentences: tuple[str, ...]
    """The sentences of the kept text, in order: what t_u draws from."""
    text: str
    """The kept text: Findings and Impression where there are any, else the whole."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Further columns of the source table."""

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Pair":
        """Make a pair of a row of a shard's table, as Arrow gives it to Python."""
        return cls(
            pair_id=row["pair_id"],
            patient_id=row["patient_id"],
            split=row["split"],
            images=tuple(ImageRecord(**image) for image in row["images"]),
            sentences=tuple(row["sentences"]),
            text=row["text"],
            attributes={entry["name"]: entry["value"] for entry in row["attributes"]},
        )
