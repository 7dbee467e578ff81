"""The cells of figures 3 to 5 and of table 5: verbs that stand for themselves, given what they need."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convirt.errors import InputError
from convirt.evaluation.inputs.options import LabelledTableOptions
from convirt.jobs import Job
from convirt.reproduce.estimates import Pace
from convirt.reproduce.evaluations import table_sha256, weights_sha256
from convirt.reproduce.inputs import RETRIEVAL, Inputs
from convirt.training.pretrain import KEPT

IMAGE_METHODS = ("simclr", "moco", "convirt")
"""Rows of figure 4 beside ImageNet."""


def figure3(inputs: Inputs, pace: Pace) -> Job:
    """t-SNE of the retrieval set's candidates, ImageNet beside ConVIRT."""
    run, table = _convirt(inputs, "figure3"), _retrieval(inputs, "figure3")
    arguments = {name: value for name, value in table.items() if name != "queries"}
    arguments |= {"categories": inputs.categories, "device": inputs.device}

    def work(folder: Path) -> None:
        from convirt.analysis.embedding.tsne import tsne

        options, rest = LabelledTableOptions.taken_from(arguments)
        tsne([run], options, out=folder, **rest)

    seconds = 2 * pace.encoding(inputs.other_images.get(RETRIEVAL, 1680)) + 30
    return Job(log=True, name="figure3", work=work, inputs=_inputs([run], arguments), seconds=seconds)


def figure4(inputs: Inputs, pace: Pace) -> Job:
    """Saliency of linear models trained on 1 % of CheXpert, for ImageNet, SimCLR, MoCo v2 and ConVIRT."""
    task = _shown_task(inputs, "figure4")
    runs = [inputs.runs[method] for method in IMAGE_METHODS if method in inputs.runs]
    if not runs:
        raise InputError(f"figure4 needs a run of {', '.join(IMAGE_METHODS)}; give --runs NAME=FOLDER")
    arguments = {**inputs.classification[task], "baselines": ("imagenet",), "device": inputs.device}
    if inputs.boxes is not None:
        arguments["boxes"] = inputs.boxes

    def work(folder: Path) -> None:
        from convirt.analysis.saliency.saliency import saliency

        options, rest = LabelledTableOptions.taken_from(arguments)
        saliency(runs, options, out=folder, **rest)

    images = inputs.training_images.get(task, 0) + inputs.other_images.get(task, 0)
    seconds = (len(runs) + 1) * (pace.encoding(images) + 5 * images / 2 * pace.trained)
    return Job(log=True, name="figure4", work=work, inputs=_inputs(runs, arguments), seconds=seconds)


def figure5(inputs: Inputs, pace: Pace) -> Job:
    """Downstream scores against validation loss, over the checkpoints that the run of ConVIRT kept."""
    run = _convirt(inputs, "figure5")
    kept = len(list((run / KEPT).glob("step-*")))
    if not kept:
        raise InputError(f"figure5: {run} kept no checkpoints; pretrain with --keep-every N")

    def work(folder: Path) -> None:
        from convirt.analysis.studies.loss_study import loss_study

        loss_study(run, write_tasks(folder.parent / "figure5-tasks.toml", inputs, "figure5"), out=folder)

    task = _shown_task(inputs, "figure5")
    images = inputs.training_images.get(task, 0) + inputs.other_images.get(task, 0) + 2000
    return Job(
        log=True,
        name="figure5",
        work=work,
        inputs=lambda: {"run": weights_sha256(run), "kept": kept},
        seconds=kept * (pace.encoding(images) + 5),
    )


def table5(inputs: Inputs, pace: Pace) -> Job:
    """The grid of hyperparameters, pretrained and evaluated cell by cell."""
    if not inputs.table5:
        raise InputError("table5 pretrains a grid of its own; give --inputs FILE with [table5] corpus and recipe")
    about = inputs.table5

    def work(folder: Path) -> None:
        from convirt.analysis.studies.study import study

        definition = folder.parent / "table5-study.toml"
        head = f"recipe = {json.dumps(about['recipe'])}\ncorpus = {json.dumps(_whole(about['corpus']))}\n"
        write_tasks(definition, inputs, "table5", head=head + 'grid = "table5"\n')
        study(definition, out=folder)

    # Its pretrainings are of full length: six times the paper's 10^6 steps of 32 images.
    seconds = 6e6 * 32 * pace.trained * 1.5
    return Job(log=True, name="table5", work=work, inputs=lambda: dict(about), seconds=seconds, keep=True)


FIGURES: dict[str, Callable[[Inputs, Pace], Job]] = {
    "table5": table5,
    "figure3": figure3,
    "figure4": figure4,
    "figure5": figure5,
}


def write_tasks(path: Path, inputs: Inputs, needed_by: str, *, head: str = "") -> Path:
    """Write the tasks of a study: 1 % linear of RSNA (or the one task there is), and both retrievals."""
    from convirt.atomic import write_text

    task = _shown_task(inputs, needed_by, first="rsna")
    sections = {"classify": inputs.classification[task], "retrieve": _retrieval(inputs, needed_by)}
    lines = [head]
    for verb, arguments in sections.items():
        lines.append(f"[tasks.{verb}]")
        lines += [f"{name} = {json.dumps(_plain(value))}" for name, value in arguments.items()]
    write_text(path, "\n".join(lines) + "\n")
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    return list(value) if isinstance(value, tuple) else value


def _whole(corpus: str) -> str:
    return corpus if "://" in corpus else str(Path(corpus).resolve())


def _convirt(inputs: Inputs, needed_by: str) -> Path:
    if "convirt" not in inputs.runs:
        raise InputError(f"{needed_by} needs a run of ConVIRT; give --runs convirt=FOLDER")
    return inputs.runs["convirt"]


def _retrieval(inputs: Inputs, needed_by: str) -> dict[str, Any]:
    if inputs.retrieval is None:
        raise InputError(f"{needed_by} needs the retrieval set; give --benchmarks {RETRIEVAL}=FOLDER")
    return dict(inputs.retrieval)


def _shown_task(inputs: Inputs, needed_by: str, first: str = "chexpert") -> str:
    """The paper's task, or the first that is given."""
    if not inputs.classification:
        raise InputError(f"{needed_by} needs a classification benchmark; give --benchmarks {first}=FOLDER")
    return first if first in inputs.classification else next(iter(inputs.classification))


def _inputs(runs: list[Path], arguments: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    def now() -> dict[str, Any]:
        rest = {name: value for name, value in arguments.items() if name not in ("table", "device")}
        return {
            "runs": [weights_sha256(run) for run in runs],
            "table": table_sha256(Path(arguments["table"])),
            "arguments": rest,
        }

    return now
