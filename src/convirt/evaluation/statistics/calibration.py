"""Whether predicted probabilities mean what they say (Guo et al., On Calibration of Modern Neural Networks, 2017).

Shape legend: N rows, C classes, M bins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.statistics.metrics import Array

BINS = 15  # Guo et al., table 1; gpleiss/temperature_scaling


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """What a reliability diagram shows: equal-width bins of confidence ((m - 1) / M, m / M]."""

    count_M: NDArray[np.int64]
    confidence_M: Array
    """Mean confidence of the rows in each bin; NaN in an empty one."""
    accuracy_M: Array
    """Share of them that came true; NaN in an empty one."""

    @property
    def ece(self) -> float:
        """Expected calibration error (equation 3): the mean gap, weighted by the rows in each bin."""
        filled = self.count_M > 0
        gap = np.abs(self.accuracy_M[filled] - self.confidence_M[filled])
        return float((self.count_M[filled] * gap).sum() / self.count_M.sum()) if filled.any() else float("nan")


def reliability(confidence_N: NDArray, outcome_N: NDArray, bins: int = BINS) -> Reliability:
    """Bin rows by confidence.

    Args:
        confidence_N: Probabilities in [0, 1].
        outcome_N: 1 where it came true, 0 where not, NaN for rows without a label, which are ignored.
        bins: Number M of bins.

    Raises:
        InputError: A probability outside [0, 1].
    """
    outcome_N = np.asarray(outcome_N, dtype=np.float64)
    given = np.isfinite(outcome_N)
    confidence, outcome = np.asarray(confidence_N, dtype=np.float64)[given], outcome_N[given]
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise InputError("calibration needs probabilities in [0, 1]; a score lies outside")
    bin_N = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # 0 itself goes to the first bin
    count_M = np.bincount(bin_N, minlength=bins)
    filled = np.maximum(count_M, 1)
    return Reliability(
        count_M=count_M,
        confidence_M=np.where(count_M, np.bincount(bin_N, confidence, bins) / filled, np.nan),
        accuracy_M=np.where(count_M, np.bincount(bin_N, outcome, bins) / filled, np.nan),
    )


def top_label(targets_NC: NDArray, scores_NC: NDArray) -> tuple[Array, Array]:
    """Confidence and outcome of the most probable class of each row: what Guo et al. bin for single-label tasks."""
    chosen_N = scores_NC.argmax(axis=1)
    rows = np.arange(len(scores_NC))
    return scores_NC[rows, chosen_N].astype(np.float64), (targets_NC[rows, chosen_N] == 1).astype(np.float64)


def calibration_inputs(targets_NC: NDArray, scores_NC: NDArray, multi_label: bool) -> tuple[Array, Array]:
    """Confidence and outcome of a task: of the top label, or of all labels of a multi-label task together."""
    if not multi_label:
        return top_label(targets_NC, scores_NC)
    return scores_NC.astype(np.float64).ravel(), targets_NC.ravel()


def expected_calibration_error(targets_NC: NDArray, scores_NC: NDArray, multi_label: bool, bins: int = BINS) -> float:
    """ECE of a task: of the top label (Guo et al.), or the mean over labels of each label's own (ours)."""
    if not multi_label:
        return reliability(*top_label(targets_NC, scores_NC), bins).ece
    return float(np.nanmean(label_calibration_errors(targets_NC, scores_NC, bins)))


def label_calibration_errors(targets_NC: NDArray, scores_NC: NDArray, bins: int = BINS) -> list[float]:
    """ECE of each label's own probability, as a binary event; NaN for a label that no row has."""
    return [reliability(scores_NC[:, c], targets_NC[:, c], bins).ece for c in range(scores_NC.shape[1])]
