"""What `classify` and `finetune` have in common: the schedule that is asked for, and the results that they leave."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from convirt.data.benchmarks.folder import Protocol, first_given
from convirt.evaluation.classification.evaluation import Findings
from convirt.evaluation.classification.protocol import ClassificationProtocol
from convirt.evaluation.classification.schedule import Schedule
from convirt.evaluation.inputs.table import LabelledTable, OpenTable
from convirt.evaluation.results import Results, with_benchmark

LEARNING_RATE = 1e-4  # appendix B; COVIDx, whose benchmark says so, has another


def schedule_of(
    paper: Protocol,
    learning_rate: float | None,
    max_epochs: int,
    select_on: Literal["auc", "accuracy"] | None,
) -> Schedule:
    """What the user asked for, else what the paper says of the benchmark, else the default."""
    return Schedule(
        learning_rate=first_given(learning_rate, paper.learning_rate, LEARNING_RATE),
        max_epochs=max_epochs,
        select_on=first_given(select_on, paper.select_on, "auc"),
    )


def task_name(opened: OpenTable) -> str:
    """What the rows call the task."""
    return opened.benchmark.name if opened.benchmark else opened.columns.label or "multi-label"


def describe(table: LabelledTable, images_sha256: str) -> dict[str, Any]:
    """Fingerprints and counts of the evaluated data."""
    splits, counts = np.unique(table.splits_N, return_counts=True)
    return {
        "table_sha256": table.sha256,
        "images_sha256": images_sha256,
        "images": len(table),
        "rows_without_label": table.rows_without_label,
        "classes": list(table.classes),
        "splits": {str(split): int(count) for split, count in zip(splits, counts, strict=True)},
    }


def results_of(
    verb: str,
    findings: Findings,
    protocol: ClassificationProtocol,
    opened: OpenTable,
    *,
    arguments: Mapping[str, Any],
    data: Mapping[str, Any],
    said_of_rows: Mapping[str, Any],
    started: float,
) -> Results:
    """Everything that a verb found.

    Args:
        verb: Its name.
        findings: What was found.
        protocol: What was trained.
        opened: The table, or the benchmark.
        arguments: Of the call.
        data: Fingerprints and counts.
        said_of_rows: What else every row says.
        started: When, by `time.monotonic`.
    """
    return Results(
        verb=verb,
        config={**arguments, "protocol": asdict(protocol)},
        seeds=protocol.seeds,
        data={**data, **said_of_rows, **opened.described()},
        rows=[{**row, **said_of_rows} for row in with_benchmark(findings.rows, opened)],
        comparisons=findings.comparisons,
        predictions=findings.predictions,
        wall_seconds=time.monotonic() - started,
        notes=[*opened.notes, *findings.notes],
        beside={
            "calibration": findings.calibration,
            "operating_points": findings.operating_points,
            "subgroups": findings.subgroups,
        },
    )
