"""What occurs more than once: groups of items with the same hash, and the splits and patients that they join.

Shapes: N items, G groups of two or more, P pairs.
"""

from dataclasses import dataclass

import numpy as np

from convirt.errors import InputError

MOST_SPLITS = 60


@dataclass(frozen=True, kw_only=True)
class Items:
    """Items by row: what their splits and patients are."""

    split_N: np.ndarray
    """Number of the split."""
    patient_N: np.ndarray
    """Hash of the patient; 0 if there is none."""

    def __post_init__(self) -> None:
        if len(self.split_N) and int(self.split_N.max()) >= MOST_SPLITS:
            raise InputError(f"more than {MOST_SPLITS} splits; name another column with --split-column")

    def take(self, places: np.ndarray) -> "Items":
        """The items at these places."""
        return Items(split_N=self.split_N[places], patient_N=self.patient_N[places])


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Groups of equal items."""

    members: tuple[np.ndarray, ...]
    """Places of the items of each group, those of groups across splits first."""
    across_splits: int
    """Groups whose items are in different splits."""
    across_patients: int
    """Groups whose items belong to different patients."""

    @property
    def groups(self) -> int:
        return len(self.members)

    @property
    def surplus(self) -> int:
        """Items that are not the first of their group."""
        return sum(len(places) - 1 for places in self.members)


def find_repeats(keys_N: np.ndarray, items: Items) -> Repeats:
    """Group items with the same key; a key of 0 stands for none."""
    places = np.flatnonzero(keys_N)
    _, inverse, counts = np.unique(keys_N[places], return_inverse=True, return_counts=True)
    many = counts[inverse] > 1
    places, inverse = places[many], inverse[many]
    order = np.argsort(inverse, kind="stable")
    groups = np.split(places[order], np.cumsum(counts[counts > 1])[:-1]) if len(places) else []
    joined = [joins(items.take(group)) for group in groups]
    ranked = sorted(range(len(groups)), key=lambda group: (-joined[group][0], int(groups[group][0])))
    return Repeats(
        members=tuple(groups[group] for group in ranked),
        across_splits=sum(splits for splits, _ in joined),
        across_patients=sum(patients for _, patients in joined),
    )


def joins(items: Items) -> tuple[bool, bool]:
    """Whether items are of different splits, and of different patients."""
    known = items.patient_N[items.patient_N != 0]
    return bool((items.split_N != items.split_N[0]).any()), bool(len(known) and (known != known[0]).any())


def split_masks(keys_N: np.ndarray, split_N: np.ndarray) -> np.ndarray:
    """Return for each item the splits in which its key occurs, as bits, uint64 [N]."""
    _, inverse = np.unique(keys_N, return_inverse=True)
    masks = np.zeros(int(inverse.max()) + 1 if len(inverse) else 0, np.uint64)
    np.bitwise_or.at(masks, inverse, np.uint64(1) << split_N.astype(np.uint64))
    return masks[inverse]


def patients_across(items: Items) -> tuple[int, list[np.ndarray]]:
    """Return how many patients have rows in different splits, and the rows of the first few."""
    keys = np.unique(np.stack([items.patient_N, items.split_N.astype(np.uint64)]), axis=1)
    names, splits = np.unique(keys[0][keys[0] != 0], return_counts=True)
    shared = names[splits > 1]
    return len(shared), [np.flatnonzero(items.patient_N == name) for name in shared[:10]]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Items of one collection that have an equal one in another."""

    pairs_P2: np.ndarray
    """Place in the first and in the second, one pair for each item of the second."""
    first: int
    """Items of the first that are in the second."""
    second: int
    """Items of the second that are in the first."""


def find_shared(first_N: np.ndarray, second_N: np.ndarray) -> Shared:
    """Find the keys that two collections share; a key of 0 stands for none."""
    values, places = np.unique(first_N, return_index=True)
    at = np.searchsorted(values, second_N).clip(0, max(len(values) - 1, 0))
    hit = (values[at] == second_N) & (second_N != 0) if len(values) else np.zeros(len(second_N), bool)
    return Shared(
        pairs_P2=np.stack([places[at[hit]], np.flatnonzero(hit)], axis=1) if hit.any() else np.empty((0, 2), np.int64),
        first=int(np.isin(first_N[first_N != 0], second_N[hit]).sum()),
        second=int(hit.sum()),
    )
