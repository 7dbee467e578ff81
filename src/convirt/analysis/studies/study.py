"""`convirt study`: a grid of pretraining runs, each with its evaluation (ConVIRT, table 5)."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from convirt.analysis.studies.collecting import collect_table, state_of, write_table
from convirt.analysis.studies.definition import Cell, Tasks, cells_of, read_toml, tasks_of
from convirt.atomic import check_out_folder, write_json
from convirt.errors import InputError
from convirt.jobs import Held, begin, hold
from convirt.training.pretrain import pretrain

KEYS = ("recipe", "corpus", "grid", "overrides", "cells", "tasks")
FAILED = "failed.json"


def study(
    definition: Path,
    *,
    out: Path,
    collect: bool = False,
    retry: bool = False,
    cell: str | None = None,
) -> Path:
    """Pretrain and evaluate every cell of a grid, each in a folder of its own.

    What is done is not done again, and a run that was interrupted goes on from its last checkpoint. A cell that fails
    is noted, and the others go on. To spread a study over machines, give each job of a scheduler's array one cell
    (--cell); a cell that another process works on is left to it.

    Args:
        definition: TOML file: recipe, corpus, grid = "table5" or [cells.NAME] with settings, [overrides] of all cells,
            and [tasks.classify] and [tasks.retrieve] with the arguments of these verbs (docs/formats.md).
        out: Folder of the study.
        collect: Only collect what is done: table.md and table.csv, and print it.
        retry: Try failed cells again.
        cell: Do this cell alone: its name in the definition.

    Returns:
        `out`.

    Raises:
        InputError: An unusable definition, a folder with other settings, or cells that failed.
    """
    path, out = Path(definition), Path(out)
    check_out_folder(out)
    content = read_toml(path)
    if unknown := sorted(set(content) - set(KEYS)):
        raise InputError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(KEYS)}")
    cells, tasks = cells_of(content, path), tasks_of(content, path)
    if not isinstance(content.get("corpus"), str):
        raise InputError(f'{path} names no corpus; give corpus = "FOLDER"')
    corpus = content["corpus"] if "://" in content["corpus"] else str(path.parent / content["corpus"])
    chosen = _chosen(cells, cell, path)
    console = Console()
    if not collect:
        for one in chosen:
            _work_on(one, tasks, corpus, out, console, retry=retry)
    table = collect_table(cells, tasks, out)
    write_table(table, out)
    console.print(table.markdown(), markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote {out / 'table.md'} and table.csv", markup=False, highlight=False, soft_wrap=True)
    if not collect and (failed := [one for one in chosen if (out / one.folder / FAILED).is_file()]):
        raise InputError(
            f"{len(failed)} of {len(chosen)} cells failed, the first is {failed[0].name!r} "
            f"({json.loads((out / failed[0].folder / FAILED).read_text())['error']}); mend it and add --retry"
        )
    return out


def _chosen(cells: Sequence[Cell], name: str | None, path: Path) -> Sequence[Cell]:
    """The cells to work on."""
    if name is None:
        return cells
    if not (found := [cell for cell in cells if cell.name == name]):
        raise InputError(f"{path} has no cell {name!r}; its cells are {', '.join(cell.name for cell in cells)}")
    return found


def _work_on(cell: Cell, tasks: Tasks, corpus: str, out: Path, console: Console, *, retry: bool) -> None:
    """Do what is left of a cell, unless it is done, has failed, or another process works on it."""
    folder = out / cell.folder
    if (folder / FAILED).is_file() and not retry:
        return
    about = {
        "name": cell.name,
        "corpus": corpus if "://" in corpus else str(Path(corpus).resolve()),
        "config": asdict(cell.config),
        "tasks": tasks.described(),
    }
    begin(folder, about, stamp="cell.json", what=f"cell {cell.name!r}")
    if _is_done(folder, tasks):
        return
    try:
        with hold(folder):
            if _is_done(folder, tasks):  # by another process, just now
                return
            console.rule(cell.name, align="left")
            (folder / FAILED).unlink(missing_ok=True)
            run = folder / "run"
            if not (run / "metrics.json").is_file():
                pretrain(cell.config, corpus, run, resume=(run / "config.json").is_file())
            tasks.evaluate(run, folder)
    except Held:
        console.print(f"{cell.name}: another process is at work", highlight=False, markup=False)
    except InputError as error:
        write_json(folder / FAILED, {"error": str(error)})
        console.print(f"{cell.name} failed: {error}", highlight=False, markup=False)


def _is_done(folder: Path, tasks: Tasks) -> bool:
    """Whether a cell is trained and evaluated."""
    return state_of(folder, tasks) == "done"
