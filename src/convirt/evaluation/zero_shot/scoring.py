"""Scores from prompts, and their metrics with intervals.

Zero-shot classification compares the image vector v with prompt vectors u in the shared space, as text-image retrieval
does (ConVIRT, section 3.2); classification from prompts is CLIP's (Radford et al. 2021, section 3.1), a pair of a
positive and a negative prompt for each label is CheXzero's (Tiu et al. 2022).

Shape legend: N images, U units scored, C labels or classes, D size of the shared space, R resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from convirt.evaluation.inputs.features import Encoder
from convirt.evaluation.results import Row
from convirt.evaluation.statistics.bootstrap import Array, Resampling
from convirt.evaluation.statistics.measuring import measure
from convirt.evaluation.statistics.metrics import weighted_auc, weighted_mean_auc
from convirt.evaluation.statistics.operating_points import Rule, choose_threshold
from convirt.evaluation.zero_shot.prompts import Prompts, PromptSet

TEMPERATURE = 0.1  # ConVIRT, appendix A: where a method has no temperature of its own


def prompt_vectors(encoder: Encoder, prompts: Sequence[Prompts], batch_size: int) -> NDArray[np.float64]:
    """One unit vector for each list of prompts: the mean of their unit vectors, scaled to length 1.

    Returns:
        float64 [len(prompts), D].
    """
    flat = [text for texts in prompts for text in texts]
    vectors = encoder.encode_text(flat, space="shared", batch_size=batch_size, normalise=True).astype(np.float64)
    ends = np.cumsum([len(texts) for texts in prompts])
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def pair_scores(
    encoder: Encoder, v_ND: NDArray[np.float32], labels: Sequence[str], prompts: PromptSet, batch_size: int
) -> NDArray[np.float32]:
    """Probability of each label [N, C]: softmax over the similarities to its positive and its negative prompts."""
    pairs = [prompts.pair_of(label) for label in labels]
    positive_CD = prompt_vectors(encoder, [positive for positive, _ in pairs], batch_size)
    negative_CD = prompt_vectors(encoder, [negative for _, negative in pairs], batch_size)
    similarity_NC2 = np.stack([v_ND @ positive_CD.T, v_ND @ negative_CD.T], axis=2)
    return softmax(similarity_NC2 / temperature_of(encoder), axis=2)[..., 0].astype(np.float32)


def class_scores(
    encoder: Encoder, v_ND: NDArray[np.float32], classes: Sequence[str], prompts: PromptSet, batch_size: int
) -> NDArray[np.float32]:
    """Probability of each class [N, C]: softmax over the similarities to the prompts of all classes."""
    class_CD = prompt_vectors(encoder, [prompts.class_of(name) for name in classes], batch_size)
    return softmax(v_ND @ class_CD.T / temperature_of(encoder), axis=1).astype(np.float32)


def temperature_of(encoder: Encoder) -> float:
    """The temperature that the run learned, or that of its own objective, where it has one."""
    if (learned := getattr(encoder, "temperature", None)) is not None:
        return float(learned)
    objective = getattr(getattr(encoder, "config", None), "objective", None)
    return float(getattr(objective, "temperature", TEMPERATURE))


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The units of one split, and what every method says of them."""

    targets_UC: NDArray[np.float64]
    patients_U: NDArray[np.str_]
    scores: Mapping[str, NDArray[np.float32]]
    """[U, C] by method."""


class Sheet:
    """The rows of one table under one plan of resamples."""

    def __init__(self, test: Scored, task: str, *, resamples: int) -> None:
        self.test = test
        self.task = task
        self.rows: list[Row] = []
        self.comparisons: list[Row] = []
        self._plan = Resampling.draw(test.patients_U, seeds=1, resamples=resamples)

    def add(
        self,
        label: str,
        metric: str,
        statistic: Callable[[str, NDArray, int], Array],
        *,
        chance: float,
        chance_is: str,
        extra: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """One metric of one label for all methods; `statistic` takes a method, weights [U, R] and a seed."""
        common = {
            "task": f"{self.task}: {label}",
            "label": label,
            "space": "shared",
            "head": None,
            "fraction": None,
            "n_train": 0,
            "n_test": len(self.test.targets_UC),
            "n_patients": len(np.unique(self.test.patients_U)),
        }
        rows, comparisons = measure(
            {method: partial(statistic, method) for method in self.test.scores},
            self._plan,
            common,
            metric=metric,
            chance=chance,
            chance_is=chance_is,
            extra=extra,
        )
        self.rows += rows
        self.comparisons += comparisons

    def add_auc(self, label: str, c: int | None = None) -> None:
        """The area under the curve of column c, or the mean over all columns."""

        def statistic(method: str, weights_UR: NDArray, seed: int) -> Array:
            scores_UC, targets_UC = self.test.scores[method], self.test.targets_UC
            if c is None:
                return weighted_mean_auc(targets_UC, scores_UC, weights_UR)
            return weighted_auc(targets_UC[:, c], scores_UC[:, c], weights_UR)

        self.add(label, "auc", statistic, chance=0.5, chance_is="scores that do not depend on the image")

    def add_share(
        self,
        label: str,
        metric: str,
        right: Mapping[str, NDArray],
        counted_U: NDArray,
        *,
        chance: float,
        chance_is: str,
        extra: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """The share of the counted units [U] that a method gets right [U]; NaN in a resample without one of them."""

        def statistic(method: str, weights_UR: NDArray, seed: int) -> Array:
            weights = weights_UR[counted_U].astype(np.float64)
            total_R = weights.sum(axis=0)
            hits_R = right[method][counted_U].astype(np.float64) @ weights
            return np.divide(hits_R, total_R, out=np.full(len(total_R), np.nan), where=total_R > 0)

        self.add(label, metric, statistic, chance=chance, chance_is=chance_is, extra=extra)


def scorable(targets_UC: NDArray) -> list[int]:
    """The columns that hold both positives and negatives."""
    both_C = (targets_UC == 1).any(axis=0) & (targets_UC == 0).any(axis=0)
    return [int(c) for c in np.flatnonzero(both_C)]


def score_labels(sheet: Sheet, validation: Scored | None, labels: Sequence[str]) -> None:
    """Mean AUC, AUC of each label, and sensitivity, specificity and accuracy at its operating point.

    Operating points (Youden's) come from the validation rows alone; without them there are none.
    """
    test = sheet.test
    sheet.add_auc("mean over labels")
    for c in scorable(test.targets_UC):
        sheet.add_auc(labels[c], c)
        if validation is None or c not in scorable(validation.targets_UC):
            continue
        points = {
            method: choose_threshold(validation.targets_UC[:, c], scores_UC[:, c], Rule(kind="youden"))
            for method, scores_UC in validation.scores.items()
        }
        target_U = test.targets_UC[:, c]
        right = {
            method: (scores_UC[:, c] >= points[method]) == (target_U == 1) for method, scores_UC in test.scores.items()
        }
        counted = {"sensitivity": target_U == 1, "specificity": target_U == 0, "accuracy": np.isfinite(target_U)}
        for metric, counted_U in counted.items():
            always = float((target_U[counted_U] == 0).mean())
            sheet.add_share(
                labels[c],
                metric,
                right,
                counted_U,
                chance=max(always, 1 - always) if metric == "accuracy" else 0.5,
                chance_is="always the commoner answer" if metric == "accuracy" else "a fair coin",
                extra={
                    method: {"threshold": point, "threshold_from": "validation"} for method, point in points.items()
                },
            )


def score_classes(sheet: Sheet, classes: Sequence[str]) -> None:
    """Accuracy of the nearest class, macro AUC, and each class against the rest."""
    test = sheet.test
    codes_U = test.targets_UC.argmax(axis=1)
    right = {method: scores_UC.argmax(axis=1) == codes_U for method, scores_UC in test.scores.items()}
    everyone = np.ones(len(codes_U), dtype=bool)
    sheet.add_share(
        "all classes", "accuracy", right, everyone, chance=1 / len(classes), chance_is="a fair draw of the class"
    )
    sheet.add_auc("all classes")
    for c in scorable(test.targets_UC):
        sheet.add_auc(classes[c], c)
