"""The t-SNE figure: one panel for each encoder, one colour for each category."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convirt.analysis.figures import STYLE, label
from convirt.evaluation.rows import AnyRow as Row

COLOURS = ("#0b6e8a", "#d98e04", "#b3261e", "#5f3dc4", "#2e7d32", "#d6336c", "#74512d", "#7b8794")
"""Told apart by most readers; further categories begin anew with another mark."""
MARKS = ("o", "^", "s", "D")
PLAIN: Any = {**STYLE, "axes.grid": False}


def draw_maps(
    maps: Mapping[str, NDArray[np.float64]],
    labels_N: NDArray[np.str_],
    categories: Sequence[str],
    purity: Mapping[str, Row],
) -> Figure:
    """Panels of equal size with the purity of the features' neighbourhoods as their title.

    Args:
        maps: Places [N, 2] by method.
        labels_N: Category of each image.
        categories: In the order of the legend.
        purity: The row of results with the purity, by method.
    """
    columns = min(3, len(maps))
    lines = -(-len(maps) // columns)
    with plt.rc_context(PLAIN):
        figure, panels = plt.subplots(lines, columns, figsize=(4.2 * columns, 4.3 * lines), squeeze=False)
        for axes in panels.flat[len(maps) :]:
            axes.set_visible(False)
        for axes, (name, map_N2) in zip(panels.flat, maps.items(), strict=False):
            scatter(axes, map_N2, labels_N, categories)
            row = purity[name]
            figures = f"{100 * row['mean']:.0f} % of neighbours share it, chance {100 * row['chance']:.0f} %"
            axes.set_title(f"{label(name)}\n{figures}", fontsize=10, loc="left")
        figure.legend(
            *panels.flat[0].get_legend_handles_labels(),
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, 0.09),
            ncols=min(len(categories), 5),
            columnspacing=1.2,
            handletextpad=0.2,
        )
        figure.subplots_adjust(wspace=0.08, hspace=0.25)
        return figure


def draw_map(map_N2: NDArray[np.float64], labels_N: NDArray[np.str_], categories: Sequence[str]) -> Figure:
    """One panel without title and legend, for a page that says both itself."""
    with plt.rc_context(PLAIN):
        figure, axes = plt.subplots(figsize=(4.2, 4.2))
        scatter(axes, map_N2, labels_N, categories)
        return figure


def scatter(axes: Any, map_N2: NDArray[np.float64], labels_N: NDArray[np.str_], categories: Sequence[str]) -> None:
    """Draw the images of each category; a map has no units, so no axes either."""
    for number, category in enumerate(categories):
        axes.scatter(
            *map_N2[labels_N == category].T,
            s=14,
            marker=MARKS[number // len(COLOURS) % len(MARKS)],
            color=COLOURS[number % len(COLOURS)],
            alpha=0.8,
            linewidths=0,
            label=category,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_box_aspect(1)
    axes.spines[:].set_visible(True)
