"""Linear evaluation of features: label fractions, seeds, heads, and the statistics (ConVIRT, section 4.1).

Shape legend: S seeds, N rows, D features, C classes, R resamples.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from convirt.errors import InputError
from convirt.evaluation.classification.linear_head import PaperHeadConfig, train_heads
from convirt.evaluation.classification.logistic_regression import fit_logistic
from convirt.evaluation.classification.units import Units
from convirt.evaluation.inputs.features import LabelledFeatures
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
from convirt.evaluation.statistics.metrics import accuracy, mean_auc, weighted_mean_auc

Head = Literal["paper", "logistic"]


@dataclass(frozen=True, kw_only=True)
class LinearProtocol:
    """How linear evaluation is done."""

    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    heads: tuple[Head, ...] = ("paper", "logistic")
    paper_head: PaperHeadConfig = field(default_factory=PaperHeadConfig)
    resamples: int = 1000
    """Bootstrap resamples."""

    def __post_init__(self) -> None:
        for name in ("fractions", "seeds", "heads"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name} must name at least one value and none twice, got {values}")
        if unknown := sorted(set(self.heads) - {"paper", "logistic"}):
            raise InputError(f"unknown head {unknown[0]!r}; known are paper, logistic")


def check_task(table: LabelledTable, protocol: LinearProtocol) -> None:
    """Find out what is wrong with the labels before any image is encoded."""
    for fraction in protocol.fractions:
        table.training_subset(fraction, protocol.seeds[0])
    for split in ("val", "test"):
        targets_NC = table.targets_NC[table.rows("val")] if split == "val" else Units.of(table).targets_UC
        if not ((targets_NC == 1).any(axis=0) & (targets_NC == 0).any(axis=0)).any():
            raise InputError(f"the {split} rows hold no class with both positives and negatives; add such rows")
    if table.multi_label and protocol.paper_head.select_on == "accuracy":
        raise InputError("accuracy is not defined for several labels; select on auc")


def evaluate_features(
    features: Mapping[str, NDArray[np.float32]],
    table: LabelledTable,
    protocol: LinearProtocol,
    *,
    task: str,
    baselines: Sequence[str] = (),
) -> tuple[list[Row], list[Row], dict[str, NDArray]]:
    """Train and score the heads of every method, fraction and seed.

    Args:
        features: h_v [N, D] of every row of the table, by method.
        table: Labels, patients and splits.
        protocol: What to train.
        task: Name of the task in the rows.
        baselines: Methods that the others are compared with.

    Returns:
        Rows, comparisons, and the arrays behind them (scores [S, N, C] of the test rows).
    """
    test = table.rows("test")
    units = Units.of(table)
    plan = Resampling.draw(units.patients_U, seeds=len(protocol.seeds), resamples=protocol.resamples)
    rows: list[Row] = []
    comparisons: list[Row] = []
    predictions: dict[str, NDArray] = {
        "test_images": np.array(table.images)[test],
        "test_patients": table.patients_N[test],
        "test_targets": table.targets_NC[test],
        "classes": np.array(table.classes),
    }
    if table.units_N is not None:
        predictions["test_units"] = table.units_N[test]
    settings = [(head, fraction) for head in protocol.heads for fraction in protocol.fractions]
    subsets_of = {fraction: _subsets(table, fraction, protocol.seeds) for fraction in protocol.fractions}
    with Progress(transient=True) as progress, _cores() as pool:
        bar = progress.add_task("training heads", total=len(settings) * len(features))
        jobs: dict[tuple[str, float, str], Future[_Outcome]] = {
            (head, fraction, method): pool.submit(_train, head, vectors_ND, table, subsets_of[fraction], protocol)
            for head, fraction in settings
            for method, vectors_ND in features.items()
            if head == "paper"  # scikit-learn's thread limits are of the whole process
        }
        for head, fraction in settings:
            subsets = subsets_of[fraction]
            outcomes: dict[str, _Outcome] = {}
            for method, vectors_ND in features.items():
                job = jobs.get((head, fraction, method))
                outcomes[method] = job.result() if job else _train(head, vectors_ND, table, subsets, protocol)
                predictions[f"{head}|{fraction:g}|{method}"] = outcomes[method].scores_SNC
                progress.advance(bar)
            common = {"task": task, "space": "features", "head": head, "fraction": fraction}
            new_rows, new_comparisons = _score(outcomes, table, units, plan, subsets, baselines)
            rows += [{**common, **row} for row in new_rows]
            comparisons += [{**common, **row} for row in new_comparisons]
    return rows, comparisons, predictions


@contextmanager
def _cores() -> Iterator[ThreadPoolExecutor]:
    """Threads for heads that take one core each; a head's result does not depend on what runs beside it."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """One method at one fraction with one head."""

    scores_SNC: NDArray[np.float32]
    """Probabilities of the test rows."""
    selected: list[dict[str, Any]]
    """What validation chose, for each seed."""


def _subsets(table: LabelledTable, fraction: float, seeds: Sequence[int]) -> list[NDArray[np.int64]]:
    """Positions among the training rows, for each seed."""
    return [table.training_subset(fraction, seed) for seed in seeds]


def _train(
    head: str,
    vectors_ND: NDArray[np.float32],
    table: LabelledTable,
    subsets: Sequence[NDArray[np.int64]],
    protocol: LinearProtocol,
) -> _Outcome:
    everything = LabelledFeatures(features_ND=vectors_ND, targets_NC=table.targets_NC, multi_label=table.multi_label)
    train, val = everything.take(table.rows("train")), everything.take(table.rows("val"))
    test_ND = vectors_ND[table.rows("test")]
    if head == "paper":
        heads = train_heads(train, val, subsets, protocol.seeds, protocol.paper_head)
        selected = [
            {"epoch": int(epoch), "validation_score": float(best)}
            for epoch, best in zip(heads.epoch_S, heads.best_S, strict=True)
        ]
        return _Outcome(scores_SNC=heads.scores(test_ND), selected=selected)
    fits: dict[bytes, Any] = {}
    for subset in subsets:  # with all labels every seed has the same subset, and the fit draws nothing
        if subset.tobytes() not in fits:
            fits[subset.tobytes()] = fit_logistic(train.take(subset), val, test_ND)
    chosen = [fits[subset.tobytes()] for subset in subsets]
    return _Outcome(
        scores_SNC=np.stack([fit.test_scores_NC for fit in chosen]),
        selected=[{"C": fit.c, "validation_loss": fit.validation_loss, "converged": fit.converged} for fit in chosen],
    )


def _score(
    outcomes: Mapping[str, _Outcome],
    table: LabelledTable,
    units: Units,
    plan: Resampling,
    subsets: Sequence[NDArray[np.int64]],
    baselines: Sequence[str],
) -> tuple[list[Row], list[Row]]:
    """Rows and comparisons of one head and fraction."""
    counts = {
        "n_train": round(float(np.mean([len(subset) for subset in subsets]))),
        "n_test": len(units.targets_UC),
        "n_patients": len(np.unique(units.patients_U)),
    }
    rows: list[Row] = []
    comparisons: list[Row] = []
    for metric in ("auc",) if table.multi_label else ("auc", "accuracy"):
        values_R: dict[str, Array] = {}
        means: dict[str, float] = {}
        for method, outcome in outcomes.items():
            values_S, values_R[method] = _bootstrap(metric, units.mean(outcome.scores_SNC), units.targets_UC, plan)
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
                    **_chance(metric, table, units),
                    "higher_is_better": True,
                    "selected": outcome.selected,
                }
            )
        comparisons += [{"metric": metric, **row} for row in compare(means, values_R, baselines)]
    return rows, comparisons


def _bootstrap(
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


def _chance(metric: str, table: LabelledTable, units: Units) -> dict[str, Any]:
    """What no knowledge of the image scores."""
    if metric == "auc":
        return {"chance": 0.5, "chance_is": "scores that do not depend on the image"}
    commonest = int(table.targets_NC[table.rows("train")].sum(axis=0).argmax())
    frequency_C = units.targets_UC.mean(axis=0)
    return {
        "chance": float(frequency_C[commonest]),
        "chance_is": "always answering the commonest class of the training rows",
        "chance_guessing": float((frequency_C**2).sum()),
    }
