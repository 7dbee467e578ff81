"""Several views of a study as one: the mean of the vectors of the images that share a value of a column.

The paper trains on a group of images of a study (ConVIRT, section 2.1) but evaluates single images; pooling at
inference is an option of ours.

Shape legend: N images, U pooled rows (studies), D size of a vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.inputs.table import LabelledTable


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
        """What every row of results says about it."""
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
    names, first_U, index_N = np.unique(table.pools_N, return_index=True, return_inverse=True)
    order = np.argsort(first_U)
    index_N, first_U, names = np.argsort(order)[index_N], first_U[order], names[order]
    for what, values_N in _agreeing(table).items():
        if (mixed := values_N != values_N[first_U][index_N]).any():
            raise InputError(
                f"{column} {str(names[index_N[mixed][0]])!r} has images of different {what}; pool within one"
            )
    targets_UC = np.full((len(names), table.targets_NC.shape[1]), np.nan)
    np.fmax.at(targets_UC, index_N, table.targets_NC)
    if not table.multi_label and (several := targets_UC.sum(axis=1) > 1).any():
        raise InputError(f"{column} {str(names[several][0])!r} has images of several classes; which one is it?")
    pooled = replace(table.take(first_U), images=tuple(map(str, names)), targets_NC=targets_UC)
    return Pooled(table=pooled, index_N=index_N, column=column)


def _agreeing(table: LabelledTable) -> dict[str, NDArray]:
    """What the images of one study must have in common."""
    values: dict[str, NDArray] = {"patients": table.patients_N, "splits": table.splits_N, "roles": table.roles_N}
    if table.texts:
        values["texts"] = np.array(table.texts)
    if table.units_N is not None:
        values["units"] = table.units_N
    return values
