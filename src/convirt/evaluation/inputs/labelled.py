"""What `classify` and `retrieve` are given: a labelled table with named columns, or a benchmark folder in its place."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from convirt.data.benchmarks.folder import Benchmark, open_benchmark
from convirt.errors import InputError
from convirt.evaluation.inputs.table import LabelledTable, read_table

ATTRIBUTES = ("sex", "age", "view", "source")
"""What may be known of an image besides its label; a benchmark's columns of these names are taken."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of a table holds what; what they hold is said in `read_table`."""

    image: str = "image"
    label: str | None = None
    labels: tuple[str, ...] = ()
    patient: str | None = None
    split: str | None = None
    text: str | None = None
    role: str | None = None
    unit: str | None = None
    pool: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Column of the sex, age, view and source, as far as they are known (`ATTRIBUTES`)."""

    @classmethod
    def of(cls, benchmark: Benchmark, asked: "Columns") -> "Columns":
        """The columns of a benchmark's table.

        Raises:
            InputError: Labels, patients or roles were asked for, which a benchmark has settled.
        """
        if asked.label or asked.labels or asked.patient or asked.role:
            raise InputError(f"{benchmark.folder} is a benchmark with columns of its own; leave column options out")
        single = benchmark.kind in ("single-label", "retrieval")
        return cls(
            label=benchmark.labels[0] if single else None,
            labels=() if single else benchmark.labels,
            patient="patient",
            split="split",
            text=asked.text,
            role="role" if benchmark.kind == "retrieval" else None,
            unit="unit" if benchmark.unit else None,
            pool=asked.pool,
            attributes={role: role for role in ATTRIBUTES if role in header(benchmark)} | dict(asked.attributes),
        )


def label_names(given: Sequence[str]) -> tuple[str, ...]:
    """Label columns as they were given, commas between some of them."""
    return tuple(name.strip() for part in given for name in part.split(",") if name.strip())


def named_attributes(**columns: str | None) -> dict[str, str]:
    """The columns of attributes that were named, by role."""
    return {role: column for role, column in columns.items() if column}


def header(benchmark: Benchmark) -> list[str]:
    """Names of the columns of a benchmark's table."""
    with benchmark.table.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def settle(table: Path, asked: Columns) -> tuple[Columns, Benchmark | None]:
    """The columns that hold, and the benchmark if `table` is the folder of one.

    Raises:
        InputError: There is nothing of this name, or the folder is no benchmark.
    """
    if not table.exists():
        raise InputError(f"no such file or folder: {table}; --table names a CSV or Parquet file, or a benchmark")
    if not table.is_dir():
        return asked, None
    benchmark = open_benchmark(table)
    return Columns.of(benchmark, asked), benchmark


def data_notes(columns: Columns, benchmark: Benchmark | None) -> list[str]:
    """What has to be said of the data beside every figure: a benchmark's notes, or that patients are unknown."""
    if benchmark:
        return list(benchmark.notes)
    if columns.patient:
        return []
    return [
        "without --patient-column each image counts as a patient of its own: where a patient has several, intervals "
        "are too narrow, and one patient may be in two splits"
    ]


def read_labelled(
    table: Path, images: Path | None, columns: Columns, where: Sequence[str] = (), benchmark: Benchmark | None = None
) -> LabelledTable:
    """Read a table, or that of an opened benchmark, whose image folder and label fractions then hold.

    Raises:
        InputError: Anything that makes the table unusable, or no image folder.
    """
    images = images or (benchmark.root if benchmark else None)
    if images is None:
        raise InputError("name the folder that the image paths are relative to (--images)")
    labelled = read_table(
        benchmark.table if benchmark else table,
        images,
        image_column=columns.image,
        label_column=columns.label,
        label_columns=columns.labels,
        patient_column=columns.patient,
        split_column=columns.split,
        text_column=columns.text,
        role_column=columns.role,
        unit_column=columns.unit,
        pool_column=columns.pool,
        attribute_columns=columns.attributes,
        where=where,
        named_split=benchmark is not None,
    )
    # The saved fractions are of all training rows; where some are filtered out, they are drawn anew by the same rule.
    return labelled if benchmark is None or where else replace(labelled, subsets=benchmark.subsets)
