"""Several images as one: pooled into one vector each study, or scored as one at test.

The paper trains on a group of images of a study (ConVIRT, section 2.1) but evaluates single images; pooling at
inference is an option of ours. MURA is scored by patient (appendix B): the mean of the predictions of its images.

Shape legend: S seeds, N images, U units (studies, patients), D size of a vector, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.inputs.table import LabelledTable


def _grouped(names_N: NDArray) -> tuple[NDArray, NDArray[np.int64], NDArray[np.int64]]:
    """Names of groups in the order of their first row, that row [U], and the group of each row [N]."""
    names, first_U, index_N = np.unique(names_N, return_index=True, return_inverse=True)
    order = np.argsort(first_U)
    return names[order], first_U[order], np.argsort(order)[index_N]


def _any_positive(targets_NC: NDArray, index_N: NDArray, units: int) -> NDArray[np.float64]:
    """Targets [U, C]: 1 where any row of the unit is positive, else 0 where any is negative, else NaN."""
    targets_UC = np.full((units, targets_NC.shape[1]), np.nan)
    np.fmax.at(targets_UC, index_N, targets_NC)
    return targets_UC


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A table in which each study is one row, in the order of its first image; without a pool column, as it was."""

    table: LabelledTable
    index_N: NDArray[np.int64]
    """Row of the pooled table that each image goes into."""
    column: str | None
    """The column that says what is one study."""

    def mean(self, vectors_ND: NDArray[np.float32], *, normalise: bool) -> NDArray[np.float32]:
        """The mean vector of each study, float32 [U, D].

        Args:
            vectors_ND: Vectors of the images.
            normalise: Scale the means to length 1, where the vectors of the images have that length.
        """
        if self.column is None:
            return vectors_ND
        sums_UD = np.zeros((len(self.table), vectors_ND.shape[1]))
        np.add.at(sums_UD, self.index_N, vectors_ND)
        means_UD = sums_UD / np.bincount(self.index_N)[:, None]
        if normalise:
            means_UD /= np.maximum(np.linalg.norm(means_UD, axis=1, keepdims=True), 1e-12)
        return means_UD.astype(np.float32)

    def described(self) -> dict[str, Any]:
        """How images were pooled, for every row of results."""
        return {} if self.column is None else {"pooled_by": self.column, "pooled_images": len(self.index_N)}

    def mean_of_each(
        self, vectors: Mapping[str, NDArray[np.float32]], *, normalise: bool
    ) -> dict[str, NDArray[np.float32]]:
        """`mean` for every method."""
        return {name: self.mean(vectors_ND, normalise=normalise) for name, vectors_ND in vectors.items()}


def pool_views(table: LabelledTable, column: str | None) -> Pooled:
    """Make each study one row of a table.

    A label of a study is positive where any of its images is, else negative where any is, else missing. Saved label
    fractions are of images, so they are drawn anew from the studies by the same rule.

    Args:
        table: The images; `pools_N` holds the values of the column.
        column: Name of the column; None leaves the table as it is.

    Raises:
        InputError: Images of one study differ in patient, split, role, text or class, or an image has no study.
    """
    if column is None:
        return Pooled(table=table, index_N=np.arange(len(table)), column=None)
    assert table.pools_N is not None, "read with the column"
    if (table.pools_N == "").any():
        raise InputError(f"a row has no value in the column {column!r} to pool by; fill it in")
    names, first_U, index_N = _grouped(table.pools_N)
    common: dict[str, NDArray | None] = {
        "patients": table.patients_N,
        "splits": table.splits_N,
        "roles": table.roles_N,
        "texts": np.array(table.texts) if table.texts else None,
        "units": table.units_N,
    }
    for what, values_N in common.items():
        if values_N is not None and (mixed := values_N != values_N[first_U][index_N]).any():
            raise InputError(
                f"{column} {str(names[index_N[mixed][0]])!r} has images of different {what}; pool within one"
            )
    targets_UC = _any_positive(table.targets_NC, index_N, len(names))
    if not table.multi_label and (several := targets_UC.sum(axis=1) > 1).any():
        raise InputError(f"{column} {str(names[several][0])!r} has images of several classes; which one is it?")
    pooled = replace(table.take(first_U), images=tuple(map(str, names)), targets_NC=targets_UC)
    return Pooled(table=pooled, index_N=index_N, column=column)


@dataclass(frozen=True, kw_only=True)
class Units:
    """What is scored of the rows of a split: images, or the studies or patients that they belong to."""

    index_N: NDArray[np.int64]
    """Unit of each row of the split; units are in the order of their first row."""
    targets_UC: NDArray[np.float64]
    """1 where any of its images is positive, else 0 where any is negative, else NaN."""
    patients_U: NDArray[np.str_]
    """Patient of each unit: what the bootstrap draws."""
    single: bool
    """Whether every row is its own unit."""

    @classmethod
    def of(cls, table: LabelledTable, split: str = "test") -> "Units":
        """The units of the rows of a split.

        Raises:
            InputError: A unit of two patients, or images of different classes in a unit of a single-label task.
        """
        rows = table.rows(split)
        units_N = None if table.units_N is None else table.units_N[rows]
        units = cls.group(table.targets_NC[rows], table.patients_N[rows], units_N)
        if not table.multi_label and (several := units.targets_UC.sum(axis=1) > 1).any():
            assert units_N is not None, "a row alone has one class"
            name = units_N[units.index_N == np.flatnonzero(several)[0]][0]
            raise InputError(f"unit {str(name)!r} has images of several classes; which one is it?")
        return units

    @classmethod
    def group(cls, targets_NC: NDArray[np.float64], patients_N: NDArray, units_N: NDArray | None) -> "Units":
        """The units of rows whose units have these names; without names each row is one.

        Raises:
            InputError: A unit of two patients.
        """
        if units_N is None:
            return cls(index_N=np.arange(len(targets_NC)), targets_UC=targets_NC, patients_U=patients_N, single=True)
        names, first_U, index_N = _grouped(units_N)
        if (mixed := patients_N != patients_N[first_U][index_N]).any():
            raise InputError(
                f"unit {str(names[index_N[mixed][0]])!r} has images of two patients; a unit belongs to one"
            )
        targets_UC = _any_positive(targets_NC, index_N, len(names))
        return cls(index_N=index_N, targets_UC=targets_UC, patients_U=patients_N[first_U], single=False)

    def mean(self, scores_SNC: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean of the predicted probabilities of each unit's images, [S, U, C]."""
        if self.single:
            return scores_SNC
        sums_USC = np.zeros((len(self.targets_UC), len(scores_SNC), scores_SNC.shape[2]))
        np.add.at(sums_USC, self.index_N, scores_SNC.transpose(1, 0, 2))
        means_USC = sums_USC / np.bincount(self.index_N)[:, None, None]
        return means_USC.transpose(1, 0, 2).astype(np.float32)
