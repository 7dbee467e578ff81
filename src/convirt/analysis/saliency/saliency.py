"""`convirt saliency`: what a linear model looks at, encoder beside encoder (ConVIRT, figure 4)."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from convirt.analysis.saliency.boxes import Boxes, Findings, choose_findings, read_boxes
from convirt.atomic import check_out_folder as check_out
from convirt.data.benchmarks.folder import Benchmark, first_given
from convirt.errors import InputError, require
from convirt.evaluation.inputs.images import load_encoders
from convirt.evaluation.inputs.labelled import Columns, data_notes, read_labelled, settle
from convirt.evaluation.inputs.options import Baseline, Device, check_counts
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.protocol import Schedule
from convirt.evaluation.results import Results, beside, check_same
from convirt.evaluation.rows import AnyRow as Row

if TYPE_CHECKING:
    from convirt.analysis.saliency.explaining import Explained, Pictures
    from convirt.model import Model

LEARNING_RATE = 1e-4  # ConVIRT, appendix B


def saliency(
    runs: Sequence[Path],
    table: Path,
    images: Path | None = None,
    *,
    out: Path,
    boxes: Path | None = None,
    label_column: str | None = None,
    label_columns: Sequence[str] = (),
    image_column: str = "image",
    patient_column: str | None = None,
    split_column: str = "split",
    where: Sequence[str] = (),
    kinds: Sequence[Literal["gradient", "grad-cam"]] = ("gradient",),
    fraction: float = 0.01,
    seeds: int = 5,
    learning_rate: float | None = None,
    per_label: int | None = None,
    shown: int = 1,
    baselines: Sequence[Baseline] = ("random", "imagenet"),
    resamples: int = 1000,
    batch_size: int = 32,
    device: Device = "auto",
) -> Results:
    """Saliency maps of the correct labels of test images, from linear models on frozen encoders.

    A linear head is trained on a share of the labels as `classify` does; then the map of a label that the image truly
    has is drawn for each encoder. Where boxes around the findings are known, two numbers say whether the map points
    there: how often its largest value lies in a box, and how much of its sum; chance is the boxes' share of the area.

    Args:
        runs: Folders of pretraining runs (or of checkpoints).
        table: CSV or Parquet, one row per image; or a benchmark folder, which brings its columns, its split, its label
            fractions, its image folder, and its boxes if it has some.
        images: Folder that the image paths are relative to; by default the benchmark's.
        out: Folder for saliency.png, saliency.svg and metrics.json.
        boxes: CSV or Parquet with image, label and left, top, right, bottom (shares) or x, y, width, height (pixels);
            by default the benchmark's. Without boxes there are pictures and no numbers.
        label_column: Column with the class of the image (single-label).
        label_columns: Columns with 1, 0 or nothing, one a label (multi-label); commas may separate them.
        image_column: Column with the image path.
        patient_column: Column with the patient or case; without it each image counts as a patient of its own.
        split_column: Column with the split: train, val (valid, dev, validation) or test.
        where: Conditions column=value that rows must meet.
        kinds: `gradient` (the paper's) and `grad-cam`.
        fraction: Share of the training labels that the head is trained on.
        seeds: Number of heads; the picture shows the first.
        learning_rate: Initial rate of the head; 1e-4 by default.
        per_label: Explain the first so many test images of each label; all by default.
        shown: Lines of the picture for each label, the first images of the table.
        baselines: Encoders to stand beside the runs, with the architecture of the first run. Random weights show what
            the network's form and a place near the middle already score.
        resamples: Bootstrap resamples over patients and seeds.
        batch_size: Images at once.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: Unusable table, images, boxes, runs or settings.
    """
    arguments = dict(locals())
    started = time.monotonic()
    require("captum", extra="figures")
    from convirt.analysis.saliency.attribution import train_explained_heads
    from convirt.analysis.saliency.explaining import blank_notes, explain
    from convirt.analysis.saliency.scoring import score_maps

    check_out(out)
    check_counts(batch_size=batch_size, resamples=resamples)
    _check(kinds, seeds, per_label, shown)
    labels = tuple(name.strip() for part in label_columns for name in part.split(",") if name.strip())
    asked = Columns(image=image_column, label=label_column, labels=labels, patient=patient_column, split=split_column)
    columns, benchmark = settle(Path(table), asked)
    if not columns.label and not columns.labels:
        raise InputError("name a label column (--label-column) or several (--label-columns)")
    labelled = read_labelled(table, images, columns, where, benchmark)
    known = _boxes(boxes, benchmark)
    findings = choose_findings(labelled, known, per_label)
    check_same(out, "saliency", arguments, labelled.sha256)
    encoders = load_encoders(runs, baselines, part="image", device=device)
    rate = first_given(learning_rate, benchmark.protocol.learning_rate if benchmark else None, LEARNING_RATE)
    heads = train_explained_heads(
        encoders, labelled, fraction, range(seeds), Schedule(learning_rate=rate), batch_size=batch_size
    )
    models = cast("Mapping[str, Model]", encoders)
    lines = findings.first_of_each_label(shown)
    explained, pictures = explain(kinds, models, heads, labelled, findings, known, shown=lines, batch_size=batch_size)
    rows: list[Row] = []
    comparisons: list[Row] = []
    if known:
        rows, comparisons = score_maps(
            explained,
            labelled,
            findings,
            fraction=fraction,
            seeds=seeds,
            resamples=resamples,
            baselines=baselines,
        )
    _write_picture(Path(out), explained, pictures, labelled, findings, lines.tolist())
    return Results(
        verb="saliency",
        config=arguments,
        seeds=list(range(seeds)),
        data={
            "table_sha256": labelled.sha256,
            "boxes_sha256": known.sha256 if known else None,
            "findings": len(findings),
            "shown": [labelled.images[findings.rows_F[f]] for f in lines],
            **(benchmark.described() if benchmark else {}),
        },
        rows=beside(rows, benchmark),
        comparisons=comparisons,
        predictions={
            "images": np.array(labelled.images)[findings.rows_F],
            "labels": np.array(labelled.classes)[findings.labels_F],
            **{f"{kind}|{name}|{metric}": s for (kind, name), e in explained.items() for metric, s in e.scores.items()},
        },
        wall_seconds=time.monotonic() - started,
        notes=[*data_notes(columns, benchmark), *blank_notes(explained)],
        files=("saliency.png", "saliency.svg"),
    ).finish(out)


def _check(kinds: Sequence[str], seeds: int, per_label: int | None, shown: int) -> None:
    if not kinds or len(set(kinds)) < len(kinds):
        raise InputError(f"name at least one kind of map and none twice, got {list(kinds)}")
    for name, value in (("seeds", seeds), ("per_label", per_label), ("shown", shown)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")


def _boxes(path: Path | None, benchmark: Benchmark | None) -> Boxes | None:
    if path is None and benchmark is not None and (benchmark.folder / "boxes.csv").is_file():
        path = benchmark.folder / "boxes.csv"
    return None if path is None else read_boxes(path)


def _write_picture(
    out: Path,
    explained: "Mapping[tuple[Literal['gradient', 'grad-cam'], str], Explained]",
    pictures: "Pictures",
    table: LabelledTable,
    findings: Findings,
    lines: list[int],
) -> None:
    from convirt.analysis.figures import write_figure
    from convirt.analysis.saliency.explaining import draw_saliency

    titles = {f: table.classes[findings.labels_F[f]] for f in lines}
    write_figure(draw_saliency(explained, pictures, titles, lines), out / "saliency")
