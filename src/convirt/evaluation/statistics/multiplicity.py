"""Correction of p-values for the number of comparisons."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = dict[str, Any]

FAMILY = ("task", "setting", "space", "head")
"""Comparisons that agree in these form one family: all pairs of methods, label fractions, metrics and lengths of lists
of one printed table."""


def holm(p_values_N: Sequence[float] | NDArray) -> NDArray[np.float64]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 1979): controls the family-wise error rate.

    The i-th smallest of n is multiplied by n - i + 1, and none may fall below a smaller one's. NaN stays NaN and does
    not count.

    Returns:
        Adjusted p-values in the order given, at most 1.
    """
    values_N = np.asarray(p_values_N, dtype=np.float64)
    adjusted_N = np.full(len(values_N), np.nan)
    defined = np.flatnonzero(np.isfinite(values_N))
    order = defined[np.argsort(values_N[defined], kind="stable")]
    raised = values_N[order] * (len(order) - np.arange(len(order)))
    adjusted_N[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return adjusted_N


def correct_families(comparisons: Sequence[Row]) -> list[Row]:
    """Comparisons with `p_holm` and `family_size`, corrected within each family (see `FAMILY`).

    Comparisons with the metadata baseline are a family of their own: they ask what a score rests on, not which method
    is better.
    """
    families: dict[tuple[Any, ...], list[int]] = {}
    for number, row in enumerate(comparisons):
        key = (*(row.get(name) for name in FAMILY), row.get("b") == "metadata")
        families.setdefault(key, []).append(number)
    corrected = [dict(row) for row in comparisons]
    for numbers in families.values():
        adjusted_N = holm([comparisons[number].get("p_value", np.nan) for number in numbers])
        for number, value in zip(numbers, adjusted_N, strict=True):
            corrected[number] |= {"p_holm": float(value), "family_size": len(numbers)}
    return corrected


def describe_family(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """What a table's caption says about the correction, also where it leaves nothing to find."""
    sizes = sorted({row["family_size"] for row in comparisons})
    plural = "" if sizes == [1] else "s"
    said = f"p by the same bootstrap, Holm-corrected over {' or '.join(map(str, sizes))} comparison{plural}"
    least = max((row["family_size"] * row.get("p_least", 0.0) for row in comparisons), default=0.0)
    if not least > 0.05:
        return said
    # 2 / (R + 1) times the family below 0.05, with as much again for figures that rest on few resamples.
    enough = 1000 * math.ceil(2 * 40 * max(sizes) / 1000)
    return f"{said}, of which so few resamples can show none below {min(least, 1.0):.2g} (--resamples {enough} could)"
