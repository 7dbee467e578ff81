"""What the paper's tables hold: rows, columns, and the figures that our sources have of them (ConVIRT, section 4)."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from convirt.methods import METHODS

PAPER_FIGURES = "paper_figures.csv"

BASELINES = ("random", "imagenet")
SUPERVISED = ("convirt_supervised", "convirt_supervised_without_list")
IN_DOMAIN = ("random", "imagenet", "caption_transformer", "caption_lstm", "contrastive_binary", "convirt")
IMAGE_ONLY = ("simclr", "moco")
PAPER = (*IN_DOMAIN[2:5], *IMAGE_ONLY, "convirt")
"""The methods that the paper pretrains, in its order."""
BESIDE = tuple(name for name, method in METHODS.items() if name not in PAPER and method.has_image_encoder)
"""Methods of ours beside the paper's rows: every other one that leaves an image encoder."""
_TITLES = {
    "random": "Random Init.",
    "imagenet": "ImageNet Init.",
    "convirt_supervised": "ConVIRT + supervised",
    "convirt_supervised_without_list": "ConVIRT + supervised, not on the list's images",
}


def title_of(row: str) -> str:
    """Title of a row: of a method, a baseline or a supervised encoder."""
    return _TITLES.get(row) or METHODS[row].title


Setting = Literal["linear", "finetuned"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A classification task: where it stands in the tables, and how it is scored."""

    name: str
    title: str
    metric: Literal["auc", "accuracy"] = "auc"
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    paper: str
    """The paper's task whose figures stand beside it."""


PAPER_TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(name="rsna", title="RSNA", paper="rsna"),
        Task(name="chexpert", title="CheXpert", paper="chexpert"),
        Task(name="covidx4", title="COVIDx", metric="accuracy", fractions=(0.1, 1.0), paper="covidx4"),
        Task(name="mura", title="MURA", paper="mura"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: a figure of one evaluation."""

    title: str
    task: str
    """Name of a classification task, or `image-image`, `text-image`."""
    setting: Setting | None
    """None for retrieval."""
    key: float
    """Share of the labels, or length of the retrieved list."""
    metric: str
    paper: str
    """Task of the paper's figures."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One of the paper's tables."""

    name: str
    title: str
    methods: tuple[str, ...]
    """Rows of the paper."""
    beside: tuple[str, ...]
    """Rows of ours below them."""
    columns: tuple[Column, ...]


def share(fraction: float) -> str:
    """A share of the labels, as text."""
    return "all" if fraction == 1 else f"{100 * fraction:g} %"


def classification_columns(tasks: Sequence[Task], setting: Setting, fractions: Sequence[float]) -> tuple[Column, ...]:
    """A column for each task and each of its shares of the labels."""
    return tuple(
        Column(
            title=f"{task.title} {share(fraction)}",
            task=task.name,
            setting=setting,
            key=fraction,
            metric=task.metric,
            paper=task.paper,
        )
        for task in tasks
        for fraction in task.fractions
        if fraction in fractions
    )


def retrieval_columns(tasks: Sequence[str], lengths: Sequence[int]) -> tuple[Column, ...]:
    """A column for each retrieval task and each length of the list."""
    return tuple(
        Column(title=f"{task} P@{k}", task=task, setting=None, key=float(k), metric=f"precision@{k}", paper=task)
        for task in tasks
        for k in lengths
    )


def paper_tables(tasks: Sequence[Task]) -> dict[str, Table]:
    """The four tables of figures, over these classification tasks; table 3 has the first two of the paper's."""
    everything = (0.01, 0.1, 1.0)
    few = [task for task in tasks if task.paper in ("rsna", "chexpert")]
    return {
        table.name: table
        for table in (
            Table(
                name="table1a",
                title="Table 1a: linear classification",
                methods=IN_DOMAIN,
                beside=BESIDE,
                columns=classification_columns(tasks, "linear", everything),
            ),
            Table(
                name="table1b",
                title="Table 1b: fine-tuned classification",
                methods=IN_DOMAIN,
                beside=BESIDE,
                columns=classification_columns(tasks, "finetuned", everything),
            ),
            Table(
                name="table2",
                title="Table 2: zero-shot retrieval",
                methods=(*IN_DOMAIN, SUPERVISED[0]),
                beside=(SUPERVISED[1], *BESIDE),
                columns=retrieval_columns(("image-image", "text-image"), (5, 10, 50)),
            ),
            Table(
                name="table3",
                title="Table 3: image-only contrastive learning",
                methods=("imagenet", "simclr", "moco", "convirt"),
                beside=(),
                columns=(
                    *classification_columns(few, "linear", (0.01,)),
                    *retrieval_columns(("image-image",), (10,)),
                ),
            ),
        )
    }


@cache
def paper_figures() -> Mapping[tuple[str, str, str, float], float]:
    """The paper's figures in percent, by table, method, task and key; what our sources do not have is not there."""
    text = files("convirt.reproduce").joinpath(PAPER_FIGURES).read_text(encoding="utf-8")
    return {
        (row["table"], row["method"], row["task"], float(row["column"])): float(row["value"])
        for row in csv.DictReader(text.splitlines())
    }


def paper_figure(table: Table, method: str, column: Column) -> float | None:
    """The paper's figure of one cell, percent."""
    return paper_figures().get((table.name, method, column.paper, column.key))
