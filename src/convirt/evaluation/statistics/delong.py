"""Variance of an AUC and test between two AUCs of the same rows (DeLong, DeLong and Clarke-Pearson, Biometrics 1988).

Rows must be independent, so there may be one row a patient only, and one model against one other: seeds of training are
no part of it. The bootstrap over patients and seeds is the default; this test is added where it applies.

Shape legend: N rows, P positives, M negatives, K models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from convirt.errors import InputError
from convirt.evaluation.statistics.metrics import Array


@dataclass(frozen=True, kw_only=True)
class DeLong:
    """The test of one AUC against another."""

    difference: float
    """First minus second."""
    standard_error: float
    p_value: float
    """Two-sided, by the normal distribution."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal interval of the difference."""
        reach = norm.ppf((1 + level) / 2) * self.standard_error
        return self.difference - reach, self.difference + reach


def delong_covariance(positive_N: NDArray, scores_KN: NDArray) -> tuple[Array, Array]:
    """AUCs of K models on the same rows, and their covariance.

    A positive's placement is the share of negatives below it (ties one half), a negative's the share of positives
    above it; the covariance is that of the placements of positives over P plus that of negatives over M (equations 4
    to 6). Placements come from mid-ranks, so that no P x M matrix is made (Sun and Xu, 2014).

    Args:
        positive_N: 1 for positives, 0 for negatives, NaN for rows without a label, which are ignored.
        scores_KN: Any real scores; higher means more positive.

    Returns:
        float64 [K] and [K, K].

    Raises:
        InputError: Fewer than two positives or negatives, or a score that is not finite.
    """
    positive_N, scores_KN = np.asarray(positive_N, dtype=np.float64), np.asarray(scores_KN, dtype=np.float64)
    above_KP, below_KM = scores_KN[:, positive_N == 1], scores_KN[:, positive_N == 0]
    positives, negatives = above_KP.shape[1], below_KM.shape[1]
    if positives < 2 or negatives < 2:
        raise InputError(f"DeLong's variance needs 2 positives and 2 negatives, got {positives} and {negatives}")
    if not np.isfinite(scores_KN).all():
        raise InputError("DeLong's variance needs finite scores; one is not a number")
    together_KN = rankdata(np.concatenate([above_KP, below_KM], axis=1), axis=1)
    positive_placement_KP = (together_KN[:, :positives] - rankdata(above_KP, axis=1)) / negatives
    negative_placement_KM = 1 - (together_KN[:, positives:] - rankdata(below_KM, axis=1)) / positives
    covariance_KK = np.atleast_2d(np.cov(positive_placement_KP)) / positives
    covariance_KK = covariance_KK + np.atleast_2d(np.cov(negative_placement_KM)) / negatives
    return positive_placement_KP.mean(axis=1), covariance_KK


def delong_test(positive_N: NDArray, scores_a_N: NDArray, scores_b_N: NDArray) -> DeLong:
    """Test whether two models have the same AUC on the same independent rows.

    Equal rankings have no variance of the difference and a p-value of 1.

    Raises:
        InputError: As `delong_covariance`.
    """
    auc_K, covariance_KK = delong_covariance(positive_N, np.stack([scores_a_N, scores_b_N]))
    difference = float(auc_K[0] - auc_K[1])
    variance = float(covariance_KK[0, 0] + covariance_KK[1, 1] - 2 * covariance_KK[0, 1])
    error = max(variance, 0.0) ** 0.5
    if error < 1e-12:
        return DeLong(difference=difference, standard_error=0.0, p_value=1.0 if abs(difference) < 1e-12 else 0.0)
    return DeLong(difference=difference, standard_error=error, p_value=float(2 * norm.sf(abs(difference) / error)))


def independent_rows(patients: Sequence[str] | NDArray) -> bool:
    """Whether each row is a patient of its own, as DeLong's variance assumes."""
    return len(set(np.asarray(patients, dtype=str).tolist())) == len(patients)
