"""Everything that is found out from trained classifiers: the content of a classification's `metrics.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.calibration import calibration_rows, operating_rows
from convirt.evaluation.inputs.table import LabelledTable, OpenTable
from convirt.evaluation.metadata import METHOD, explained, metadata_features, metadata_outcome
from convirt.evaluation.protocol import ClassificationProtocol, Outcome, Outcomes
from convirt.evaluation.rows import Plain, Row
from convirt.evaluation.scoring import ScoredTask, class_rows, score_place, subgroup_rows

if TYPE_CHECKING:
    from convirt.evaluation.results import Call, Results


BESIDE = ("calibration", "operating_points", "subgroups", "classes")
"""Kinds of rows beside the figures."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Rows of every kind, each with its task, setting, head and fraction."""

    rows: list[Row] = field(default_factory=list)
    comparisons: list[Plain] = field(default_factory=list)
    beside: dict[str, list[Plain]] = field(default_factory=lambda: {name: [] for name in BESIDE})
    """Further rows by kind (`BESIDE`)."""
    predictions: dict[str, NDArray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def finish(
        self,
        call: "Call",
        opened: OpenTable,
        protocol: ClassificationProtocol,
        table: LabelledTable,
        images_sha256: str,
        row_values: Mapping[str, Any],
        **written: Any,
    ) -> "Results":
        """Write and print the results of a verb.

        Args:
            call: The verb and its arguments.
            opened: The table, or the benchmark.
            protocol: What was trained.
            table: The images that took part.
            images_sha256: Hash over their files.
            row_values: Further names and values of every row.
            written: Other files of the results, as `Call.finish` takes it.
        """
        splits, counts = np.unique(table.splits_N, return_counts=True)
        return call.finish(
            opened,
            config={"protocol": asdict(protocol)},
            seeds=protocol.seeds,
            data={
                "table_sha256": table.sha256,
                "images_sha256": images_sha256,
                "images": len(table),
                "rows_without_label": table.rows_without_label,
                "classes": list(table.classes),
                "splits": {str(split): int(count) for split, count in zip(splits, counts, strict=True)},
            },
            rows=self.rows,
            row_values=row_values,
            comparisons=self.comparisons,
            predictions=self.predictions,
            notes=self.notes,
            beside=self.beside,
            **written,
        )


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
        outcomes: Their predictions, by place and method.
        table: Labels, patients, splits and attributes.
        protocol: What was trained.
        task: Name of the task in the rows.
        baselines: Methods that the others are compared with.
        sides_N2: Height and width of each image; with them the metadata baseline is evaluated as well.
    """
    scored = ScoredTask.of(table, seeds=len(protocol.seeds), resamples=protocol.resamples)
    subsets = {fraction: protocol.subsets(table, fraction) for fraction in protocol.fractions}
    metadata: dict[float, Outcome] = {}
    known: tuple[str, ...] = ()
    if sides_N2 is not None:
        features_NF, known = metadata_features(table, sides_N2)
        metadata = {fraction: metadata_outcome(features_NF, table, drawn) for fraction, drawn in subsets.items()}
    against = [*baselines, METHOD] if metadata else list(baselines)
    found = Findings(predictions=_arrays_of(table))
    for place, methods in outcomes.items():
        methods = {METHOD: metadata[place.fraction], **methods} if metadata else methods
        common = {
            "task": task,
            "space": "features",
            "setting": place.setting,
            "head": place.head,
            "fraction": place.fraction,
        }
        rows, compared = score_place(methods, scored, subsets[place.fraction], against, common)
        found.rows.extend(rows)
        found.comparisons.extend(compared)
        further = (
            calibration_rows(methods, scored),
            operating_rows(methods, scored, protocol.operating_points),
            subgroup_rows(methods, scored),
            class_rows(methods, scored),
        )
        for name, new in zip(BESIDE, further, strict=True):
            found.beside[name] += [{**common, **row} for row in new]
        for method, outcome in methods.items():
            found.predictions[f"{place.key}|{method}"] = outcome.test_SNC
            found.predictions[f"val|{place.key}|{method}"] = outcome.val_SNC
    found.notes.extend(explained(found.rows, found.comparisons, known))
    if missing := scored.labels_scored["labels_not_scored"]:
        found.notes.append(
            f"not scored, for want of a positive or a negative test row: {', '.join(missing)}; AUC is the mean over "
            f"{scored.labels_scored['labels_scored']} of {len(table.classes)} labels"
        )
    return found


def _arrays_of(table: LabelledTable) -> dict[str, NDArray]:
    """Classes, images, patients and targets, for `predictions.npz`."""
    arrays: dict[str, NDArray] = {"classes": np.array(table.classes)}
    for split in ("val", "test"):
        rows = table.rows(split)
        arrays[f"{split}_images"] = np.array(table.images)[rows]
        arrays[f"{split}_patients"] = table.patients_N[rows]
        arrays[f"{split}_targets"] = table.targets_NC[rows]
        if table.units_N is not None:
            arrays[f"{split}_units"] = table.units_N[rows]
    return arrays
