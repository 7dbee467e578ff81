"""Files below a root, and nothing else: what a table names is never trusted.

A path is checked when pairs are planned and again when its file is opened, because a link can appear in between: the
path is resolved, must lie below the resolved root, and is then opened folder by folder without following any link.
"""

import os
import stat
from pathlib import Path

from convirt.data.imaging.pixels import Unreadable

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
