"""What is scored at test: images, or the studies or patients that they belong to (ConVIRT, appendix B, MURA).

Shape legend: S seeds, N rows of a split, U units, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.inputs.table import LabelledTable


@dataclass(frozen=True, kw_only=True)
class Units:
    """The units of the rows of a split, in the order of their first row; without a unit column each row is one."""

    index_N: NDArray[np.int64]
    """Unit of each row of the split."""
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
        names, first_U, index_N = np.unique(units_N, return_index=True, return_inverse=True)
        order = np.argsort(first_U)
        index_N, first_U = np.argsort(order)[index_N], first_U[order]
        if (mixed := patients_N != patients_N[first_U][index_N]).any():
            name = names[order][index_N[mixed][0]]
            raise InputError(f"unit {str(name)!r} has images of two patients; a unit belongs to one")
        targets_UC = np.full((len(names), targets_NC.shape[1]), np.nan)
        np.fmax.at(targets_UC, index_N, targets_NC)
        return cls(index_N=index_N, targets_UC=targets_UC, patients_U=patients_N[first_U], single=False)

    def mean(self, scores_SNC: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean of the predicted probabilities of each unit's images, [S, U, C]."""
        if self.single:
            return scores_SNC
        sums_USC = np.zeros((len(self.targets_UC), len(scores_SNC), scores_SNC.shape[2]))
        np.add.at(sums_USC, self.index_N, scores_SNC.transpose(1, 0, 2))
        means_USC = sums_USC / np.bincount(self.index_N)[:, None, None]
        return means_USC.transpose(1, 0, 2).astype(np.float32)
