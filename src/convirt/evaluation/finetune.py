"""`convirt finetune`: an encoder trained further on labels, kept as a checkpoint (ConVIRT, section 4.2).

The paper's "ConVIRT + CheXpert supervised" is the upper bound of image-image retrieval: trained on the candidates' own
labels, which is why the images of a list can be left out.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.classify import schedule_of
from convirt.evaluation.inputs.options import Device, SharedLabelledOptions, flat
from convirt.evaluation.protocol import ClassificationProtocol, Place
from convirt.evaluation.results import Call, Results
from convirt.jobs import hold

if TYPE_CHECKING:
    from convirt.evaluation.inputs.table import LabelledTable


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
    details: bool = False,
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
        details: Print calibration, operating points, subgroups, and AUC by class as well; metrics.json has them anyway.

    Raises:
        InputError: Unusable table, images, run or settings, or `out` holds another fine-tuning.
    """
    options = options.split_by("split")
    call = Call.begin("finetune", flat(locals()), "resamples", "max_epochs", "max_steps")
    opened = options.open(pool_column=pool_column).require_labels()
    protocol = ClassificationProtocol(
        settings=("finetuned",),
        fractions=(fraction,),
        seeds=(seed,),
        schedule=schedule_of(opened, learning_rate, max_epochs, select_on),
        max_steps=max_steps,
        resamples=resamples,
    )

    from convirt.evaluation.findings import evaluate
    from convirt.evaluation.finetuning import Examples, FineTuning, Tower
    from convirt.evaluation.inputs.images import read_canvases
    from convirt.evaluation.inputs.units import pool_views
    from convirt.evaluation.saved_tuning import cell_key, save_encoder, train_on_disk
    from convirt.model import load

    kept = without(opened.table, exclude, patients=exclude_patients)
    pooled = pool_views(kept, pool_column)
    protocol.check(pooled.table)
    model = load(run, part="image", device=device)
    tower = Tower.of(model)
    with read_canvases(kept.paths, {tower.size}, Path(out)) as canvases, hold(Path(out) / "best"):
        examples = Examples(tower=tower, canvases=canvases, pooled=pooled)
        subset = pooled.table.training_subset(fraction, seed)
        tuning = FineTuning(examples, subset, seed, protocol)
        train_on_disk(tuning, Path(out), model.config, cell_key(examples, subset, seed, protocol))
        save_encoder(Path(out) / "best", tuning, model.config)
        outcome = tuning.outcome()
    place = Place(setting="finetuned", head="paper", fraction=fraction)
    found = evaluate({place: {f"{model.name} + supervised": outcome}}, pooled.table, protocol, task=opened.task)
    said = {"rows_excluded": len(opened.table) - len(kept), **pooled.described()}
    return found.finish(call, opened, protocol, kept, canvases.sha256, said, encoder="best")


def without(table: "LabelledTable", lists: Sequence[Path], *, patients: bool) -> "LabelledTable":
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
    from convirt.data.benchmarks.folder import open_benchmark

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
