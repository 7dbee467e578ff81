"""The labelled table of `tsne` and `saliency`, until they take `TableOptions`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from convirt.data.benchmarks.folder import Benchmark
from convirt.evaluation.inputs.options import TableOptions
from convirt.evaluation.inputs.table import LabelledTable, OpenTable, TableColumns, open_table

Columns = TableColumns


def settle(table: Path, asked: Columns) -> tuple[Columns, Benchmark | None]:
    """The columns that hold, and the benchmark if `table` is the folder of one."""
    found = open_table(TableOptions(table=table), pool_column=None, role_column=None, text_column=None, named={})
    return (Columns.of_benchmark(found.benchmark, asked), found.benchmark) if found.benchmark else (asked, None)


def data_notes(columns: Columns, benchmark: Benchmark | None) -> list[str]:
    """What has to be said of the data beside every figure."""
    return OpenTable(options=TableOptions(table=Path()), columns=columns, benchmark=benchmark).notes


def read_labelled(
    table: Path, images: Path | None, columns: Columns, where: Sequence[str] = (), benchmark: Benchmark | None = None
) -> LabelledTable:
    """Read a table, or that of an opened benchmark."""
    options = TableOptions(table=table, images=images, where=where)
    return replace(OpenTable(options=options, columns=columns, benchmark=benchmark)).table
