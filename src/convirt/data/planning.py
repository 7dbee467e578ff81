"""From the rows of a source table to plans: which images and which text belong together (ConVIRT, section 2.1)."""

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from convirt.data.audit import EXCLUDED, Audit
from convirt.data.pairing import PairPlan, Row
from convirt.data.splits import check_patients, given_split, split_by_patient
from convirt.data.tables import Table, require_columns, select_rows
from convirt.errors import InputError


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


def plan_pairs(
    table: Table, columns: Columns, root: Path, where: Sequence[str], shares: Mapping[str, Any], audit: Audit
) -> list[PairPlan]:
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
    passes = select_rows(table, where)
    for number in passes.index[~passes]:
        audit.drop(int(number), EXCLUDED, image=str(table.frame.at[number, columns.image]))
    rows = list(_usable_rows(table, columns, root, passes, audit))
    if columns.split is None:
        splits = split_by_patient((row.patient for row in rows), **shares)
    else:
        check_patients((row.patient, row.split) for row in rows)
        splits = {row.patient: row.split for row in rows}
    return list(_group(rows, columns, splits, audit))


def _usable_rows(table: Table, columns: Columns, root: Path, passes: Any, audit: Audit) -> Iterator[Row]:
    """Yield the rows that name an image inside the root and a patient; the others go to the audit."""
    ids: dict[str, int] = {}
    real_root = root.resolve()
    for number, values in zip(map(int, passes.index[passes]), table.frame.loc[passes].to_dict("records"), strict=True):
        cell = {name: values[name].strip() for name in columns.names()}
        image = cell[columns.image]
        if spaced := [name for name in columns.names() if name not in columns.text and values[name] != cell[name]]:
            audit.repair(number, "white space around a value removed", image=image, detail=", ".join(spaced))
        if columns.id and (first := ids.setdefault(cell[columns.id], number)) != number:
            raise InputError(
                f"table {table.name}: id {cell[columns.id]!r} in column {columns.id!r} stands in rows {first} and "
                f"{number}; make the ids unique, or group rows with --study-column"
            )
        source, problem = _locate(image, root, real_root)
        if not cell[columns.patient]:
            problem = ("no patient", "")
        elif columns.study and not cell[columns.study]:
            problem = ("no study", "")
        elif columns.split and not cell[columns.split]:
            problem = ("no split", "")
        if problem:
            audit.drop(number, problem[0], image=image, detail=problem[1], failure=True)
            continue
        texts = dict.fromkeys(text for name in columns.text if (text := cell[name]))
        yield Row(
            number=number,
            image=image,
            source=source,
            text="\n\n".join(texts),
            patient=cell[columns.patient],
            study=cell[columns.study] if columns.study else cell[columns.id] if columns.id else "",
            split=given_split(cell[columns.split]) if columns.split else "",
            view=cell[columns.view] if columns.view else "",
            attributes={name: cell[name] for name in columns.keep},
        )


def _locate(image: str, root: Path, real_root: Path) -> tuple[str, tuple[str, str] | None]:
    """Return the path of an image relative to the root, or why there is none."""
    if not image:
        return "", ("no image named", "")
    try:
        path = root / image
        real = path.resolve()
        if not real.is_relative_to(real_root):
            return "", ("path that leads out of the image folder", "")
        if not real.is_file():
            return "", ("image not found", "")
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, a loop of links
        return "", ("image not found", type(error).__name__)
    # What the corpus keeps is relative, the same on every machine, and free of `..`, which links make ambiguous.
    if Path(image).is_absolute() or ".." in Path(image).parts:
        return real.relative_to(real_root).as_posix(), None
    return posixpath.normpath(image), None


def _group(rows: list[Row], columns: Columns, splits: Mapping[str, str], audit: Audit) -> Iterator[PairPlan]:
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    seen: dict[tuple[str, ...], int] = {}
    for row in rows:
        # Studies may be numbered anew for each patient, so both name a group.
        group = (row.patient, row.study) if columns.study else (str(row.number),)
        same = (*group, row.source) if columns.study else (row.patient, row.source, row.text, row.study)
        if (first := seen.setdefault(same, row.number)) != row.number:
            reason = "same image twice in one pair" if columns.study else "same image and text as an earlier row"
            audit.drop(row.number, reason, image=row.image, detail=f"first in row {first}")
            continue
        groups[group].append(row)
    named = [members[0].study or members[0].source for members in groups.values()]
    patients: dict[str, set[str]] = defaultdict(set)
    for name, members in zip(named, groups.values(), strict=True):
        patients[name].add(members[0].patient)
    used: set[str] = set()
    for name, members in zip(named, groups.values(), strict=True):
        patient = members[0].patient
        pair_id = name if len(patients[name]) == 1 else f"{patient}/{name}"
        pair_id = next(name for name in _numbered(pair_id) if name not in used)
        used.add(pair_id)
        texts = list(dict.fromkeys(row.text for row in members if row.text))
        if len(texts) > 1:
            for row in members:
                audit.repair(row.number, "differing texts of one study joined", image=row.image)
        yield PairPlan(
            pair_id=pair_id,
            patient=patient,
            split=splits[patient],
            rows=tuple(members),
            text="\n\n".join(texts),
            attributes={
                name: "; ".join(dict.fromkeys(row.attributes[name] for row in members)) for name in columns.keep
            },
        )


def _numbered(name: str) -> Iterator[str]:
    """Yield a name, then `name#2`, `name#3` ... for pairs that show the same image."""
    yield name
    yield from (f"{name}#{number}" for number in count(2))
