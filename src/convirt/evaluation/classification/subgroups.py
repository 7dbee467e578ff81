"""Figures of subgroups of the test rows: by sex, age band, view and source, where they are known.

Shape legend: S seeds, N rows, U units that are scored, C classes, R resamples.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.classification.outcomes import Outcome
from convirt.evaluation.classification.scoring import Task, bootstrap
from convirt.evaluation.classification.units import Units
from convirt.evaluation.results import Row
from convirt.evaluation.statistics.bootstrap import Resampling, percentile_interval

UNKNOWN = "unknown"
BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, 200))
"""Age bands, years: from the first to below the second."""
SMALL = 10
"""A group is flagged where a class has fewer than so many positives or negatives in it."""


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


def groups_of(task: Task) -> dict[str, NDArray[np.str_]]:
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


def subgroup_rows(outcomes: Mapping[str, Outcome], task: Task) -> list[Row]:
    """The first metric of the task for each method and group, with counts and intervals.

    A group without positives and negatives of any class has counts alone.
    """
    rows: list[Row] = []
    scores = {method: task.units.mean(outcome.test_SNC) for method, outcome in outcomes.items()}
    for role, group_U in groups_of(task).items():
        for name in sorted(np.unique(group_U), key=_order):
            inside = np.flatnonzero(group_U == name)
            part = _part(task, inside)
            counts = _counts(part)
            for method, scores_SUC in scores.items():
                found: Row = {"method": method, "by": role, "group": str(name), **counts, "metric": task.metrics[0]}
                rows.append(found | _figures(part, scores_SUC[:, inside]))
    return rows


def _order(name: str) -> tuple[int, int, str]:
    """Age bands by age, then names, then what is not known."""
    number = name.removeprefix("under ").split(" ")[0]
    if number.isdigit():
        return 0, int(number) - name.startswith("under"), name
    return (2 if name in (UNKNOWN, "mixed") else 1), 0, name


def _part(task: Task, inside: NDArray[np.int64]) -> Task:
    """The task of some units; resamples of all patients, of which those outside the group do not count."""
    units = Units(
        index_N=np.arange(len(inside)),
        targets_UC=task.units.targets_UC[inside],
        patients_U=task.units.patients_U[inside],
        single=True,
    )
    plan = Resampling(weights_NR=task.plan.weights_NR[inside], seeds_RS=task.plan.seeds_RS)
    return replace(task, units=units, plan=plan)


def _counts(part: Task) -> Row:
    targets_UC = part.units.targets_UC
    positives, negatives = (targets_UC == 1).sum(axis=0), (targets_UC == 0).sum(axis=0)
    return {
        "n": len(targets_UC),
        "n_patients": len(np.unique(part.units.patients_U)),
        "positives": dict(zip(part.table.classes, positives.tolist(), strict=True)),
        "small": bool(min(positives.min(), negatives.min()) < SMALL),
        "classes_scored": int(((positives > 0) & (negatives > 0)).sum()),
    }


def _figures(part: Task, scores_SUC: NDArray[np.float32]) -> Row:
    targets_UC = part.units.targets_UC
    if not ((targets_UC == 1).any(axis=0) & (targets_UC == 0).any(axis=0)).any():
        return {"mean": None, "std": None, "seeds": [], "ci_low": None, "ci_high": None, "resamples_used": 0}
    values_S, values_R = bootstrap(part.metrics[0], scores_SUC, targets_UC, part.plan)
    interval = percentile_interval(values_R)
    return {
        "mean": float(np.mean(values_S)),
        "std": float(np.std(values_S, ddof=1)) if len(values_S) > 1 else None,
        "seeds": values_S,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "resamples_used": int(np.isfinite(values_R).sum()),
    }
