"""`convirt zero-shot`: classification of images from prompts alone, without one labelled training image."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.classification.units import Units
from convirt.evaluation.inputs.features import Encoder, encode_images, load_encoders
from convirt.evaluation.inputs.options import Device, SharedLabelledOptions, check_counts, flat
from convirt.evaluation.inputs.pooling import pool_views
from convirt.evaluation.inputs.table import LabelledTable, TableColumns
from convirt.evaluation.results import Results, check_out, check_same, with_benchmark
from convirt.evaluation.zero_shot.prompts import PromptSet, read_prompts
from convirt.evaluation.zero_shot.scoring import Scored, Sheet, class_scores, pair_scores, score_classes, score_labels


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
    arguments = flat(locals())
    started = time.monotonic()
    check_out(out)
    check_counts(batch_size=batch_size, resamples=resamples)
    opened = options.open(pool_column=pool_column).require_labels()
    prompt_set = read_prompts(prompts)
    labelled = _scored_rows(opened.table, opened.columns)
    pooled = pool_views(labelled, pool_column)
    for name in pooled.table.classes:  # before any image is encoded
        _ = prompt_set.pair_of(name) if labelled.multi_label else prompt_set.class_of(name)
    check_same(out, "zero-shot", arguments, labelled.sha256)
    encoders = _with_shared_space(load_encoders(runs, (), part="both", device=device))
    encoded = encode_images(
        [(encoder, "shared") for encoder in encoders.values()], labelled.paths, normalise=True, batch_size=batch_size
    )
    vectors = pooled.mean_of_each(dict(zip(encoders, encoded.vectors, strict=True)), normalise=True)
    scores = _scores(encoders, vectors, pooled.table, prompt_set, batch_size)
    test = _of_split(pooled.table, scores, "test")
    sheet = Sheet(test, opened.benchmark.name if opened.benchmark else "zero-shot", resamples=resamples)
    if labelled.multi_label:
        validation = _of_split(pooled.table, scores, "val") if "val" in pooled.table.splits_N else None
        score_labels(sheet, validation, pooled.table.classes)
    else:
        score_classes(sheet, pooled.table.classes)
    return Results(
        verb="zero-shot",
        config={**arguments, "prompts_used": {"pairs": prompt_set.pairs, "classes": prompt_set.classes}},
        seeds=[0],
        data={
            "table_sha256": labelled.sha256,
            "images_sha256": encoded.sha256,
            "prompts_sha256": prompt_set.sha256,
            "images": len(labelled),
            **pooled.described(),
            **opened.described(),
        },
        rows=[{**row, **pooled.described()} for row in with_benchmark(sheet.rows, opened)],
        comparisons=sheet.comparisons,
        predictions=_predictions(pooled.table, test),
        wall_seconds=time.monotonic() - started,
        notes=opened.notes,
    ).finish(out)


def _scored_rows(table: LabelledTable, columns: TableColumns) -> LabelledTable:
    """Test and validation rows; where there is no split all rows as test, where there are roles the candidates."""
    if columns.role:
        table = table.take(np.flatnonzero(table.roles_N == "candidate"))
    if columns.role or not columns.split:
        return replace(table, splits_N=np.full(len(table), "test"))
    table.rows("test")
    return table.take(np.flatnonzero(table.splits_N != "train"))


def _with_shared_space(encoders: Mapping[str, Encoder]) -> Mapping[str, Encoder]:
    for name, encoder in encoders.items():
        if getattr(encoder, "shared_dim", True) is None or getattr(encoder, "text_encoder", True) is None:
            method = getattr(getattr(encoder, "config", None), "method", "unknown")
            raise InputError(
                f"run {name!r} (method {method}) has no shared space of images and texts; zero-shot classification "
                "needs one, as convirt has"
            )
    return encoders


def _scores(
    encoders: Mapping[str, Encoder],
    vectors: Mapping[str, NDArray[np.float32]],
    table: LabelledTable,
    prompts: PromptSet,
    batch_size: int,
) -> dict[str, NDArray[np.float32]]:
    score = pair_scores if table.multi_label else class_scores
    return {
        name: score(encoder, vectors[name], table.classes, prompts, batch_size) for name, encoder in encoders.items()
    }


def _of_split(table: LabelledTable, scores: Mapping[str, NDArray[np.float32]], split: str) -> Scored:
    """The units of a split, the mean of their images' scores with them."""
    rows = table.rows(split)
    part = table.take(rows)
    units = Units.of(replace(part, splits_N=np.full(len(part), "test")))
    return Scored(
        targets_UC=units.targets_UC,
        patients_U=units.patients_U,
        scores={name: units.mean(scores_NC[rows][None])[0] for name, scores_NC in scores.items()},
    )


def _predictions(table: LabelledTable, test: Scored) -> dict[str, NDArray]:
    arrays: dict[str, NDArray] = {
        "test_images": np.array(table.images)[table.rows("test")],
        "test_patients": test.patients_U,
        "test_targets": test.targets_UC,
        "classes": np.array(table.classes),
    }
    return arrays | {f"scores|{name}": scores_UC for name, scores_UC in test.scores.items()}
