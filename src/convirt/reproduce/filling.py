"""Tests between the methods of a table: the paired hierarchical bootstrap, on the scores that their cells kept.

Patients (queries, of retrieval: their patients) and seeds are drawn anew, for all methods of a column alike. The scores
lie in the `predictions.npz` of each cell.

Shape legend: S seeds, N images or queries, C classes, R resamples.
"""

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.inputs.units import Units
from convirt.evaluation.scoring import figure_of
from convirt.evaluation.statistics.bootstrap import (
    Array,
    Resampling,
    bootstrap_p_value,
    holm,
    paired_bootstrap,
    weighted_mean,
)
from convirt.reproduce.evaluations import Evaluations
from convirt.reproduce.tables import Column, Table, paper_figure

REFERENCE = "convirt"
"""The method that every other is compared with."""
PART = 1000
"""Resamples drawn at once: their weights fit into memory for the largest test set. The first are those of the verbs."""
ALPHA = 0.05
"""A corrected p-value below it is called significant."""
PREDICTIONS = "predictions.npz"

Draws = dict[tuple[str, str], Array]
"""Bootstrap distribution [R] in percent, by method and column title."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one method scored in one column, as its cell kept it."""

    metric: str
    values: NDArray
    """Probabilities [S, N, C], or the precision of each query [N]."""
    targets_NC: NDArray | None
    """Labels; None of retrieval."""
    patients_N: NDArray

    @property
    def seeds(self) -> int:
        return 1 if self.targets_NC is None else len(self.values)

    def of_the_same_rows(self, other: "Scores") -> bool:
        """Whether both can be scored on one resample."""
        if not np.array_equal(self.patients_N, other.patients_N) or self.seeds != other.seeds:
            return False
        if self.targets_NC is None or other.targets_NC is None:
            return self.targets_NC is other.targets_NC
        return np.array_equal(self.targets_NC, other.targets_NC, equal_nan=True)

    def draw(self, plan: Resampling) -> Array:
        """The metric in each resample of a plan, percent."""
        if self.targets_NC is None:
            return 100 * weighted_mean(self.values, plan.weights_NR)
        return 100 * figure_of(self.metric, self.values, self.targets_NC, plan).values_R


@dataclass(frozen=True, kw_only=True)
class Difference:
    """ConVIRT minus another method in one column, percentage points."""

    difference: float
    low: float
    high: float
    """95 % interval of the paired bootstrap."""
    p: float
    p_holm: float
    """Corrected over all differences of the table."""


def read_scores(folder: Path, column: Column, row: Mapping[str, Any]) -> Scores | None:
    """The scores behind a row of a cell's `metrics.json`; None where the cell did not keep them.

    Args:
        folder: Of the cell.
        column: The column of the table.
        row: The row.
    """
    try:
        with np.load(folder / PREDICTIONS) as kept:
            if column.setting is None:
                values, patients_N = kept[f"{column.task}|{row['metric']}|{row['method']}"], kept[f"{column.task}|of"]
                return Scores(metric=row["metric"], values=values, targets_NC=None, patients_N=patients_N)
            head = row["head"] if column.setting == "linear" else column.setting
            scores_SNC = kept[f"{head}|{column.key:g}|{row['method']}"]
            targets_NC, patients_N = kept["test_targets"], kept["test_patients"]
            units_N = kept.get("test_units")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    units = Units.group(targets_NC, patients_N, units_N)
    return Scores(
        metric=row["metric"],
        values=units.mean(scores_SNC),
        targets_NC=units.targets_UC,
        patients_N=units.patients_U,
    )


def parts_for(comparisons: int) -> int:
    """How many times `PART` resamples it takes until so many comparisons can all be significant at once.

    The least p-value of R resamples is 2 / (R + 1), which Holm's correction multiplies by the number of comparisons.
    """
    return math.ceil(2 * comparisons / ALPHA / PART) + 1


def draw_column(scores: Mapping[str, Scores], parts: int) -> dict[str, Array]:
    """Distribution of each method in one column, all on the same resamples; of other rows than the first's is none.

    Args:
        scores: By method.
        parts: How often `PART` resamples are drawn.
    """
    if not scores:
        return {}
    first = scores.get(REFERENCE) or next(iter(scores.values()))
    alike = {method: own for method, own in scores.items() if own.of_the_same_rows(first)}
    drawn: dict[str, list[Array]] = {method: [] for method in alike}
    for part in range(parts):
        plan = Resampling.draw(first.patients_N, seeds=first.seeds, resamples=PART, seed=part)
        for method, own in alike.items():
            drawn[method].append(own.draw(plan))
    return {method: np.concatenate(values) for method, values in drawn.items()}


def differences(draws: Draws, means: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], Difference]:
    """ConVIRT minus each other method in each column, with p-values corrected over all of them.

    Args:
        draws: Bootstrap distributions.
        means: Figures of the table, percent.
    """
    keys = [(method, title) for method, title in draws if method != REFERENCE and (REFERENCE, title) in draws]
    p_values = [bootstrap_p_value(draws[REFERENCE, title] - draws[method, title]) for method, title in keys]
    found = {}
    for (method, title), p, p_holm in zip(keys, p_values, holm(p_values), strict=True):
        interval = paired_bootstrap(draws[REFERENCE, title], draws[method, title])
        found[method, title] = Difference(
            difference=means[REFERENCE, title] - means[method, title],
            low=interval.low,
            high=interval.high,
            p=p,
            p_holm=float(p_holm),
        )
    return found


def in_figures(p: float) -> str:
    """A p-value as it is printed."""
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}" if p < 0.1 else f"p {p:.2f}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One cell of a table; ours and the paper's in percent, None where there is none."""

    mean: float | None
    spread: float | None
    """Standard deviation over the seeds; None of a single one."""
    low: float | None
    high: float | None
    """95 % interval."""
    paper: float | None


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A table with its figures, by method and column title."""

    table: Table
    methods: tuple[str, ...]
    """Rows that have a figure of ours or of the paper's."""
    figures: Mapping[tuple[str, str], Figure]
    draws: Draws = field(default_factory=dict)
    """Bootstrap distributions of the figures that are ours, those of a column on the same resamples."""
    differences: Mapping[tuple[str, str], Difference] = field(default_factory=dict)
    """ConVIRT minus each other method."""


def fill(table: Table, evaluations: Evaluations, cells: Path) -> Filled:
    """What there is of a table so far."""
    figures: dict[tuple[str, str], Figure] = {}
    methods = []
    for method in (*table.methods, *table.beside):
        row = {column.title: _figure(table, method, column, evaluations, cells) for column in table.columns}
        if method in table.methods or any(figure.mean is not None for figure in row.values()):
            methods.append(method)
            figures |= {(method, title): figure for title, figure in row.items()}
    draws = _draws(table, methods, evaluations, cells)
    means = {key: figure.mean for key, figure in figures.items() if figure.mean is not None}
    return Filled(
        table=table, methods=tuple(methods), figures=figures, draws=draws, differences=differences(draws, means)
    )


def _draws(table: Table, methods: Sequence[str], evaluations: Evaluations, cells: Path) -> Draws:
    draws: Draws = {}
    ranked = len(table.methods)
    parts = parts_for(len(table.columns) * max(len(methods), ranked * (ranked - 1) // 2))
    for column in table.columns:
        scores = {method: own for method in methods if (own := _scores(evaluations, method, column, cells))}
        draws |= {(method, column.title): values_R for method, values_R in draw_column(scores, parts).items()}
    return draws


def _scores(evaluations: Evaluations, method: str, column: Column, cells: Path) -> Scores | None:
    name, row = evaluations.result(method, column), _row(evaluations, method, column, cells)
    return None if name is None or row is None else read_scores(cells / name, column, row)


def _figure(table: Table, method: str, column: Column, evaluations: Evaluations, cells: Path) -> Figure:
    paper = paper_figure(table, method, column)
    nothing = Figure(mean=None, spread=None, low=None, high=None, paper=paper)
    if method == "random" and column.setting is None:  # the paper's row of a random guess
        chances = (_row(evaluations, other, column, cells) for other in (*table.methods, *table.beside))
        chance = next((row["chance"] for row in chances if row is not None), None)
        return nothing if chance is None else Figure(mean=100 * chance, spread=None, low=None, high=None, paper=paper)
    row = _row(evaluations, method, column, cells)
    if row is None:
        return nothing
    spread = None if row["std"] is None else 100 * row["std"]
    return Figure(
        mean=100 * row["mean"], spread=spread, low=100 * row["ci_low"], high=100 * row["ci_high"], paper=paper
    )


def _row(evaluations: Evaluations, method: str, column: Column, cells: Path) -> dict[str, Any] | None:
    """The row of a finished cell's `metrics.json` that holds a figure."""
    name = evaluations.result(method, column)
    if name is None:
        return None
    try:
        rows = json.loads((cells / name / "metrics.json").read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError):
        return None
    for row in rows:
        if row["metric"] != column.metric or row["method"] == "metadata":
            continue
        retrieved = column.setting is None and row["task"] == column.task
        classified = column.setting is not None and row["fraction"] == column.key
        if retrieved or classified:
            return row
    return None
