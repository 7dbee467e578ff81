"""Report texts that lie in files: a zip archive or a folder, listed once and read one by one.

Nothing is unpacked to disk. A listing gives each text's place; a worker that knows the place needs neither the listing
nor the archive's directory, so that its memory does not grow with the number of reports.
"""

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from convirt.data.imaging.pixels import Unreadable
from convirt.errors import InputError

MAX_REPORT = 2**20
"""Bytes of one report; a larger one is not a report (those of MIMIC-CXR are below 20,000)."""

Place = tuple[int | str, ...]
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1


@dataclass(frozen=True, kw_only=True)
class ZipTexts:
    """Texts in a zip archive; a place is offset, packed size, size and checksum of a member."""

    path: Path
    levels: tuple[str, ...]
    """Regular expressions for the last parts of a member's name; other members are passed over."""

    def listing(self) -> Iterator[tuple[re.Match[str], Place]]:
        """Yield the match of each member's name and its place; a name that leads out of the archive is passed over.

        Raises:
            InputError: The file is not a complete zip archive.
        """
        matches = re.compile(rf"(?:^|/){'/'.join(self.levels)}\Z").search
        try:
            with zipfile.ZipFile(self.path) as archive:
                for member in archive.infolist():
                    if (match := matches(member.filename)) and _is_inside(member.filename):
                        place = (member.header_offset, member.compress_size, member.file_size, member.CRC)
                        yield match, place
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
            raise InputError(f"{self.path} is not a complete zip archive ({error}); copy it again") from error

    def read(self, place: Place) -> str:
        """Unpack one text, never more of it than was declared.

        Raises:
            Unreadable: The member is too large, packed in another way than stored or deflated, or damaged.
        """
        offset, packed, size, checksum = map(int, place)
        if max(packed, size) > MAX_REPORT:
            raise Unreadable("report too large", f"{size} bytes, packed {packed}")
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                _, _, flags, method, *_, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                file.seek(offset + _LOCAL_HEADER.size + name + extra)
                data = file.read(packed)
            if flags & _ENCRYPTED or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Unreadable("report that cannot be unpacked", "encrypted" if flags & 1 else f"method {method}")
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except (OSError, struct.error, zlib.error, OverflowError, ValueError) as error:
            raise Unreadable("damaged report", f"{type(error).__name__} in {self.path.name}") from error
        if len(data) != size or zlib.crc32(data) != checksum:
            raise Unreadable("damaged report", f"size or checksum of a member of {self.path.name} is wrong")
        return data.decode("utf-8", "replace")


@dataclass(frozen=True, kw_only=True)
class FolderTexts:
    """Texts that are files of a folder; a place is the path below it."""

    path: Path
    levels: tuple[str, ...]
    """Regular expression for the whole name at each level: folders, then the files."""

    def listing(self) -> Iterator[tuple[re.Match[str], Place]]:
        """Yield the match of each path and its place; a link that leads out of the folder is passed over."""
        matches = re.compile("/".join(self.levels)).fullmatch
        for path in self._below("", 0):
            if match := matches(path):
                yield match, (path,)

    def _below(self, folder: str, level: int) -> Iterator[str]:
        is_file = level == len(self.levels) - 1
        matches = re.compile(self.levels[level]).fullmatch
        try:
            with os.scandir(self.path / folder) as entries:
                names = sorted(
                    entry.name
                    for entry in entries
                    if matches(entry.name) and (entry.is_file() if is_file else entry.is_dir())
                    if not entry.is_symlink() or self._holds(Path(entry.path))
                )
        except OSError:
            return
        for name in names:
            below = f"{folder}/{name}" if folder else name
            if is_file:
                yield below
            else:
                yield from self._below(below, level + 1)

    def read(self, place: Place) -> str:
        """Read one text.

        Raises:
            Unreadable: The file is missing, too large, or outside the folder.
        """
        path = self.path / str(place[0])
        try:
            if not self._holds(path):
                raise Unreadable("path that leads out of the report folder")
            with open(path, "rb") as file:
                data = file.read(MAX_REPORT + 1)
        except OSError as error:
            raise Unreadable("report that cannot be opened", error.strerror or type(error).__name__) from error
        if len(data) > MAX_REPORT:
            raise Unreadable("report too large", f"more than {MAX_REPORT} bytes")
        return data.decode("utf-8", "replace")

    def _holds(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.path.resolve())


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name
