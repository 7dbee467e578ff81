"""`convirt saliency`: what a linear model looks at, encoder beside encoder (ConVIRT, figure 4)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from convirt.errors import InputError, require
from convirt.evaluation.inputs.options import Baseline, Device, SharedLabelledOptions, flat
from convirt.evaluation.results import Call, Results

if TYPE_CHECKING:
    from convirt.analysis.saliency.boxes import Boxes, Findings
    from convirt.analysis.saliency.explaining import Explained, Pictures
    from convirt.data.benchmarks.folder import Benchmark
    from convirt.evaluation.inputs.table import LabelledTable
    from convirt.evaluation.rows import AnyRow
    from convirt.model import Model

LEARNING_RATE = 1e-4  # ConVIRT, appendix B


def saliency(
    runs: Sequence[Path],
    options: SharedLabelledOptions,
    *,
    out: Path,
    boxes: Path | None = None,
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
        options: The table and its columns.
        out: Folder for saliency.png, saliency.svg and metrics.json.
        boxes: CSV or Parquet with image, label and left, top, right, bottom (shares) or x, y, width, height (pixels);
            by default the benchmark's. Without boxes there are pictures and no numbers.
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
    call = Call.begin("saliency", flat(locals()), "batch_size", "resamples", "seeds", "shown", "per_label")
    if not kinds or len(set(kinds)) < len(kinds):
        raise InputError(f"name at least one kind of map and none twice, got {list(kinds)}")
    require("captum", extra="figures")
    opened = options.split_by("split").open().require_labels()

    from convirt.analysis.saliency.attribution import train_explained_heads
    from convirt.analysis.saliency.boxes import choose_findings
    from convirt.analysis.saliency.explaining import blank_notes, explain
    from convirt.analysis.saliency.scoring import score_maps
    from convirt.evaluation.inputs.images import load_encoders
    from convirt.evaluation.protocol import Schedule

    labelled = opened.table
    known = _boxes(boxes, opened.benchmark)
    findings = choose_findings(labelled, known, per_label)
    call.check_same(opened)
    encoders = load_encoders(runs, baselines, part="image", device=device)
    paper = opened.benchmark.protocol.learning_rate if opened.benchmark else None
    schedule = Schedule(learning_rate=learning_rate or paper or LEARNING_RATE)
    heads = train_explained_heads(encoders, labelled, fraction, range(seeds), schedule, batch_size=batch_size)
    models = cast("Mapping[str, Model]", encoders)
    lines = findings.first_of_each_label(shown)
    explained, pictures = explain(kinds, models, heads, labelled, findings, known, shown=lines, batch_size=batch_size)
    rows: list[AnyRow] = []
    comparisons: list[AnyRow] = []
    if known:
        counts = {"fraction": fraction, "seeds": seeds, "resamples": resamples}
        rows, comparisons = score_maps(explained, labelled, findings, baselines=baselines, **counts)  # type: ignore[arg-type]
    _write_picture(Path(out), explained, pictures, labelled, findings, lines.tolist())
    return call.finish(
        opened,
        seeds=list(range(seeds)),
        data={
            "table_sha256": labelled.sha256,
            "boxes_sha256": known.sha256 if known else None,
            "findings": len(findings),
            "shown": [labelled.images[findings.rows_F[f]] for f in lines],
        },
        rows=rows,
        comparisons=comparisons,
        predictions={
            "images": np.array(labelled.images)[findings.rows_F],
            "labels": np.array(labelled.classes)[findings.labels_F],
            **{f"{kind}|{name}|{metric}": s for (kind, name), e in explained.items() for metric, s in e.scores.items()},
        },
        notes=blank_notes(explained),
        files=("saliency.png", "saliency.svg"),
    )


def _boxes(path: Path | None, benchmark: "Benchmark | None") -> "Boxes | None":
    from convirt.analysis.saliency.boxes import read_boxes

    if path is None and benchmark is not None and (benchmark.folder / "boxes.csv").is_file():
        path = benchmark.folder / "boxes.csv"
    return None if path is None else read_boxes(path)


def _write_picture(
    out: Path,
    explained: "Mapping[tuple[Literal['gradient', 'grad-cam'], str], Explained]",
    pictures: "Pictures",
    table: "LabelledTable",
    findings: "Findings",
    lines: list[int],
) -> None:
    from convirt.analysis.figures import write_figure
    from convirt.analysis.saliency.explaining import draw_saliency

    titles = {f: table.classes[findings.labels_F[f]] for f in lines}
    write_figure(draw_saliency(explained, pictures, titles, lines), out / "saliency")
