"""Whether methods come out in the paper's order: rank correlation, and the comparisons that differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from convirt.analysis.studies.correlation import spearman
from convirt.evaluation.statistics.bootstrap import bootstrap_p_value, holm
from convirt.reproduce.filling import ALPHA, Figure, Filled, in_figures
from convirt.reproduce.tables import title_of

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
    """95 % interval of rho over the paired bootstrap of our figures; the paper's have none."""
    compared: int
    """Pairs of methods that the paper tells apart."""
    differing: tuple[str, ...]
    """The pairs that come out the other way round, in words."""
    certain: int
    """How many of these do so beyond chance."""


Pair = tuple[str, str]
"""Two methods, the one with the paper's higher figure first."""


def agreements(filled: Filled, *, seed: int = 0) -> list[Agreement]:
    """Each column in which at least three methods have a figure of ours and of the paper's."""
    columns: dict[str, dict[str, Figure]] = {}
    for column in filled.table.columns:
        both = {
            method: figure
            for method in filled.methods
            if (figure := filled.figures[method, column.title]).mean is not None and figure.paper is not None
        }
        if len(both) >= 3:
            columns[column.title] = both
    tested = _tested(filled, columns)
    return [_agreement(filled, title, both, tested, seed) for title, both in columns.items()]


def _pairs(figures: Mapping[str, Figure]) -> list[Pair]:
    """Pairs of methods that the paper tells apart."""
    pairs = [(a, b) for a, b in combinations(figures, 2) if figures[a].paper != figures[b].paper]
    return [(a, b) if (figures[a].paper or 0) > (figures[b].paper or 0) else (b, a) for a, b in pairs]


def _tested(filled: Filled, columns: Mapping[str, Mapping[str, Figure]]) -> dict[tuple[str, Pair], float]:
    """P-values of the paired bootstrap between the methods of every pair, Holm-corrected over the whole table."""
    keys = [(title, (a, b)) for title, figures in columns.items() for a, b in _pairs(figures)]
    keys = [(title, pair) for title, pair in keys if all((method, title) in filled.draws for method in pair)]
    raw = [bootstrap_p_value(filled.draws[a, title] - filled.draws[b, title]) for title, (a, b) in keys]
    return {key: float(p) for key, p in zip(keys, holm(raw), strict=True) if np.isfinite(p)}


def _agreement(
    filled: Filled, column: str, figures: dict[str, Figure], tested: Mapping[tuple[str, Pair], float], seed: int
) -> Agreement:
    paper = [figure.paper or 0.0 for figure in figures.values()]
    ours = [figure.mean or 0.0 for figure in figures.values()]
    draws = _drawn(filled, column, figures, seed)
    low, high = np.quantile(_rank_correlations(draws, np.array(paper)), (0.025, 0.975)).round(12)
    pairs = _pairs(figures)
    reversed_ = [(a, b) for a, b in pairs if (figures[a].mean or 0) <= (figures[b].mean or 0)]
    verdicts = [_verdict(figures[a], figures[b], tested.get((column, (a, b)))) for a, b in reversed_]
    return Agreement(
        column=column,
        methods=len(figures),
        rho=round(spearman(ours, paper).rho, 12),
        low=float(low),
        high=float(high),
        compared=len(pairs),
        differing=tuple(
            f"{title_of(a)} {figures[a].paper:.1f} above {title_of(b)} {figures[b].paper:.1f} in the paper, "
            f"here {figures[a].mean:.1f} and {figures[b].mean:.1f} ({said})"
            for (a, b), (_, said) in zip(reversed_, verdicts, strict=True)
        ),
        certain=sum(certain for certain, _ in verdicts),
    )


def _drawn(filled: Filled, column: str, figures: Mapping[str, Figure], seed: int) -> NDArray[np.float64]:
    """Our figures [draws, methods] as they might have come out: of one bootstrap where all have one.

    A figure without an interval (chance) stays as it is.
    """
    sure = {method for method, figure in figures.items() if figure.low is None}
    if all(method in sure or (method, column) in filled.draws for method in figures) and len(sure) < len(figures):
        known = {method: filled.draws[method, column] for method in figures if method not in sure}
        size = len(next(iter(known.values())))
        every = [known.get(method, np.full(size, figure.mean or 0.0)) for method, figure in figures.items()]
        draws = np.stack(every, axis=1)
        return draws[np.isfinite(draws).all(axis=1)]
    ours = np.array([figure.mean for figure in figures.values()], dtype=float)
    errors = np.array([_error(figure) for figure in figures.values()])
    return ours + errors * np.random.default_rng(seed).standard_normal((DRAWS, len(ours)))


def _rank_correlations(draws: NDArray[np.float64], paper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's rho of each draw [draws, methods] with the paper's figures; 0 where all of a draw are equal."""
    ranks, wanted = rankdata(draws, axis=1), rankdata(paper)
    ranks, wanted = ranks - ranks.mean(axis=1, keepdims=True), wanted - wanted.mean()
    sizes = np.sqrt((ranks**2).sum(axis=1) * (wanted**2).sum())
    return np.divide(ranks @ wanted, sizes, out=np.zeros(len(draws)), where=sizes > 0)


def _error(figure: Figure) -> float:
    """Standard error of our figure."""
    return 0.0 if figure.low is None or figure.high is None else (figure.high - figure.low) / (2 * NORMAL)


def _verdict(better: Figure, worse: Figure, p_holm: float | None) -> tuple[bool, str]:
    """Whether two figures are the other way round than the paper's beyond chance, and that in words.

    Args:
        better: The one that is better in the paper.
        worse: The other.
        p_holm: Of the paired bootstrap; None where the scores were not kept, and intervals have to do.
    """
    if p_holm is not None:
        certain = p_holm < ALPHA
        return certain, f"{'beyond chance' if certain else 'may be chance'}: paired {in_figures(p_holm)}"
    gap = (worse.mean or 0) - (better.mean or 0)
    certain = gap > NORMAL * float(np.hypot(_error(better), _error(worse))) > 0
    return certain, "more than the intervals allow" if certain else "within the intervals"


def in_words(filled: Filled, found: Sequence[Agreement]) -> list[str]:
    """The agreement of a table in lines to be read."""
    if not found:
        return [f"{filled.table.title}: too few methods have both figures to compare orders."]
    rho = float(np.mean([agreement.rho for agreement in found]))
    wrong = sum(len(agreement.differing) for agreement in found)
    certain = sum(agreement.certain for agreement in found)
    lines = [
        f"{filled.table.title}: mean rank correlation with the paper's order {rho:.2f} over {len(found)} columns; "
        f"{wrong} of {sum(agreement.compared for agreement in found)} comparisons differ, {certain} beyond chance."
    ]
    for agreement in found:
        lines.append(
            f"- {agreement.column}: rho {agreement.rho:.2f} ({agreement.low:.2f} to {agreement.high:.2f}), "
            f"{agreement.methods} methods, {len(agreement.differing)} of {agreement.compared} comparisons differ"
        )
        lines += [f"  - {said}" for said in agreement.differing]
    return lines
