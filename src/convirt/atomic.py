"""The only writer of files and folders: each appears whole or not at all, with the rights that the umask leaves it."""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

from convirt.errors import InputError


def _beside(path: Path) -> Path:
    # Not by `tempfile`, whose files are private to their owner whatever the umask says.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


@contextmanager
def atomic_file(path: str | Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing. It takes its name once it has reached the disk; after an error nothing is left.

    Args:
        path: The final name. Its folder is made if it is missing.
        private: Readable by its owner alone, whatever the umask says.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
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


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file in one move."""
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file in one move."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON for people to read, in one move."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def _predecessor(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def latest_complete(folder: Path) -> Path | None:
    """The complete version of a replaced folder: itself, its predecessor after a kill during the swap, or None."""
    return next((path for path in (folder, _predecessor(folder)) if path.is_dir()), None)


@contextmanager
def atomic_folder(folder: str | Path, *, replace: bool = False, sync: bool = True) -> Iterator[Path]:
    """Give an empty folder to fill. It takes the name `folder` at the end; after an error nothing of it is left.

    Args:
        folder: The final name: missing, or an empty folder. Its parents are made.
        replace: Take the place of a folder that is there, by two renames. After a kill between the two, the folder
            that was there before is found by `latest_complete`.
        sync: Flush every file to the disk first. Leave it out for thousands of files that can be made again.
    """
    folder = Path(folder)
    old = _predecessor(folder)
    if replace:
        if latest_complete(folder) == old:  # killed during the last swap
            old.rename(folder)
        for leftover in (old, *folder.parent.glob(f".{escape(folder.name)}.*.part")):
            shutil.rmtree(leftover, ignore_errors=True)
    part = _beside(folder)
    part.mkdir(parents=True)
    try:
        yield part
        for path in (*part.rglob("*"), part) if sync else ():
            sync_to_disk(path)
        if replace and folder.is_dir():
            folder.rename(old)
        os.replace(part, folder)
        sync_to_disk(folder.parent)
    except BaseException:
        if replace and old.is_dir() and not folder.is_dir():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if replace:
        shutil.rmtree(old, ignore_errors=True)


def sync_to_disk(path: Path) -> None:
    """Have the operating system bring a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(out: str | Path, option: str = "--out") -> None:
    """Refuse a place that cannot be written to, before any work is done; makes nothing.

    Raises:
        InputError: A part of the path is a file, or the first folder of it that exists cannot be written to.
    """
    out = Path(out)
    if out.is_file():
        return  # the caller knows what it wanted to write there
    for place in (out, *out.absolute().parents):
        if not os.path.lexists(place):
            continue
        if not place.is_dir():
            raise InputError(f"{out} cannot be written: {place} is a file; choose another {option}")
        if not os.access(place, os.W_OK | os.X_OK):
            raise InputError(f"{out} cannot be written: you may not write to {place}; choose another {option}")
        return


def check_out_folder(out: str | Path) -> None:
    """Refuse an output folder that is a file or cannot be written, before any work is done."""
    if Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"{out} is a file; give --out a folder")
    check_writable(out)


def check_free(out: Path) -> None:
    """Refuse to write over anything: `out` must be missing or an empty folder.

    Raises:
        InputError: It is neither, or cannot be written.
    """
    check_writable(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists already; remove it or choose another --out")


_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.ENOENT: "check the path",
    errno.EACCES: "check its rights, or choose another {option}",
    errno.EPERM: "check its rights, or choose another {option}",
    errno.EROFS: "choose another {option}",
    errno.ENOTDIR: "a part of the path is a file; check it",
    errno.EISDIR: "name a file",
    errno.EEXIST: "choose another {option}",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def refusal(error: OSError, place: str | Path | None = None, option: str = "--out") -> str:
    """Say in one line what the operating system refused, where, and what to do about it."""
    place = place or error.filename
    what = (error.strerror or str(error)).lower()
    said = f"{place}: {what}" if place else what
    remedy = _REMEDIES.get(error.errno or 0, "").format(option=option)
    return f"{said}; {remedy}" if remedy else said


@contextmanager
def disk_errors(place: str | Path, option: str = "--out") -> Iterator[None]:
    """Turn an error of the disk (full, read-only, not yours) into one clear line.

    Raises:
        InputError: The operating system refused something inside the block.
    """
    try:
        yield
    except OSError as error:
        raise InputError(refusal(error, error.filename or place, option)) from error
