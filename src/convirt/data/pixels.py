"""What reading a source image gives, or why it cannot be read.

Shapes: H, W = height and width of the source, in pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_PIXELS = 150_000_000
"""Larger images are refused: no radiograph has as many, and a forged header could fill the memory."""


class Unreadable(Exception):
    """A source image that cannot become a prepared one.

    Attributes:
        reason: One of few phrases, under which the audit counts it.
        detail: What was seen in this file.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)  # both positional: an exception crosses processes by its arguments
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Grey pixels of a source, bright where the film is bright."""

    values_HW: np.ndarray
    """uint8, or float32 in [0, 1]."""
    recipe: dict[str, Any]
    """How they were made, JSON values."""
    repairs: tuple[str, ...] = ()
    """What had to be put right, phrases under which the audit counts."""
