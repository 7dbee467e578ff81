"""`convirt zero-shot`: classification of images from prompts alone, without one labelled training image.

Shape legend: N images, U units that are scored, C labels or classes, D size of the shared space, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.inputs.options import Device, SharedLabelledOptions, flat
from convirt.evaluation.prompts import class_scores, pair_scores, read_prompts
from convirt.evaluation.protocol import Rule
from convirt.evaluation.results import Call, Results
from convirt.evaluation.rows import Plain, Row, Statistic, measure
from convirt.evaluation.statistics.bootstrap import Array, Resampling
from convirt.evaluation.statistics.metrics import scorable, weighted_auc, weighted_mean_auc

if TYPE_CHECKING:
    from convirt.evaluation.inputs.images import Encoder
    from convirt.evaluation.inputs.table import LabelledTable, TableColumns


def zero_shot(
    runs: Sequence[Path],
    options: SharedLabelledOptions,
    *,
    out: Path,
    prompts: str = "chexpert",
    pool_column: str | None = None,
    resamples: int = 1000,
    batch_size: int = 64,
    device: Device = "auto",
) -> Results:
    """Zero-shot classification: images compared with prompts in the shared space.

    With label columns: a softmax over the similarities to the positive and the negative prompts of each label, scored
    by AUC. With a label column: the class whose prompts are nearest. Where there is a split, the test rows are scored,
    and validation rows choose the operating point of each label; else all rows are scored. The vectors of several
    prompts of one side are averaged in the shared space.

    Args:
        runs: Folders of pretraining runs (or of checkpoints) with a shared space.
        options: The table and its columns.
        out: Folder for metrics.json and predictions.npz.
        prompts: Built-in set (`chexpert`, `phantom`), or a TOML, CSV or Parquet file of prompts (docs/formats.md).
        pool_column: Column whose equal values name one study: the vectors of its images are averaged, and it is
            evaluated as one.
        resamples: Bootstrap resamples over patients.
        batch_size: Images encoded at once.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: Unusable table, images, prompts or settings, or a run without a shared space.
    """
    call = Call.begin("zero-shot", flat(locals()), "batch_size", "resamples")
    prompt_set = read_prompts(prompts)
    opened = options.open(pool_column=pool_column).require_labels()

    from convirt.evaluation.inputs.images import encode_images, load_encoders
    from convirt.evaluation.inputs.units import pool_views

    labelled = _scored_rows(opened.table, opened.columns)
    pooled = pool_views(labelled, pool_column)
    table = pooled.table
    for name in table.classes:  # before any image is encoded
        _ = prompt_set.pair_of(name) if table.multi_label else prompt_set.class_of(name)
    call.check_same(opened)
    encoders = _with_shared_space(load_encoders(runs, (), part="both", device=device))
    encoded = encode_images(
        [(encoder, "shared") for encoder in encoders.values()], labelled.paths, normalise=True, batch_size=batch_size
    )
    vectors = pooled.mean_of_each(dict(zip(encoders, encoded.vectors, strict=True)), normalise=True)
    score = pair_scores if table.multi_label else class_scores
    scores = {
        name: score(encoder, vectors[name], table.classes, prompt_set, batch_size) for name, encoder in encoders.items()
    }
    test = _of_split(table, scores, "test")
    sheet = _Sheet(test, opened.benchmark.name if opened.benchmark else "zero-shot", table.classes, resamples)
    if table.multi_label:
        sheet.score_labels(_of_split(table, scores, "val") if "val" in table.splits_N else None)
    else:
        sheet.score_classes()
    return call.finish(
        opened,
        config={"prompts_used": {"pairs": prompt_set.pairs, "classes": prompt_set.classes}},
        data={
            "table_sha256": labelled.sha256,
            "images_sha256": encoded.sha256,
            "prompts_sha256": prompt_set.sha256,
            "images": len(labelled),
        },
        rows=sheet.rows,
        row_values=pooled.described(),
        comparisons=sheet.comparisons,
        predictions={
            "test_images": np.array(table.images)[table.rows("test")],
            "test_patients": test.patients_U,
            "test_targets": test.targets_UC,
            "classes": np.array(table.classes),
            **{f"scores|{name}": scores_UC for name, scores_UC in test.scores.items()},
        },
    )


def _scored_rows(table: "LabelledTable", columns: "TableColumns") -> "LabelledTable":
    """Test and validation rows; where there is no split all rows as test, where there are roles the candidates."""
    if columns.role:
        table = table.take(np.flatnonzero(table.roles_N == "candidate"))
    if columns.role or not columns.split:
        return replace(table, splits_N=np.full(len(table), "test"))
    table.rows("test")
    return table.take(np.flatnonzero(table.splits_N != "train"))


def _with_shared_space(encoders: "Mapping[str, Encoder]") -> "Mapping[str, Encoder]":
    for name, encoder in encoders.items():
        if getattr(encoder, "shared_dim", True) is None or getattr(encoder, "text_encoder", True) is None:
            method = getattr(getattr(encoder, "config", None), "method", "unknown")
            raise InputError(
                f"run {name!r} (method {method}) has no shared space of images and texts; zero-shot classification "
                "needs one, as convirt has"
            )
    return encoders


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """The units of one split, and the probabilities that every method gives them."""

    targets_UC: NDArray[np.float64]
    patients_U: NDArray[np.str_]
    scores: Mapping[str, NDArray[np.float32]]
    """[U, C] by method."""


def _of_split(table: "LabelledTable", scores: Mapping[str, NDArray[np.float32]], split: str) -> _Scored:
    """The units of a split, the mean of their images' scores with them."""
    from convirt.evaluation.inputs.units import Units

    rows, units = table.rows(split), Units.of(table, split)
    means = {name: units.mean(scores_NC[rows][None])[0] for name, scores_NC in scores.items()}
    return _Scored(targets_UC=units.targets_UC, patients_U=units.patients_U, scores=means)


class _Sheet:
    """The rows of one table under one plan of resamples."""

    def __init__(self, test: _Scored, task: str, classes: Sequence[str], resamples: int) -> None:
        self.test, self.task, self.classes = test, task, classes
        self.rows: list[Row] = []
        self.comparisons: list[Plain] = []
        self._plan = Resampling.draw(test.patients_U, seeds=1, resamples=resamples)

    def score_labels(self, validation: _Scored | None) -> None:
        """Mean AUC, AUC of each label, and sensitivity, specificity and accuracy at its operating point.

        Operating points (Youden's) come from the validation rows alone; without them there are none.
        """
        from convirt.evaluation.calibration import choose_threshold

        test = self.test
        self._add_auc("mean over labels")
        for c in scorable(test.targets_UC):
            self._add_auc(self.classes[c], c)
            if validation is None or c not in scorable(validation.targets_UC):
                continue
            points = {
                method: choose_threshold(validation.targets_UC[:, c], scores_UC[:, c], Rule(kind="youden"))
                for method, scores_UC in validation.scores.items()
            }
            target_U = test.targets_UC[:, c]
            right = {
                method: (scores_UC[:, c] >= points[method]) == (target_U == 1)
                for method, scores_UC in test.scores.items()
            }
            extra = {method: {"threshold": point, "threshold_from": "validation"} for method, point in points.items()}
            coin = {"chance": 0.5, "chance_is": "a fair coin"}
            self._add_share(self.classes[c], "sensitivity", right, target_U == 1, extra, **coin)
            self._add_share(self.classes[c], "specificity", right, target_U == 0, extra, **coin)
            given_U = np.isfinite(target_U)
            negative = float((target_U[given_U] == 0).mean())
            commoner = {"chance": max(negative, 1 - negative), "chance_is": "always the commoner answer"}
            self._add_share(self.classes[c], "accuracy", right, given_U, extra, **commoner)

    def score_classes(self) -> None:
        """Accuracy of the nearest class, macro AUC, and each class against the rest."""
        codes_U = self.test.targets_UC.argmax(axis=1)
        right = {method: scores_UC.argmax(axis=1) == codes_U for method, scores_UC in self.test.scores.items()}
        everyone_U = np.ones(len(codes_U), dtype=bool)
        draw = {"chance": 1 / len(self.classes), "chance_is": "a fair draw of the class"}
        self._add_share("all classes", "accuracy", right, everyone_U, {}, **draw)
        self._add_auc("all classes")
        for c in scorable(self.test.targets_UC):
            self._add_auc(self.classes[c], c)

    def _add_auc(self, label: str, c: int | None = None) -> None:
        """The area under the curve of column c, or the mean over all columns that have one."""
        targets_UC = self.test.targets_UC

        def statistic(method: str, weights_UR: NDArray, seed: int) -> Array:
            scores_UC = self.test.scores[method]
            if c is None:
                return weighted_mean_auc(targets_UC, scores_UC, weights_UR)
            return weighted_auc(targets_UC[:, c], scores_UC[:, c], weights_UR)

        extra: dict[str, Plain] = {}
        if c is None:
            scored = scorable(targets_UC)
            others = [name for place, name in enumerate(self.classes) if place not in scored]
            said = {"labels_scored": len(scored), "labels_not_scored": others}
            extra = dict.fromkeys(self.test.scores, said)
        chance_is = "scores that do not depend on the image"
        statistics = {method: partial(statistic, method) for method in self.test.scores}
        self._add(label, "auc", statistics, extra, chance=0.5, chance_is=chance_is)

    def _add_share(
        self,
        label: str,
        metric: str,
        right: Mapping[str, NDArray],
        counted_U: NDArray,
        extra: Mapping[str, Plain],
        **chance: Any,
    ) -> None:
        """The share of the counted units [U] that a method gets right [U]."""
        from convirt.evaluation.calibration import share_of

        def statistic(method: str, weights_UR: NDArray, seed: int) -> Array:
            return share_of(counted_U, right[method], weights_UR)

        self._add(label, metric, {method: partial(statistic, method) for method in right}, extra, **chance)

    def _add(
        self, label: str, metric: str, statistics: Mapping[str, Statistic], extra: Mapping[str, Plain], **chance: Any
    ) -> None:
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
        rows, comparisons = measure(statistics, self._plan, common, metric=metric, extra=extra, **chance)
        self.rows += rows
        self.comparisons += comparisons
