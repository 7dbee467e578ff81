"""Cells: pieces of work that each leave a folder behind, done once for the same inputs.

A cell's folder holds what its verb writes, and at the end `cell.json` with the fingerprint of what the result depends
on; what the verb said lies beside it in a file `.log`. A cell whose fingerprint is the same is not done again.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from convirt.atomic import latest_complete, write_json
from convirt.errors import InputError
from convirt.training.checkpoint import WEIGHTS

CELL = "cell.json"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One piece of work."""

    name: str
    """Its folder, below that of all cells."""
    work: Callable[[Path], None]
    """Does it, in the folder; goes on where it was interrupted if it can."""
    inputs: Callable[[], Mapping[str, Any]]
    """What the result depends on, as JSON values; raises `FileNotFoundError` while another cell has yet to make it."""
    seconds: float
    """How long it should take."""
    keep: bool = False
    """Whether the folder is too dear to be thrown away when the inputs have changed: a pretraining."""

    def done(self, cells: Path) -> bool:
        """Whether the folder holds the result of these inputs."""
        try:
            return _noted(cells / self.name) == self.fingerprint()
        except FileNotFoundError:
            return False

    def fingerprint(self) -> str:
        """Hash of the inputs."""
        return hashlib.sha256(json.dumps(self.inputs(), sort_keys=True, default=str).encode()).hexdigest()

    def run(self, cells: Path) -> float:
        """Do the work; gives the seconds that it took.

        Raises:
            InputError: The work cannot be done, or a pretraining of other settings lies in its place.
        """
        folder, started = cells / self.name, time.monotonic()
        fingerprint, before = self.fingerprint(), _noted(folder)
        if before not in (None, fingerprint):
            if self.keep:
                raise InputError(f"{folder} holds a run with other settings or data; remove it, or give another --out")
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        log = folder.with_name(f"{folder.name}.log")  # a run's own folder has to be empty when it starts
        processor = time.process_time()
        with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
            self.work(folder)
        seconds, processor = time.monotonic() - started, time.process_time() - processor
        about = {"fingerprint": fingerprint, "seconds": round(seconds, 1), "processor_seconds": round(processor, 1)}
        write_json(folder / CELL, about)
        return seconds


def _noted(folder: Path) -> str | None:
    """The fingerprint that a finished cell left."""
    try:
        return str(json.loads((folder / CELL).read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def checkpoint_sha256(run: Path) -> str:
    """Hash of the weights that a run is evaluated with.

    Raises:
        FileNotFoundError: There are none yet.
    """
    path = (latest_complete(run / "best") or run) / WEIGHTS
    about = os.stat(path)
    return _sha256(str(path), about.st_size, about.st_mtime_ns)


def table_sha256(path: Path) -> str:
    """Hash of a labelled table, or of the `benchmark.json` of a benchmark folder, which has those of its files.

    Raises:
        FileNotFoundError: It is not there yet.
    """
    file = path / "benchmark.json" if path.is_dir() else path
    about = os.stat(file)
    return _sha256(str(file), about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()
