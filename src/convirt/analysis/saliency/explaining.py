"""Maps of every finding, method and seed, and what they score.

Shape legend: F findings, S seeds, B findings at once, R side of a view.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from convirt.analysis.figures import STYLE, label
from convirt.analysis.saliency.attribution import Attribution, energy_inside, pointing_game, saliency_maps
from convirt.analysis.saliency.boxes import Boxes, Findings, mask_of
from convirt.data.imaging.grey import grey_image
from convirt.errors import InputError
from convirt.evaluation.inputs.images import read_image
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.linear import LinearHeads
from convirt.model import Model
from convirt.transforms import plain_view, square

METRICS = ("pointing game", "energy in the box")


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What the maps of one kind and method score, and those that are shown."""

    scores: Mapping[str, NDArray[np.float64]]
    """[S, F] by metric; empty without boxes."""
    chance_F: NDArray[np.float64]
    """Share of the view that the boxes of each finding cover."""
    blank: float = 0.0
    """Share of the maps, over seeds and findings, that are zero everywhere: nothing spoke for the class."""
    maps: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """Map [R, R] of the first seed by finding, of those that are shown."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The images that are shown, as the encoder sees them."""

    views: Mapping[int, NDArray[np.float32]]
    """[R, R] by finding."""
    boxes: Mapping[int, list[tuple[float, float, float, float]]]
    """Shares of the view."""


def explain(
    kinds: Sequence[Attribution],
    models: Mapping[str, Model],
    heads: Mapping[str, LinearHeads],
    table: LabelledTable,
    findings: Findings,
    boxes: Boxes | None,
    *,
    shown: NDArray[np.int64],
    batch_size: int,
) -> tuple[dict[tuple[Attribution, str], Explained], Pictures]:
    """Maps and scores of every kind and method; each image is decoded once for all of them."""
    seeds = len(next(iter(heads.values())).weight_SCD)
    scores = {
        (kind, name): {metric: np.zeros((seeds, len(findings))) for metric in METRICS}
        for kind in kinds
        for name in models
    }
    blank = {key: np.zeros((seeds, len(findings)), bool) for key in scores}
    chance = {name: np.zeros(len(findings)) for name in models}
    maps: dict[tuple[Attribution, str], dict[int, NDArray[np.float32]]] = {key: {} for key in scores}
    pictures: dict[str, dict[int, Any]] = {"views": {}, "boxes": {}}
    kept = set(shown.tolist())
    for start in track(
        range(0, len(findings), batch_size),
        description="explaining scores",
        transient=True,
        disable=not sys.stdout.isatty(),
    ):
        part = list(range(start, min(start + batch_size, len(findings))))
        images = [_read(table, findings.rows_F[f]) for f in part]
        on_view = [_boxes_of(table, findings, boxes, f, image) for f, image in zip(part, images, strict=True)]
        for name, model in models.items():
            size = model.config.transform.size
            views_B1RR = torch.cat([plain_view(square(image)[None], size) for image in images])
            masks = [mask_of(own, size) for own in on_view]
            chance[name][part] = [mask.mean() for mask in masks]
            for kind in kinds:
                for seed in range(seeds):
                    maps_BRR = _maps(kind, model, heads[name], seed, views_B1RR, findings.labels_F[part], table)
                    for f, map_RR, mask_RR in zip(part, maps_BRR, masks, strict=True):
                        scores[kind, name][METRICS[0]][seed, f] = pointing_game(map_RR, mask_RR)
                        scores[kind, name][METRICS[1]][seed, f] = energy_inside(map_RR, mask_RR)
                        blank[kind, name][seed, f] = not map_RR.any()
                        if seed == 0 and f in kept:
                            maps[kind, name][int(f)] = map_RR
            for b, f in enumerate(part):
                if f in kept:
                    pictures["views"].setdefault(int(f), views_B1RR[b, 0].numpy())
                    pictures["boxes"].setdefault(int(f), on_view[b])
    explained = {
        key: Explained(
            scores=scores[key] if boxes else {},
            chance_F=chance[key[1]],
            blank=float(blank[key].mean()),
            maps=maps[key],
        )
        for key in scores
    }
    return explained, Pictures(**pictures)


def blank_notes(explained: Mapping[tuple[Attribution, str], Explained]) -> list[str]:
    """What to know of maps that are zero everywhere, a line for each kind and method that has some."""
    return [
        f"{100 * found.blank:.0f} % of the {kind} maps of {name} are zero everywhere: nothing in the image speaks for "
        "the class; such a map scores the boxes' share of the area"
        for (kind, name), found in explained.items()
        if found.blank > 0
    ]


def _read(table: LabelledTable, row: int) -> Tensor:
    path = table.paths[row]
    return grey_image(read_image(path, path.read_bytes()))


def _boxes_of(
    table: LabelledTable, findings: Findings, boxes: Boxes | None, f: int, image_1HW: Tensor
) -> list[tuple[float, float, float, float]]:
    if boxes is None:
        return []
    name, label = table.images[findings.rows_F[f]], table.classes[findings.labels_F[f]]
    return boxes.on_view(name, label, *image_1HW.shape[1:])


def _maps(
    kind: Attribution,
    model: Model,
    heads: LinearHeads,
    seed: int,
    views_B1RR: Tensor,
    labels_B: NDArray[np.int64],
    table: LabelledTable,
) -> NDArray[np.float32]:
    if model.image_encoder is None:
        raise InputError(f"the model {model.name!r} has no image tower")
    maps_BRR = saliency_maps(
        kind, model.image_encoder, heads.weight_SCD[seed], heads.bias_SC[seed], views_B1RR, labels_B
    )
    if not np.isfinite(maps_BRR).all():
        label = table.classes[int(labels_B[0])]
        raise InputError(f"{model.name} gives a {kind} map that is not finite (label {label!r})")
    return maps_BRR


BOX = "#ff4d4d"
BRIGHTEST = 99.5
"""Percentile of a map that is drawn brightest; single pixels would leave the rest black."""


def draw_saliency(
    explained: Mapping[tuple[Any, str], Explained], pictures: Pictures, titles: Mapping[int, str], shown: Sequence[int]
) -> Figure:
    """Draw the findings that are shown.

    Args:
        explained: Maps by kind and method.
        pictures: Views and boxes by finding.
        titles: What stands before each line, by finding.
        shown: The findings, one a line.
    """
    several = len({kind for kind, _ in explained}) > 1
    side, columns = 1.35, 1 + len(explained)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = plt.subplots(
            len(shown),
            columns,
            figsize=(side * columns + 0.2, side * len(shown)),
            squeeze=False,
        )
        for line, f in enumerate(shown):
            panels[line, 0].imshow(pictures.views[f], cmap="gray", vmin=0, vmax=1)
            panels[line, 0].set_ylabel(titles[f].replace(" ", "\n"), fontsize=8, rotation=0, ha="right", va="center")
            for column, found in enumerate(explained.values(), start=1):
                panels[line, column].imshow(bright(found.maps[f]), cmap="inferno", vmin=0, vmax=1)
                if not found.maps[f].any():
                    middle = {"transform": panels[line, column].transAxes, "ha": "center", "va": "center"}
                    panels[line, column].text(0.5, 0.5, "zero everywhere", color="white", fontsize=7, **middle)
            for axes in panels[line]:
                _outline(axes, pictures.boxes[f], pictures.views[f].shape[0] if axes is panels[line, 0] else None)
        for column, (kind, name) in enumerate(explained, start=1):
            panels[0, column].set_title(f"{label(name)}\n{kind}" if several else label(name), fontsize=9)
        panels[0, 0].set_title("image", fontsize=9)
        figure.subplots_adjust(wspace=0.04, hspace=0.04)
        return figure


def bright(map_RR: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map scaled to [0, 1] for the eye alone."""
    top = float(np.percentile(map_RR, BRIGHTEST))
    return np.clip(map_RR / top, 0, 1) if top > 0 else np.zeros_like(map_RR)


def _outline(axes: Any, boxes: Sequence[tuple[float, float, float, float]], side: int | None) -> None:
    side = side or axes.images[0].get_array().shape[0]
    for left, top, right, bottom in boxes:
        corner = (left * side - 0.5, top * side - 0.5)
        width, height = (right - left) * side, (bottom - top) * side
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=BOX, linewidth=1.1))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
