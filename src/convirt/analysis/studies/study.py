"""`convirt study`: a grid of pretraining runs, each with its evaluation (ConVIRT, table 5)."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from convirt.analysis.studies.claims import EXPIRY, Claim, Lost
from convirt.analysis.studies.collecting import collect_table, write_table
from convirt.analysis.studies.grid import Cell, cells_of
from convirt.analysis.studies.tasks import Tasks, read_toml, tasks_of
from convirt.atomic import check_out_folder as check_out
from convirt.atomic import write_text
from convirt.errors import InputError
from convirt.training.pretrain import pretrain

KEYS = ("recipe", "corpus", "grid", "overrides", "cells", "tasks")
FAILED = "failed.json"


def study(
    definition: Path,
    *,
    out: Path,
    collect: bool = False,
    retry: bool = False,
    expiry: float = EXPIRY,
) -> Path:
    """Pretrain and evaluate every cell of a grid, each in a folder of its own.

    What is done is not done again, and a run that was interrupted goes on from its last checkpoint. Any number of
    processes or machines may be given the same definition and the same --out: each takes cells that nobody works on,
    and takes over those whose process has died. A cell that fails is noted, and the others go on.

    Args:
        definition: TOML file: recipe, corpus, grid = "table5" or [cells.NAME] with settings, [overrides] of all cells,
            and [tasks.classify] and [tasks.retrieve] with the arguments of these verbs (docs/formats.md).
        out: Folder of the study.
        collect: Only collect what is done: table.md and table.csv, and print it.
        retry: Try failed cells again.
        expiry: Seconds after which a cell claimed by a silent process on another machine is taken over.

    Returns:
        `out`.

    Raises:
        InputError: An unusable definition, a folder with other settings, or cells that failed.
    """
    path, out = Path(definition), Path(out)
    check_out(out)
    content = read_toml(path)
    if unknown := sorted(set(content) - set(KEYS)):
        raise InputError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(KEYS)}")
    cells, tasks = cells_of(content, path), tasks_of(content, path)
    if not isinstance(content.get("corpus"), str):
        raise InputError(f'{path} names no corpus; give corpus = "FOLDER"')
    corpus = content["corpus"] if "://" in content["corpus"] else str(path.parent / content["corpus"])
    console = Console()
    if not collect:
        for cell in cells:
            _work_on(cell, tasks, corpus, out, console, retry=retry, expiry=expiry)
    table = collect_table(cells, tasks, out)
    write_table(table, out)
    console.print(table.markdown(), markup=False, highlight=False, soft_wrap=True)
    if not collect and (failed := [cell for cell in cells if (out / cell.folder / FAILED).is_file()]):
        raise InputError(
            f"{len(failed)} of {len(cells)} cells failed, the first is {failed[0].name!r} "
            f"({json.loads((out / failed[0].folder / FAILED).read_text())['error']}); mend it and add --retry"
        )
    return out


def _work_on(cell: Cell, tasks: Tasks, corpus: str, out: Path, console: Console, *, retry: bool, expiry: float) -> None:
    """Do what is left of a cell, unless it is done, has failed, or somebody else is at it."""
    folder = out / cell.folder
    if (folder / FAILED).is_file() and not retry:
        return
    if _trained(folder) and not tasks.missing(folder) and not (folder / FAILED).is_file():
        _check_same(folder, cell, tasks, corpus)
        return
    claim = Claim.take(folder, expiry=expiry)
    if claim is None:
        console.print(f"{cell.name}: another process is at work", highlight=False, markup=False)
        return
    with claim:
        console.rule(cell.name, align="left")
        _check_same(folder, cell, tasks, corpus)
        (folder / FAILED).unlink(missing_ok=True)
        try:
            run = folder / "run"
            if not _trained(folder):
                pretrain(cell.config, corpus, run, resume=(run / "config.json").is_file())
            tasks.evaluate(run, folder, claim.check)
        except Lost:
            raise
        except InputError as error:
            claim.check()
            write_text(folder / FAILED, json.dumps({"error": str(error)}) + "\n")
            console.print(f"{cell.name} failed: {error}", highlight=False, markup=False)


def _trained(folder: Path) -> bool:
    return (folder / "run" / "metrics.json").is_file()


def _check_same(folder: Path, cell: Cell, tasks: Tasks, corpus: str) -> None:
    """Note what the cell is, or refuse a folder that was begun as something else."""
    about: dict[str, Any] = {
        "name": cell.name,
        "corpus": corpus if "://" in corpus else str(Path(corpus).resolve()),
        "config": json.loads(json.dumps(asdict(cell.config))),
        "tasks": tasks.described(),
    }
    path = folder / "cell.json"
    if path.is_file():
        before = json.loads(path.read_text())
        if different := [key for key in about if before.get(key) != about[key]]:
            raise InputError(f"{folder} was begun with another {different[0]}; rename the cell, or give another --out")
        return
    write_text(path, json.dumps(about, indent=1) + "\n")
