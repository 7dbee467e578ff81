"""Rank correlation with an interval, for a handful of points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """Spearman's rho of n points, with its 95 % interval; NaN where it is not defined."""

    rho: float
    low: float
    high: float
    n: int


def spearman(x: Sequence[float], y: Sequence[float]) -> RankCorrelation:
    """Spearman's rank correlation, ties by mean ranks, with the interval of Bonett and Wright (2000).

    Fisher's z of rho has standard error sqrt((1 + rho^2 / 2) / (n - 3)). Perfect order would make z infinite: its lower
    bound is reckoned from the next lower value that n points without ties can have. Below four points, or where one of
    the two is constant, there is no interval.
    """
    n = len(x)
    ranks = np.stack([rankdata(x), rankdata(y)]) if n else np.zeros((2, 0))
    spread = ranks.std(axis=1) if n else np.zeros(2)
    if n < 2 or not spread.all():
        return RankCorrelation(rho=math.nan, low=math.nan, high=math.nan, n=n)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    rho = float(np.clip((centred[0] * centred[1]).mean() / spread.prod(), -1, 1))
    if n < 4:
        return RankCorrelation(rho=rho, low=math.nan, high=math.nan, n=n)
    largest = 1 - 12 / (n * (n**2 - 1))  # one swap of neighbours
    z, half = math.atanh(max(-largest, min(largest, rho))), 1.959963984540054 * math.sqrt((1 + rho**2 / 2) / (n - 3))
    low = -1.0 if rho <= -largest else math.tanh(z - half)
    high = 1.0 if rho >= largest else math.tanh(z + half)
    return RankCorrelation(rho=rho, low=low, high=high, n=n)
