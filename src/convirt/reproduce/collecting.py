"""The figures of finished cells, ours and the paper's, as the tables hold them, and the tests between methods."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convirt.reproduce.evaluations import Evaluations
from convirt.reproduce.pairing import Difference, Draws, Scores, differences, draw_column, parts_for, read_scores
from convirt.reproduce.tables import Column, Table, paper_figure


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
