"""Numbers beside a t-SNE map: how pure the neighbourhoods are, in the features and in the map.

A map can show clusters that the features do not have, and hide some that they have; so each figure is given for both.

Shape legend: N images, D size of a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_samples

from convirt.analysis.embedding.tsne import NEIGHBOURS
from convirt.analysis.figures import STYLE, label
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.ranking import cosine, evaluate_ranking, image_image
from convirt.evaluation.rows import AnyRow as Row
from convirt.evaluation.rows import measure
from convirt.evaluation.statistics.bootstrap import Array, Resampling, weighted_mean


def measure_neighbourhoods(
    table: LabelledTable,
    features: Mapping[str, NDArray[np.float32]],
    maps: Mapping[str, NDArray[np.float64]],
    *,
    resamples: int,
    baselines: Sequence[str],
) -> tuple[list[Row], list[Row]]:
    """Purity among the ten nearest images of other patients, and silhouette, in the features and in the map.

    Purity is the share of an image's nearest neighbours that have its category (Precision@10 of image-image retrieval
    within these images). The silhouette (Rousseeuw 1987) compares the mean distance to the own category with that to
    the nearest other one; 0 is no separation. Intervals are over patients, the map being fixed.

    Args:
        table: Single-label rows.
        features: L2-normalised h_v [N, D] by method.
        maps: Places in the map [N, 2] by method.
        resamples: Bootstrap resamples.
        baselines: Methods that the others are compared with.

    Returns:
        Rows and comparisons.
    """
    everyone = np.arange(len(table))
    ranking = image_image(table.labels_N, table.patients_N, everyone, everyone)
    spaces = {
        "features": {name: cosine(h_ND, h_ND) for name, h_ND in features.items()},
        "t-SNE map": {name: -cdist(map_N2, map_N2) for name, map_N2 in maps.items()},
    }
    rows: list[Row] = []
    comparisons: list[Row] = []
    for place, similarities in spaces.items():
        task = replace(ranking, task=f"neighbours in the {place}")
        found = evaluate_ranking(task, similarities, ks=(NEIGHBOURS,), resamples=resamples, baselines=baselines)
        rows += [_named(row) for row in found[0]]
        comparisons += [_named(row) for row in found[1]]
    for place, vectors, metric in (("features", features, "cosine"), ("t-SNE map", maps, "euclidean")):
        found_rows, found_comparisons = _silhouettes(table, place, vectors, metric, resamples, baselines)
        rows += found_rows
        comparisons += found_comparisons
    return rows, comparisons


def _named(row: Row) -> Row:
    return {**row, "metric": f"purity@{NEIGHBOURS}"}


def _silhouettes(
    table: LabelledTable,
    place: str,
    vectors: Mapping[str, NDArray[Any]],
    metric: str,
    resamples: int,
    baselines: Sequence[str],
) -> tuple[Sequence[Row], Sequence[Row]]:
    plan = Resampling.draw(table.patients_N, seeds=1, resamples=resamples)
    values_N = {
        name: silhouette_samples(vectors_ND.astype(np.float64), table.labels_N, metric=metric)
        for name, vectors_ND in vectors.items()
    }
    common = {
        "task": f"separation in the {place}",
        "space": "features",
        "head": None,
        "fraction": None,
        "n_train": 0,
        "n_test": len(table),
        "n_patients": len(np.unique(table.patients_N)),
    }

    def statistic(name: str, weights_NR: NDArray, seed: int) -> Array:
        return weighted_mean(values_N[name], weights_NR)

    return measure(
        {name: partial(statistic, name) for name in values_N},
        plan,
        common,
        metric="silhouette",
        chance=0.0,
        chance_is="categories that do not differ",
        baselines=baselines,
    )


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
