"""Thresholds chosen on validation rows, and what they achieve on test rows.

Shape legend: N rows, T thresholds, R resamples (columns of weights).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.statistics.metrics import Array


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a threshold is chosen."""

    kind: str
    """`youden` (the largest sensitivity + specificity), `sensitivity` or `specificity` (at least the target)."""
    target: float | None = None
    """The least sensitivity or specificity on validation; of the thresholds that reach it, the best other one."""

    def __str__(self) -> str:
        return self.kind if self.target is None else f"{self.kind}={self.target:g}"

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Read `youden`, `sensitivity=0.9` or `specificity=0.9`.

        Raises:
            InputError: It is none of them.
        """
        kind, equals, value = text.strip().partition("=")
        if kind == "youden" and not equals:
            return cls(kind=kind)
        try:
            target = float(value)
        except ValueError:
            target = float("nan")
        if kind not in ("sensitivity", "specificity") or not 0 < target <= 1:
            raise InputError(
                f"unknown operating point {text!r}; use youden, sensitivity=0.9 or specificity=0.9 (in (0, 1])"
            )
        return cls(kind=kind, target=target)


def choose_threshold(positive_N: NDArray, scores_N: NDArray, rule: Rule) -> float:
    """The threshold t of `score >= t`, on validation rows.

    Every observed score is tried. Of equally good thresholds the highest is taken; NaN labels are ignored.

    Raises:
        InputError: There are no positives or no negatives.
    """
    positive_N = np.asarray(positive_N, dtype=np.float64)
    positives, negatives = np.sort(scores_N[positive_N == 1]), np.sort(scores_N[positive_N == 0])
    if not len(positives) or not len(negatives):
        raise InputError("an operating point needs validation rows with and without the finding; add such rows")
    threshold_T = np.unique(np.concatenate([positives, negatives]))
    threshold_T = np.append(threshold_T, np.nextafter(threshold_T[-1], np.inf))  # nothing is called positive
    sensitivity_T = 1 - np.searchsorted(positives, threshold_T, side="left") / len(positives)
    specificity_T = np.searchsorted(negatives, threshold_T, side="left") / len(negatives)
    if rule.target is None:
        worth_T = sensitivity_T + specificity_T
    else:
        held, other = sensitivity_T, specificity_T
        if rule.kind == "specificity":
            held, other = other, held
        worth_T = np.where(held >= rule.target - 1e-12, other, -1.0)
    best = np.flatnonzero(worth_T >= worth_T.max() - 1e-12)[-1]
    return float(threshold_T[best])


def rates(positive_N: NDArray, scores_N: NDArray, threshold: float, weights_NR: NDArray) -> tuple[Array, Array]:
    """Sensitivity and specificity at a threshold for R columns of weights, each float64 [R]; NaN where undefined."""
    called_N = np.asarray(scores_N) >= threshold
    return _share(positive_N == 1, called_N, weights_NR), _share(positive_N == 0, ~called_N, weights_NR)


def _share(of_N: NDArray, right_N: NDArray, weights_NR: NDArray) -> Array:
    weights_NR = weights_NR[of_N].astype(np.float64, copy=False)
    total_R = weights_NR.sum(axis=0)
    hits_R = right_N[of_N].astype(np.float64) @ weights_NR
    return np.divide(hits_R, total_R, out=np.full(len(total_R), np.nan), where=total_R > 0)
