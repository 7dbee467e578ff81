"""Source images: how their files are opened, and what reading one gives, or why it cannot be read.

What a table names is never trusted. A path is checked when pairs are planned and again when its file is opened,
because a link can appear in between: the path is resolved, must lie below the resolved root, and is then opened folder
by folder without following any link.

Shapes: H, W = height and width of the source, in pixels.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convirt.errors import InputError

MAX_PIXELS = 100_000_000
"""Larger images are refused: no radiograph has as many (a film of 35 x 43 cm scanned at 50 micrometres has 61 million),
and a forged header could fill the memory."""

MAX_PIXEL_BYTES = 4 * MAX_PIXELS
"""What the decoded or inflated bytes of one image may take."""

MAX_BYTES = 2**30
"""Larger files are refused unread: no radiograph is as large, and the file is read whole."""

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Without blocking: a pipe that nobody writes to would hang its reader.
_FILE = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


class Unreadable(Exception):
    """A source image that cannot become a prepared one.

    Attributes:
        reason: One of few phrases, under which the audit counts it.
        detail: What was seen in this file, in words of ours.
        quoted: What was seen as it stands there; it may be a name.
    """

    def __init__(self, reason: str, detail: str = "", quoted: str = "") -> None:
        super().__init__(reason, detail, quoted)  # all positional: an exception crosses processes by its arguments
        self.reason = reason
        self.detail = detail
        self.quoted = quoted


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


def read_inside(root: Path, source: str) -> bytes:
    """Read a file below `root`; links inside of it are followed, out of it they are not.

    Args:
        root: The folder that the user named.
        source: Path of the file relative to it, as a table or an archive names it.

    Raises:
        Unreadable: The path leads out, or there is no such regular file, or it is too large.
    """
    try:
        real_root = root.resolve(strict=True)
        real = (real_root / source).resolve(strict=True)
        if not real.is_relative_to(real_root):
            raise Unreadable("path that leads out of the image folder")
        descriptor = _open(real_root, real)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable("file that cannot be opened", "not a regular file")
            if status.st_size > MAX_BYTES:
                raise Unreadable("file too large", f"{status.st_size} bytes")
            # A buffer of the file's size: of MAX_BYTES, the kernel would map a gibibyte anew for each file.
            return file.read(status.st_size + 1)
    except (OSError, ValueError, RuntimeError) as error:  # also a null byte, or a loop of links
        detail = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise Unreadable("file that cannot be opened", detail) from error


def _open(real_root: Path, real: Path) -> int:
    """Open a path that holds no link, and fail if one has come since."""
    if os.open not in os.supports_dir_fd:
        return os.open(real, _FILE)
    *folders, name = real.relative_to(real_root).parts or (".",)
    place = os.open(real_root, _FOLDER)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=place)
            os.close(place)
            place = inner
        return os.open(name, _FILE, dir_fd=place)
    finally:
        os.close(place)
