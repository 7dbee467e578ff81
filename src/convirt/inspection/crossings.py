"""From which splits of one collection, into which splits of another, shared items lead; and which of that is a leak.

The first collection is the one that a network is pretrained on, the second the one that it is tested on. A leak leads
from what has more part in training into what has less: from train into val or test, from val into test. What lies in
train of both, or in val of both, or only in the first one's test, has told the network nothing about what it is tested
on. A split of another name, or none, may have been anything: taken for train in the first, and for test in the second.

Shapes: N items of the second collection; a mask has a bit for each split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convirt.inspection.repeats import Shared

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
