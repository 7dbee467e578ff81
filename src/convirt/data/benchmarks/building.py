"""From the rows of a released data set to a benchmark folder: split, label fractions, counts, notes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as RichTable

from convirt.atomic import check_free
from convirt.data.benchmarks.files import check_images, hash_file
from convirt.data.benchmarks.folder import Benchmark, Kind, Protocol, open_benchmark, write_benchmark
from convirt.data.benchmarks.fractions import nested_fraction
from convirt.data.benchmarks.splits import PARTS, Asked, SplitRule, crossing_patients, split_rows

FRACTIONS = (0.01, 0.1, 1.0)
SEEDS = 5  # ConVIRT, section 4.1: five independent runs


@dataclass(frozen=True, kw_only=True)
class Source:
    """The rows of a released data set, before they are split."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    """Label columns: 1, 0 or nothing each, or the one column `label` with a class."""
    root: Path
    """Folder that the images' paths are relative to."""
    frame: pd.DataFrame
    """Text throughout: `image`, `patient`, `released` (train or test), the labels, further columns."""
    tables: tuple[Path, ...]
    """The files that the rows come from."""
    notes: tuple[str, ...] = ()
    unit: str | None = None
    """Name of what is scored at test; its values are in the column `unit`."""
    protocol: Protocol = field(default_factory=Protocol)
    fractions: tuple[float, ...] = FRACTIONS
    settings: Mapping[str, Any] = field(default_factory=dict)


def split_source(
    source: Source, name: str, rule: SplitRule, asked: Asked, *, left_out: Collection[str] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """The rows that take part, with their split, and what is to be said about it.

    Args:
        source: The rows.
        name: Name of the split.
        rule: How it is drawn.
        asked: Seed and sizes.
        left_out: Images taken out of the parts after they are drawn; those who stay are where they were.

    Raises:
        InputError: The source cannot be split so.
    """
    frame = source.frame
    parts_N = split_rows(frame["image"].tolist(), frame["patient"].tolist(), frame["released"].tolist(), rule, asked)
    notes = []
    unused = int((parts_N == "").sum())
    if unused:
        notes.append(f"{unused} images of the source take no part in the split {name}")
    if left_out:
        taken = frame["image"].isin(left_out).to_numpy() & (parts_N != "")
        by_part = ", ".join(f"{int((taken & (parts_N == part)).sum())} {part}" for part in PARTS)
        notes.append(f"{int(taken.sum())} images are taken out by the split {name}: {by_part}")
        parts_N = np.where(taken, "", parts_N)
    if crossing := crossing_patients(frame["patient"].tolist(), parts_N):
        notes.append(f"{crossing} patients have images in more than one part, as the split {name} is by image")
    return frame.assign(split=parts_N)[parts_N != ""], notes


def build_split(
    source: Source,
    out: Path,
    name: str,
    rule: SplitRule,
    asked: Asked,
    *,
    left_out: Collection[str] = (),
    images: bool = True,
    extra: Mapping[str, bytes | str] | None = None,
) -> Benchmark:
    """Split a source and write its benchmark; arguments and errors are those of the two functions."""
    frame, notes = split_source(source, name, rule, asked, left_out=left_out)
    split = {"name": name, "by": rule.group, "seed": asked.seed}
    return build_benchmark(source, frame, out, split=split, notes=notes, images=images, extra=extra)


def build_benchmark(
    source: Source,
    frame: pd.DataFrame,
    out: Path,
    *,
    split: Mapping[str, Any],
    notes: Sequence[str] = (),
    images: bool = True,
    extra: Mapping[str, bytes | str] | None = None,
) -> Benchmark:
    """Write the benchmark of rows that have a split, and print what is in it.

    Args:
        source: What the rows are.
        frame: The rows, with the column `split`.
        out: Folder to write.
        split: Name of the split and how it was drawn.
        notes: Said after those of the source.
        images: Whether every image must be there.
        extra: Further files.

    Raises:
        InputError: The folder is not free, images are missing or lead out of the root, or a class lacks labels.
    """
    check_free(out)
    check_images(frame["image"].tolist(), source.root, there=images)
    front = ["image", "patient", "split", *(["unit"] if source.unit else []), *source.labels]
    columns = [*front, *(name for name in frame.columns if name not in front and name != "released")]
    about = {
        "name": source.name,
        "kind": source.kind,
        "labels": list(source.labels),
        "unit": source.unit,
        "root": str(source.root.resolve()),
        "split": dict(split),
        "counts": {
            part: _count(frame[frame["split"] == part], source) for part in PARTS if part in set(frame["split"])
        },
        "sources": {path.name: hash_file(path) for path in source.tables},
        "settings": dict(source.settings),
        "protocol": asdict(source.protocol),
        "notes": [*source.notes, *notes],
    }
    if source.kind != "retrieval":
        about["fractions"] = _fractions(frame[frame["split"] == "train"], source)
    write_benchmark(out, frame[columns], about, extra)
    benchmark = open_benchmark(out)
    print_benchmark(benchmark)
    return benchmark


def targets(frame: pd.DataFrame, labels: Sequence[str], kind: Kind) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Targets [N, C] of 1, 0 and NaN (no label), and the classes."""
    if kind in ("single-label", "retrieval"):
        names = sorted(set(frame[labels[0]]))
        return (frame[labels[0]].to_numpy()[:, None] == np.array(names, dtype=object)).astype(np.float64), tuple(names)
    columns = [frame[name].map({"1": 1.0, "0": 0.0}).to_numpy(dtype=np.float64) for name in labels]
    return np.stack(columns, axis=1), tuple(labels)


def _count(frame: pd.DataFrame, source: Source) -> dict[str, Any]:
    values_NC, classes = targets(frame, source.labels, source.kind)
    counts: dict[str, Any] = {"images": len(frame), "patients": int(frame["patient"].nunique())}
    if source.unit:
        counts["units scored"] = int(frame["unit"].nunique())
    counts["positive"] = {name: int(n) for name, n in zip(classes, (values_NC == 1).sum(axis=0), strict=True)}
    if missing := int(np.isnan(values_NC).sum()):
        counts["labels missing"] = missing
    return counts


def _fractions(train: pd.DataFrame, source: Source) -> dict[str, Any]:
    """Which training rows make up each label fraction, for each seed; all rows need no list."""
    values_NC, classes = targets(train, source.labels, source.kind)
    rows: dict[str, dict[str, list[int]]] = {}
    for seed in range(SEEDS):
        rows[str(seed)] = {
            f"{fraction:g}": nested_fraction(values_NC, classes, fraction, seed=seed).tolist()
            for fraction in source.fractions
            if fraction < 1
        }
    return {
        "rows_are": "positions among the training rows of table.csv, in its order, from 0; nested for each seed",
        "fractions": list(source.fractions),
        "rows": rows,
    }


def print_benchmark(benchmark: Benchmark) -> None:
    """Print what a benchmark holds, and its notes."""
    table = RichTable(title=f"{benchmark.name}, split {benchmark.split}", title_justify="left")
    table.add_column("part")
    columns = [name for name in next(iter(benchmark.counts.values())) if name != "positive"]
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("labels" if benchmark.kind != "binary" else "positive")
    table.add_column("sha256 of the list")
    for part, counts in benchmark.counts.items():
        positive = ", ".join(f"{name} {count}" for name, count in counts["positive"].items())
        sizes = [str(counts.get(name, 0)) for name in columns]
        table.add_row(part, *sizes, positive, f"{benchmark.lists[part][:12]}…")
    console = Console()
    console.print(table)
    for note in benchmark.notes:
        console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
    console.print(f"wrote {benchmark.folder}", markup=False, soft_wrap=True)
