"""Labelled tables: one row per image, from CSV or Parquet.

Shape legend: N rows, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convirt.data.benchmarks.files import leading_out
from convirt.data.benchmarks.fractions import nested_fraction
from convirt.data.splits import SPLITS
from convirt.data.tables import read_frame, row_of
from convirt.errors import InputError
from convirt.evaluation.statistics.metrics import one_hot

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


def read_table(
    path: str | Path,
    images: str | Path,
    *,
    image_column: str = "image",
    label_column: str | None = None,
    label_columns: Sequence[str] = (),
    patient_column: str | None = None,
    split_column: str | None = "split",
    text_column: str | None = None,
    role_column: str | None = None,
    unit_column: str | None = None,
    pool_column: str | None = None,
    attribute_columns: Mapping[str, str] | None = None,
    where: Sequence[str] = (),
    named_split: bool = False,
) -> LabelledTable:
    """Read and check a labelled table.

    Args:
        path: CSV or Parquet file.
        images: Folder that the image column's paths are relative to.
        image_column: Path of the image.
        label_column: Class of the image (single-label); rows where it is empty are left out.
        label_columns: One column a label with 1, 0 or nothing (multi-label); empty labels are ignored.
        patient_column: Patient or case; no patient may stand in two splits.
        split_column: Split of the row, see `SPLITS`; None if the table has no splits.
        text_column: Caption or report of the image.
        role_column: `query` or `candidate`, for retrieval.
        unit_column: Study or patient whose images are scored as one at test.
        pool_column: Study whose images become one row by the mean of their vectors.
        attribute_columns: Column of each role of `LabelledTable.attributes`.
        where: Conditions `column=value1,value2` that rows must meet, all of them.
        named_split: The split is a benchmark's: it says itself whether patients or files stand in several rows.

    Raises:
        InputError: Anything that makes the table unusable, in one line.
    """
    path, root = Path(path), Path(images)
    if label_column and label_columns:
        raise InputError("give either one label column (single-label) or several label columns (multi-label), not both")
    named = [image_column, label_column, *label_columns, patient_column, split_column, text_column, role_column]
    named += [unit_column, pool_column, *(attribute_columns or {}).values()]
    frame, digest = read_frame(path, [name for name in named if name], where)
    total = len(frame)
    if label_column:
        frame = frame[frame[label_column] != ""]
    if not len(frame):
        raise InputError(f"{path}: no row has a value in the label column {label_column!r}")
    classes, targets_NC = _targets(frame, label_column, label_columns, path)
    splits_N = _splits(frame, split_column, path)
    patients_N = frame[patient_column or image_column].to_numpy(dtype=str)
    names = tuple(frame[image_column])
    if not named_split:
        _check_patients(patients_N, splits_N, patient_column, path)
        _check_once(names, path)
    return LabelledTable(
        images=names,
        paths=_image_paths(names, root, path),
        patients_N=patients_N,
        splits_N=splits_N,
        classes=classes,
        targets_NC=targets_NC,
        multi_label=bool(label_columns),
        texts=tuple(frame[text_column]) if text_column else (),
        roles_N=_roles(frame, role_column, path),
        sha256=digest,
        rows_without_label=total - len(frame),
        units_N=frame[unit_column].to_numpy(dtype=str) if unit_column else None,
        pools_N=frame[pool_column].to_numpy(dtype=str) if pool_column else None,
        attributes={role: frame[column].to_numpy(dtype=str) for role, column in (attribute_columns or {}).items()},
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
    seen: dict[str, str] = {}
    for patient, split in zip(patients_N, splits_N, strict=True):
        if patient_column and not patient:
            raise InputError(f"{path}: a row has no value in the patient column {patient_column!r}; fill it in")
        if seen.setdefault(patient, split) != split:
            raise InputError(f"{path}: patient {str(patient)!r} is in splits {seen[patient]} and {split}; keep one")


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
        raise InputError(f"{len(missing)} of {len(paths)} images of {table} are missing, the first is {missing[0]}")
    return paths
