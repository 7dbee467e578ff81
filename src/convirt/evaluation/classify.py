"""`convirt classify`: what an encoder is worth for classification, frozen and fine-tuned (ConVIRT, section 4.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.inputs.options import Baseline, Device, Head, Setting, SharedLabelledOptions, flat
from convirt.evaluation.protocol import LEARNING_RATE, ClassificationProtocol, Outcomes, Rule, Schedule
from convirt.evaluation.results import Call, Results

if TYPE_CHECKING:
    from convirt.evaluation.inputs.images import Encoder, Space
    from convirt.evaluation.inputs.table import LabelledTable, OpenTable
    from convirt.evaluation.inputs.units import Pooled

FRACTIONS = (0.01, 0.1, 1.0)  # ConVIRT, section 3.1


def classify(
    runs: Sequence[Path],
    options: SharedLabelledOptions,
    *,
    out: Path,
    pool_column: str | None = None,
    sex_column: str | None = None,
    age_column: str | None = None,
    view_column: str | None = None,
    source_column: str | None = None,
    settings: Sequence[Setting] = ("linear",),
    fractions: Sequence[float] | None = None,
    seeds: int = 5,
    baselines: Sequence[Baseline] = ("random", "imagenet"),
    heads: Sequence[Head] = ("paper", "logistic"),
    learning_rate: float | None = None,
    max_epochs: int = 200,
    max_steps: int | None = None,
    select_on: Literal["auc", "accuracy"] | None = None,
    metadata: bool | None = None,
    operating_points: Sequence[str] = ("youden",),
    resamples: int = 1000,
    batch_size: int = 64,
    device: Device = "auto",
    details: bool = False,
) -> Results:
    """Linear evaluation and fine-tuning of pretraining runs, compared with untrained encoders of the same architecture.

    Linear: the encoder is frozen and each image is encoded once; heads train on the features h_v of a share of the
    training labels. Fine-tuned: the head warms up alone, then everything trains; what is done is kept in OUT/cells, so
    that the same command goes on after a stop. Settings and thresholds are chosen on the validation rows, and figures
    are of the test rows, with calibration, operating points, subgroups, and a baseline that sees metadata alone.

    Args:
        runs: Folders of pretraining runs (or of checkpoints); the first is compared with every other.
        options: The table and its columns.
        out: Folder for metrics.json, predictions.npz and reliability.png.
        pool_column: Column whose equal values name one study: the features of its images are averaged, in training as
            at test, and it is evaluated as one.
        sex_column: Column with the sex, for subgroups and the metadata baseline; a benchmark's columns sex, age, view
            and source are taken without being named.
        age_column: Column with the age, years.
        view_column: Column with the view.
        source_column: Column with the data set or scanner that the image comes from.
        settings: `linear`, `finetuned` or both.
        fractions: Shares of the training labels; 0.01 0.1 1 by default.
        seeds: Number of seeds; each draws the labelled subset and the head's start, order and dropout.
        baselines: Encoders to compare the runs with, with the architecture of the first run.
        heads: Of linear evaluation: `paper` (dropout and a linear layer, Adam) and `logistic` (standardised features,
            L-BFGS).
        learning_rate: Initial rate of the paper's head, and of fine-tuning after its warm-up; 1e-4 by default.
        max_epochs: Limit of epochs of the paper's head, and of fine-tuning.
        max_steps: Limit of steps of fine-tuning after its warm-up.
        select_on: Validation score that steers the paper's head and fine-tuning, AUC by default; take accuracy for a
            task that is judged by it, as COVIDx is. Logistic regression chooses C by validation log loss.
        metadata: Whether a baseline of sex, age, view, source and image size alone is evaluated as well; by
            default for a benchmark, and where one of these columns is named.
        operating_points: How thresholds are chosen on validation: youden, sensitivity=0.9, specificity=0.9 ...
        resamples: Bootstrap resamples.
        batch_size: Images encoded at once.
        device: `auto`, `cpu` or `cuda`.
        details: Print calibration, operating points, subgroups, and AUC by class as well; metrics.json has them anyway.

    Raises:
        InputError: Unusable table, images, runs or settings.
    """
    options = options.split_by("split")
    call = Call.begin("classify", flat(locals()), "seeds", "batch_size", "resamples", "max_epochs", "max_steps")
    rules = tuple(map(Rule.parse, operating_points))
    attributes = {"sex": sex_column, "age": age_column, "view": view_column, "source": source_column}
    opened = options.open(pool_column=pool_column, attributes=attributes).require_labels()
    protocol = ClassificationProtocol(
        settings=tuple(settings),
        fractions=tuple(fractions if fractions is not None else opened.protocol.fractions or FRACTIONS),
        seeds=tuple(range(seeds)),
        heads=tuple(heads),
        schedule=schedule_of(opened, learning_rate, max_epochs, select_on),
        max_steps=max_steps,
        resamples=resamples,
        operating_points=rules,
    )

    from convirt.evaluation.calibration import PICTURE, write_reliability
    from convirt.evaluation.findings import evaluate
    from convirt.evaluation.inputs.images import load_encoders
    from convirt.evaluation.inputs.units import pool_views
    from convirt.evaluation.metadata import METHOD
    from convirt.evaluation.scoring import ScoredTask

    pooled = pool_views(opened.table, pool_column)
    protocol.check(pooled.table)
    call.check_same(opened)
    encoders = load_encoders(runs, baselines, part="image", device=device)
    if METHOD in encoders:
        raise InputError(f"a run may not be called {METHOD!r}, which is the name of a baseline; rename its folder")
    trained = _train(encoders, opened.table, pooled, protocol, Path(out), batch_size)
    wanted = metadata if metadata is not None else opened.benchmark is not None or bool(opened.columns.attributes)
    findings = evaluate(
        trained.outcomes,
        pooled.table,
        protocol,
        task=opened.task,
        baselines=baselines,
        sides_N2=trained.sides_N2 if wanted else None,
    )
    write_reliability(trained.outcomes, ScoredTask.of(pooled.table, seeds=1, resamples=1), Path(out))
    sha256 = trained.images_sha256
    return findings.finish(call, opened, protocol, opened.table, sha256, pooled.described(), files=[PICTURE])


def schedule_of(
    opened: "OpenTable",
    learning_rate: float | None,
    max_epochs: int,
    select_on: Literal["auc", "accuracy"] | None,
) -> Schedule:
    """The schedule that the user asked for, else the paper's for the benchmark, else the default."""
    paper = opened.protocol
    rates = (learning_rate, paper.learning_rate, LEARNING_RATE)
    return Schedule(
        learning_rate=next(rate for rate in rates if rate is not None),
        max_epochs=max_epochs,
        select_on=select_on or paper.select_on or "auc",
    )


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """Classifiers of every setting, and what was learnt of the images on the way."""

    outcomes: Outcomes
    images_sha256: str
    sides_N2: NDArray[np.int64]
    """Height and width of each row's image (of a pooled row's first)."""


def _train(
    encoders: "Mapping[str, Encoder]",
    table: "LabelledTable",
    pooled: "Pooled",
    protocol: ClassificationProtocol,
    out: Path,
    batch_size: int,
) -> _Trained:
    from convirt.evaluation.finetuning import Tower
    from convirt.evaluation.inputs.images import encode_images, read_canvases
    from convirt.evaluation.linear import train_linear
    from convirt.evaluation.saved_tuning import train_finetuned

    outcomes: Outcomes = {}
    first = np.unique(pooled.index_N, return_index=True)[1]
    if "linear" in protocol.settings:
        requests: list[tuple[Encoder, Space]] = [(encoder, "features") for encoder in encoders.values()]
        encoded = encode_images(requests, table.paths, normalise=False, batch_size=batch_size)
        features = pooled.mean_of_each(dict(zip(encoders, encoded.vectors, strict=True)), normalise=False)
        outcomes |= train_linear(features, pooled.table, protocol)
        digest, sides_N2 = encoded.sha256, encoded.sides_N2[first]
    if "finetuned" in protocol.settings:
        towers = {name: Tower.of(encoder) for name, encoder in encoders.items()}
        with read_canvases(table.paths, {tower.size for tower in towers.values()}, out) as canvases:
            outcomes |= train_finetuned(towers, canvases, pooled, protocol, out)
            digest, sides_N2 = canvases.sha256, canvases.sides_N2[first]
    return _Trained(outcomes=outcomes, images_sha256=digest, sides_N2=sides_N2)
