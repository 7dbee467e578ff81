"""Everything that is found out from trained classifiers: the content of a classification's `metrics.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.classification.diagnostics import calibration_rows, operating_rows
from convirt.evaluation.classification.metadata import (
    METHOD,
    explained,
    metadata_features,
    metadata_outcome,
    with_metadata,
)
from convirt.evaluation.classification.outcomes import Outcome, Outcomes
from convirt.evaluation.classification.protocol import ClassificationProtocol, draw_subsets
from convirt.evaluation.classification.scoring import Task, score_place
from convirt.evaluation.classification.subgroups import subgroup_rows
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.results import Row


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Rows of every kind, each with its task, setting, head and fraction."""

    rows: list[Row] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)
    calibration: list[Row] = field(default_factory=list)
    operating_points: list[Row] = field(default_factory=list)
    subgroups: list[Row] = field(default_factory=list)
    predictions: dict[str, NDArray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def evaluate(
    outcomes: Outcomes,
    table: LabelledTable,
    protocol: ClassificationProtocol,
    *,
    task: str,
    baselines: Sequence[str] = (),
    sides_N2: NDArray[np.int64] | None = None,
) -> Findings:
    """Score classifiers.

    Args:
        outcomes: What they say, by place and method.
        table: Labels, patients, splits and attributes.
        protocol: What was trained.
        task: Name of the task in the rows.
        baselines: Methods that the others are compared with.
        sides_N2: Height and width of each image; with them stands the metadata baseline beside the methods.
    """
    scored = Task.of(table, seeds=len(protocol.seeds), resamples=protocol.resamples)
    subsets = {fraction: draw_subsets(table, fraction, protocol.seeds) for fraction in protocol.fractions}
    metadata, known = _metadata(table, sides_N2, subsets, protocol)
    against = [*baselines, METHOD] if metadata else list(baselines)
    found = Findings(predictions=_shared(table))
    for place, methods in outcomes.items():
        methods = with_metadata(methods, metadata.get(place.fraction))
        common = {
            "task": task,
            "space": "features",
            "setting": place.setting,
            "head": place.head,
            "fraction": place.fraction,
        }
        rows, compared = score_place(methods, scored, subsets[place.fraction], against)
        parts = (
            (found.rows, rows),
            (found.comparisons, compared),
            (found.calibration, calibration_rows(methods, scored)),
            (found.operating_points, operating_rows(methods, scored, protocol.operating_points)),
            (found.subgroups, subgroup_rows(methods, scored)),
        )
        for collected, new in parts:
            collected += [{**common, **row} for row in new]
        for method, outcome in methods.items():
            found.predictions[f"{place.key}|{method}"] = outcome.test_SNC
            found.predictions[f"val|{place.key}|{method}"] = outcome.val_SNC
    found.notes.extend(explained(found.rows, found.comparisons, known))
    return found


def _metadata(
    table: LabelledTable,
    sides_N2: NDArray[np.int64] | None,
    subsets: Mapping[float, Sequence[NDArray[np.int64]]],
    protocol: ClassificationProtocol,
) -> tuple[dict[float, Outcome], tuple[str, ...]]:
    if sides_N2 is None:
        return {}, ()
    features_NF, known = metadata_features(table, sides_N2)
    found = {fraction: metadata_outcome(features_NF, table, drawn) for fraction, drawn in subsets.items()}
    return found, known


def _shared(table: LabelledTable) -> dict[str, NDArray]:
    """The arrays that the scores of every method stand beside."""
    arrays: dict[str, NDArray] = {"classes": np.array(table.classes)}
    for split in ("val", "test"):
        rows = table.rows(split)
        arrays[f"{split}_images"] = np.array(table.images)[rows]
        arrays[f"{split}_patients"] = table.patients_N[rows]
        arrays[f"{split}_targets"] = table.targets_NC[rows]
        if table.units_N is not None:
            arrays[f"{split}_units"] = table.units_N[rows]
    return arrays
