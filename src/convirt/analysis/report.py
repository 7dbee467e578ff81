"""The demo's `report.html`: one self-contained page with curves, tables, and the images retrieved for sentences."""

import base64
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from convirt.analysis import figures
from convirt.analysis.embedding.neighbours import COLOURS, draw_map
from convirt.atomic import write_text
from convirt.data.phantom import CATEGORIES
from convirt.evaluation.ranking import top_images
from convirt.model import load

SHOWN = 8


def write_report(folder: Path) -> Path:
    """Write `report.html` beside the demo's `metrics.json`.

    Args:
        folder: Folder of a finished demo.

    Returns:
        The page. Nothing in it is fetched from anywhere.
    """
    metrics = json.loads((folder / "metrics.json").read_text())
    log = [json.loads(line) for line in (folder / "convirt" / "log.jsonl").read_text().splitlines()]
    classification = [row for row in metrics["rows"] if row["head"]]
    retrieval = [row for row in metrics["rows"] if not row["head"]]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    template = environment.from_string(files("convirt.analysis").joinpath("templates/report.html").read_text())
    page = template.render(
        metrics=metrics,
        cards=headlines(metrics),
        classification=tabulate(classification),
        methods=list(dict.fromkeys(row["method"] for row in classification)),
        comparisons=[row for row in metrics["comparisons"] if row["head"] and row["b"] == "imagenet"],
        retrieval=retrieval,
        searches=searches(folder),
        maps=maps(folder),
        categories=list(zip(CATEGORIES, COLOURS, strict=True)),
        neighbours=metrics["analysis"]["tsne"]["rows"],
        saliency=picture(folder / "saliency" / "saliency.png"),
        pointing=metrics["analysis"]["saliency"]["rows"],
        pairs=sample_pairs(folder),
        name=figures.label,
        colour=figures.colour,
        curves=figures.learning_curves(log, metrics["pretraining"]["config"]["optimiser"]["batch_size"]),
        efficiency=figures.label_efficiency(classification),
        bars=figures.retrieval_bars(retrieval),
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _find(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def headlines(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """The figures that the page opens with."""
    rows = metrics["rows"]
    cards = []
    for fraction in sorted({row["fraction"] for row in rows if row["head"]}):
        ours = _find(rows, method="convirt", head="paper", fraction=fraction)
        theirs = _find(rows, method="imagenet", head="paper", fraction=fraction)
        cards.append(
            {
                "value": f"{100 * ours['mean']:.1f}",
                "title": f"AUC with {'all' if fraction == 1 else f'{100 * fraction:g} %'} of the labels",
                "beside": f"ImageNet {100 * theirs['mean']:.1f}",
            }
        )
    for task in ("text-image", "image-image"):
        row = _find(rows, method="convirt", task=task, metric="precision@10")
        cards.append(
            {
                "value": f"{row['mean'] / row['chance']:.1f}×",
                "title": f"chance, {task} retrieval",
                "beside": f"Precision@10 {100 * row['mean']:.1f} against {100 * row['chance']:.1f}",
            }
        )
    return cards


def tabulate(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by head and fraction, methods beside each other, the best marked."""
    lines: dict[tuple[str, float], dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault(
            (row["head"], row["fraction"]),
            {"head": row["head"], "fraction": row["fraction"], "n_train": row["n_train"], "cells": {}},
        )
        line["cells"][row["method"]] = row
    for line in lines.values():
        line["best"] = max(line["cells"], key=lambda method: line["cells"][method]["mean"])
    return list(lines.values())


def thumbnail(path: Path, size: int = 112) -> str:
    """An image as a data address."""
    with Image.open(path) as image:
        small = image.convert("L")
        small.thumbnail((size, size), Image.Resampling.LANCZOS)
        return _data_address(small, quality=82)


def picture(path: Path) -> str:
    """A picture file as a data address; the noise of gradient maps would be large as PNG."""
    with Image.open(path) as image:
        return _data_address(image.convert("RGB"), quality=80)


def _data_address(image: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def maps(folder: Path) -> dict[str, str]:
    """The t-SNE map of each encoder as SVG."""
    points = pd.read_csv(folder / "tsne" / "tsne.csv")
    return {
        str(name): figures.svg(draw_map(own[["x", "y"]].to_numpy(), own["category"].to_numpy(dtype=str), CATEGORIES))
        for name, own in points.groupby("method", sort=False)
    }


def searches(folder: Path) -> list[dict[str, Any]]:
    """For the first query of each category, the nearest candidate images: nothing is picked by its result."""
    archive = folder / "archive"
    listed = pd.read_csv(archive / "retrieval.csv")
    candidates = listed[listed["role"] == "candidate"].reset_index(drop=True)
    queries = pd.read_csv(archive / "queries.csv").drop_duplicates("finding")
    model = load(folder / "convirt")
    paths = [archive / "images" / name for name in candidates["image"]]
    pixels = [np.array(Image.open(path)) for path in paths]
    order, scores = top_images(model, list(queries["text"]), pixels, k=SHOWN)
    found = []
    for text, finding, places, similarities in zip(queries["text"], queries["finding"], order, scores, strict=True):
        hits = [
            {
                "image": thumbnail(paths[place]),
                "finding": str(candidates["finding"][place]),
                "hit": candidates["finding"][place] == finding,
                "similarity": f"{similarity:.2f}",
            }
            for place, similarity in zip(places, similarities, strict=True)
        ]
        found.append({"text": text, "finding": finding, "hits": hits})
    return found


def sample_pairs(folder: Path, count: int = 4) -> list[dict[str, str]]:
    """The first pairs of the archive with different findings."""
    table = pd.read_csv(folder / "archive" / "reports.csv")
    labels = pd.read_csv(folder / "archive" / "labels.csv")
    chosen = labels[labels["finding"].isin(CATEGORIES)].drop_duplicates("finding").head(count)
    reports = dict(zip(table["image"], table["report"], strict=True))
    return [
        {"image": thumbnail(folder / "archive" / "images" / name, 220), "report": reports[name]}
        for name in chosen["image"]
    ]
