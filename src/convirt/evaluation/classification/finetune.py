"""`convirt finetune`: an encoder trained further on labels, kept as a checkpoint (ConVIRT, section 4.2).

The paper's "ConVIRT + CheXpert supervised" is the upper bound of image-image retrieval: trained on the candidates' own
labels, which is why the images of a list can be left out.
"""

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from convirt.data.benchmarks.folder import open_benchmark
from convirt.errors import InputError
from convirt.evaluation.classification.cells import Tower, cell_key
from convirt.evaluation.classification.evaluation import evaluate
from convirt.evaluation.classification.finetuning import Examples, FineTuning
from convirt.evaluation.classification.protocol import ClassificationProtocol, Place, check_task
from convirt.evaluation.classification.reporting import describe, results_of, schedule_of, task_name
from convirt.evaluation.classification.saved_tuning import BEST_SO_FAR, restore_progress, save_encoder, save_progress
from convirt.evaluation.inputs.canvases import read_canvases
from convirt.evaluation.inputs.options import Device, SharedLabelledOptions, check_counts, flat
from convirt.evaluation.inputs.pooling import pool_views
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.results import Results, check_out
from convirt.model import load


def finetune(
    run: Path,
    options: SharedLabelledOptions,
    *,
    out: Path,
    pool_column: str | None = None,
    exclude: Sequence[Path] = (),
    exclude_patients: bool = False,
    fraction: float = 1.0,
    seed: int = 0,
    learning_rate: float | None = None,
    max_epochs: int = 200,
    max_steps: int | None = None,
    select_on: Literal["auc", "accuracy"] | None = None,
    resamples: int = 1000,
    device: Device = "auto",
) -> Results:
    """Fine-tune the image encoder of a run on labels, and keep it as a checkpoint.

    The same training as `convirt classify --settings finetuned`. OUT/best is a checkpoint that `classify`, `retrieve`
    and `convirt.load` take; it has no shared space. State is kept after each epoch, so that the same command goes on
    after a stop.

    Args:
        run: Folder of a pretraining run (or of a checkpoint).
        options: The table and its columns.
        out: Folder for best/, metrics.json and predictions.npz.
        pool_column: Column whose equal values name one study: the features of its images are averaged, in training as
            at test, and it is one row.
        exclude: Benchmark folders, CSV files with a column `image`, or text files with an image a line: rows of these
            images are left out of training and validation.
        exclude_patients: Leave out every row of these images' patients as well.
        fraction: Share of the training labels.
        seed: Draws the labelled subset, the head's start, the order and the dropout.
        learning_rate: Initial rate after the warm-up; 1e-4 by default.
        max_epochs: Limit of epochs.
        max_steps: Limit of steps after the warm-up.
        select_on: Validation score that steers training, AUC by default.
        resamples: Bootstrap resamples.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: Unusable table, images, run or settings, or `out` holds another fine-tuning.
    """
    options = options.split_by("split")
    arguments = flat(locals())
    started = time.monotonic()
    check_out(out)
    check_counts(resamples=resamples, max_epochs=max_epochs, max_steps=max_steps)
    opened = options.open(pool_column=pool_column).require_labels()
    protocol = ClassificationProtocol(
        settings=("finetuned",),
        fractions=(fraction,),
        seeds=(seed,),
        schedule=schedule_of(opened.protocol, learning_rate, max_epochs, select_on),
        max_steps=max_steps,
        resamples=resamples,
    )
    whole = opened.table
    kept = without(whole, exclude, patients=exclude_patients)
    pooled = pool_views(kept, pool_column)
    labelled = pooled.table
    check_task(labelled, protocol)
    model = load(run, part="image", device=device)
    tower = Tower.of(model)
    with read_canvases(kept.paths, {tower.size}, out) as canvases:
        examples = Examples(
            canvases=canvases,
            size=tower.size,
            targets_NC=labelled.targets_NC,
            multi_label=labelled.multi_label,
            pooled=pooled,
        )
        subset = labelled.training_subset(fraction, seed)
        key = cell_key(tower, canvases, pooled, subset, seed, protocol)
        tuning = FineTuning(tower.encoder, examples, labelled, subset, seed, protocol, tower.device)
        train_on_disk(tuning, out, model.config, key)
        save_encoder(out / "best", tuning, model.config)
        outcome = tuning.outcome(labelled)
    place = Place(setting="finetuned", head="paper", fraction=fraction)
    name = f"{model.name} + supervised"
    found = evaluate({place: {name: outcome}}, labelled, protocol, task=task_name(opened))
    results = results_of(
        "finetune",
        found,
        protocol,
        opened,
        arguments=arguments,
        data=describe(kept, canvases.sha256),
        said_of_rows={"rows_excluded": len(whole) - len(kept), **pooled.described()},
        started=started,
    ).finish(out)
    Console().print(f"encoder: {out / 'best'}", highlight=False, soft_wrap=True)
    return results


def train_on_disk(tuning: FineTuning, out: Path, config: Any, key: str) -> None:
    """Train to the end, going on from the state in `out/last` and leaving it there after each epoch.

    Raises:
        InputError: The state is of other settings, or cannot be written.
    """
    console, last = Console(), out / "last"
    if restore_progress(last, tuning, config, key):
        console.print(f"going on after epoch {tuning.epoch}", highlight=False)
    elif list(out.glob(f"*-{BEST_SO_FAR}")):
        for leftover in out.glob(f"*-{BEST_SO_FAR}"):  # killed before the first state was whole
            leftover.unlink()

    def after_epoch(tuning: FineTuning) -> None:
        save_progress(last, tuning, config, key)
        plateau = tuning.plateau
        console.print(
            f"epoch {tuning.epoch}, step {tuning.step}: best validation score {plateau.best_S[0]:.4f} "
            f"at epoch {plateau.epoch_S[0]}, rate {float(plateau.rate_S[0]):.2g}",
            highlight=False,
        )

    tuning.run(after_epoch)


def without(table: LabelledTable, lists: Sequence[Path], *, patients: bool) -> LabelledTable:
    """The table without the training and validation rows of listed images, and of their patients if asked for.

    Raises:
        InputError: A list cannot be read, or none of its images is in the table.
    """
    listed_N = np.zeros(len(table), dtype=bool)
    for path in lists:
        names = _listed(path)
        own_N = np.array([_inside(name) in names for name in table.images])
        if not own_N.any():
            raise InputError(f"{path}: none of its {len(names)} images is in the table; are the paths of one kind?")
        listed_N |= own_N
    if patients:
        listed_N |= np.isin(table.patients_N, table.patients_N[listed_N])
    kept: NDArray[np.int64] = np.flatnonzero(~listed_N | (table.splits_N == "test"))
    return table if len(kept) == len(table) else table.take(kept)


def _listed(path: Path) -> set[str]:
    """The images that a benchmark folder, a table or a plain list names."""
    source = open_benchmark(path).table if path.is_dir() else path
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the list of images ({error}); give a text or CSV file") from error
    rows = list(csv.reader(line for line in lines if line.strip()))
    column = rows[0].index("image") if rows and "image" in rows[0] else None
    if column is None:
        return {_inside(line.strip()) for line in lines if line.strip()}
    return {_inside(row[column].strip()) for row in rows[1:] if len(row) > column}


def _inside(name: str) -> str:
    """A path as tables have it, without the name of CheXpert's own folder and `./` before it."""
    first, _, rest = name.removeprefix("./").partition("/")
    return rest if rest and first.lower().startswith("chexpert") else name.removeprefix("./")
