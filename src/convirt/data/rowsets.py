"""The rows of a table file, one after the other, and where they are kept: memory holds a few of them at a time."""

import csv
import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from convirt.errors import InputError

_ROWS_AT_ONCE = 4096
_CHARACTERS_AT_ONCE = 16 * 2**20
_IN_MEMORY = 64 * 2**20  # bytes of a table that are kept in memory; a larger one goes to a temporary file
_LONGEST_CELL = 16 * 2**20  # characters; a longer one comes of quotes that are never closed


@dataclass(frozen=True, kw_only=True)
class Rowset:
    """A table that is being read."""

    header: list[str]
    """Names of the columns, as they stand."""
    rows: Iterator[tuple[int, Sequence[str], str]]
    """Number from 1, cells and what is wrong with it, of each row that is not blank."""
    notes: list[str]
    """What had to be put right."""


class Spool:
    """Keeps rows as Arrow columns of strings, in memory or, when they become many, in a file without a name."""

    def __init__(self, header: Sequence[str]) -> None:
        self._schema = pa.schema([(name, pa.string()) for name in header])
        self._numbers: list[np.ndarray] = []
        self._waiting: list[Sequence[str]] = []
        self._waiting_numbers: list[int] = []
        self._characters = 0
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._path: str | None = None
        self._sink: pa.OSFile | None = None
        self._stream: pa.ipc.RecordBatchStreamWriter | None = None

    def __enter__(self) -> "Spool":
        return self

    def add(self, number: int, cells: Sequence[str]) -> None:
        """Append a row."""
        self._waiting.append(cells)
        self._waiting_numbers.append(number)
        self._characters += sum(map(len, cells))
        if len(self._waiting) >= _ROWS_AT_ONCE or self._characters >= _CHARACTERS_AT_ONCE:
            self._flush()

    def finish(self) -> tuple[pa.Table, np.ndarray]:
        """Return all rows and their numbers."""
        self._flush()
        numbers = np.concatenate([np.empty(0, dtype=np.int64), *self._numbers])
        if self._stream is None or self._sink is None or self._path is None:
            return pa.Table.from_batches(self._batches, self._schema), numbers
        self._stream.close()
        self._sink.close()
        self._sink = self._stream = None
        return pa.ipc.open_stream(pa.memory_map(self._path)).read_all(), numbers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._sink.close()
        if self._path is not None:
            os.unlink(self._path)  # what is mapped stays as long as the map

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = [pa.array(column, pa.string()) for column in zip(*self._waiting, strict=True)]
        batch = pa.record_batch(columns, schema=self._schema)
        self._numbers.append(np.array(self._waiting_numbers, dtype=np.int64))
        self._waiting, self._waiting_numbers, self._characters = [], [], 0
        if self._stream is not None:
            self._stream.write_batch(batch)
            return
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes > _IN_MEMORY:
            descriptor, self._path = tempfile.mkstemp(prefix="convirt-table-")
            os.close(descriptor)
            self._sink = pa.OSFile(self._path, "wb")
            self._stream = pa.ipc.new_stream(self._sink, self._schema)
            for batch in self._batches:
                self._stream.write_batch(batch)
            self._batches = []


def parquet_rows(path: Path) -> Rowset:
    """Read a Parquet table, every value as text.

    Raises:
        InputError: It is none.
    """
    try:
        file = pq.ParquetFile(path)
        whole = _whole_numbers(file)
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(path, error) from error

    def rows() -> Iterator[tuple[int, Sequence[str], str]]:
        number = 0
        try:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                columns = [_as_text(column, whole[place]) for place, column in enumerate(batch.columns)]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield number, cells, ""
        except (pa.ArrowException, OSError) as error:
            raise _no_parquet(path, error) from error

    return Rowset(header=list(file.schema_arrow.names), rows=rows(), notes=[])


def _no_parquet(path: Path, error: Exception) -> InputError:
    return InputError(f"table {path.name} is no readable Parquet file ({str(error).splitlines()[0]})")


def _whole_numbers(file: pq.ParquetFile) -> list[bool]:
    """For each column, whether it holds floats that are all whole: identifiers become floats when one is missing."""
    floats = {field.name for field in file.schema_arrow if pa.types.is_floating(field.type)}
    if floats:
        for batch in file.iter_batches(columns=sorted(floats)):
            for name in set(floats):
                values = batch.column(name).drop_null().to_numpy(zero_copy_only=False)
                if not all(float(value).is_integer() for value in values[~np.isnan(values)]):
                    floats.discard(name)
    return [name in floats for name in file.schema_arrow.names]


def _as_text(column: pa.Array, whole: bool) -> list[str]:
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        return ["" if v is None or v != v else str(int(v) if whole else v) for v in values]  # 12.0 was 12
    return ["" if value is None else str(value) for value in values]


def csv_rows(path: Path, encoding: str) -> Rowset:
    """Read a CSV table, packed by gzip or not, parted by commas, tabs or semicolons.

    Raises:
        InputError: It is empty, damaged, or in another encoding.
    """
    records = _records(path, encoding)
    try:
        header, delimiter = next(records)[1], csv_delimiter(path, encoding)
    except StopIteration:
        header, delimiter = [], ","
    if not any(cell.strip() for cell in header):
        raise InputError(f"table {path.name} is empty; give a table with a header and at least one row")

    def rows() -> Iterator[tuple[int, Sequence[str], str]]:
        for number, (line, cells, problem) in enumerate(records, start=1):
            if problem or len(cells) != len(header):
                yield number, (), f"line {line}: {problem or f'{len(cells)} cells, the header has {len(header)}'}"
            else:
                yield number, cells, ""

    notes = [] if delimiter == "," else [f"columns are separated by {delimiter!r}"]
    return Rowset(header=header, rows=rows(), notes=notes)


def csv_delimiter(path: Path, encoding: str) -> str:
    """Return what parts the columns of the header."""
    with _open(path, encoding) as file:
        first = file.readline(_LONGEST_CELL)
    return "," if "," in first else next((mark for mark in "\t;" if mark in first), ",")


def _unpacked(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _open(path: Path, encoding: str) -> IO[str]:
    raw = _unpacked(path)
    name = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
    try:
        return io.TextIOWrapper(raw, encoding=name, newline="")
    except LookupError as error:
        raw.close()
        raise InputError(f"there is no text encoding {encoding!r}; try utf-8, cp1252 or latin-1") from error


def _records(path: Path, encoding: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield line, cells and problem of each record that is not blank."""
    try:
        delimiter = csv_delimiter(path, encoding)
        csv.field_size_limit(_LONGEST_CELL)
        with _open(path, encoding) as file:
            yield from _read(csv.reader(file, delimiter=delimiter, strict=True), path)
    except UnicodeDecodeError as error:
        raise _bad_byte(path, encoding, error) from error
    except UnicodeError as error:
        raise InputError(f"table {path.name} is not {encoding} ({error}); name its encoding with --encoding") from error
    except (OSError, EOFError, zlib.error) as error:
        what = "no complete gzip file" if path.suffix.lower() == ".gz" else "not readable to its end"
        raise InputError(f"table {path.name} is {what} ({error}); copy it again") from error


def _read(reader: Any, path: Path) -> Iterator[tuple[int, list[str], str]]:
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error) or "field limit" in str(error):
                raise InputError(
                    f"table {path.name}: quotes opened in the row at line {line} are never closed; repair that row"
                ) from error
            yield line, [], str(error)
            continue
        if cells:
            yield line, cells, ""


def _bad_byte(path: Path, encoding: str, error: UnicodeDecodeError) -> InputError:
    """Say where a table stops being in its encoding: decoding in blocks only knows the place in the block."""
    where, offset = "", 0
    with _unpacked(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as found:
                place = offset + found.start
                where = f", line {number}: byte 0x{line[found.start]:02x} at offset {place} is not {encoding}"
                break
            offset += len(line)
    return InputError(
        f"table {path.name}{where or f' is not {encoding} ({error.reason})'}; save the table as UTF-8 or name its "
        "encoding, for example --encoding cp1252"
    )
