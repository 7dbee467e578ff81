"""The saliency figure: a line for each image, the image with its boxes first, then the map of each method."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from convirt.analysis.figures import STYLE, label
from convirt.analysis.saliency.explaining import Explained, Pictures

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
