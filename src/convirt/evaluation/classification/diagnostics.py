"""Beside each score: calibration, and operating points that validation chose.

Shape legend: S seeds, N rows, U units that are scored, C classes, R resamples.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.classification.outcomes import Outcome
from convirt.evaluation.classification.scoring import Task
from convirt.evaluation.classification.units import Units
from convirt.evaluation.results import Row
from convirt.evaluation.statistics.bootstrap import cluster_bootstrap, percentile_interval
from convirt.evaluation.statistics.calibration import BINS, expected_calibration_error, label_calibration_errors
from convirt.evaluation.statistics.operating_points import Rule, choose_threshold, rates


def calibration_rows(outcomes: Mapping[str, Outcome], task: Task) -> list[Row]:
    """Expected calibration error of each method, the mean over seeds; by label for a multi-label task."""
    rows: list[Row] = []
    multi_label, targets_UC = task.table.multi_label, task.units.targets_UC
    for method, outcome in outcomes.items():
        scores_SUC = task.units.mean(outcome.test_SNC)
        errors_S = [expected_calibration_error(targets_UC, scores_UC, multi_label) for scores_UC in scores_SUC]
        row: Row = {
            "method": method,
            "metric": "ece",
            "bins": BINS,
            "of": "the mean over labels" if multi_label else "the most probable class",
            "mean": float(np.mean(errors_S)),
            "std": float(np.std(errors_S, ddof=1)) if len(errors_S) > 1 else None,
            "seeds": errors_S,
            "n_test": len(targets_UC),
            "higher_is_better": False,
        }
        if multi_label:
            by_label = np.mean([label_calibration_errors(targets_UC, scores_UC) for scores_UC in scores_SUC], axis=0)
            row["by_label"] = dict(zip(task.table.classes, by_label.tolist(), strict=True))
        rows.append(row)
    return rows


def operating_rows(outcomes: Mapping[str, Outcome], task: Task, rules: Sequence[Rule]) -> list[Row]:
    """Sensitivity and specificity of each label at thresholds that each seed's validation scores chose.

    Of two classes the last one is the finding; of more, each against the rest.
    """
    table = task.table
    names = list(enumerate(table.classes))
    if task.binary and not table.multi_label:
        names = names[-1:]
    validation = Units.of(table, "val")
    rows: list[Row] = []
    for method, outcome in outcomes.items():
        val_SUC, test_SUC = validation.mean(outcome.val_SNC), task.units.mean(outcome.test_SNC)
        for c, name in names:
            for rule in rules:
                found = _operating_row(
                    validation.targets_UC[:, c], val_SUC[:, :, c], task.units.targets_UC[:, c], test_SUC[:, :, c],
                    task, rule,
                )  # fmt: skip
                if found is not None:
                    rows.append({"method": method, "label": name, "rule": str(rule), **found})
    return rows


def _operating_row(
    val_positive_U: NDArray, val_SU: NDArray, positive_U: NDArray, test_SU: NDArray, task: Task, rule: Rule
) -> Row | None:
    """One label at one rule; None where validation or test has not both kinds of rows."""
    for labels_U in (val_positive_U, positive_U):
        if not (labels_U == 1).any() or not (labels_U == 0).any():
            return None
    thresholds_S = [choose_threshold(val_positive_U, scores_U, rule) for scores_U in val_SU]
    once_U1 = np.ones((len(positive_U), 1))
    row: Row = {
        "thresholds": thresholds_S,
        "n_positive": int((positive_U == 1).sum()),
        "n_negative": int((positive_U == 0).sum()),
    }
    for place, name in enumerate(("sensitivity", "specificity")):
        values_S = [float(rates(positive_U, test_SU[s], t, once_U1)[place][0]) for s, t in enumerate(thresholds_S)]
        values_R = cluster_bootstrap(
            lambda weights_UR, s, place=place: rates(positive_U, test_SU[s], thresholds_S[s], weights_UR)[place],  # type: ignore[misc]
            task.plan,
        )
        interval = percentile_interval(values_R)
        row[name] = {
            "mean": float(np.mean(values_S)),
            "seeds": values_S,
            "ci_low": interval.low,
            "ci_high": interval.high,
        }
    return row
