"""Source tables: CSV (also gzipped, tab- or semicolon-separated) or Parquet, every value as text.

Nothing is guessed: an identifier `007` stays `007`, and a row that does not fit its header is set aside by name. The
rows lie in a temporary file without a name, mapped, so that a large table costs no memory.
"""

import codecs
import csv
import difflib
import gzip
import io
import mmap
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from convirt.data.shards import file_sha256
from convirt.data.splits import respelt
from convirt.errors import InputError
from convirt.wording import MISSING

_ROWS_AT_ONCE = 4096
_ROWS_TO_JUDGE = 20
_LONGEST_CELL = 16 * 2**20
"""Characters; a longer cell comes of quotes that are never closed."""

Text = mmap.mmap | bytes

_WORKBOOKS = {b"PK\x03\x04": "an Excel workbook (.xlsx)", b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)"}
_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A source table."""

    name: str
    """File name, for messages."""
    sha256: str
    """Hash of the file's bytes."""
    rows: pa.Table
    """Values as text, missing ones empty; mapped from disk."""
    malformed: dict[int, str]
    """Rows that do not fit the header: number, and what is wrong with them. They are not in `rows`."""
    notes: tuple[str, ...] = ()
    """What had to be put right in the table as a whole."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return self.rows.column_names

    @cached_property
    def numbers(self) -> np.ndarray:
        """Number of each row, from 1, the header not counted, int64 [rows]."""
        return np.setdiff1d(np.arange(1, len(self.rows) + len(self.malformed) + 1), list(self.malformed))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows as Python strings, their numbers as index: for tables that are small."""
        columns = {name: self.rows.column(name).to_pylist() for name in self.header}
        return pd.DataFrame(columns, index=pd.Index(self.numbers), columns=self.header, dtype=object)


def read_table(path: str | Path, *, encoding: str = "utf-8") -> Table:
    """Read a table.

    Args:
        path: `.parquet`, or CSV under any other name (`.gz` is unpacked).
        encoding: Of the CSV's text.

    Raises:
        InputError: The file is missing, empty, not Parquet, not in this encoding, or breaks off inside quotes.
    """
    path = Path(path)
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise InputError(f"table {path} cannot be read ({error.strerror}); check the path") from error
    notes: list[str] = []
    malformed: dict[int, str] = {}
    if path.suffix.lower() in (".parquet", ".pq"):
        rows = _read_parquet(path)
    else:
        try:
            encoding = _known_by_content(path, encoding, notes)
            rows, malformed = _read_csv(path, encoding, notes)
        except UnicodeDecodeError as error:
            raise _bad_byte(path, encoding, error) from error
    header = [name.strip() for name in rows.column_names]
    if spaced := sum(name != given for name, given in zip(header, rows.column_names, strict=True)):
        notes.append(f"white space removed around {spaced} column names")
    if twice := [name for place, name in enumerate(header) if name in header[:place]]:
        raise InputError(f"table {path.name} has two columns named {twice[0]!r}; rename one")
    if not len(rows) and not malformed:
        raise InputError(f"table {path.name} has no rows; give a table with a header and at least one row")
    rows = _without_missing(rows.rename_columns(header), notes)
    return Table(name=path.name, sha256=digest, rows=rows, malformed=malformed, notes=tuple(notes))


def read_frame(
    path: str | Path, named: Sequence[tuple[str, str]] = (), where: Sequence[str] = ()
) -> tuple[pd.DataFrame, str]:
    """Read a table in which every row has to fit the header.

    Args:
        path: As for `read_table`.
        named: Columns that it must have, each after the option that names it (empty if none does); others come as well.
        where: Filters, as for `passing_rows`.

    Returns:
        The rows that pass, as text without white space around it, their numbers as index; the hash of the file.

    Raises:
        InputError: No such table, column or row, or a row that does not fit the header.
    """
    table = read_table(path)
    for note in table.notes:
        if not note.startswith("columns are separated"):
            print(f"note: table {table.name}: {note}", file=sys.stderr)
    if table.malformed:
        row, problem = next(iter(table.malformed.items()))
        raise InputError(f"{path}: row {row} does not fit the header ({problem}); repair it")
    for option, column in named:
        require_columns(table, [column], option=option)
    frame = table.frame[passing_rows(table, where)]
    return frame.apply(lambda column: column.str.strip()), table.sha256


def require_columns(table: Table, names: Sequence[str], *, option: str = "") -> None:
    """Raise an `InputError` that lists the columns there, if one of `names` (given by an option) is not among them."""
    for name in names:
        if name not in table.header:
            lowered = {there.lower(): there for there in table.header}
            close = difflib.get_close_matches(name.lower(), lowered, n=1)
            meant = f" (did you mean {lowered[close[0]]!r}?)" if close else ""
            raise InputError(
                f"{option}{': ' if option else ''}table {table.name} has no column {name!r}{meant}; its columns are: "
                f"{', '.join(table.header)}"
            )


def one_class_each(labels: pd.Series, path: Path) -> pd.Series:
    """Write each class in its commonest spelling (of Effusion and effusion, 1 and 1.0); a note names the others.

    Args:
        labels: Class of each row.
        path: The table, for the note.
    """
    if taken := respelt(labels, prefer="commonest"):
        said = ", ".join(f"{other!r} as {name!r}" for other, name in sorted(taken.items())[:10])
        print(f"note: table {path.name}: column {labels.name!r}: spellings of one class: {said}", file=sys.stderr)
    return labels.replace(taken) if taken else labels


def row_of(column: pd.Series, value: object) -> str:
    """The first row of a column of a table's frame that holds a value, in words: `row 3`, as the frame counts them."""
    return f"row {int(column.index[column == value][0])}"


def passing_rows(table: Table, where: Sequence[str]) -> np.ndarray:
    """Return, for each row, whether it passes every filter `column=value1,value2`, bool [rows].

    Raises:
        InputError: A filter has no `=`, names an unknown column, or no row passes it.
    """
    passes = np.ones(len(table), dtype=bool)
    for condition in where:
        column, equals, values = (part.strip() for part in condition.partition("="))
        if not equals:
            raise InputError(f"filter {condition!r} must read column=value1,value2")
        require_columns(table, [column])
        present = pc.utf8_trim_whitespace(table.rows.column(column))
        matches = pc.is_in(present, pa.array([value.strip() for value in values.split(",")])).to_numpy()
        if not matches.any():
            some = ", ".join(repr(value) for value in sorted(pc.unique(present).to_pylist())[:10])
            raise InputError(f"no row of {table.name} passes the filter {condition!r}; {column} has values {some}")
        passes &= matches
    if where and not passes.any():
        raise InputError(f"no row of {table.name} passes all filters together: {'; '.join(where)}")
    return passes


def _spool(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Keep rows in a file without a name, and map it."""
    with tempfile.TemporaryFile() as file:
        with pa.ipc.new_stream(file, schema) as stream:
            for batch in batches:
                stream.write_batch(batch)
        return pa.ipc.open_stream(pa.py_buffer(_map(file))).read_all()


def _map(file: IO[bytes]) -> Text:
    file.flush()
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""


def _text_schema(header: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in header])


def _read_parquet(path: Path) -> pa.Table:
    try:
        file = pq.ParquetFile(path)
        whole, schema = _whole_numbers(file), _text_schema(file.schema_arrow.names)
        batches = (
            pa.record_batch([_as_text(*column) for column in zip(batch.columns, whole, strict=True)], schema=schema)
            for batch in file.iter_batches(_ROWS_AT_ONCE)
        )
        return _spool(schema, batches)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"table {path.name} is not a readable Parquet file ({str(error).splitlines()[0]}); write it anew"
        ) from error


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


def _as_text(column: pa.Array, whole: bool) -> pa.Array:
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        values = [None if v is None or v != v else int(v) if whole else v for v in values]  # 12.0 was 12
    return pa.array(["" if value is None else str(value) for value in values], pa.string())


def _known_by_content(path: Path, encoding: str, notes: list[str]) -> str:
    """The encoding of a file whose first bytes tell it.

    Raises:
        InputError: It is a workbook.
    """
    try:
        with _open(path) as file:
            head = file.read(4)
    except (OSError, EOFError, zlib.error):
        return encoding  # reading it says what is wrong
    if (what := _WORKBOOKS.get(head)) is not None:
        raise InputError(f"table {path.name} is {what}; save the sheet as `CSV UTF-8` and give that file")
    if head.startswith(_BYTE_ORDER_MARKS) and not head.endswith(b"\0\0"):
        notes.append("read as UTF-16, as its byte order mark says")
        return "utf-16"
    return encoding


def _without_missing(rows: pa.Table, notes: list[str]) -> pa.Table:
    """The rows with the cells of `MISSING` empty; a note counts them by column."""
    words = pa.array(sorted(MISSING))
    for place, name in enumerate(rows.column_names):
        column = rows.column(name)
        says_nothing = pc.is_in(pc.utf8_trim_whitespace(column), words)
        if count := pc.sum(says_nothing).as_py() or 0:
            said = ", ".join(repr(value) for value in pc.unique(column.filter(says_nothing)).to_pylist()[:4])
            notes.append(f"column {name!r}: {count} cells that say {said} are read as missing")
            rows = rows.set_column(place, name, pc.if_else(says_nothing, "", column))
    return rows


def _read_csv(path: Path, encoding: str, notes: list[str]) -> tuple[pa.Table, dict[int, str]]:
    """Read a CSV file: its rows, and those that do not fit the header with what is wrong with them.

    Arrow reads a table in which every row fits. If one does not, `csv` reads the table anew to name each such row.
    """
    text = _as_utf8(path, encoding)
    with _decoded(text) as lines:
        first = lines.readline(_LONGEST_CELL)
    announced = re.fullmatch(r'"?sep=(.)"?', first.strip("\r\n"), re.IGNORECASE)  # Excel's own first line
    delimiter = announced[1] if announced else _delimiter(text, first)
    if announced:
        notes.append("the first line names the separator, as Excel writes it")
    others = [mark for mark in _marks(first) if mark != delimiter] if not announced else []
    doubt = f", as most rows agree; the header also holds {' and '.join(map(repr, others))}" if others else ""
    notes += [f"columns are separated by {delimiter!r}{doubt}"] * (delimiter != "," or bool(others))
    malformed: dict[int, str] = {}
    with _decoded(text) as lines:
        if announced:
            lines.readline()
        records = _records(lines, delimiter, path, before=1 if announced else 0)
        line, header, problem = next(records, (0, [], ""))
        if problem:
            raise InputError(
                f"table {path.name}: its header, line {line}, cannot be read as cells parted by {delimiter!r} "
                f"({problem}); commas, tabs, semicolons and bars are known, any other mark if a first line says: sep=^"
            )
        if not any(cell.strip() for cell in header):
            raise InputError(f"table {path.name} is empty; give a table with a header and at least one row")
        named = len(header) - next(place for place, cell in enumerate(reversed(header)) if cell.strip())
        if named < len(header):
            notes.append(f"{len(header) - named} columns without a name at the end are left out; they must be empty")
        schema = _text_schema(header[:named])
        if not announced and named == len(header) and _quotes_are_closed(text, delimiter):
            try:
                return _spool(schema, _arrow_batches(text, delimiter, schema)), malformed
            except pa.ArrowInvalid:
                pass  # a row that does not fit, a byte that is not UTF-8, or a very long cell
        trimmed: list[int] = []
        rows = _spool(schema, _fitting_batches(records, schema, malformed, trimmed))
        if trimmed and named == len(header):
            notes.append(f"{len(trimmed)} rows end in empty cells beyond the last column, which are left out")
        return rows, malformed


def _marks(first: str) -> list[str]:
    """The marks that may part columns and stand in the first line outside quotes."""
    outside_quotes = re.sub(r'"[^"]*"', "", first)
    return [mark for mark in ",\t;|" if mark in outside_quotes]


def _delimiter(text: Text, first: str) -> str:
    """The mark between cells: of those in the header outside quotes the one that most of the first rows agree with.

    Of equals, the one that makes more columns; then the one that no space follows, as one follows the commas of prose.
    """
    marks = _marks(first)
    if len(marks) < 2:
        return marks[0] if marks else ","

    def likely(mark: str) -> tuple[int, int, bool]:
        with _decoded(text) as lines:
            rows = csv.reader(lines, delimiter=mark)
            try:
                header, *some = (cells for cells in islice(rows, _ROWS_TO_JUDGE) if cells)
            except csv.Error:
                return 0, 0, False
        fit = sum(len(cells) == len(header) for cells in some)
        return fit, len(header), f"{mark} " not in first

    return max(marks, key=likely)


def _as_utf8(path: Path, encoding: str) -> Text:
    """Map the text of a file as UTF-8: the file itself, or a copy without a name that is unpacked and encoded anew."""
    packed = path.suffix.lower() == ".gz"
    try:
        codec = codecs.lookup(encoding).name
        if codec == "utf-8" and not packed:
            with path.open("rb") as file:
                return _map(file)
        with tempfile.TemporaryFile() as copy, _open(path) as raw, io.TextIOWrapper(raw, codec, newline="") as lines:
            while part := lines.read(2**20):
                copy.write(part.encode())
            return _map(copy)
    except LookupError as error:
        raise InputError(f"there is no text encoding {encoding!r}; try utf-8, cp1252 or latin-1") from error
    except UnicodeDecodeError:
        raise
    except UnicodeError as error:
        raise InputError(f"table {path.name} is not {encoding} ({error}); name its encoding with --encoding") from error
    except (OSError, EOFError, zlib.error) as error:
        what = "not a complete gzip file" if packed else "not readable to its end"
        raise InputError(f"table {path.name} is {what} ({error}); copy it again") from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _decoded(text: Text) -> io.TextIOWrapper:
    return io.TextIOWrapper(pa.BufferReader(text), "utf-8-sig", newline="")


def _quotes_are_closed(text: Text, delimiter: str) -> bool:
    """Whether each quoted cell ends with its closing quote. Arrow reads over one that does not, and swallows rows."""
    other = rf"[^{delimiter}\r\n]".encode()
    quoted = re.compile(rb'"(?<!%b")[^"]*+(?:""[^"]*+)*+("(?!%b))?' % (other, other))
    return all(cell[1] for cell in quoted.finditer(text))


def _arrow_batches(text: Text, delimiter: str, schema: pa.Schema) -> Iterable[pa.RecordBatch]:
    return pa_csv.open_csv(
        pa.BufferReader(text),
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=_LONGEST_CELL),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(column_types=schema),
    )


def _fitting_batches(
    records: Iterator[tuple[int, list[str], str]], schema: pa.Schema, malformed: dict[int, str], trimmed: list[int]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that fit the header; enter the others in `malformed`, those cut at empty cells in `trimmed`."""

    def fitting() -> Iterator[list[str]]:
        for number, (line, cells, problem) in enumerate(records, start=1):
            if len(cells) > len(schema) and not any(cell.strip() for cell in cells[len(schema) :]):
                trimmed.append(number)
                cells = cells[: len(schema)]
            if problem or len(cells) != len(schema):
                malformed[number] = f"line {line}: {problem or f'{len(cells)} cells, the header has {len(schema)}'}"
            else:
                yield cells

    rows = fitting()
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield pa.record_batch([pa.array(column, pa.string()) for column in zip(*some, strict=True)], schema=schema)


def _records(lines: Iterable[str], delimiter: str, path: Path, before: int = 0) -> Iterator[tuple[int, list[str], str]]:
    """Yield line (after so many `before`), cells and problem of each record that is not blank."""
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line, cells, problem = before + reader.line_num + 1, [], ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = str(error)
            if "unexpected end" in problem or "field limit" in problem:
                raise InputError(
                    f"table {path.name}: quotes opened in the row at line {line} are never closed; repair that row"
                ) from error
        if cells or problem:
            yield line, cells, problem


def _bad_byte(path: Path, encoding: str, error: UnicodeDecodeError) -> InputError:
    """Name the place where a table stops being in its encoding: the decoder knows only the place in its block."""
    where, offset = "", 0
    with _open(path) as file:
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
