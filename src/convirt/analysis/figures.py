"""The report's figures, as SVG text that carries everything with it."""

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from convirt.atomic import atomic_file
from convirt.errors import InputError

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

COLOURS = {"random": "#9aa5b1", "imagenet": "#d98e04", "convirt": "#0b6e8a"}
BASELINES = {"random": "Random", "imagenet": "ImageNet"}
"""Encoders that are not pretrained here, as readers know them; a method has a `title` of its own."""
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ee",
    "axes.axisbelow": True,
    "axes.edgecolor": "#7b8794",
    "svg.fonttype": "none",
    "svg.hashsalt": "convirt",
    "font.family": "sans-serif",
}

Row = dict[str, Any]


def svg(figure: Figure) -> str:
    """The figure as an SVG element that scales with the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def colour(method: str) -> str:
    """The method's colour in every figure."""
    return COLOURS.get(method, "#5f3dc4")


def label(method: str) -> str:
    """The name of a method or a baseline as readers know it; a run of another name keeps its own."""
    from convirt.methods import METHODS

    return METHODS[method].title if method in METHODS else BASELINES.get(method, method)


def learning_curves(steps: Sequence[Row], batch_size: int) -> str:
    """Training and validation loss over the steps of `log.jsonl`, with the line of chance: log of the batch size."""
    training = [(row["step"], row["loss"]) for row in steps if row["event"] == "step"]
    validation = [(row["step"], row["loss"]) for row in steps if row["event"] == "validation"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3))
        if training:
            x, y = zip(*training, strict=True)
            axes.plot(x, y, color="#c6d3dc", linewidth=0.8, label="training, each step")
            axes.plot(x, smoothed(y), color=colour("convirt"), linewidth=1.8, label="training, smoothed")
        if validation:
            axes.plot(*zip(*validation, strict=True), "o-", color="#b3261e", markersize=4, label="validation")
        axes.axhline(
            math.log(batch_size), color="#7b8794", linestyle="--", linewidth=1, label=f"chance, log {batch_size}"
        )
        axes.set_xlabel("step")
        axes.set_ylabel("contrastive loss, nats")
        axes.legend(frameon=False)
        return svg(figure)


def smoothed(values: Iterable[float], keep: float = 0.95) -> list[float]:
    """Exponential moving average, corrected for its start."""
    average, weight, out = 0.0, 0.0, []
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        out.append(average / weight)
    return out


def label_efficiency(rows: Sequence[Row]) -> str:
    """Score against the share of labels, one panel a head, with 95 % intervals."""
    heads = list(dict.fromkeys(row["head"] for row in rows if row["head"]))
    titles = {"paper": "linear head of the paper", "logistic": "logistic regression"}
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(heads), figsize=(4.2 * len(heads), 3.2), sharey=True, squeeze=False)
        for axes, head in zip(panels[0], heads, strict=True):
            own = [row for row in rows if row["head"] == head]
            for shift, method in enumerate(dict.fromkeys(row["method"] for row in own)):
                points = sorted((row for row in own if row["method"] == method), key=lambda row: row["fraction"])
                x = [position + 0.04 * (shift - 1) for position in range(len(points))]
                y = [100 * row["mean"] for row in points]
                below = [100 * max(0.0, row["mean"] - row["ci_low"]) for row in points]
                above = [100 * max(0.0, row["ci_high"] - row["mean"]) for row in points]
                axes.errorbar(
                    x,
                    y,
                    [below, above],
                    fmt="o-",
                    color=colour(method),
                    capsize=2.5,
                    markersize=4.5,
                    label=label(method),
                )
            axes.set_xticks(range(len(points)), [f"{100 * row['fraction']:g} %" for row in points])
            axes.axhline(50, color="#7b8794", linewidth=0.8, linestyle=":")
            axes.set_title(titles.get(head, head), fontsize=10, loc="left")
            axes.set_xlabel("share of the training labels")
        panels[0][0].set_ylabel("mean AUC, test")
        panels[0][-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return svg(figure)


def retrieval_bars(rows: Sequence[Row], metric: str = "precision@10") -> str:
    """Precision of both retrieval tasks beside chance."""
    own = [row for row in rows if row["metric"] == metric]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.5 + 0.42 * len(own)))
        for place, row in enumerate(reversed(own)):
            mean = 100 * row["mean"]
            error = [[max(0.0, mean - 100 * row["ci_low"])], [max(0.0, 100 * row["ci_high"] - mean)]]
            axes.barh(place, mean, xerr=error, color=colour(row["method"]), height=0.62, error_kw={"linewidth": 0.9})
            axes.plot([100 * row["chance"]] * 2, [place - 0.38, place + 0.38], color="#b3261e", linewidth=1.6)
        axes.set_yticks(range(len(own)), [f"{row['task']}, {label(row['method'])}" for row in reversed(own)])
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"{metric.replace('precision', 'Precision')}, %; the red mark is chance")
        axes.grid(visible=False, axis="y")
        return svg(figure)


DPI = 160


def write_figure(figure: Figure, path: Path) -> None:
    """Write `path`.png and `path`.svg, and close the figure.

    Raises:
        InputError: The folder cannot be written.
    """
    details: dict[str, dict[str, Any]] = {"png": {"dpi": DPI}, "svg": {"metadata": {"Date": None}}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for kind, options in details.items():
            with atomic_file(path.with_name(f"{path.name}.{kind}")) as file:
                figure.savefig(file, format=kind, bbox_inches="tight", **options)
    except OSError as error:
        raise InputError(f"cannot write the picture to {path.parent}: {error.strerror or error}") from error
    finally:
        plt.close(figure)
