"""Large source tables, row by row: only the columns that are asked for, and where in the file each row stands.

`convirt.data.tables` reads a table whole. A table of 223,462 rows that repeats a report in several columns is about a
gigabyte; here memory holds one row, and a worker fetches a text from its place in the file when it needs it.
"""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from convirt.data.imaging.pixels import Unreadable
from convirt.data.preparing.audit import Audit
from convirt.errors import InputError
from convirt.wording import MISSING

MAX_CELL = 2**20
"""Characters in one cell; longer ones come of quotes that are never closed."""
_MAX_LINE = 16 * 2**20

Place = tuple[int, int]
"""First byte and number of bytes of a row in its (unpacked) file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedRow:
    """One row as it passes."""

    number: int
    """From 1, the header not counted."""
    cells: tuple[str, ...]
    """The values of the columns that were asked for, without white space around them; empty if there is a problem."""
    place: Place
    problem: str = ""
    """Why the row does not fit the header."""
    excluded: bool = False
    """Whether a filter keeps it out."""


class StreamedTable:
    """A CSV file (also .gz) with a comma between columns, read once from its start.

    Attributes:
        name: File name, for messages.
        header: All columns, in their order.
        sha256: Hash of the unpacked content, once all rows have passed.
        rows: How many rows have passed.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, where: Sequence[str] = ()) -> None:
        """Read the header.

        Args:
            path: The table.
            columns: Which columns to give, in this order.
            where: Filters `column=value1,value2`; a row must pass all of them.

        Raises:
            InputError: The table cannot be read, is empty, lacks a column, or a filter is malformed.
        """
        self.path = path
        self.name = path.name
        self.rows = 0
        self._hash = hashlib.sha256()
        self._missing = 0
        self._end = 0
        self._where = list(where)
        with self._open() as file:
            _, cells, problem = next(self._records(file), ((0, 0), [], ""))
        if problem:
            raise InputError(f"the header of table {self.name} is not CSV ({problem}); copy the table again")
        self.header = tuple(cell.strip() for cell in cells)
        self._wanted = [self._column(name) for name in columns]
        self._filters = [self._filter(condition) for condition in where]

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[StreamedRow]:
        """Yield every row that is not blank, those that do not fit and those kept out by a filter included.

        Raises:
            InputError: The file is damaged, breaks off inside quotes, has no rows, or no row passes the filters.
        """
        self._hash, self.rows, self._missing = hashlib.sha256(), 0, 0
        passed = False
        with self._open() as file:
            for place, cells, problem in islice(self._records(file), 1, None):
                self.rows += 1
                row = self._row(place, cells, problem)
                passed |= not (row.problem or row.excluded)
                yield row
        if not self.rows:
            raise InputError(f"table {self.name} has no rows; give a table with a header and at least one row")
        if self._where and not passed:
            raise InputError(f"no row of {self.name} passes the filter {'; '.join(self._where)}; check its values")

    def fitting(self, audit: Audit) -> Iterator[StreamedRow]:
        """Yield the rows that fit the header; the others, and the number of all rows, go to the audit."""
        for row in self:
            audit.total = self.rows
            if row.problem:
                audit.drop(row.number, "row that does not fit the header", detail=row.problem, failure=True)
            else:
                yield row
        if self._missing:
            audit.notes.append(f"{self._missing} cells of {self.name} that say that nothing is there are read as empty")

    def _row(self, place: Place, cells: list[str], problem: str) -> StreamedRow:
        if not problem and len(cells) != len(self.header):
            problem = f"{len(cells)} cells, the header has {len(self.header)}"
        if not problem and any("\udc80" <= mark <= "\udcff" for cell in cells for mark in cell if mark > "\ud7ff"):
            problem = "a byte that is not UTF-8"
        if problem:
            return StreamedRow(number=self.rows, cells=(), place=place, problem=problem)
        return StreamedRow(
            number=self.rows,
            cells=tuple(self._said(cells[index].strip()) for index in self._wanted),
            place=place,
            excluded=any(cells[index].strip() not in values for index, values in self._filters),
        )

    def _said(self, cell: str) -> str:
        self._missing += cell in MISSING
        return "" if cell in MISSING else cell

    def _column(self, name: str) -> int:
        if name not in self.header:
            there = ", ".join(" ".join(cell.split())[:40] for cell in self.header[:40])
            raise InputError(f"table {self.name} has no column {name!r}; its columns are: {there}")
        if self.header.count(name) > 1:
            raise InputError(f"table {self.name} has two columns named {name!r}; rename one")
        return self.header.index(name)

    def _filter(self, condition: str) -> tuple[int, frozenset[str]]:
        column, equals, values = (part.strip() for part in condition.partition("="))
        if not equals:
            raise InputError(f"filter {condition!r} must read column=value1,value2")
        return self._column(column), frozenset(value.strip() for value in values.split(","))

    def _open(self) -> IO[bytes] | gzip.GzipFile:
        try:
            if self.path.suffix.lower() == ".gz":
                return gzip.open(self.path, "rb")
            return open(self.path, "rb")
        except OSError as error:
            raise InputError(f"table {self.path} cannot be read ({error.strerror}); check the path") from error

    def _lines(self, file: IO[bytes] | gzip.GzipFile) -> Iterator[str]:
        try:
            while line := file.readline(_MAX_LINE):
                if len(line) == _MAX_LINE:
                    raise InputError(f"table {self.name} has a line of more than {_MAX_LINE} bytes; is it a CSV table?")
                self._hash.update(line)
                self._end += len(line)
                yield line.decode("utf-8-sig" if self._end == len(line) else "utf-8", "surrogateescape")
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"table {self.name} cannot be read to its end ({error}); copy it again") from error

    def _records(self, file: IO[bytes] | gzip.GzipFile) -> Iterator[tuple[Place, list[str], str]]:
        """Yield place, cells and problem of each record that is not blank, the header first."""
        csv.field_size_limit(MAX_CELL)
        self._end = 0
        reader = csv.reader(self._lines(file), strict=True)
        while True:
            start, cells, problem = self._end, [], ""
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise InputError(
                        f"table {self.name}: quotes opened in row {self.rows + 1} are never closed; repair that row"
                    ) from error
                problem = str(error)
            if cells or problem:
                yield (start, self._end - start), cells, problem


def read_cells(path: Path, place: Place) -> list[str]:
    """Fetch all cells of one row from its place in an unpacked table; costs the memory of that row.

    Raises:
        Unreadable: The file is gone, or has changed since it was planned from.
    """
    start, length = place
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read(length)
        if len(data) < length:
            raise Unreadable("report not found", "the table is shorter than it was")
        csv.field_size_limit(MAX_CELL)
        return next(csv.reader((line.decode() for line in io.BytesIO(data)), strict=True))
    except (OSError, UnicodeDecodeError, StopIteration, csv.Error) as error:
        raise Unreadable("report not found", f"{type(error).__name__} in the table: has it changed?") from error
