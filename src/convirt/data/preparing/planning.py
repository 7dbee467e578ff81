"""From the rows of a source table to plans: which images and which text belong together (ConVIRT, section 2.1).

A plan holds no text: texts stay in the table, which a large one has on disk, until the plan is handed to a worker.
"""

import hashlib
import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np

from convirt.data.paths import close_file
from convirt.data.preparing.audit import EXCLUDED, SPELLINGS, Audit
from convirt.data.preparing.pairs import PairPlan, Row
from convirt.data.splits import check_patients, given_split, respelt, split_by_patient
from convirt.data.tables import Table, passing_rows, require_columns
from convirt.errors import InputError

_ROWS_AT_ONCE = 4096
_OUTSIDE = ("path that leads out of the image folder", "")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of the table holds what."""

    image: str
    text: tuple[str, ...]
    patient: str
    study: str | None = None
    split: str | None = None
    view: str | None = None
    id: str | None = None
    keep: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """Return every column that is named."""
        single = (self.image, *self.text, self.patient, self.study, self.split, self.view, self.id, *self.keep)
        return [name for name in single if name]


class TablePlans(Sequence[PairPlan]):
    """Planned pairs of a table; each gets its text when it is asked for."""

    def __init__(self, table: Table, columns: Columns, plans: list[PairPlan]) -> None:
        self._table = table
        self._columns = columns
        self._plans = plans

    def __len__(self) -> int:
        return len(self._plans)

    @overload
    def __getitem__(self, index: int) -> PairPlan: ...
    @overload
    def __getitem__(self, index: slice) -> list[PairPlan]: ...
    def __getitem__(self, index: int | slice) -> PairPlan | list[PairPlan]:
        if isinstance(index, slice):
            return [self._with_text(plan) for plan in self._plans[index]]
        return self._with_text(self._plans[index])

    def _with_text(self, plan: PairPlan) -> PairPlan:
        places = np.searchsorted(self._table.numbers, [row.number for row in plan.rows])
        texts = (
            _join(self._table.rows.column(name)[int(place)].as_py() for name in self._columns.text) for place in places
        )
        return replace(plan, text="\n\n".join(dict.fromkeys(text for text in texts if text)))


def plan_pairs(
    table: Table, columns: Columns, root: Path, where: Sequence[str], shares: Mapping[str, Any], audit: Audit
) -> TablePlans:
    """Decide which pairs to prepare, in the order of the table, and enter every other row in the audit.

    Args:
        table: The source table.
        columns: Which of its columns holds what.
        root: Image root; no row may lead out of it.
        where: Filters `column=value1,value2`.
        shares: `seed`, `val_share` and `test_share` for the split by patient, used if no split column is given.
        audit: Receives dropped and repaired rows.

    Raises:
        InputError: A missing column, an id that is not unique, an unknown split, or a patient in two given splits.
    """
    require_columns(table, columns.names())
    for number, problem in table.malformed.items():
        audit.drop(number, "row that does not fit the header", detail=problem, failure=True)
    rows: list[tuple[Row, bytes]] = list(_usable_rows(table, columns, root, passing_rows(table, where), audit))
    if columns.split is not None:
        check_patients((row.patient, row.split) for row, _ in rows)
    _respell(rows, audit)
    if columns.split is None:
        splits = split_by_patient((row.patient for row, _ in rows), **shares)
    else:
        splits = {row.patient: row.split for row, _ in rows}
    return TablePlans(table, columns, list(_group(rows, columns, splits, audit)))


def _respell(rows: list[tuple[Row, bytes]], audit: Audit) -> None:
    """Give a patient whose id is spelt in several ways (1001 and 1001.0) one of them; the audit names the rows."""
    if not (taken := respelt(row.patient for row, _ in rows)):
        return
    first = {row.patient: row.number for row, _ in reversed(rows)}
    for place, (row, text) in enumerate(rows):
        if (patient := taken.get(row.patient)) is not None:
            audit.respell(row.number, first[patient], image=row.image)
            rows[place] = replace(row, patient=patient), text
    audit.notes.append(f"{len(set(taken.values()))} {SPELLINGS}")


def _join(texts: Iterator[str]) -> str:
    """Join the texts of one row, each once, in their order."""
    return "\n\n".join(dict.fromkeys(text for cell in texts if (text := cell.strip())))


def _cells(table: Table, columns: Columns, passes: np.ndarray, audit: Audit) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield number and cells of the rows that pass the filters; enter the others in the audit."""
    names = list(dict.fromkeys(columns.names()))
    start = 0
    for batch in table.rows.select(names).to_batches(_ROWS_AT_ONCE):
        values = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        for place, cells in enumerate(values, start):
            number = int(table.numbers[place])
            named = dict(zip(names, cells, strict=True))
            if passes[place]:
                yield number, named
            else:
                audit.drop(number, EXCLUDED, image=named[columns.image])
        start += len(batch)


def _usable_rows(
    table: Table, columns: Columns, root: Path, passes: np.ndarray, audit: Audit
) -> Iterator[tuple[Row, bytes]]:
    """Yield the rows that name an image inside the root and a patient, with a hash of their text; audit the others."""
    ids: dict[str, int] = {}
    files = _Files(root)
    shared: dict[str, str] = {}  # one string for all rows of a patient, a study, a view
    for number, values in _cells(table, columns, passes, audit):
        cell = {name: value.strip() for name, value in values.items()}
        image = cell[columns.image]
        if spaced := [name for name in columns.names() if name not in columns.text and values[name] != cell[name]]:
            audit.repair(number, "white space around a value removed", image=image, detail=", ".join(spaced))
        if columns.id and (first := ids.setdefault(cell[columns.id], number)) != number:
            raise InputError(
                f"table {table.name}: id {cell[columns.id]!r} in column {columns.id!r} stands in rows {first} and "
                f"{number}; make the ids unique, or group rows with --study-column"
            )
        source, problem = files.locate(image)
        if not cell[columns.patient]:
            problem = ("no patient", "")
        elif columns.study and not cell[columns.study]:
            problem = ("no study", "")
        elif columns.split and not cell[columns.split]:
            problem = ("no split", "")
        if problem:
            audit.drop(number, problem[0], image=image, detail=problem[1], failure=True)
            continue
        study = cell[columns.study] if columns.study else cell[columns.id] if columns.id else ""
        view = cell[columns.view] if columns.view else ""
        text = _join(cell[name] for name in columns.text)
        row = Row(
            number=number,
            image=image,
            source=source,
            text="",
            patient=shared.setdefault(cell[columns.patient], cell[columns.patient]),
            study=shared.setdefault(study, study),
            split=given_split(cell[columns.split]) if columns.split else "",
            view=shared.setdefault(view, view),
            attributes={name: cell[name] for name in columns.keep} if columns.keep else _NOTHING,
        )
        yield row, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] if text else b""


_NOTHING: dict[str, str] = {}


class _Files:
    """Finds the files that a table names; nothing outside the root is one of them."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._real = os.path.realpath(root)
        self._inside = self._real.rstrip(os.sep) + os.sep
        self._folder = lru_cache(maxsize=4096)(os.path.realpath)  # a folder holds many images

    def locate(self, image: str) -> tuple[str, tuple[str, str] | None]:
        """Return the path of an image relative to the root, or why there is none."""
        if not image:
            return "", ("no image named", "")
        try:
            real = self._resolve(os.path.join(self._root, image))
            if not real.startswith(self._inside) and real != self._real:
                return "", _OUTSIDE
            if not os.path.isfile(real):
                close = close_file(self._real, image)  # its name stays out of the audit, which may be handed on
                return "", ("image not found", f"a file there differs in {close[1]}" if close else "")
        except (OSError, ValueError) as error:  # too long, a null byte, a loop of links
            return "", ("image not found", type(error).__name__)
        # What the corpus keeps is relative, the same on every machine, and free of `..`, which links make ambiguous.
        if os.path.isabs(image) or ".." in Path(image).parts:
            return Path(real).relative_to(self._real).as_posix(), None
        source = posixpath.normpath(image)
        return (image if source == image else source), None

    def _resolve(self, path: str) -> str:
        folder, name = os.path.split(path)
        if name not in ("", ".", ".."):
            real = os.path.join(self._folder(folder), name)
            try:
                if not stat.S_ISLNK(os.lstat(real).st_mode):
                    return real
            except FileNotFoundError:
                return real
        return os.path.realpath(path)


def _group(
    rows: Sequence[tuple[Row, bytes]], columns: Columns, splits: Mapping[str, str], audit: Audit
) -> Iterator[PairPlan]:
    groups: dict[Any, list[tuple[Row, bytes]]] = defaultdict(list)
    seen: dict[tuple[str | bytes, ...], int] = {}
    for row, text in rows:
        # Studies may be numbered anew for each patient, so both name a group.
        group = (row.patient, row.study) if columns.study else row.number
        same = (row.patient, row.study, row.source) if columns.study else (row.patient, row.source, text, row.study)
        if (first := seen.setdefault(same, row.number)) != row.number:
            reason = "same image twice in one pair" if columns.study else "same image and text as an earlier row"
            audit.drop(row.number, reason, image=row.image, detail=f"first in row {first}")
            continue
        groups[group].append((row, text))
    del seen
    owners: dict[str, str | None] = {}  # of a name; None if several patients have one of that name
    for (row, _), *_ in groups.values():
        name = row.study or row.source
        owners[name] = row.patient if owners.setdefault(name, row.patient) == row.patient else None
    names = _Names()
    for members in groups.values():
        first_row = members[0][0]
        name = first_row.study or first_row.source
        pair_id = names.take(name if owners[name] is not None else f"{first_row.patient}/{name}")
        if len({text for _, text in members if text}) > 1:
            for row, _ in members:
                audit.repair(row.number, "differing texts of one study joined", image=row.image)
        yield PairPlan(
            pair_id=pair_id,
            patient=first_row.patient,
            split=splits[first_row.patient],
            rows=tuple(row for row, _ in members),
            text="",
            attributes=_merge([row.attributes for row, _ in members], columns.keep),
        )


def _merge(attributes: Sequence[Mapping[str, str]], keep: Sequence[str]) -> dict[str, str]:
    """The kept columns of a pair: the differing values of its rows."""
    if not keep:
        return _NOTHING
    return {name: "; ".join(dict.fromkeys(values[name] for values in attributes)) for name in keep}


class _Names:
    """Gives each pair a name of its own: `name`, then `name#2`, `name#3` ... for pairs that show the same image."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}  # and how often it was asked for

    def take(self, name: str) -> str:
        """Return the name, or the next one after it that is free."""
        own = name
        while own in self._taken:
            self._taken[name] += 1
            own = f"{name}#{self._taken[name]}"
        self._taken[own] = 1
        return own
