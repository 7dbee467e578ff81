"""Rows of results: pointing game and energy of each method, beside the share of the area that the boxes cover.

Shape legend: F findings, S seeds, R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convirt.analysis.saliency.attribution import Attribution
from convirt.analysis.saliency.boxes import Findings
from convirt.analysis.saliency.explaining import METRICS, Explained
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.rows import AnyRow as Row
from convirt.evaluation.rows import Statistic, measure
from convirt.evaluation.statistics.bootstrap import (
    Array,
    Resampling,
    cluster_bootstrap,
    percentile_interval,
    weighted_mean,
)


def score_maps(
    explained: Mapping[tuple[Attribution, str], Explained],
    table: LabelledTable,
    findings: Findings,
    *,
    fraction: float,
    seeds: int,
    resamples: int,
    baselines: Sequence[str],
) -> tuple[list[Row], list[Row]]:
    """Every figure with its interval over patients and seeds, and how far it lies above chance, paired.

    Chance is the share of the view that the boxes of a finding cover: what a constant map scores in both metrics.
    """
    patients_F = table.patients_N[findings.rows_F]
    plan = Resampling.draw(patients_F, seeds=seeds, resamples=resamples)
    rows: list[Row] = []
    comparisons: list[Row] = []
    for kind in dict.fromkeys(kind for kind, _ in explained):
        own = {name: found for (of, name), found in explained.items() if of == kind}
        common = {
            "task": f"{kind} maps",
            "space": "features",
            "head": None,
            "fraction": None,
            "label_fraction": fraction,
            "n_test": len(findings),
            "n_patients": len(np.unique(patients_F)),
        }
        for metric in METRICS:
            statistics = {name: _mean_of(found.scores[metric]) for name, found in own.items()}
            found_rows, found_comparisons = measure(
                statistics,
                plan,
                common,
                metric=metric,
                chance=0.0,
                chance_is="the share of the view that the boxes cover",
                baselines=baselines,
                extra={name: _extra(found, metric, plan, table, findings) for name, found in own.items()},
            )
            rows += found_rows
            comparisons += found_comparisons
    return rows, comparisons


def _mean_of(scores_SF: NDArray[np.float64]) -> Statistic:
    def statistic(weights_FR: NDArray, seed: int) -> Array:
        return weighted_mean(scores_SF[seed], weights_FR)

    return statistic


def _extra(found: Explained, metric: str, plan: Resampling, table: LabelledTable, findings: Findings) -> dict[str, Any]:
    excess_SF = found.scores[metric] - found.chance_F
    interval = percentile_interval(cluster_bootstrap(_mean_of(excess_SF), plan))
    by_label = {
        table.classes[label]: {
            "images": int((findings.labels_F == label).sum()),
            "mean": float(found.scores[metric][:, findings.labels_F == label].mean()),
            "chance": float(found.chance_F[findings.labels_F == label].mean()),
        }
        for label in np.unique(findings.labels_F)
    }
    return {
        "chance": float(found.chance_F.mean()),
        "above_chance": float(excess_SF.mean()),
        "above_chance_ci_low": interval.low,
        "above_chance_ci_high": interval.high,
        "by_class": by_label,
    }
