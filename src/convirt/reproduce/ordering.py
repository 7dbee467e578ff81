"""Whether methods come out in the paper's order: rank correlation, and the comparisons that differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from convirt.analysis.studies.correlation import spearman
from convirt.reproduce.collecting import Figure, Filled
from convirt.reproduce.tables import METHODS

DRAWS = 2000
NORMAL = 1.959963984540054
"""Half the width of a 95 % interval, in standard errors."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One column of a table: how far our order of the methods is the paper's."""

    column: str
    methods: int
    """How many have a figure of both."""
    rho: float
    """Spearman's rank correlation."""
    low: float
    high: float
    """95 % interval of rho, with our figures drawn from their own intervals; the paper's have none."""
    compared: int
    """Pairs of methods that the paper tells apart."""
    differing: tuple[str, ...]
    """The pairs that come out the other way round, in words."""


def agreements(filled: Filled, *, seed: int = 0) -> list[Agreement]:
    """Each column in which at least three methods have a figure of ours and of the paper's."""
    found = []
    for column in filled.table.columns:
        both = {
            method: figure
            for method in filled.methods
            if (figure := filled.figures[method, column.title]).mean is not None and figure.paper is not None
        }
        if len(both) >= 3:
            found.append(_agreement(column.title, both, seed))
    return found


def _agreement(column: str, figures: dict[str, Figure], seed: int) -> Agreement:
    paper = [figure.paper or 0.0 for figure in figures.values()]
    ours = np.array([figure.mean for figure in figures.values()], dtype=float)
    errors = np.array([_error(figure) for figure in figures.values()])
    draws = ours + errors * np.random.default_rng(seed).standard_normal((DRAWS, len(ours)))
    low, high = np.quantile(_rank_correlations(draws, np.array(paper)), (0.025, 0.975)).round(12)
    pairs = [(a, b) for a, b in combinations(figures, 2) if figures[a].paper != figures[b].paper]
    return Agreement(
        column=column,
        methods=len(figures),
        rho=round(spearman(list(ours), paper).rho, 12),
        low=float(low),
        high=float(high),
        compared=len(pairs),
        differing=tuple(said for a, b in pairs if (said := _difference(a, b, figures)) is not None),
    )


def _rank_correlations(draws: NDArray[np.float64], paper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's rho of each draw [draws, methods] with the paper's figures; 0 where all of a draw are equal."""
    ranks, wanted = rankdata(draws, axis=1), rankdata(paper)
    ranks, wanted = ranks - ranks.mean(axis=1, keepdims=True), wanted - wanted.mean()
    sizes = np.sqrt((ranks**2).sum(axis=1) * (wanted**2).sum())
    return np.divide(ranks @ wanted, sizes, out=np.zeros(len(draws)), where=sizes > 0)


def _error(figure: Figure) -> float:
    """Standard error of our figure."""
    return 0.0 if figure.low is None or figure.high is None else (figure.high - figure.low) / (2 * NORMAL)


def _difference(a: str, b: str, figures: dict[str, Figure]) -> str | None:
    """How a pair comes out the other way round than in the paper, in words; None if it does not."""
    if (figures[a].paper or 0) < (figures[b].paper or 0):
        a, b = b, a
    better, worse = figures[a], figures[b]
    assert better.mean is not None
    assert worse.mean is not None
    if better.mean > worse.mean:
        return None
    gap, error = worse.mean - better.mean, float(np.hypot(_error(better), _error(worse)))
    sure = "more than the intervals allow" if gap > NORMAL * error > 0 else "within the intervals"
    return (
        f"{METHODS[a]} {better.paper:.1f} above {METHODS[b]} {worse.paper:.1f} in the paper, "
        f"here {better.mean:.1f} and {worse.mean:.1f} ({sure})"
    )


def in_words(filled: Filled, found: Sequence[Agreement]) -> list[str]:
    """The agreement of a table in lines to be read."""
    if not found:
        return [f"{filled.table.title}: too few methods have both figures to compare orders."]
    rho = float(np.mean([agreement.rho for agreement in found]))
    wrong = sum(len(agreement.differing) for agreement in found)
    lines = [
        f"{filled.table.title}: mean rank correlation with the paper's order {rho:.2f} over {len(found)} columns; "
        f"{wrong} of {sum(agreement.compared for agreement in found)} comparisons differ."
    ]
    for agreement in found:
        lines.append(
            f"- {agreement.column}: rho {agreement.rho:.2f} ({agreement.low:.2f} to {agreement.high:.2f}), "
            f"{agreement.methods} methods, {len(agreement.differing)} of {agreement.compared} comparisons differ"
        )
        lines += [f"  - {said}" for said in agreement.differing]
    return lines
