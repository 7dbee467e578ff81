"""Files that several runs share: one writer at a time, and disk errors in one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convirt.errors import InputError


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Make one clear line of a full disk, or of a folder that cannot be written to."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"the disk of {place.parent} is full; free some space and run the command again"
            ) from error
        said = error.strerror or type(error).__name__
        raise InputError(f"{error.filename or place}: {said}; choose a folder that can be written to") from error


@contextmanager
def only_one(place: Path) -> Iterator[None]:
    """Keep a second process from writing the same file or folder; a lock dies with its process.

    Raises:
        InputError: Another process holds it.
    """
    lock = place.with_name(f".{place.name.lstrip('.')}.lock")
    with open(lock, "wb") as handle:
        with suppress(ImportError):  # no such locks on Windows
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"another process is writing {place}; wait until it has finished") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
