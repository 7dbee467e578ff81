"""Source tables: CSV (also gzipped, tab- or semicolon-separated) or Parquet, every value as text.

Nothing is guessed: an identifier `007` stays `007`, and a row that does not fit its header is set aside by name.
"""

import csv
import gzip
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from convirt.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Table:
    """A source table."""

    name: str
    """File name, for messages."""
    sha256: str
    """Hash of the file's bytes."""
    frame: pd.DataFrame
    """Values as text, missing ones empty; the index is the row's number, from 1, the header not counted."""
    malformed: dict[int, str]
    """Rows that do not fit the header: number, and what is wrong with them. They are not in `frame`."""
    notes: tuple[str, ...] = ()
    """What had to be put right in the table as a whole."""


def read_table(path: str | Path, *, encoding: str = "utf-8") -> Table:
    """Read a table whole.

    Args:
        path: `.parquet`, or CSV under any other name (`.gz` is unpacked).
        encoding: Of the CSV's text.

    Raises:
        InputError: The file is missing, empty, no Parquet, not in this encoding, or breaks off inside quotes.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"table {path} cannot be read ({error.strerror}); check the path") from error
    digest = hashlib.sha256(data).hexdigest()
    malformed: dict[int, str] = {}
    notes: list[str] = []
    if path.suffix.lower() in (".parquet", ".pq"):
        frame = _read_parquet(data, path.name)
    else:
        frame, malformed, notes = _read_csv(_decode(data, path, encoding), path.name)
    if frame.empty and not malformed:
        raise InputError(f"table {path.name} has no rows; give a table with a header and at least one row")
    if spaced := [name for name in frame.columns if name != name.strip()]:
        frame.columns = frame.columns.str.strip()
        notes.append(f"white space removed around {len(spaced)} column names")
    if twice := frame.columns[frame.columns.duplicated()].tolist():
        raise InputError(f"table {path.name} has two columns named {twice[0]!r}; rename one")
    return Table(name=path.name, sha256=digest, frame=frame, malformed=malformed, notes=tuple(notes))


def require_columns(table: Table, names: Sequence[str]) -> None:
    """Raise an `InputError` that lists the columns there, if one of `names` is not among them."""
    for name in names:
        if name not in table.frame.columns:
            there = ", ".join(table.frame.columns)
            raise InputError(f"table {table.name} has no column {name!r}; its columns are: {there}")


def select_rows(table: Table, where: Sequence[str]) -> pd.Series:
    """Return, for each row, whether it passes every filter `column=value1,value2`.

    Raises:
        InputError: A filter has no `=`, names no column, or no row passes it.
    """
    passes = pd.Series(True, index=table.frame.index)
    for condition in where:
        column, equals, values = (part.strip() for part in condition.partition("="))
        if not equals:
            raise InputError(f"filter {condition!r} must read column=value1,value2")
        require_columns(table, [column])
        present = table.frame[column].str.strip()
        matches = present.isin([value.strip() for value in values.split(",")])
        if not matches.any():
            some = ", ".join(repr(value) for value in sorted(present.unique())[:10])
            raise InputError(f"no row of {table.name} passes the filter {condition!r}; {column} has values {some}")
        passes &= matches
    if where and not passes.any():
        raise InputError(f"no row of {table.name} passes all filters together: {'; '.join(where)}")
    return passes


def _decode(data: bytes, path: Path, encoding: str) -> str:
    if path.suffix.lower() == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise InputError(f"table {path.name} is no complete gzip file ({error}); copy it again") from error
    try:
        return data.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except LookupError as error:
        raise InputError(f"there is no text encoding {encoding!r}; try utf-8, cp1252 or latin-1") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"table {path.name}, line {line}: byte 0x{data[error.start]:02x} at offset {error.start} is not {encoding};"
            " save the table as UTF-8 or name its encoding, for example --encoding cp1252"
        ) from error


def _read_parquet(data: bytes, name: str) -> pd.DataFrame:
    try:
        columns = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"table {name} is no readable Parquet file ({str(error).splitlines()[0]})") from error
    frame = pd.DataFrame({column: _as_text(columns[column]) for column in columns.column_names}, dtype=object)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame


def _as_text(column: pa.ChunkedArray) -> list[str]:
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        known = [value for value in values if value is not None and value == value]
        # Identifiers become floats as soon as one is missing: 12.0 was 12.
        form = (lambda value: str(int(value))) if all(value.is_integer() for value in known) else str
        return ["" if value is None or value != value else form(value) for value in values]
    return ["" if value is None else str(value) for value in values]


def _read_csv(text: str, name: str) -> tuple[pd.DataFrame, dict[int, str], list[str]]:
    notes = []
    if text.startswith("\ufeff"):
        text = text[1:]
    header_line = text.split("\n", 1)[0]
    delimiter = ","
    if "," not in header_line and (other := next((mark for mark in "\t;" if mark in header_line), None)):
        delimiter = other
        notes.append(f"columns are separated by {other!r}")
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a report may be longer than the default allows
    records = _records(text, name, delimiter)
    header = next(records, (0, [], ""))[1]
    if not any(cell.strip() for cell in header):
        raise InputError(f"table {name} is empty; give a table with a header and at least one row")
    rows: list[list[str]] = []
    numbers: list[int] = []
    malformed: dict[int, str] = {}
    for number, (line, cells, problem) in enumerate(records, start=1):
        if problem or len(cells) != len(header):
            malformed[number] = f"line {line}: {problem or f'{len(cells)} cells, the header has {len(header)}'}"
        else:
            rows.append(cells)
            numbers.append(number)
    return pd.DataFrame(rows, columns=header, index=pd.Index(numbers, dtype=int), dtype=object), malformed, notes


def _records(text: str, name: str, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield line, cells and problem of each record that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise InputError(
                    f"table {name}: quotes opened in the row at line {line} are never closed; repair that row"
                ) from error
            yield line, [], str(error)
            continue
        if cells:
            yield line, cells, ""
