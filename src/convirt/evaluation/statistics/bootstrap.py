"""Bootstrap over patients and seeds: intervals, paired comparisons of two methods, and Holm's correction.

Images of one patient are not independent, and neither are the scores that two methods give to the same images. So a
resample draws whole patients with replacement, and with them the seeds of training (a hierarchical bootstrap); both
methods of a comparison are scored on the same resample.

Shape legend: N rows (images or queries), P patients, R resamples, S seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError

Array = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """One plan of resamples, shared by every method that is scored on the same rows."""

    weights_NR: NDArray[np.float32]
    """How often each row counts in each resample."""
    seeds_RS: NDArray[np.int64]
    """The seeds drawn, as positions 0..S-1."""

    @classmethod
    def draw(cls, patients_N: Sequence[str] | NDArray, *, seeds: int, resamples: int, seed: int = 0) -> "Resampling":
        """Draw whole patients and seeds with replacement.

        Args:
            patients_N: Patient (case, query) of each row.
            seeds: Number of seeds S of the scores to resample; 1 when there is no such spread.
            resamples: Number of resamples R.
            seed: The plan is a function of this number and of the order of rows alone.

        Raises:
            InputError: Fewer than two patients, or no resample.
        """
        patients, index_N = np.unique(np.asarray(patients_N, dtype=str), return_inverse=True)
        if len(patients) < 2:
            raise InputError("a bootstrap over patients needs at least 2 of them; check the patient column")
        if resamples < 1:
            raise InputError(f"resamples must be at least 1, got {resamples}")
        generator = np.random.default_rng(seed)
        drawn_RP = generator.integers(0, len(patients), size=(resamples, len(patients)))
        flat = drawn_RP + np.arange(resamples)[:, None] * len(patients)
        counts_RP = np.bincount(flat.ravel(), minlength=resamples * len(patients)).reshape(resamples, -1)
        weights_NR = np.ascontiguousarray(counts_RP.T.astype(np.float32)[index_N])
        return cls(weights_NR=weights_NR, seeds_RS=generator.integers(0, seeds, size=(resamples, seeds)))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95 % percentile interval."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def percentile_interval(values_R: Array, level: float = 0.95) -> Interval:
    """The central `level` of the values; resamples in which the metric is undefined (NaN) are left out."""
    defined = values_R[np.isfinite(values_R)]
    if not len(defined):
        return Interval(low=float("nan"), high=float("nan"))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high))


def cluster_bootstrap(statistic: Callable[[NDArray, int], Array], plan: Resampling) -> Array:
    """Bootstrap distribution of a metric averaged over seeds.

    Args:
        statistic: Gives the metric [R] of one seed (its position) for weights [N, R].
        plan: The resamples.

    Returns:
        float64 [R]: in each resample, the mean over the seeds drawn in it.
    """
    seeds = plan.seeds_RS.shape[1]
    values_RS = np.stack([statistic(plan.weights_NR, seed) for seed in range(seeds)], axis=1)
    return np.take_along_axis(values_RS, plan.seeds_RS, axis=1).mean(axis=1)


def paired_bootstrap(values_a_R: Array, values_b_R: Array) -> Interval:
    """Interval of the difference a - b of two methods; both distributions must come from one `Resampling`."""
    if values_a_R.shape != values_b_R.shape:
        raise InputError(f"paired values differ in shape: {values_a_R.shape} and {values_b_R.shape}")
    return percentile_interval(values_a_R - values_b_R)


def bootstrap_p_value(differences_R: Array) -> float:
    """Two-sided p-value of a difference of zero from its bootstrap distribution (Davison and Hinkley 1997, 4.4).

    Twice the share of resamples on the rarer side of zero, each side counting one resample more than it has, so that no
    finite number of resamples gives 0; a difference of exactly zero counts on both sides. It inverts the percentile
    interval: below 0.05 where that excludes zero, up to the resolution of 2 / (R + 1).

    Returns:
        A value in (0, 1], or NaN where no resample is defined.
    """
    defined = differences_R[np.isfinite(differences_R)]
    if not len(defined):
        return float("nan")
    rarer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(defined) + 1))


def weighted_mean(values_N: Array, weights_NR: NDArray) -> Array:
    """Mean of per-row values for each column of weights, float64 [R] (accuracy, Precision@k, recall@k)."""
    weights = weights_NR.astype(np.float64, copy=False)
    return (np.asarray(values_N, dtype=np.float64) @ weights) / weights.sum(axis=0)


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
