"""Rank correlation with an interval, for a handful of points."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from convirt.analysis.figures import STYLE, colour
from convirt.evaluation.rows import AnyRow as Row


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


def draw_loss_study(
    losses: Mapping[int, float], kept: Sequence[int], panels: Mapping[str, Sequence[tuple[float, Row]]]
) -> Figure:
    """Panel (a) is the validation loss, the others are scores against its negative (ConVIRT, figure 5).

    Args:
        losses: Validation loss of every evaluation, by step.
        kept: The steps whose checkpoints were scored.
        panels: Loss and row of results of each checkpoint, by the score's name.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 1 + len(panels), figsize=(3.3 * (1 + len(panels)), 3.0), squeeze=False)
        first = axes[0][0]
        first.plot(list(losses), list(losses.values()), color="#7b8794", linewidth=1.2)
        first.plot(kept, [losses[step] for step in kept], "o", color=colour("convirt"), markersize=4)
        first.set_xlabel("step")
        first.set_ylabel("validation loss, nats")
        for panel, (name, found) in zip(axes[0][1:], panels.items(), strict=True):
            x, y = [-loss for loss, _ in found], [100 * row["mean"] for _, row in found]
            spread = [
                [max(0.0, 100 * (row["mean"] - row["ci_low"])) for _, row in found],
                [max(0.0, 100 * (row["ci_high"] - row["mean"])) for _, row in found],
            ]
            panel.errorbar(x, y, spread, fmt="o", color=colour("convirt"), ecolor="#c6d3dc", elinewidth=1, markersize=4)
            rank = spearman(x, y)
            panel.set_title(
                f"{name}\nrank correlation {rank.rho:.2f} ({rank.low:.2f} to {rank.high:.2f})", fontsize=9, loc="left"
            )
            panel.set_xlabel("- validation loss, nats")
        figure.tight_layout()
        return figure
