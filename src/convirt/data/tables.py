"""Source tables: CSV (also gzipped, tab- or semicolon-separated) or Parquet, every value as text.

Nothing is guessed: an identifier `007` stays `007`, and a row that does not fit its header is set aside by name. A
table is read in one pass; a large one lies in a temporary file then, mapped, so that reports cost no memory.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from convirt.data.rowsets import Spool, csv_rows, parquet_rows
from convirt.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Table:
    """A source table."""

    name: str
    """File name, for messages."""
    sha256: str
    """Hash of the file's bytes."""
    rows: pa.Table
    """Values as text, missing ones empty; a large table is mapped from disk."""
    numbers: np.ndarray
    """Number of each row, from 1, the header not counted, int64 [rows]."""
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
        InputError: The file is missing, empty, no Parquet, not in this encoding, or breaks off inside quotes.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"table {path} cannot be read ({error.strerror}); check the path") from error
    malformed: dict[int, str] = {}
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    source = parquet_rows(path) if is_parquet else csv_rows(path, encoding)
    header = source.header
    notes = list(source.notes)
    if spaced := [name for name in header if name != name.strip()]:
        header = [name.strip() for name in header]
        notes.append(f"white space removed around {len(spaced)} column names")
    if twice := [name for place, name in enumerate(header) if name in header[:place]]:
        raise InputError(f"table {path.name} has two columns named {twice[0]!r}; rename one")
    with Spool(header) as spool:
        for number, cells, problem in source.rows:
            if problem:
                malformed[number] = problem
            else:
                spool.add(number, cells)
        rows, numbers = spool.finish()
    if not len(rows) and not malformed:
        raise InputError(f"table {path.name} has no rows; give a table with a header and at least one row")
    return Table(name=path.name, sha256=digest, rows=rows, numbers=numbers, malformed=malformed, notes=tuple(notes))


def require_columns(table: Table, names: Sequence[str]) -> None:
    """Raise an `InputError` that lists the columns there, if one of `names` is not among them."""
    for name in names:
        if name not in table.header:
            there = ", ".join(table.header)
            raise InputError(f"table {table.name} has no column {name!r}; its columns are: {there}")


def row_of(column: pd.Series, value: object) -> str:
    """The first row of a column of a table's frame that holds a value, in words: `row 3`, as the frame counts them."""
    return f"row {int(column.index[column == value][0])}"


def select_rows(table: Table, where: Sequence[str]) -> pd.Series:
    """Return, for each row of the frame, whether it passes every filter, as `passing_rows`."""
    return pd.Series(passing_rows(table, where), index=table.frame.index)


def passing_rows(table: Table, where: Sequence[str]) -> np.ndarray:
    """Return, for each row, whether it passes every filter `column=value1,value2`, bool [rows].

    Raises:
        InputError: A filter has no `=`, names no column, or no row passes it.
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
