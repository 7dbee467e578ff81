"""`convirt classify`: what a frozen encoder is worth for image classification (ConVIRT, section 4.1)."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convirt.data.benchmarks.folder import Benchmark, Protocol, first_given
from convirt.errors import InputError
from convirt.evaluation.classification.linear_evaluation import Head, LinearProtocol, check_task, evaluate_features
from convirt.evaluation.classification.linear_head import PaperHeadConfig
from convirt.evaluation.inputs.features import Baseline, encode_images, load_encoders
from convirt.evaluation.inputs.labelled import Columns, read_labelled, settle
from convirt.evaluation.inputs.pooling import pool_views
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.results import Results, beside, check_out

FRACTIONS = (0.01, 0.1, 1.0)  # ConVIRT, section 3.1
LEARNING_RATE = 1e-4  # appendix B; COVIDx, whose benchmark says so, has another


def classify(
    runs: Sequence[Path],
    table: Path,
    images: Path | None = None,
    *,
    out: Path,
    label_column: str | None = None,
    label_columns: Sequence[str] = (),
    image_column: str = "image",
    patient_column: str | None = None,
    split_column: str = "split",
    pool_column: str | None = None,
    where: Sequence[str] = (),
    fractions: Sequence[float] | None = None,
    seeds: int = 5,
    baselines: Sequence[Baseline] = ("random", "imagenet"),
    heads: Sequence[Head] = ("paper", "logistic"),
    learning_rate: float | None = None,
    max_epochs: int = 200,
    select_on: Literal["auc", "accuracy"] | None = None,
    resamples: int = 1000,
    batch_size: int = 64,
    device: str = "auto",
) -> Results:
    """Linear evaluation of pretraining runs beside untrained encoders of the same architecture.

    The encoder is frozen and each image is encoded once; heads train on the features h_v of a share of the training
    labels, their settings are chosen on the validation rows, and figures are of the test rows.

    Args:
        runs: Folders of pretraining runs (or of checkpoints).
        table: CSV or Parquet, one row per image; or a benchmark folder, which brings its columns, its split, its label
            fractions, its image folder and the paper's settings for it, so that no further option is needed.
        images: Folder that the image paths are relative to; by default the benchmark's.
        out: Folder for metrics.json and predictions.npz.
        label_column: Column with the class of the image (single-label).
        label_columns: Columns with 1, 0 or nothing, one a label (multi-label); commas may separate them.
        image_column: Column with the image path.
        patient_column: Column with the patient or case; without it each image counts as a patient of its own.
        split_column: Column with the split: train, val (valid, dev, validation) or test.
        pool_column: Column whose equal values name one study: the vectors of its images are averaged, and it is
            evaluated as one.
        where: Conditions column=value that rows must meet.
        fractions: Shares of the training labels; 0.01 0.1 1 by default.
        seeds: Number of seeds; each draws the labelled subset and the head's start, order and dropout.
        baselines: Encoders to stand beside the runs, with the architecture of the first run.
        heads: `paper` (dropout and a linear layer, Adam) and `logistic` (standardised features, L-BFGS).
        learning_rate: Initial rate of the paper's head; 1e-4 by default.
        max_epochs: Limit of epochs of the paper's head.
        select_on: Validation score that steers the paper's head, AUC by default; take accuracy for a task that is
            judged by it, as COVIDx is. Logistic regression chooses C by validation log loss.
        resamples: Bootstrap resamples.
        batch_size: Images encoded at once.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: Unusable table, images, runs or settings.
    """
    arguments = dict(locals())
    started = time.monotonic()
    check_out(out)
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}")
    labels = tuple(name.strip() for part in label_columns for name in part.split(",") if name.strip())
    columns = Columns(
        image=image_column,
        label=label_column,
        labels=labels,
        patient=patient_column,
        split=split_column,
        pool=pool_column,
    )
    columns, benchmark = settle(Path(table), columns)
    if not columns.label and not columns.labels:
        raise InputError("name a label column (--label-column) or several (--label-columns)")
    paper = benchmark.protocol if benchmark else Protocol()
    protocol = LinearProtocol(
        fractions=tuple(first_given(fractions, paper.fractions, FRACTIONS)),
        seeds=tuple(range(seeds)),
        heads=tuple(heads),
        paper_head=PaperHeadConfig(
            learning_rate=first_given(learning_rate, paper.learning_rate, LEARNING_RATE),
            max_epochs=max_epochs,
            select_on=first_given(select_on, paper.select_on, "auc"),
        ),
        resamples=resamples,
    )
    labelled = read_labelled(table, images, columns, where, benchmark)
    pooled = pool_views(labelled, pool_column)
    check_task(pooled.table, protocol)
    encoders = load_encoders(runs, baselines, part="image", device=device)
    encoded = encode_images(
        [(encoder, "features") for encoder in encoders.values()],
        labelled.paths,
        normalise=False,
        batch_size=batch_size,
    )
    features = pooled.mean_of_each(dict(zip(encoders, encoded.vectors, strict=True)), normalise=False)
    rows, comparisons, predictions = evaluate_features(
        features, pooled.table, protocol, task=_task(columns, benchmark), baselines=baselines
    )
    return Results(
        verb="classify",
        config={**arguments, "protocol": asdict(protocol)},
        seeds=protocol.seeds,
        data={
            **describe(labelled, encoded.sha256),
            **pooled.described(),
            **(benchmark.described() if benchmark else {}),
        },
        rows=[{**row, **pooled.described()} for row in beside(rows, benchmark)],
        comparisons=comparisons,
        predictions=predictions,
        wall_seconds=time.monotonic() - started,
        notes=benchmark.notes if benchmark else (),
    ).finish(out)


def _task(columns: Columns, benchmark: Benchmark | None) -> str:
    return benchmark.name if benchmark else columns.label or "multi-label"


def describe(table: LabelledTable, images_sha256: str) -> dict[str, Any]:
    """Fingerprints and counts of the evaluated data."""
    splits, counts = np.unique(table.splits_N, return_counts=True)
    return {
        "table_sha256": table.sha256,
        "images_sha256": images_sha256,
        "images": len(table),
        "rows_without_label": table.rows_without_label,
        "classes": list(table.classes),
        "splits": {str(split): int(count) for split, count in zip(splits, counts, strict=True)},
    }
