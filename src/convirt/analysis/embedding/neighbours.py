"""Numbers beside a t-SNE map: how pure the neighbourhoods are, in the features and in the map.

A map can show clusters that the features do not have, and hide some that they have; so each figure is given for both.

Shape legend: N images, D size of a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_samples

from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.ranking import cosine, evaluate_ranking, image_image
from convirt.evaluation.rows import AnyRow as Row
from convirt.evaluation.rows import measure
from convirt.evaluation.statistics.bootstrap import Array, Resampling, weighted_mean

NEIGHBOURS = 10


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
