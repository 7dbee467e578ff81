"""Records: what one prepared pair (x_v, x_u) is, and what a corpus of them offers (ConVIRT, section 2.1)."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

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
    """The value of `content_of` for the pixels, where they were at hand; it is not stored."""


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
        """Make a pair from a row of a shard's table, as Arrow gives it to Python."""
        return cls(
            pair_id=row["pair_id"],
            patient_id=row["patient_id"],
            split=row["split"],
            images=tuple(ImageRecord(**image) for image in row["images"]),
            sentences=tuple(row["sentences"]),
            text=row["text"],
            attributes={entry["name"]: entry["value"] for entry in row["attributes"]},
        )


class AnyCorpus(Protocol):
    """A corpus of pairs, wherever it lies: mapped from the disk, or streamed shard by shard."""

    fingerprint: str
    """sha256 over the content (texts, ids, splits, pixels), the same on every machine."""
    image_size: int
    """Larger side of every prepared image, in pixels."""
    patient_ids: np.ndarray
    """Patient of each pair, [pairs]."""
    order: str
    """Names what decides the order of the pairs, besides a run's settings and the content."""

    @property
    def path(self) -> Path | str:
        """Its folder or address."""

    @property
    def shards(self) -> np.ndarray | None:
        """The shard of each pair, int [pairs], if they must be visited shard by shard; None if any order is as good."""

    @property
    def settings(self) -> dict[str, Any]:
        """How it was prepared."""

    def __len__(self) -> int: ...

    def pair(self, index: int) -> Pair:
        """Read one pair."""

    def indices(self, split: str) -> np.ndarray:
        """The indices of the pairs of a split, ascending, int64; empty if it has none."""

    def reports(self, split: str) -> Iterator[tuple[str, ...]]:
        """Read the sentences of each pair of a split, in any order."""

    def column_lengths(self, name: str) -> np.ndarray:
        """How many `images` or `sentences` each pair has, int64 [pairs]; reads no pair."""

    def expect(self, shards: np.ndarray) -> None:
        """Have some shards at hand soon, the most urgent first, and let go of all others."""

    def check(self, *, whole: bool = False) -> None:
        """Verify the files cheaply, or read all of them (`whole`).

        Raises:
            InputError: A file is not the one that was written; the message names it.
        """
