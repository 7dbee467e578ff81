"""Rows of figures: one metric of one method each, with its interval, and the differences between methods.

Shape legend: N rows of the test set, R resamples, S seeds.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.statistics.bootstrap import (
    Array,
    Resampling,
    bootstrap_p_value,
    cluster_bootstrap,
    holm,
    paired_bootstrap,
    percentile_interval,
)

AnyRow = Mapping[str, Any]
Plain = dict[str, Any]
"""A row of another kind (a difference, a calibration error, an operating point, a subgroup), as JSON values."""

FAMILY = ("task", "setting", "space", "head")
"""Comparisons that agree in these form one family: all pairs of methods, label fractions, metrics and lengths of lists
of one printed table."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Row(Mapping[str, Any]):
    """One figure of one method, as a mapping of the names and values that `metrics.json` has."""

    task: str
    method: str
    metric: str
    space: str
    """`features` (h_v) or `shared`."""
    setting: str | None = None
    """`linear` or `finetuned`; None where nothing was trained."""
    head: str | None
    """`paper` or `logistic`; None where nothing was trained."""
    fraction: float | None
    """Share of the training labels."""
    n_train: int | None = None
    """Labelled training images; None where a verb has no use for them."""
    n_test: int
    n_patients: int
    mean: float
    """The mean over seeds."""
    std: float | None
    """Standard deviation over seeds; None of a single one."""
    seeds: Sequence[float]
    """The figure of each seed."""
    ci_low: float
    ci_high: float
    resamples_used: int | None = None
    """Resamples in which the metric was defined."""
    chance: float
    """What no knowledge of the image scores."""
    chance_is: str
    """What is meant by chance."""
    higher_is_better: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further names and values of this kind of row."""

    @cached_property
    def _values(self) -> Plain:
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "extra"}
        absent = [name for name in ("setting", "n_train", "resamples_used") if values[name] is None]
        return {name: value for name, value in values.items() if name not in absent} | dict(self.extra)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


Statistic = Callable[[NDArray, int], Array]
"""Gives the metric [R] of one seed for weights [N, R]: how often each row counts in each resample."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A metric of one method: its value for each seed, and its bootstrap distribution averaged over seeds."""

    values_S: Sequence[float]
    values_R: Array
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further values of the method's row."""

    @classmethod
    def of(cls, statistic: Statistic, plan: Resampling, extra: Mapping[str, Any] | None = None) -> "Figure":
        """Evaluate a statistic once for each seed on the rows as they are, and on every resample of the plan."""
        once_N1 = np.ones((len(plan.weights_NR), 1))
        values_S = [float(statistic(once_N1, seed)[0]) for seed in range(plan.seeds_RS.shape[1])]
        return cls(values_S=values_S, values_R=cluster_bootstrap(statistic, plan), extra=extra or {})

    def summary(self) -> Plain:
        """Mean, spread over seeds, 95 % interval, and in how many resamples the metric was defined."""
        interval = percentile_interval(self.values_R)
        return {
            "mean": float(np.mean(self.values_S)),
            "std": float(np.std(self.values_S, ddof=1)) if len(self.values_S) > 1 else None,
            "seeds": list(self.values_S),
            "ci_low": interval.low,
            "ci_high": interval.high,
            "resamples_used": int(np.isfinite(self.values_R).sum()),
        }


def build(
    figures: Mapping[str, Figure],
    common: Mapping[str, Any],
    *,
    metric: str,
    chance: float,
    chance_is: str,
    baselines: Sequence[str] = (),
    counts: Mapping[str, Any] | None = None,
) -> tuple[list[Row], list[Plain]]:
    """One row for each method, and its differences to the baselines and to the first method.

    Args:
        figures: The metric of each method, all of the resamples of one plan.
        common: What every row and comparison says: task, space, head, fraction.
        metric: Name of the metric.
        chance: What no knowledge of the image scores; a method may have its own among its `extra` values.
        chance_is: What is meant by that.
        baselines: Methods that the others are compared with.
        counts: What every row says and no comparison.
    """
    known = {one.name for one in fields(Row)}
    rows = []
    for method, figure in figures.items():
        values = {
            "chance": chance,
            "chance_is": chance_is,
            **common,
            **(counts or {}),
            **figure.summary(),
            **figure.extra,
        }
        own = {name: value for name, value in values.items() if name in known}
        extra = {name: value for name, value in values.items() if name not in known}
        rows.append(Row(method=method, metric=metric, extra=extra, **own))
    return rows, [{**common, "metric": metric, **row} for row in compare(figures, baselines)]


def measure(
    statistics: Mapping[str, Statistic],
    plan: Resampling,
    common: Mapping[str, Any],
    *,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
    **about: Any,
) -> tuple[list[Row], list[Plain]]:
    """`build` from one statistic of each method, on the resamples of one plan.

    Args:
        statistics: The metric of each method.
        plan: Resamples of whole patients, and of seeds where there are several.
        common: What every row and comparison says: task, space, head, fraction.
        extra: Further values of a method's row.
        about: Metric, chance and baselines, as `build` takes them.
    """
    figures = {name: Figure.of(statistic, plan, (extra or {}).get(name)) for name, statistic in statistics.items()}
    return build(figures, common, **about)


def compare(figures: Mapping[str, Figure], baselines: Sequence[str]) -> list[Plain]:
    """Differences with their paired intervals and p-values: of each method to each baseline, and of the first method
    to each other one.

    Args:
        figures: The metric of each method, all of one `Resampling`.
        baselines: Methods to compare with, where they have a figure; they are not compared among themselves.

    Returns:
        A row a pair; `p_least` is the least p-value that so many resamples can show.
    """
    found = []
    methods = [name for name in figures if name not in baselines]
    for a in methods:
        others = methods[1:] if a == methods[0] else []
        for b in [*others, *(b for b in baselines if b in figures)]:
            interval = paired_bootstrap(figures[a].values_R, figures[b].values_R)
            values_R = figures[a].values_R - figures[b].values_R
            found.append(
                {
                    "a": a,
                    "b": b,
                    "difference": float(np.mean(figures[a].values_S)) - float(np.mean(figures[b].values_S)),
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "excludes_zero": interval.excludes_zero,
                    "p_value": bootstrap_p_value(values_R),
                    "p_least": 2 / (int(np.isfinite(values_R).sum()) + 1),
                }
            )
    return found


def correct_families(comparisons: Sequence[Mapping[str, Any]]) -> list[Plain]:
    """Comparisons with `p_holm` and `family_size`, corrected within each family (see `FAMILY`).

    Comparisons with the metadata baseline are a family of their own: they ask what a score rests on, not which method
    is better.
    """
    families: dict[tuple[Any, ...], list[int]] = {}
    for number, row in enumerate(comparisons):
        key = (*(row.get(name) for name in FAMILY), row.get("b") == "metadata")
        families.setdefault(key, []).append(number)
    corrected = [dict(row) for row in comparisons]
    for numbers in families.values():
        adjusted_N = holm([comparisons[number].get("p_value", np.nan) for number in numbers])
        for number, value in zip(numbers, adjusted_N, strict=True):
            corrected[number] |= {"p_holm": float(value), "family_size": len(numbers)}
    return corrected


def describe_family(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """What a table's caption says about the correction, also where it leaves nothing to find."""
    sizes = sorted({row["family_size"] for row in comparisons})
    plural = "" if sizes == [1] else "s"
    said = f"p by the same bootstrap, Holm-corrected over {' or '.join(map(str, sizes))} comparison{plural}"
    least = max((row["family_size"] * row.get("p_least", 0.0) for row in comparisons), default=0.0)
    if not least > 0.05:
        return said
    # 2 / (R + 1) times the family below 0.05, with as much again for figures that rest on few resamples.
    enough = 1000 * math.ceil(2 * 40 * max(sizes) / 1000)
    return f"{said}, of which so few resamples can show none below {min(least, 1.0):.2g} (--resamples {enough} could)"
