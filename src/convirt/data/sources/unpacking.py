"""Unpacking of .tgz archives from the network: only plain files, only below the folder, never more than announced.

`tarfile` would also make links, devices and files anywhere, keep foreign owners, and inflate without bound; its data
filter, absent from early releases of Python 3.11, allows links. So members are written here, by hand.
"""

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from convirt.atomic import atomic_folder, disk_errors
from convirt.errors import InputError

MARK = ".unpacked.json"
"""Names the archive that an unpacked folder came from."""
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold; a larger one is not an archive of radiographs or reports."""

    members: int = 50_000
    file_bytes: int = 256 * 2**20
    total_bytes: int = 64 * 2**30
    ratio: float = 50.0
    """Unpacked by packed size, once more than 1 GiB has come out (radiographs as PNG: 1, XML reports: 20)."""


def unpack(archive: Path, folder: Path, suffix: str, limits: Limits | None = None) -> Path:
    """Unpack the files that end in `suffix`, all or nothing; do nothing if this very archive was unpacked before.

    Args:
        archive: A .tgz file.
        folder: Folder to make; what an earlier state of the archive left there is replaced.
        suffix: Ending of the files that are wanted, lower case.
        limits: What the archive may hold.

    Returns:
        `folder`.

    Raises:
        InputError: It is not a complete .tgz archive, or an evil one, or the folder is in use or cannot be written.
    """
    status = archive.stat()
    mark = json.dumps({"archive": archive.name, "bytes": status.st_size, "modified": status.st_mtime_ns})
    if folder.exists():
        if not (folder / MARK).is_file():
            return folder  # the user unpacked it
        if (folder / MARK).read_text(encoding="utf-8") == mark:
            return folder
    with disk_errors(folder), _damage(archive), atomic_folder(folder, replace=True) as temporary:
        for name, source, size in _members(archive, limits or Limits()):
            if name.suffix.lower() == suffix:
                _write(source, temporary / name, size)
        (temporary / MARK).write_text(mark, encoding="utf-8")
    return folder


class _Inflated(io.RawIOBase):
    """The inflated archive; ends with an `InputError` where it grows beyond its limits."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        self._packed = archive.stat().st_size
        self._stream = gzip.GzipFile(archive, "rb")
        self._name, self._limits = archive.name, limits

    def read(self, size: int = -1, /) -> bytes:
        # A header may ask for a block of any size, which tarfile would read into memory whole.
        if not 0 <= size <= 4 * _BLOCK:
            raise InputError(f"{self._name} asks for a header of {size} bytes; it is not to be trusted")
        data = self._stream.read(size)
        self._check(self._stream.tell())
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._check(offset)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _check(self, place: int) -> None:
        limits = self._limits
        if place > limits.total_bytes or (place > 2**30 and place > limits.ratio * self._packed):
            raise InputError(
                f"{self._name} ({self._packed} bytes) unpacks to {place / 1e9:.1f} GB or more; it is not to be trusted"
            )


def _members(archive: Path, limits: Limits) -> Iterator[tuple[PurePosixPath, IO[bytes], int]]:
    """Yield name, content and size of each plain file, in the archive's order."""
    with _Inflated(archive, limits) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        for count, member in enumerate(tar, start=1):
            if count > limits.members:
                raise InputError(f"{archive.name} holds more than {limits.members} files; is it the right archive?")
            if member.isdir():
                continue
            name = _safe_name(member, archive)
            if member.size > limits.file_bytes:
                raise InputError(f"{archive.name}: {member.name!r} has {member.size} bytes; it is not to be trusted")
            content = tar.extractfile(member)
            assert content is not None
            yield name, content, member.size
        while stream.read(_BLOCK):  # to the end, where the checksum of all of it stands
            pass


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    """Make one clear line of whatever gzip and tarfile raise on a damaged archive."""
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{archive} is not a complete .tgz archive ({said}); remove it and fetch it again") from error


def _safe_name(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    name = PurePosixPath(member.name)
    evil = ""
    if not member.isreg() or member.issparse():
        evil = "is a link, a device or sparse"
    elif name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name or "\0" in member.name:
        evil = "leads out of the folder"
    elif not name.parts or len(member.name) > 255:
        evil = "has no usable name"
    if evil:
        raise InputError(f"{archive.name}: member {member.name[:100]!r} {evil}; it is not to be trusted")
    return name


def _write(source: IO[bytes], path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as handle:
        while block := source.read(_BLOCK):
            handle.write(block)
        if handle.tell() != size:
            raise EOFError(f"{path.name} ends early")
