"""Files and folders that appear whole or not at all, with the rights that the user's umask leaves them."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from convirt.errors import InputError


def _beside(path: Path) -> Path:
    # Not of `tempfile`, whose files are for their owner's eyes alone, whatever the umask says.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write, which takes its name once it has reached the disk, or vanishes after an error.

    Args:
        path: Its name in the end.
        private: For the owner's eyes alone, whatever the umask says.
    """
    part = _beside(path)
    rights = 0o600 if private else 0o666
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, rights)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def make_beside(folder: Path) -> Path:
    """Make an empty folder next to `folder`, to be filled and then given that name; its parents are made as well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(folder)
    part.mkdir()
    return part


@contextmanager
def folder_beside(folder: Path) -> Iterator[Path]:
    """Give a folder of `make_beside`, which vanishes at the end unless it was given another name."""
    part = make_beside(folder)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_writable(out: str | Path, option: str = "--out") -> None:
    """Refuse a place that cannot be written to, before any work is done; makes nothing.

    Raises:
        InputError: A part of the path is a file, or the first folder of it that exists refuses.
    """
    out = Path(out)
    if out.is_file():
        return  # what to say of it depends on what was to be written
    for place in (out, *out.absolute().parents):
        if not os.path.lexists(place):
            continue
        if not place.is_dir():
            raise InputError(f"{out} cannot be written: {place} is a file; choose another {option}")
        if not os.access(place, os.W_OK | os.X_OK):
            raise InputError(f"{out} cannot be written: {place} is not yours to write to; choose another {option}")
        return


def refusal(error: OSError, place: str | Path | None = None, option: str = "--out") -> str:
    """Say in one line what the operating system refused, where, and what to do about it."""
    place = place or error.filename
    what = (error.strerror or str(error)).lower()
    said = f"{place}: {what}" if place else what
    remedies = {
        errno.ENOSPC: "make room",
        errno.EDQUOT: "make room",
        errno.ENOENT: "check the path",
        errno.EACCES: f"check its rights, or choose another {option}",
        errno.EPERM: f"check its rights, or choose another {option}",
        errno.EROFS: f"choose another {option}",
        errno.ENOTDIR: "a part of the path is a file; check it",
        errno.EISDIR: "name a file",
        errno.EEXIST: f"choose another {option}",
        errno.ENAMETOOLONG: "choose a shorter name",
    }
    remedy = remedies.get(error.errno or 0)
    return f"{said}; {remedy}" if remedy else said
