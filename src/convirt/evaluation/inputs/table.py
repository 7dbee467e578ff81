"""Labelled tables: one row per image, from CSV or Parquet.

Shape legend: N rows, C classes.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convirt.data.benchmarks.files import leading_out
from convirt.data.benchmarks.folder import Benchmark, Protocol, open_benchmark
from convirt.data.benchmarks.fractions import nested_fraction
from convirt.data.paths import said_of_close_file
from convirt.data.splits import SPLITS, canonical_id, respelt
from convirt.data.tables import one_class_each, read_frame, row_of
from convirt.errors import InputError
from convirt.evaluation.inputs.options import TableOptions
from convirt.evaluation.statistics.metrics import one_hot

ATTRIBUTES = ("sex", "age", "view", "source")
"""What may be known of an image besides its label; a benchmark's columns of these names are taken."""
_LABEL_VALUES = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0, "": np.nan}


@dataclass(frozen=True, kw_only=True)
class LabelledTable:
    """The rows that take part, in the order of the file."""

    images: tuple[str, ...]
    """Image paths as the table has them."""
    paths: tuple[Path, ...]
    """Where the images are."""
    patients_N: NDArray[np.str_]
    """Patient (case) of each row; without a patient column each image stands for its own."""
    splits_N: NDArray[np.str_]
    """`train`, `val` or `test`; empty without a split column."""
    classes: tuple[str, ...]
    """Class names, sorted (single-label), or the label columns in order (multi-label)."""
    targets_NC: NDArray[np.float64]
    """1, 0 or NaN (no label); one-hot for a single-label task, [N, 0] without labels."""
    multi_label: bool
    texts: tuple[str, ...] = ()
    """Caption or report of each row, if a text column was named."""
    roles_N: NDArray[np.str_]
    """`query` or `candidate`; empty without a role column."""
    sha256: str
    """Hash of the table file's bytes."""
    rows_without_label: int = 0
    """Rows of the file left out because their label was empty."""
    units_N: NDArray[np.str_] | None = None
    """What each row belongs to that is scored as one at test (a study, a patient); None where images are scored."""
    pools_N: NDArray[np.str_] | None = None
    """Value of the column whose images are pooled into one row; None where none is."""
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    """What is known of each row besides its label, by role: `sex`, `age`, `view`, `source`; empty where it is not."""
    subsets: Mapping[tuple[float, int], NDArray[np.int64]] = field(default_factory=dict)
    """Saved label fractions: (fraction, seed) -> positions among the training rows."""

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Positions of the rows of a split.

        Raises:
            InputError: There is none.
        """
        found = np.flatnonzero(self.splits_N == split)
        if not len(found):
            raise InputError(f"the table has no {split} rows; give some rows the split {split!r}")
        return found

    def take(self, rows: NDArray[np.int64]) -> "LabelledTable":
        """The table with these rows alone."""
        return replace(
            self,
            images=tuple(self.images[row] for row in rows),
            paths=tuple(self.paths[row] for row in rows),
            patients_N=self.patients_N[rows],
            splits_N=self.splits_N[rows],
            targets_NC=self.targets_NC[rows],
            texts=tuple(self.texts[row] for row in rows) if self.texts else (),
            roles_N=self.roles_N[rows],
            units_N=None if self.units_N is None else self.units_N[rows],
            pools_N=None if self.pools_N is None else self.pools_N[rows],
            attributes={role: values_N[rows] for role, values_N in self.attributes.items()},
            subsets={},
        )

    def training_subset(self, fraction: float, seed: int) -> NDArray[np.int64]:
        """Positions among the training rows of a label fraction: as saved with a benchmark, else drawn.

        Raises:
            InputError: The fraction is out of range, or a class lacks positive or negative training rows.
        """
        if (saved := self.subsets.get((fraction, seed))) is not None:
            return saved
        return nested_fraction(self.targets_NC[self.rows("train")], self.classes, fraction, seed=seed)

    @property
    def labels_N(self) -> NDArray[np.str_]:
        """Class name of each row of a single-label task."""
        return np.array(self.classes)[self.targets_NC.argmax(axis=1)]


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """Which column of a table holds what."""

    image: str = "image"
    """Path of the image."""
    label: str | None = None
    """Class of the image (single-label); rows where it is empty are left out."""
    labels: tuple[str, ...] = ()
    """One column a label with 1, 0 or nothing (multi-label); empty labels are ignored."""
    patient: str | None = None
    """Patient or case; no patient may be in two splits."""
    split: str | None = None
    """Split of the row, see `SPLITS`; None if the table has no splits."""
    text: str | None = None
    """Caption or report of the image."""
    role: str | None = None
    """`query` or `candidate`, for retrieval."""
    unit: str | None = None
    """Study or patient whose images are scored as one at test."""
    pool: str | None = None
    """Study whose images become one row by the mean of their vectors."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Column of the sex, age, view and source, as far as they are known (`ATTRIBUTES`)."""

    @classmethod
    def of_benchmark(cls, benchmark: Benchmark, asked: "TableColumns") -> "TableColumns":
        """The columns of a benchmark's table.

        Raises:
            InputError: Labels, patients or roles were asked for, which a benchmark has of its own.
        """
        if asked.label or asked.labels or asked.patient or asked.role:
            raise InputError(f"{benchmark.folder} is a benchmark with columns of its own; leave column options out")
        single = benchmark.kind in ("single-label", "retrieval")
        with benchmark.table.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file))
        return cls(
            label=benchmark.labels[0] if single else None,
            labels=() if single else benchmark.labels,
            patient="patient",
            split="split",
            text=asked.text,
            role="role" if benchmark.kind == "retrieval" else None,
            unit="unit" if benchmark.unit else None,
            pool=asked.pool,
            attributes={role: role for role in ATTRIBUTES if role in header} | dict(asked.attributes),
        )

    def by_option(self) -> list[tuple[str, str]]:
        """The option that names each column, and the column."""
        single = {name: getattr(self, name) for name in ("image", "label", "patient", "split", "text", "role", "pool")}
        named = [(f"--{name}-column", column) for name, column in (single | dict(self.attributes)).items()]
        named += [("--label-columns", column) for column in self.labels]
        return [(option, column) for option, column in [*named, ("", self.unit)] if column]


@dataclass(frozen=True, kw_only=True)
class OpenTable:
    """A table or a benchmark that was found, and what is known of it beside its rows."""

    options: TableOptions
    columns: TableColumns
    """The columns that hold: those that were named, or the benchmark's."""
    benchmark: Benchmark | None

    @cached_property
    def table(self) -> LabelledTable:
        """The rows, read once. Of a benchmark also the saved label fractions.

        Raises:
            InputError: Anything that makes the table unusable, or no image folder.
        """
        images = self.options.images or (self.benchmark.root if self.benchmark else None)
        if images is None:
            raise InputError("name the folder that the image paths are relative to (--images)")
        path = self.benchmark.table if self.benchmark else self.options.table
        named_split = self.benchmark is not None
        labelled = read_table(path, images, self.columns, self.options.where, named_split=named_split)
        # The saved fractions are of all training rows; where some are filtered out, they are drawn anew by one rule.
        known = self.benchmark is not None and not self.options.where
        return replace(labelled, subsets=self.benchmark.subsets) if self.benchmark and known else labelled

    @property
    def protocol(self) -> Protocol:
        """How the paper evaluates on the benchmark; nothing for another table."""
        return self.benchmark.protocol if self.benchmark else Protocol()

    @property
    def task(self) -> str:
        """What the rows of a classification call it."""
        return self.benchmark.name if self.benchmark else self.columns.label or "multi-label"

    @property
    def notes(self) -> list[str]:
        """Caveats of every figure: a benchmark's notes, or that patients are unknown."""
        if self.benchmark:
            return list(self.benchmark.notes)
        if self.columns.patient:
            return []
        return [
            "without --patient-column each image counts as a patient of its own: where a patient has several, "
            "intervals are too narrow, and one patient may be in two splits"
        ]

    def described(self) -> dict[str, Any]:
        """Name, split, hashes of lists and notes of a benchmark, for every row of results."""
        return self.benchmark.described() if self.benchmark else {}

    def require_labels(self) -> "OpenTable":
        """The same.

        Raises:
            InputError: No label column was named.
        """
        if not self.columns.label and not self.columns.labels:
            raise InputError("name a label column (--label-column) or several (--label-columns)")
        return self


def open_table(
    options: TableOptions,
    *,
    pool_column: str | None,
    role_column: str | None,
    text_column: str | None,
    named: Mapping[str, str],
) -> OpenTable:
    """`TableOptions.open`, with the attributes that were named."""
    options = replace(options, table=Path(options.table))
    asked = TableColumns(
        image=options.image_column,
        label=options.label_column,
        labels=options.labels,
        patient=options.patient_column,
        split=options.split_column,
        text=text_column,
        role=role_column,
        pool=pool_column,
        attributes=named,
    )
    if not options.table.exists():
        raise InputError(
            f"no such file or folder: {options.table}; --table names a CSV or Parquet file, or a benchmark"
        )
    if not options.table.is_dir():
        return OpenTable(options=options, columns=asked, benchmark=None)
    benchmark = open_benchmark(options.table)
    return OpenTable(options=options, columns=TableColumns.of_benchmark(benchmark, asked), benchmark=benchmark)


def read_table(
    path: str | Path, images: str | Path, columns: TableColumns, where: Sequence[str] = (), *, named_split: bool = False
) -> LabelledTable:
    """Read and check a labelled table.

    Args:
        path: CSV or Parquet file.
        images: Folder that the image column's paths are relative to.
        columns: Which column holds what.
        where: Conditions `column=value1,value2` that rows must meet, all of them.
        named_split: The split is a benchmark's: it says itself whether patients or files are in several rows.

    Raises:
        InputError: Anything that makes the table unusable, in one line.
    """
    path, root = Path(path), Path(images)
    if columns.label and columns.labels:
        raise InputError("give either one label column (single-label) or several label columns (multi-label), not both")
    frame, digest = read_frame(path, columns.by_option(), where)
    total = len(frame)
    if columns.label:
        frame = frame[frame[columns.label] != ""]
    if not len(frame):
        raise InputError(f"{path}: no row has a value in the label column {columns.label!r}")
    if columns.label and not named_split:
        frame = frame.assign(**{columns.label: one_class_each(frame[columns.label], path)})
    classes, targets_NC = _targets(frame, columns.label, columns.labels, path)
    splits_N = _splits(frame, columns.split, path)
    patients_N = frame[columns.patient or columns.image].to_numpy(dtype=str)
    names = tuple(frame[columns.image])
    if not named_split:
        _check_patients(patients_N, splits_N, columns.patient, path)
        _check_once(names, path)
    if columns.patient and not named_split and (taken := respelt(patients_N.tolist())):
        patients_N = np.array([taken.get(patient, patient) for patient in patients_N.tolist()], dtype=str)

    def optional(column: str | None) -> NDArray[np.str_] | None:
        return frame[column].to_numpy(dtype=str) if column else None

    return LabelledTable(
        images=names,
        paths=_image_paths(names, root, path),
        patients_N=patients_N,
        splits_N=splits_N,
        classes=classes,
        targets_NC=targets_NC,
        multi_label=bool(columns.labels),
        texts=tuple(frame[columns.text]) if columns.text else (),
        roles_N=_roles(frame, columns.role, path),
        sha256=digest,
        rows_without_label=total - len(frame),
        units_N=optional(columns.unit),
        pools_N=optional(columns.pool),
        attributes={role: frame[column].to_numpy(dtype=str) for role, column in columns.attributes.items()},
    )


def _targets(
    frame: pd.DataFrame, label_column: str | None, label_columns: Sequence[str], path: Path
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    if label_column:
        names, codes_N = np.unique(frame[label_column].to_numpy(dtype=str), return_inverse=True)
        if len(names) < 2:
            raise InputError(
                f"{path}: column {label_column!r} has one class only, {str(names[0])!r}; nothing to tell apart"
            )
        return tuple(str(name) for name in names), one_hot(codes_N, len(names))
    values = frame[list(label_columns)]
    targets_NC = np.empty(values.shape)
    for c, column in enumerate(values.columns):
        lowered = values[column].str.lower()
        if unknown := sorted(set(lowered) - set(_LABEL_VALUES)):
            where = row_of(lowered, unknown[0])
            raise InputError(f"{path}: {where}: label column {column!r} holds {unknown[0]!r}; use 1, 0 or nothing")
        targets_NC[:, c] = [_LABEL_VALUES[value] for value in lowered]
    return tuple(label_columns), targets_NC


def _splits(frame: pd.DataFrame, split_column: str | None, path: Path) -> NDArray[np.str_]:
    if split_column is None:
        return np.full(len(frame), "", dtype=str)
    values = frame[split_column].str.lower()
    if unknown := sorted(set(values) - set(SPLITS)):
        where = row_of(values, unknown[0])
        known = ", ".join(SPLITS)
        raise InputError(f"{path}: {where}: unknown split {unknown[0]!r} in {split_column!r}; known are {known}")
    return np.array([SPLITS[value] for value in values], dtype=str)


def _roles(frame: pd.DataFrame, role_column: str | None, path: Path) -> NDArray[np.str_]:
    if role_column is None:
        return np.full(len(frame), "", dtype=str)
    roles_N = frame[role_column].str.lower().to_numpy(dtype=str)
    if unknown := sorted(set(roles_N.tolist()) - {"query", "candidate"}):
        raise InputError(f"{path}: unknown role {unknown[0]!r} in {role_column!r}; use query or candidate")
    return roles_N


def _check_patients(
    patients_N: NDArray[np.str_], splits_N: NDArray[np.str_], patient_column: str | None, path: Path
) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for patient, split in zip(map(str, patients_N), splits_N, strict=True):
        if patient_column and not patient:
            raise InputError(f"{path}: a row has no value in the patient column {patient_column!r}; fill it in")
        # Without a patient column a row stands for its image, whose name is compared to the letter.
        known, before = seen.setdefault(canonical_id(patient) if patient_column else patient, (patient, split))
        if before != split:
            spelt = f"{known!r}" if known == patient else f"{known!r}, also spelt {patient!r},"
            raise InputError(f"{path}: patient {spelt} is in splits {before} and {split}; keep one")


def _check_once(names: tuple[str, ...], table: Path) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name, count in pd.Series(names).value_counts().items() if count > 1)
        raise InputError(f"{table}: image {twice!r} stands in several rows; keep one row an image")


def _image_paths(names: tuple[str, ...], root: Path, table: Path) -> tuple[Path, ...]:
    if not root.is_dir():
        raise InputError(f"there is no image folder at {root}; name it with --images")
    if outside := leading_out(names, root):
        raise InputError(f"{table}: image {outside[0]!r} leads out of the image folder {root}; correct the table")
    paths = tuple(root / name for name in names)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        where = "; is --images the folder that the paths start from?" if len(missing) == len(paths) else ""
        count = f"{len(missing)} of {len(paths)} images of {table} are missing"
        close = said_of_close_file(root, missing[0].relative_to(root).as_posix())
        raise InputError(f"{count}, the first that was tried is {missing[0]}{close or where}")
    return paths
