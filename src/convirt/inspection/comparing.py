"""What two collections share, as plain values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from convirt.inspection.findings import LISTED
from convirt.inspection.leakage import Between
from convirt.inspection.repeats import Shared
from convirt.inspection.survey import Survey

MEASURES = {
    "patients": "patients with the same id",
    "files": "images with the same source file",
    "pixels": "images with the same pixels",
    "near": "near-duplicate images, pixels not the same",
    "texts": "reports with the same words",
    "near_texts": "near-duplicate reports",
}
"""What is compared; only the first four make a leak."""


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
    for name, counts in between.counts.items():
        shared[name]["by_split"] = counts
    return {
        "patients_compared": between.patients is not None,
        "patients_note": between.comparison,
        "near_checked": between.near.checked,
        "look_alikes": len(between.near.doubtful_P2),
        "near_unchecked": between.near.unchecked,
        "shared": {name: {"what": what, **shared[name]} for name, what in MEASURES.items() if name in shared},
    }


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
