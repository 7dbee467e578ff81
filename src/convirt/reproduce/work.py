"""The work of `convirt reproduce`: the plan, the jobs in their order, and the tables in the end."""

import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table as Shown

from convirt.atomic import latest_complete
from convirt.errors import InputError
from convirt.jobs import Job
from convirt.reproduce import small
from convirt.reproduce.estimates import EPOCHS, Pace, measure
from convirt.reproduce.evaluations import Evaluations
from convirt.reproduce.figures import FIGURES
from convirt.reproduce.filling import fill
from convirt.reproduce.inputs import PRETRAINED, RETRIEVAL, Inputs, read_inputs
from convirt.reproduce.ordering import agreements, in_words
from convirt.reproduce.tables import PAPER_TASKS, Table, paper_tables
from convirt.reproduce.writing import write_table
from convirt.training.checkpoint import read_config
from convirt.training.logs import duration


@dataclass(frozen=True, kw_only=True)
class Work:
    """Everything that one call does."""

    cells: list[Job]
    tables: list[Table]
    evaluations: Evaluations
    pace: Pace
    header: str | None
    """What has to be said above each table."""


def _full_job(names: Sequence[str], folder: Path, inputs: Inputs) -> Work:
    if not inputs.runs and names != ["table5"]:
        raise InputError(
            "no run is given; give --runs convirt=FOLDER (other methods too), or --inputs FILE; "
            "--scale small needs none"
        )
    if not inputs.classification and inputs.retrieval is None:
        known = ", ".join((*PAPER_TASKS, RETRIEVAL))
        raise InputError(
            f"no benchmark is given; give --benchmarks NAME=FOLDER (of {known}), or --inputs FILE; "
            "--scale small needs none"
        )
    tables = [table for name, table in paper_tables(inputs.tasks).items() if name in names]
    if inputs.runs:
        first = next(iter(inputs.runs.values()))
        config = read_config(latest_complete(first / "best") or first)
    else:
        config = small.like()
    pace = measure(config, inputs.device)
    evaluations = Evaluations(inputs, folder, pace)
    cells = [*evaluations.of(tables), *(FIGURES[name](inputs, pace) for name in names if name in FIGURES)]
    if not cells:
        raise InputError(
            f"no cell of {', '.join(names)} can be made of the runs and benchmarks that are given; give others"
        )
    return Work(cells=cells, tables=tables, evaluations=evaluations, pace=pace, header=None)


def _small_job(names: Sequence[str], folder: Path, device: str) -> Work:
    if refused := [name for name in names if name in ("table5", "figure5")]:
        raise InputError(f"{refused[0]} pretrains many times, or long; it has no small scale")
    tables = [table for name, table in paper_tables((small.TASK,)).items() if name in names]
    methods = {method for table in tables for method in (*table.methods, *table.beside)}
    methods |= {"convirt"} if "figure3" in names else set()
    methods |= {"simclr", "moco", "convirt"} if "figure4" in names else set()
    inputs = small.small_inputs(folder, [method for method in PRETRAINED if method in methods], device)
    pace = measure(small.like(), device)
    evaluations = Evaluations(inputs, folder, pace, like=small.like())
    cells = [small.data_cell(), *small.pretraining_cells(inputs, folder, pace, device), *evaluations.of(tables)]
    cells += [FIGURES[name](inputs, pace) for name in names if name in FIGURES]
    return Work(cells=cells, tables=tables, evaluations=evaluations, pace=pace, header=small.HEADER)


def print_plan(work: Work, folder: Path, console: Console) -> list[Job]:
    """Print what is to be done, by kind, with time and memory; gives the cells that are not done yet."""
    if work.header:
        console.print(work.header, style="bold yellow", highlight=False)
    todo = [cell for cell in work.cells if not cell.done(folder)]
    kinds: dict[str, list[Job]] = {}
    for cell in work.cells:
        kinds.setdefault(cell.name.partition("/")[0], []).append(cell)
    shown = Shown("part", title="Plan", title_justify="left")
    for heading in ("cells", "done", "time left"):
        shown.add_column(heading, justify="right")
    for kind, cells in kinds.items():
        left = [cell for cell in cells if cell in todo]
        seconds = sum(cell.seconds for cell in left)
        shown.add_row(kind, str(len(cells)), str(len(cells) - len(left)), duration(seconds) if left else "-")
    total = sum(cell.seconds for cell in todo)
    shown.add_row("all", str(len(work.cells)), str(len(work.cells) - len(todo)), duration(total), style="bold")
    console.print(shown)
    say(
        console,
        f"estimated from a measured pass of the image encoder ({1000 * work.pace.image:.1f} ms to encode an image, "
        f"{1000 * work.pace.trained:.1f} ms to train on one; fine-tuning without a limit is taken to stop after "
        f"{EPOCHS} epochs); memory at least {work.pace.memory / 2**30:.1f} GiB",
    )
    return todo


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a line within the console's width; what goes on below it stands two further in."""
    indent = " " * (len(text) - len(text.lstrip()))
    wrapped = textwrap.fill(
        text.lstrip(),
        console.width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,  # paths stay whole
        break_on_hyphens=False,
    )
    console.print(wrapped, style=style, highlight=False, markup=False, soft_wrap=True)


def _work(todo: Sequence[Job], folder: Path, console: Console) -> dict[str, str]:
    """Do the cells in order; the time left follows how long the first ones took beside their estimates.

    Returns:
        Why cells failed, by name; the others are done.
    """
    started, expected = time.monotonic(), 0.0
    failed: dict[str, str] = {}
    for number, cell in enumerate(todo, start=1):
        left = sum(other.seconds for other in todo[number - 1 :])
        pace = (time.monotonic() - started) / expected if expected > 60 else 1.0
        say(console, f"[{number}/{len(todo)}] {cell.name} ... (all that is left: about {duration(left * pace)})")
        try:
            seconds = cell.run(folder)
        except (InputError, FileNotFoundError) as error:
            missing = isinstance(error, FileNotFoundError)
            failed[cell.name] = "what it is made of is missing, see above" if missing else str(error)
            say(console, f"    failed: {failed[cell.name]}", "red")
            continue
        except (KeyboardInterrupt, SystemExit):
            console.print("interrupted; the same command goes on from here", highlight=False)
            raise
        expected += cell.seconds
        console.print(f"    done in {duration(seconds)}", highlight=False)
    return failed


def _write(work: Work, folder: Path, out: Path, console: Console) -> None:
    """Write every table, and say how the methods' order agrees with the paper's."""
    for table in work.tables:
        filled = fill(table, work.evaluations, folder)
        lines = in_words(filled, agreements(filled))
        write_table(filled, out, header=work.header, ordering=lines)
        for line in lines:
            say(console, line)
        console.print(f"{out / table.name}.md, .csv, .tex, .html", highlight=False, soft_wrap=True)
    for cell in work.cells:
        if cell.name in FIGURES:
            console.print(f"{cell.name}: {folder / cell.name}", highlight=False, soft_wrap=True)


def reproduce_tables(
    names: Sequence[str],
    out: Path,
    *,
    given: tuple[Path | None, Sequence[str], Sequence[str]],
    scale: Literal["full", "small"],
    device: str,
    dry_run: bool,
) -> None:
    """Do what `reproduce` says, with `given` its inputs, runs and benchmarks.

    Raises:
        InputError: Unusable inputs, nothing to do, or cells that failed.
    """
    console = Console()
    folder = out / "cells"
    if scale == "small":
        work = _small_job(names, folder, device)
    else:
        work = _full_job(names, folder, read_inputs(*given, device))
    open_cells = print_plan(work, folder, console)
    if dry_run:
        return
    failed = _work(open_cells, folder, console)
    _write(work, folder, out, console)
    if failed:
        name, reason = next(iter(failed.items()))
        raise InputError(f"{len(failed)} of {len(work.cells)} cells failed, the first is {name}: {reason}")
