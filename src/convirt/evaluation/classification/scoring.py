"""From what classifiers say to the figures of a table: metrics, intervals, and tests between methods.

Linear evaluation and fine-tuning are scored by the same code on the same resamples.

Shape legend: S seeds, N rows, U units that are scored, C classes, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.classification.outcomes import Outcome
from convirt.evaluation.classification.units import Units
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.results import Row
from convirt.evaluation.statistics.bootstrap import (
    Array,
    Resampling,
    cluster_bootstrap,
    compare,
    percentile_interval,
    weighted_mean,
)
from convirt.evaluation.statistics.delong import delong_test, independent_rows
from convirt.evaluation.statistics.metrics import accuracy, mean_auc, weighted_mean_auc


@dataclass(frozen=True, kw_only=True)
class Task:
    """The test rows as they are scored, and the resamples that every method shares."""

    table: LabelledTable
    units: Units
    plan: Resampling

    @classmethod
    def of(cls, table: LabelledTable, *, seeds: int, resamples: int) -> "Task":
        """The task of a table.

        Raises:
            InputError: Units that cannot be scored, or fewer than two patients.
        """
        units = Units.of(table)
        return cls(
            table=table,
            units=units,
            plan=Resampling.draw(units.patients_U, seeds=seeds, resamples=resamples),
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is reported: accuracy has no meaning for several labels."""
        return ("auc",) if self.table.multi_label else ("auc", "accuracy")

    @property
    def binary(self) -> bool:
        """Whether one probability says everything: two classes, or one label."""
        return self.units.targets_UC.shape[1] == (1 if self.table.multi_label else 2)


def score_place(
    outcomes: Mapping[str, Outcome], task: Task, subsets: Sequence[NDArray[np.int64]], baselines: Sequence[str]
) -> tuple[list[Row], list[Row]]:
    """Rows and comparisons of the methods in one place of the table."""
    counts = {
        "n_train": round(float(np.mean([len(subset) for subset in subsets]))),
        "n_test": len(task.units.targets_UC),
        "n_patients": len(np.unique(task.units.patients_U)),
    }
    scores = {method: task.units.mean(outcome.test_SNC) for method, outcome in outcomes.items()}
    rows: list[Row] = []
    comparisons: list[Row] = []
    for metric in task.metrics:
        values_R: dict[str, Array] = {}
        means: dict[str, float] = {}
        for method, outcome in outcomes.items():
            values_S, values_R[method] = bootstrap(metric, scores[method], task.units.targets_UC, task.plan)
            interval = percentile_interval(values_R[method])
            means[method] = float(np.mean(values_S))
            rows.append(
                {
                    "method": method,
                    "metric": metric,
                    **counts,
                    "mean": means[method],
                    "std": float(np.std(values_S, ddof=1)) if len(values_S) > 1 else None,
                    "seeds": values_S,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "resamples_used": int(np.isfinite(values_R[method]).sum()),
                    **chance(metric, task),
                    "higher_is_better": True,
                    "selected": outcome.selected,
                }
            )
        for row in compare(means, values_R, baselines):
            delong = _delong(task, scores[row["a"]], scores[row["b"]]) if metric == "auc" else None
            comparisons.append({"metric": metric, **row, **({"delong": delong} if delong else {})})
    return rows, comparisons


def _delong(task: Task, a_SUC: NDArray[np.float32], b_SUC: NDArray[np.float32]) -> dict[str, Any] | None:
    """DeLong's test of each seed, where it applies: two classes, and one row a patient."""
    if not task.binary or not independent_rows(task.units.patients_U):
        return None
    positive_U = task.units.targets_UC[:, -1]
    if min((positive_U == 1).sum(), (positive_U == 0).sum()) < 2:
        return None
    tests = [delong_test(positive_U, a_UC[:, -1], b_UC[:, -1]) for a_UC, b_UC in zip(a_SUC, b_SUC, strict=True)]
    return {
        "differences": [test.difference for test in tests],
        "standard_errors": [test.standard_error for test in tests],
        "p_values": [test.p_value for test in tests],
    }


def bootstrap(
    metric: str, scores_SNC: NDArray, targets_NC: NDArray, plan: Resampling
) -> tuple[list[float], NDArray[np.floating]]:
    """The metric of each seed, and its bootstrap distribution averaged over seeds."""
    codes_N = targets_NC.argmax(axis=1)
    if metric == "accuracy":
        correct_SN = scores_SNC.argmax(axis=2) == codes_N
        values_S = [accuracy(codes_N, scores_NC) for scores_NC in scores_SNC]
        return values_S, cluster_bootstrap(lambda weights_NR, s: weighted_mean(correct_SN[s], weights_NR), plan)
    cache: dict[bytes, Array] = {}  # seeds with equal scores need one pass

    def statistic(weights_NR: NDArray, s: int) -> Array:
        key = scores_SNC[s].tobytes()
        if key not in cache:
            cache[key] = weighted_mean_auc(targets_NC, scores_SNC[s], weights_NR)
        return cache[key]

    return [mean_auc(targets_NC, scores_NC) for scores_NC in scores_SNC], cluster_bootstrap(statistic, plan)


def chance(metric: str, task: Task) -> dict[str, Any]:
    """What no knowledge of the image scores."""
    if metric == "auc":
        return {"chance": 0.5, "chance_is": "scores that do not depend on the image"}
    table = task.table
    commonest = int(table.targets_NC[table.rows("train")].sum(axis=0).argmax())
    frequency_C = task.units.targets_UC.mean(axis=0)
    return {
        "chance": float(frequency_C[commonest]),
        "chance_is": "always answering the commonest class of the training rows",
        "chance_guessing": float((frequency_C**2).sum()),
    }
