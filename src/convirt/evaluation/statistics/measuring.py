"""Rows of results from one statistic of each method: its value, its interval, and the differences between methods.

Shape legend: N rows, R resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.results import Row
from convirt.evaluation.statistics.bootstrap import Array, Resampling, cluster_bootstrap, compare, percentile_interval

Statistic = Callable[[NDArray, int], Array]
"""Gives the metric [R] of one seed for weights [N, R]: how often each row counts in each resample."""


def measure(
    statistics: Mapping[str, Statistic],
    plan: Resampling,
    common: Mapping[str, Any],
    *,
    metric: str,
    chance: float,
    chance_is: str,
    baselines: Sequence[str] = (),
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[list[Row], list[Row]]:
    """One row for each method, and its differences to the baselines, all on the resamples of one plan.

    Args:
        statistics: The metric of each method.
        plan: Resamples of whole patients, and of seeds where there are several.
        common: What every row and comparison says: task, space, head, fraction.
        metric: Name of the metric.
        chance: What no knowledge of the image scores.
        chance_is: How that is meant.
        baselines: Methods that the others are compared with.
        extra: Further values of a method's row.
    """
    rows: list[Row] = []
    means: dict[str, float] = {}
    values_R: dict[str, Array] = {}
    once_N1 = np.ones((len(plan.weights_NR), 1))
    for method, statistic in statistics.items():
        seeds = [float(statistic(once_N1, seed)[0]) for seed in range(plan.seeds_RS.shape[1])]
        means[method] = float(np.mean(seeds))
        values_R[method] = cluster_bootstrap(statistic, plan)
        interval = percentile_interval(values_R[method])
        rows.append(
            {
                **common,
                "method": method,
                "metric": metric,
                "mean": means[method],
                "std": float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None,
                "seeds": seeds,
                "ci_low": interval.low,
                "ci_high": interval.high,
                "resamples_used": int(np.isfinite(values_R[method]).sum()),
                "chance": chance,
                "chance_is": chance_is,
                "higher_is_better": True,
                **(extra or {}).get(method, {}),
            }
        )
    return rows, [{**common, "metric": metric, **row} for row in compare(means, values_R, baselines)]
