"""`convirt reproduce`: the paper's tables and figures by one command, ours beside the paper's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from convirt.atomic import check_out_folder
from convirt.errors import InputError

FIGURES = ("table5", "figure3", "figure4", "figure5")
NAMES = ("table1a", "table1b", "table2", "table3", *FIGURES)


def reproduce(
    tables: Sequence[str],
    *,
    out: Path,
    inputs: Path | None = None,
    runs: Sequence[str] = (),
    benchmarks: Sequence[str] = (),
    scale: Literal["full", "small"] = "full",
    device: str = "auto",
    dry_run: bool = False,
) -> Path:
    """Make tables and figures of the paper: table1a, table1b, table2, table3, table5, figure3, figure4, figure5.

    Prints the plan with time and memory, does what is not done yet, and writes each table as Markdown, CSV, LaTeX and
    HTML with the paper's figure in each cell's shadow. It can be interrupted at any moment: the same command goes on.
    A cell that fails is noted, and the others go on. At the end stand the rank correlation with the paper's order of
    the methods and the comparisons that differ.

    Args:
        tables: Which ones.
        out: Folder for tables, figures, and the cells that they are made of.
        inputs: TOML file with [runs], [benchmarks], [table5] and [figure3] (docs/formats.md).
        runs: Runs by method, NAME=FOLDER; for convirt, caption_lstm, caption_transformer, contrastive_binary, simclr,
            moco, clip and medclip. Rows of methods that are not given stay empty.
        benchmarks: Benchmark folders, NAME=FOLDER; for rsna, chexpert, covidx4, mura and chexpert8x200.
        scale: `full` evaluates what is given; `small` makes its own data and runs from phantom radiographs, reduced in
            every way, in less than an hour on two processor cores.
        device: `auto`, `cpu` or `cuda`.
        dry_run: Print the plan alone.

    Returns:
        `out`.

    Raises:
        InputError: Unknown tables, unusable inputs, nothing to do, or cells that failed.
    """
    if unknown := [name for name in tables if name not in NAMES]:
        raise InputError(f"unknown table {unknown[0]!r}; known are {', '.join(NAMES)}")
    if not tables:
        raise InputError(f"name at least one table; known are {', '.join(NAMES)}")
    if scale == "small" and (inputs or runs or benchmarks):
        raise InputError("--scale small makes its own data and runs; leave out --inputs, --runs and --benchmarks")
    check_out_folder(out)
    from convirt.reproduce.work import reproduce_tables

    reproduce_tables(
        list(dict.fromkeys(tables)),
        Path(out),
        given=(inputs, runs, benchmarks),
        scale=scale,
        device=device,
        dry_run=dry_run,
    )
    return out
