"""The reliability diagram of a classification, as a picture file."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from convirt.evaluation.classification.outcomes import Outcome, Outcomes
from convirt.evaluation.classification.protocol import Place
from convirt.evaluation.classification.scoring import Task
from convirt.evaluation.printing import NAMES, share
from convirt.evaluation.results import replace_file
from convirt.evaluation.statistics.calibration import Reliability, calibration_inputs, reliability

FILE = "reliability.png"


def pooled_reliability(outcome: Outcome, task: Task) -> Reliability:
    """The bins of one method, with the rows of all its seeds (and, for several labels, of all of them) together."""
    inputs = [
        calibration_inputs(task.units.targets_UC, scores_UC, task.table.multi_label)
        for scores_UC in task.units.mean(outcome.test_SNC)
    ]
    return reliability(np.concatenate([c for c, _ in inputs]), np.concatenate([o for _, o in inputs]))


def write_reliability(outcomes: Outcomes, task: Task, out: Path) -> Path:
    """Write `reliability.png`: a line of panels for each setting and head at its largest share of labels.

    Args:
        outcomes: What classifiers say.
        task: The test rows.
        out: Folder of the results.

    Returns:
        The picture.
    """
    largest: dict[tuple[str, str], Place] = {}
    for place in outcomes:
        kept = largest.setdefault((place.setting, place.head), place)
        if place.fraction > kept.fraction:
            largest[place.setting, place.head] = place
    lines = [(place, outcomes[place]) for place in largest.values()]
    columns = max(len(methods) for _, methods in lines)
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, panels = plt.subplots(
            len(lines), columns, figsize=(2.9 * columns + 0.6, 3.3 * len(lines)), squeeze=False, layout="constrained"
        )
        for axes_of_line, (place, methods) in zip(panels, lines, strict=True):
            _line(list(axes_of_line), place, methods, task)
        figure.suptitle("Reliability on test rows; bars: rows in a bin, lines: 95 %", fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        plt.close(figure)
    path = out / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda file: file.write(buffer.getvalue()))
    return path


def wilson(share_M: NDArray, count_M: NDArray) -> tuple[NDArray, NDArray]:
    """Wilson's 95 % interval of shares of independent rows: how far a bin can be trusted to the eye."""
    z = 1.959964
    middle_M = (share_M + z**2 / (2 * count_M)) / (1 + z**2 / count_M)
    reach_M = z * np.sqrt(share_M * (1 - share_M) / count_M + (z / (2 * count_M)) ** 2) / (1 + z**2 / count_M)
    return middle_M - reach_M, middle_M + reach_M


def _line(panels: list[Axes], place: Place, methods: Mapping[str, Outcome], task: Task) -> None:
    name = f"{NAMES[place.setting, place.head]}\n{share(place.fraction)} of the labels"
    for number, (axes, (method, outcome)) in enumerate(zip(panels, methods.items(), strict=False)):
        bins = pooled_reliability(outcome, task)
        width = 1 / len(bins.count_M)
        filled = bins.count_M > 0
        centres = (np.arange(len(bins.count_M)) + 0.5) * width
        axes.bar(centres, bins.count_M / bins.count_M.max(), width=0.9 * width, color="#e3e8ee", zorder=0)
        axes.plot([0, 1], [0, 1], color="#7b8794", linewidth=0.8, linestyle=":")
        shown_M = bins.accuracy_M[filled]
        # Seeds say the same rows again, so that they do not narrow the interval.
        low_M, high_M = wilson(shown_M, bins.count_M[filled] / len(outcome.test_SNC))
        reach = (np.maximum(shown_M - low_M, 0), np.maximum(high_M - shown_M, 0))
        axes.errorbar(bins.confidence_M[filled], shown_M, reach, fmt="o", color="#0b6e8a", markersize=4, linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal", xlabel="predicted probability")
        axes.set_title(f"{method}\nECE of all rows together {bins.ece:.3f}", fontsize=9, loc="left")
        if number == 0:
            axes.set_ylabel(f"{name}\n\nshare that came true")
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
