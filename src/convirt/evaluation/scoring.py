"""From predictions to figures: metrics, intervals, tests between methods, classes, and subgroups.

Linear evaluation and fine-tuning are scored by the same code on the same resamples.

Shape legend: S seeds, N rows, U units that are scored, C classes, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.inputs.units import Units
from convirt.evaluation.protocol import Outcome
from convirt.evaluation.rows import Figure, Plain, Row, build
from convirt.evaluation.statistics.bootstrap import Array, Resampling, cluster_bootstrap, weighted_mean
from convirt.evaluation.statistics.delong import delong_test, independent_rows
from convirt.evaluation.statistics.metrics import accuracy, auc, mean_auc, scorable, weighted_mean_auc

UNKNOWN = "unknown"
BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, 200))
"""Age bands, years: from the first to below the second."""
SMALL = 10
"""A group is flagged where a class has fewer than so many positives or negatives in it."""


@dataclass(frozen=True, kw_only=True)
class ScoredTask:
    """The test rows as they are scored, and the resamples that every method shares."""

    table: LabelledTable
    units: Units
    plan: Resampling

    @classmethod
    def of(cls, table: LabelledTable, *, seeds: int, resamples: int) -> "ScoredTask":
        """The task of a table.

        Raises:
            InputError: Units that cannot be scored, or fewer than two patients.
        """
        units = Units.of(table)
        plan = Resampling.draw(units.patients_U, seeds=seeds, resamples=resamples)
        return cls(table=table, units=units, plan=plan)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is reported: accuracy has no meaning for several labels."""
        return ("auc",) if self.table.multi_label else ("auc", "accuracy")

    @property
    def binary(self) -> bool:
        """Whether one probability says everything: two classes, or one label."""
        return self.units.targets_UC.shape[1] == (1 if self.table.multi_label else 2)

    @property
    def labels_scored(self) -> Plain:
        """Over how many labels a mean AUC is, and which have no positive or no negative test row."""
        scored = scorable(self.units.targets_UC)
        others = [name for c, name in enumerate(self.table.classes) if c not in scored]
        return {"labels_scored": len(scored), "labels_not_scored": others}


def figure_of(metric: str, scores_SUC: NDArray, targets_UC: NDArray, plan: Resampling, **extra: Any) -> Figure:
    """A metric of one method: of each seed, and its bootstrap distribution averaged over seeds."""
    if metric == "accuracy":
        codes_U = targets_UC.argmax(axis=1)
        correct_SU = scores_SUC.argmax(axis=2) == codes_U
        values_S = [accuracy(codes_U, scores_UC) for scores_UC in scores_SUC]
        values_R = cluster_bootstrap(lambda weights_UR, s: weighted_mean(correct_SU[s], weights_UR), plan)
        return Figure(values_S=values_S, values_R=values_R, extra=extra)
    cache: dict[bytes, Array] = {}  # seeds with equal scores need one pass

    def statistic(weights_UR: NDArray, s: int) -> Array:
        key = scores_SUC[s].tobytes()
        if key not in cache:
            cache[key] = weighted_mean_auc(targets_UC, scores_SUC[s], weights_UR)
        return cache[key]

    values_S = [mean_auc(targets_UC, scores_UC) for scores_UC in scores_SUC]
    return Figure(values_S=values_S, values_R=cluster_bootstrap(statistic, plan), extra=extra)


def score_place(
    outcomes: Mapping[str, Outcome],
    task: ScoredTask,
    subsets: Sequence[NDArray[np.int64]],
    baselines: Sequence[str],
    common: Mapping[str, Any],
) -> tuple[list[Row], list[Plain]]:
    """Rows and comparisons of the methods in one place of the table; `common` are the values that all of them share."""
    counts = {
        "n_train": round(float(np.mean([len(subset) for subset in subsets]))),
        "n_test": len(task.units.targets_UC),
        "n_patients": len(np.unique(task.units.patients_U)),
    }
    scores = {method: task.units.mean(outcome.test_SNC) for method, outcome in outcomes.items()}
    rows: list[Row] = []
    comparisons: list[Plain] = []
    for metric in task.metrics:
        known = _chance(metric, task)
        extra = {**known.pop("extra"), **(task.labels_scored if metric == "auc" else {})}
        figures = {
            method: figure_of(
                metric, scores[method], task.units.targets_UC, task.plan, **extra, selected=outcome.selected
            )
            for method, outcome in outcomes.items()
        }
        found, compared = build(figures, common, metric=metric, baselines=baselines, counts=counts, **known)
        rows += found
        for row in compared:
            delong = _delong(task, scores[row["a"]], scores[row["b"]]) if metric == "auc" else None
            comparisons.append({**row, **({"delong": delong} if delong else {})})
    return rows, comparisons


def _delong(task: ScoredTask, a_SUC: NDArray[np.float32], b_SUC: NDArray[np.float32]) -> Plain | None:
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


def _chance(metric: str, task: ScoredTask) -> dict[str, Any]:
    """What no knowledge of the image scores."""
    if metric == "auc":
        return {"chance": 0.5, "chance_is": "scores that do not depend on the image", "extra": {}}
    table = task.table
    commonest = int(table.targets_NC[table.rows("train")].sum(axis=0).argmax())
    frequency_C = task.units.targets_UC.mean(axis=0)
    return {
        "chance": float(frequency_C[commonest]),
        "chance_is": "always answering the commonest class of the training rows",
        "extra": {"chance_guessing": float((frequency_C**2).sum())},
    }


def class_rows(outcomes: Mapping[str, Outcome], task: ScoredTask) -> list[Plain]:
    """AUC of each class or label, and of a single-label task the confusion matrix, a row for each method.

    `confusion` holds, for each true class (in the order of `classes`), how many test rows were given each class: the
    mean over seeds.
    """
    targets_UC, classes = task.units.targets_UC, task.table.classes
    rows: list[Plain] = []
    for method, outcome in outcomes.items():
        scores_SUC = task.units.mean(outcome.test_SNC)
        by_class: Plain = {}
        for c, name in enumerate(classes):
            seeds = [auc(targets_UC[:, c], scores_UC[:, c]) for scores_UC in scores_SUC]
            positives, negatives = int((targets_UC[:, c] == 1).sum()), int((targets_UC[:, c] == 0).sum())
            by_class[name] = {
                "n_positive": positives,
                "n_negative": negatives,
                "mean": float(np.mean(seeds)) if positives and negatives else None,
                "seeds": seeds if positives and negatives else [],
            }
        row: Plain = {"method": method, "metric": "auc", "classes": list(classes), "by_class": by_class}
        if not task.table.multi_label:
            given_SU = scores_SUC.argmax(axis=2)
            given_SUC = given_SU[..., None] == np.arange(len(classes))
            row["confusion"] = (targets_UC.T @ given_SUC.mean(axis=0)).tolist()
        rows.append(row)
    return rows


def age_band(text: str) -> str:
    """The band of an age as tables have it (`63`, `63.0`, DICOM's `063Y`, `007M`); `unknown` for anything else."""
    text = text.strip().upper()
    in_years = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
    try:
        age = float(text[:-1]) * in_years[text[-1]] if text[-1:] in in_years else float(text)
    except ValueError:
        return UNKNOWN
    for low, high in BANDS:
        if low <= age < high:
            return (
                f"under {high}" if low == 0 else f"{low} and over" if high == BANDS[-1][1] else f"{low} to {high - 1}"
            )
    return UNKNOWN


def _groups_of(task: ScoredTask) -> dict[str, NDArray[np.str_]]:
    """Group of each unit, by attribute; a unit whose images differ is `mixed`."""
    test, units = task.table.rows("test"), task.units
    found: dict[str, NDArray[np.str_]] = {}
    for role, values_N in task.table.attributes.items():
        of_row = values_N[test]
        named_N = np.array([age_band(value) if role == "age" else value or UNKNOWN for value in of_row], dtype=object)
        first_U = np.unique(units.index_N, return_index=True)[1]
        group_U = named_N[first_U].copy()
        group_U[units.index_N[named_N != group_U[units.index_N]]] = "mixed"
        found[role] = group_U.astype(str)
    return found


def subgroup_rows(outcomes: Mapping[str, Outcome], task: ScoredTask) -> list[Plain]:
    """The first metric of the task for each method and group, with counts and intervals.

    Groups are of sex, age band, view and source, where they are known. A group without positives and negatives of any
    class has counts alone.
    """
    rows: list[Plain] = []
    scores = {method: task.units.mean(outcome.test_SNC) for method, outcome in outcomes.items()}
    nothing: Plain = {"mean": None, "std": None, "seeds": [], "ci_low": None, "ci_high": None, "resamples_used": 0}
    for role, group_U in _groups_of(task).items():
        for name in sorted(np.unique(group_U), key=_order):
            inside = np.flatnonzero(group_U == name)
            part = _part(task, inside)
            counts = _counts(part)
            for method, scores_SUC in scores.items():
                about = {"method": method, "by": role, "group": str(name), **counts, "metric": task.metrics[0]}
                found = nothing
                if counts["classes_scored"]:
                    figure = figure_of(task.metrics[0], scores_SUC[:, inside], part.units.targets_UC, part.plan)
                    found = figure.summary()
                rows.append(about | found)
    return rows


def _order(name: str) -> tuple[int, int, str]:
    """Age bands by age, then names, then what is not known."""
    number = name.removeprefix("under ").split(" ")[0]
    if number.isdigit():
        return 0, int(number) - name.startswith("under"), name
    return (2 if name in (UNKNOWN, "mixed") else 1), 0, name


def _part(task: ScoredTask, inside: NDArray[np.int64]) -> ScoredTask:
    """The task of some units; resamples of all patients, of which those outside the group do not count."""
    units = Units(
        index_N=np.arange(len(inside)),
        targets_UC=task.units.targets_UC[inside],
        patients_U=task.units.patients_U[inside],
        single=True,
    )
    plan = Resampling(weights_NR=task.plan.weights_NR[inside], seeds_RS=task.plan.seeds_RS)
    return replace(task, units=units, plan=plan)


def _counts(part: ScoredTask) -> Plain:
    targets_UC = part.units.targets_UC
    positives, negatives = (targets_UC == 1).sum(axis=0), (targets_UC == 0).sum(axis=0)
    return {
        "n": len(targets_UC),
        "n_patients": len(np.unique(part.units.patients_U)),
        "positives": dict(zip(part.table.classes, positives.tolist(), strict=True)),
        "small": bool(min(positives.min(), negatives.min()) < SMALL),
        "classes_scored": len(scorable(targets_UC)),
    }
