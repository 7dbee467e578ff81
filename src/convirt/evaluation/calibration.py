"""Calibration of the predicted probabilities, and operating points that validation chose.

Calibration is that of Guo et al. (On Calibration of Modern Neural Networks, 2017).

Shape legend: S seeds, N rows, U units that are scored, C classes, M bins, T thresholds, R resamples.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convirt.atomic import disk_errors, write_bytes
from convirt.errors import InputError
from convirt.evaluation.inputs.units import Units
from convirt.evaluation.printing import percent_of_labels, place_name
from convirt.evaluation.protocol import Outcome, Outcomes, Place, Rule
from convirt.evaluation.rows import Figure, Plain
from convirt.evaluation.scoring import ScoredTask
from convirt.evaluation.statistics.metrics import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 15  # Guo et al., table 1; gpleiss/temperature_scaling
PICTURE = "reliability.png"


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """What a reliability diagram shows: equal-width bins of confidence ((m - 1) / M, m / M]."""

    count_M: NDArray[np.int64]
    confidence_M: Array
    """Mean confidence of the rows in each bin; NaN in an empty one."""
    accuracy_M: Array
    """Share of them that came true; NaN in an empty one."""

    @property
    def ece(self) -> float:
        """Expected calibration error (equation 3): the mean gap, weighted by the rows in each bin."""
        filled = self.count_M > 0
        gap = np.abs(self.accuracy_M[filled] - self.confidence_M[filled])
        return float((self.count_M[filled] * gap).sum() / self.count_M.sum()) if filled.any() else float("nan")


def reliability(confidence_N: NDArray, outcome_N: NDArray, bins: int = BINS) -> Reliability:
    """Bin rows by confidence.

    Args:
        confidence_N: Probabilities in [0, 1].
        outcome_N: 1 where it came true, 0 where not, NaN for rows without a label, which are ignored.
        bins: Number M of bins.

    Raises:
        InputError: A probability outside [0, 1].
    """
    outcome_N = np.asarray(outcome_N, dtype=np.float64)
    given = np.isfinite(outcome_N)
    confidence, outcome = np.asarray(confidence_N, dtype=np.float64)[given], outcome_N[given]
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise InputError("calibration needs probabilities in [0, 1]; a score lies outside")
    bin_N = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # 0 itself goes to the first bin
    count_M = np.bincount(bin_N, minlength=bins)
    filled = np.maximum(count_M, 1)
    return Reliability(
        count_M=count_M,
        confidence_M=np.where(count_M, np.bincount(bin_N, confidence, bins) / filled, np.nan),
        accuracy_M=np.where(count_M, np.bincount(bin_N, outcome, bins) / filled, np.nan),
    )


def calibration_inputs(targets_NC: NDArray, scores_NC: NDArray, multi_label: bool) -> tuple[Array, Array]:
    """Confidence and outcome of the most probable class of each row, as Guo et al. bin them; or of all labels of a
    multi-label task together."""
    if multi_label:
        return scores_NC.astype(np.float64).ravel(), targets_NC.ravel()
    chosen_N = scores_NC.argmax(axis=1)
    rows = np.arange(len(scores_NC))
    return scores_NC[rows, chosen_N].astype(np.float64), (targets_NC[rows, chosen_N] == 1).astype(np.float64)


def expected_calibration_error(targets_NC: NDArray, scores_NC: NDArray, multi_label: bool, bins: int = BINS) -> float:
    """ECE of a task: of the top label (Guo et al.), or the mean over labels of each label's own (ours)."""
    if not multi_label:
        return reliability(*calibration_inputs(targets_NC, scores_NC, multi_label), bins).ece
    return float(np.nanmean(label_calibration_errors(targets_NC, scores_NC, bins)))


def label_calibration_errors(targets_NC: NDArray, scores_NC: NDArray, bins: int = BINS) -> list[float]:
    """ECE of each label's own probability, as a binary event; NaN for a label that no row has."""
    return [reliability(scores_NC[:, c], targets_NC[:, c], bins).ece for c in range(scores_NC.shape[1])]


def calibration_rows(outcomes: Mapping[str, Outcome], task: ScoredTask) -> list[Plain]:
    """Expected calibration error of each method, the mean over seeds; by label for a multi-label task."""
    rows: list[Plain] = []
    multi_label, targets_UC = task.table.multi_label, task.units.targets_UC
    for method, outcome in outcomes.items():
        scores_SUC = task.units.mean(outcome.test_SNC)
        errors_S = [expected_calibration_error(targets_UC, scores_UC, multi_label) for scores_UC in scores_SUC]
        row: Plain = {
            "method": method,
            "metric": "ece",
            "bins": BINS,
            "of": "the mean over labels" if multi_label else "the most probable class",
            "mean": float(np.mean(errors_S)),
            "std": float(np.std(errors_S, ddof=1)) if len(errors_S) > 1 else None,
            "seeds": errors_S,
            "n_test": len(targets_UC),
            "higher_is_better": False,
        }
        if multi_label:
            by_label = np.mean([label_calibration_errors(targets_UC, scores_UC) for scores_UC in scores_SUC], axis=0)
            row["by_label"] = dict(zip(task.table.classes, by_label.tolist(), strict=True))
        rows.append(row)
    return rows


def choose_threshold(positive_N: NDArray, scores_N: NDArray, rule: Rule) -> float:
    """The threshold t of `score >= t`, on validation rows.

    Every observed score is tried. Of equally good thresholds the highest is taken; NaN labels are ignored.

    Raises:
        InputError: There are no positives or no negatives.
    """
    positive_N = np.asarray(positive_N, dtype=np.float64)
    positives, negatives = np.sort(scores_N[positive_N == 1]), np.sort(scores_N[positive_N == 0])
    if not len(positives) or not len(negatives):
        raise InputError("an operating point needs validation rows with and without the finding; add such rows")
    threshold_T = np.unique(np.concatenate([positives, negatives]))
    threshold_T = np.append(threshold_T, np.nextafter(threshold_T[-1], np.inf))  # nothing is called positive
    sensitivity_T = 1 - np.searchsorted(positives, threshold_T, side="left") / len(positives)
    specificity_T = np.searchsorted(negatives, threshold_T, side="left") / len(negatives)
    if rule.target is None:
        worth_T = sensitivity_T + specificity_T
    else:
        held, other = sensitivity_T, specificity_T
        if rule.kind == "specificity":
            held, other = other, held
        worth_T = np.where(held >= rule.target - 1e-12, other, -1.0)
    best = np.flatnonzero(worth_T >= worth_T.max() - 1e-12)[-1]
    return float(threshold_T[best])


def rates(positive_N: NDArray, scores_N: NDArray, threshold: float, weights_NR: NDArray) -> tuple[Array, Array]:
    """Sensitivity and specificity at a threshold for R columns of weights, each float64 [R]; NaN where undefined."""
    called_N = np.asarray(scores_N) >= threshold
    return share_of(positive_N == 1, called_N, weights_NR), share_of(positive_N == 0, ~called_N, weights_NR)


def share_of(counted_N: NDArray, right_N: NDArray, weights_NR: NDArray) -> Array:
    """Share [R] of the counted rows that are right; NaN for weights without one of them."""
    weights_NR = weights_NR[counted_N].astype(np.float64, copy=False)
    total_R = weights_NR.sum(axis=0)
    hits_R = right_N[counted_N].astype(np.float64) @ weights_NR
    return np.divide(hits_R, total_R, out=np.full(len(total_R), np.nan), where=total_R > 0)


def operating_rows(outcomes: Mapping[str, Outcome], task: ScoredTask, rules: Sequence[Rule]) -> list[Plain]:
    """Sensitivity and specificity of each label at thresholds that each seed's validation scores chose.

    Of two classes the last one is the finding; of more, each against the rest. A label has no row where validation or
    test lacks positives or negatives.
    """
    table = task.table
    names = list(enumerate(table.classes))
    if task.binary and not table.multi_label:
        names = names[-1:]
    validation = Units.of(table, "val")
    rows: list[Plain] = []
    for method, outcome in outcomes.items():
        val_SUC, test_SUC = validation.mean(outcome.val_SNC), task.units.mean(outcome.test_SNC)
        for c, name in names:
            val_U, test_U = validation.targets_UC[:, c], task.units.targets_UC[:, c]
            if any(not (targets_U == kind).any() for targets_U in (val_U, test_U) for kind in (0, 1)):
                continue
            for rule in rules:
                thresholds_S = [choose_threshold(val_U, scores_U, rule) for scores_U in val_SUC[:, :, c]]
                about = {"method": method, "label": name, "rule": str(rule), "thresholds": thresholds_S}
                rows.append(about | _rates_of(test_U, test_SUC[:, :, c], thresholds_S, task))
    return rows


def _rates_of(positive_U: NDArray, scores_SU: NDArray, thresholds_S: Sequence[float], task: ScoredTask) -> Plain:
    row: Plain = {"n_positive": int((positive_U == 1).sum()), "n_negative": int((positive_U == 0).sum())}
    for place, name in enumerate(("sensitivity", "specificity")):

        def statistic(weights_UR: NDArray, s: int, place: int = place) -> Array:
            return rates(positive_U, scores_SU[s], thresholds_S[s], weights_UR)[place]

        found = Figure.of(statistic, task.plan).summary()
        row[name] = {key: found[key] for key in ("mean", "seeds", "ci_low", "ci_high")}
    return row


def write_reliability(outcomes: Outcomes, task: ScoredTask, out: Path) -> Path:
    """Write `reliability.png`: a line of panels for each setting and head at its largest share of labels.

    Args:
        outcomes: What classifiers say.
        task: The test rows.
        out: Folder of the results.

    Returns:
        The picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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
            _draw_line(list(axes_of_line), place, methods, task)
        figure.suptitle("Reliability on test rows; bars: rows in a bin, lines: 95 %", fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        plt.close(figure)
    with disk_errors(out):
        write_bytes(out / PICTURE, buffer.getvalue())
    return out / PICTURE


def wilson(share_M: NDArray, count_M: NDArray) -> tuple[NDArray, NDArray]:
    """Wilson's 95 % interval of shares of independent rows: how far a bin can be trusted to the eye."""
    z = 1.959964
    middle_M = (share_M + z**2 / (2 * count_M)) / (1 + z**2 / count_M)
    reach_M = z * np.sqrt(share_M * (1 - share_M) / count_M + (z / (2 * count_M)) ** 2) / (1 + z**2 / count_M)
    return middle_M - reach_M, middle_M + reach_M


def _draw_line(panels: "list[Axes]", place: Place, methods: Mapping[str, Outcome], task: ScoredTask) -> None:
    for number, (axes, (method, outcome)) in enumerate(zip(panels, methods.items(), strict=False)):
        # The rows of all seeds together, and of several labels all of them.
        inputs = [
            calibration_inputs(task.units.targets_UC, scores_UC, task.table.multi_label)
            for scores_UC in task.units.mean(outcome.test_SNC)
        ]
        bins = reliability(np.concatenate([c for c, _ in inputs]), np.concatenate([o for _, o in inputs]))
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
            name = place_name({"setting": place.setting, "head": place.head})
            axes.set_ylabel(f"{name}\n{percent_of_labels(place.fraction)} of the labels\n\nshare that came true")
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
