"""What two collections share, as plain values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from convirt.inspection.crossings import is_leak
from convirt.inspection.findings import LISTED, order_splits
from convirt.inspection.leakage import Between
from convirt.inspection.repeats import Shared
from convirt.inspection.survey import Survey

MEASURES = {
    "patients": "patients",
    "files": "images with the same source file",
    "pixels": "images with the same pixels",
    "near": "near-duplicate images, pixels not the same",
    "texts": "reports with the same words",
    "near_texts": "near-duplicate reports",
}
"""What is compared; only the first four make a leak."""
_ALL = 16  # combinations of splits that are all shown, empty ones too


def describe_between(between: Between, first: Survey, second: Survey) -> dict[str, Any]:
    """Counts and the first matches of every measure.

    Args:
        between: What was found.
        first: Survey of the collection at hand.
        second: Survey of the other one.
    """
    rows, others = first.column("row_I"), second.column("row_I")
    shared: dict[str, Any] = {
        "files": _describe(between.files, rows, others),
        "pixels": _describe(between.pixels, rows, others),
        "near": _describe(between.near_shared, rows, others, between.near.likeness_P),
        "texts": _describe(between.texts, None, None) | {"telling": between.telling},
    }
    if between.patients is not None:
        shared["patients"] = _describe(between.patients, None, None)
    texts = between.near_texts
    firsts = [survey.column("first_T") for survey in (first, second)]
    shared["near_texts"] = _describe(
        Shared(
            pairs_P2=texts.pairs_P2,
            first=len(np.unique(texts.pairs_P2[:, 0])),
            second=len(np.unique(texts.pairs_P2[:, 1])),
        ),
        firsts[0],
        firsts[1],
        texts.alike_P,
    )
    for name, found in between.crossings.items():
        shared[name]["by_split"] = found.by_split(*between.splits)
    return {
        "patients_compared": between.patients is not None,
        "near_checked": between.near.checked,
        "look_alikes": len(between.near.doubtful_P2),
        "near_unchecked": between.near.unchecked,
        "crossings": _by_split(between),
        "shared": {name: {"what": what, **shared[name]} for name, what in MEASURES.items() if name in shared},
    }


def _by_split(between: Between) -> list[dict[str, Any]]:
    """How much of each kind is in which split of the one and of the other; all splits, unless there are many."""
    firsts, seconds = between.splits
    kinds = [kind for kind in MEASURES if kind in between.crossings]
    rows = []
    for first in order_splits(firsts):
        for second in order_splits(seconds):
            places = firsts.index(first), seconds.index(second)
            counts = {kind: between.crossings[kind].count(*places) for kind in kinds}
            if any(counts.values()) or len(firsts) * len(seconds) <= _ALL:
                rows.append({"first": first, "second": second, "leak": is_leak(first, second), **counts})
    return rows


def _describe(
    shared: Shared,
    rows: np.ndarray | None,
    others: np.ndarray | None,
    scores: Sequence[float] | np.ndarray | None = None,
) -> dict[str, Any]:
    pairs = shared.pairs_P2[:LISTED]
    listed = [
        {
            "first_row": int(a if rows is None else rows[a]),
            "second_row": int(b if others is None else others[b]),
            **({} if scores is None else {"likeness": round(float(scores[number]), 3)}),
        }
        for number, (a, b) in enumerate(pairs)
    ]
    return {"first": shared.first, "second": shared.second, "listed": listed}
