"""What occurs more than once: groups of items with the same hash, and the splits and patients that they join.

Shapes: N items, G groups of two or more, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


RANKS = {"train": 0, "val": 1, "test": 2}
"""The less part in training, the higher."""


def is_leak(first: str, second: str) -> bool:
    """Whether an item of this split of the first collection may not be in that split of the second."""
    return RANKS.get(first, 0) < RANKS.get(second, 2)


def is_judged(firsts: Sequence[str], seconds: Sequence[str]) -> bool:
    """Whether collections with these splits can leak from the first to the second at all."""
    return any(is_leak(first, second) for first in firsts for second in seconds)


@dataclass(frozen=True, kw_only=True)
class Crossings:
    """Shared items by the splits that they lie in."""

    first_N: np.ndarray
    """Splits of the first collection that an item of the second is in, as bits."""
    second_N: np.ndarray
    """Splits of the second that it is in."""

    def count(self, first: int, second: int) -> int:
        """Items in this split of the first and in that one of the second."""
        return int((_has(self.first_N, first) & _has(self.second_N, second)).sum())

    def leaks(self, firsts: Sequence[str], seconds: Sequence[str]) -> int:
        """Items, each once, that lead from a split into one where they may not be."""
        leak_N = np.zeros(len(self.first_N), bool)
        for a, first in enumerate(firsts):
            for b, second in enumerate(seconds):
                if is_leak(first, second):
                    leak_N |= _has(self.first_N, a) & _has(self.second_N, b)
        return int(leak_N.sum())

    def by_split(self, firsts: Sequence[str], seconds: Sequence[str]) -> list[dict[str, Any]]:
        """Items by pair of splits, as far as there are any."""
        counts = [
            {"first": first, "second": second, "count": self.count(a, b), "leak": is_leak(first, second)}
            for a, first in enumerate(firsts)
            for b, second in enumerate(seconds)
        ]
        return [cell for cell in counts if cell["count"]]


def _has(masks_N: np.ndarray, split: int) -> np.ndarray:
    return (masks_N >> np.uint64(split)) & np.uint64(1) != 0


def cross(shared: Shared, masks_first: np.ndarray, masks_second: np.ndarray) -> Crossings:
    """Find the splits of shared items.

    Args:
        shared: Pairs of places of equal (or alike) items.
        masks_first: Splits in which each item of the first collection occurs, as bits.
        masks_second: The same of the second.
    """
    first_P, second_P = shared.pairs_P2.T
    places, inverse = np.unique(second_P, return_inverse=True)
    masks_N = np.zeros(len(places), np.uint64)
    np.bitwise_or.at(masks_N, inverse, masks_first[first_P])
    return Crossings(first_N=masks_N, second_N=masks_second[places])
