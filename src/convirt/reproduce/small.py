"""`--scale small`: the whole matrix on phantom radiographs, pretrained with one reduced budget for all methods."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from convirt.atomic import write_text
from convirt.config import PretrainConfig
from convirt.data.corpora import Corpus
from convirt.data.phantom import CATEGORIES
from convirt.data.phantom.boxes import BOXES, phantom
from convirt.data.preparing.archive import prepare_archive
from convirt.data.preparing.options import Options
from convirt.jobs import Job
from convirt.recipes import RECIPES, demo
from convirt.reproduce.estimates import Pace
from convirt.reproduce.inputs import RETRIEVAL, Inputs
from convirt.reproduce.tables import Task
from convirt.training.checkpoint import CONFIG
from convirt.training.pretrain import CORPUS, pretrain

PATIENTS = 1600
"""Of the phantom archive, as of the demo."""
LABELLED = 1000
"""Labelled training images."""
STEPS = 416
"""Pretraining steps of each method, half of the demo's: every method sees the same pairs in the same batches of 32."""
EVALUATIONS = 2
"""Validations of each pretraining."""
FINETUNING_STEPS = 150
HEADER = (
    "REDUCED: phantom radiographs instead of patients, one task, 96 pixels, 1,000 labelled images, a small encoder, "
    f"{STEPS} pretraining steps of 32 pairs for each method (image-equal; SimCLR and MoCo v2 encode two views of each "
    "image and no text), linear classification with 5 seeds, fine-tuning with 1 seed and 150 steps. The paper's "
    "figures in the shadow are those of CheXpert and of CheXpert 8x200; levels cannot be compared, orders may."
)
TASK = Task(name="phantom", title="Phantom", paper="chexpert")

STEP_COST: Mapping[str, float] = {
    "caption_lstm": 1.8,
    "caption_transformer": 2.0,
    "contrastive_binary": 1.65,
    "convirt": 1.65,
    "clip": 1.6,
    "medclip": 1.75,
    "simclr": 2.15,
    "moco": 1.65,
}
"""A pretraining step, in training steps of the image encoder alone: measured, in processor time."""


def configuration(method: str) -> PretrainConfig:
    """The method's demo recipe with the reduced budget."""
    recipe = RECIPES["demo" if method == "convirt" else f"demo_{method}"]()
    every = STEPS // EVALUATIONS
    return replace(
        recipe,
        optimiser=replace(recipe.optimiser, cosine_from=STEPS // 2, cosine_steps=STEPS),
        validation=replace(recipe.validation, every=every, max_evaluations=EVALUATIONS),
        checkpoint_every=every // 2,
    )


def like() -> PretrainConfig:
    """The configuration whose image encoder all rows share."""
    return demo()


def small_inputs(cells: Path, methods: Iterable[str], device: str) -> Inputs:
    """What the cells of this scale work on; `data_cell` and `pretraining_cells` make it."""
    archive = cells / "data" / "archive"
    labels: dict[str, Any] = {
        "table": cells / "data" / "labels.csv",
        "images": archive / "images",
        "label_columns": CATEGORIES,
        "patient_column": "patient_id",
    }
    return Inputs(
        runs={method: cells / "pretraining" / method for method in methods},
        tasks=(TASK,),
        classification={TASK.name: labels},
        retrieval={
            "table": archive / "retrieval.csv",
            "images": archive / "images",
            "label_column": "finding",
            "patient_column": "patient_id",
            "role_column": "role",
            "queries": archive / "queries.csv",
        },
        supervised=labels,
        boxes=archive / BOXES,
        training_images={TASK.name: LABELLED},
        other_images={TASK.name: 850, RETRIEVAL: 400},
        seeds={"linear": 5, "finetuned": 1},
        max_steps=FINETUNING_STEPS,
        device=device,
    )


def data_cell() -> Job:
    """The archive, its corpus, and the labelled table."""
    return Job(
        log=True, name="data", work=_make_data, inputs=lambda: {"patients": PATIENTS, "labelled": LABELLED}, seconds=45
    )


def _make_data(folder: Path) -> None:
    archive, corpus, labels = folder / "archive", folder / "corpus", folder / "labels.csv"
    if not archive.exists():
        phantom(archive, patients=PATIENTS)
    if not corpus.exists():
        prepare_archive(
            archive / "images",
            archive / "reports.csv",
            out=corpus,
            options=Options(image_size=160, ids="plain"),  # phantoms are nobody
            where=("view=PA,AP",),  # labelled images are frontal
            image_column="image",
            text_column="report",
            patient_column="patient_id",
            study_column="study_id",
            split_column="split",
            view_column="view",
        )
    table = pd.read_csv(archive / "labels.csv", dtype=str)
    training = table.index[table["split"] == "train"]
    write_text(labels, table.drop(index=training[LABELLED:]).to_csv(index=False))


def pretraining_cells(inputs: Inputs, cells: Path, pace: Pace, device: str) -> list[Job]:
    """One for each run that the inputs name."""
    return [_pretraining(method, run, cells, pace, device) for method, run in inputs.runs.items()]


def _pretraining(method: str, run: Path, cells: Path, pace: Pace, device: str) -> Job:
    config = replace(configuration(method), device="cuda" if device.startswith("cuda") else device)  # type: ignore[arg-type]
    corpus = cells / "data" / "corpus"
    batch = config.optimiser.batch_size
    return Job(
        log=True,
        name=f"pretraining/{method}",
        work=lambda folder: _pretrain(config, corpus, folder),
        inputs=_pretraining_inputs(config, corpus),
        seconds=STEPS * batch * pace.trained * STEP_COST.get(method, 2.0) + 10,
        keep=True,
    )


def _pretrain(config: PretrainConfig, corpus: Path, run: Path) -> None:
    pretrain(config, corpus, run, resume=(run / CONFIG).is_file())


def _pretraining_inputs(config: PretrainConfig, corpus: Path) -> Callable[[], Mapping[str, Any]]:
    def now() -> dict[str, Any]:
        if not (corpus / CORPUS).is_file():
            raise FileNotFoundError(corpus)
        settings = {name: value for name, value in asdict(config).items() if name not in ("device", "workers")}
        return {"config": settings, "corpus": Corpus.open(corpus).fingerprint}

    return now
