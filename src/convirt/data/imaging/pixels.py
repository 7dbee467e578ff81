"""What reading a source image gives, or why it cannot be read.

Shapes: H, W = height and width of the source, in pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from convirt.errors import InputError

MAX_PIXELS = 100_000_000
"""Larger images are refused: no radiograph has as many (a film of 35 x 43 cm scanned at 50 micrometres has 61 million),
and a forged header could fill the memory."""

MAX_PIXEL_BYTES = 4 * MAX_PIXELS
"""What the decoded or inflated bytes of one image may take."""


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


def check_size(height: int, width: int) -> None:
    """Refuse an image without pixels, or with more than `MAX_PIXELS`.

    Raises:
        Unreadable: It is such an image.
    """
    if height < 1 or width < 1:
        raise Unreadable("image without pixels", f"{height} x {width} pixels")
    if height * width > MAX_PIXELS:
        raise Unreadable("image too large", f"{height} x {width} pixels")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which of several pictures in one file is meant, numbered from 1 as DICOM numbers them."""

    frame: int | None = None
    """The frame of a file with several; None: such a file is set aside."""
    window: int = 1
    """The window, or VOI LUT, of a file with several."""

    @classmethod
    def numbered(cls, frame: int | None, window: int) -> "Choice":
        """Make a choice of what a user has asked for.

        Raises:
            InputError: There is no picture of that number anywhere.
        """
        for name, number in (("frame", frame), ("window", window)):
            if number is not None and number < 1:
                raise InputError(f"--{name} counts from 1, as DICOM does; got {number}")
        return cls(frame=frame, window=window)


FIRST = Choice()


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Grey pixels of a source, bright where the film is bright."""

    values_HW: np.ndarray
    """uint8, or float32 in [0, 1]."""
    extent_HW: tuple[float, float] | None = None
    """How much of `values_HW` the image fills, from the top left: a JPEG decoded at a fraction of its size ends within
    a pixel. None: all."""
    recipe: dict[str, Any]
    """How they were made, JSON values; with the source's bytes it is all that making them again needs."""
    repairs: tuple[str, ...] = ()
    """What had to be put right or deserves a look, phrases under which the audit counts."""
