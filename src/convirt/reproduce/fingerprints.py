"""Hashes of what a cell depends on: the weights of a run, and the tables that it is evaluated with."""

from pathlib import Path

from convirt.atomic import latest_complete
from convirt.jobs import file_sha256
from convirt.training.checkpoint import WEIGHTS


def weights_sha256(run: Path) -> str:
    """Hash of the weights that a run is evaluated with.

    Raises:
        FileNotFoundError: There are none yet.
    """
    return file_sha256((latest_complete(run / "best") or run) / WEIGHTS)


def table_sha256(path: Path) -> str:
    """Hash of a labelled table, or of the `benchmark.json` of a benchmark folder, which has those of its files.

    Raises:
        FileNotFoundError: It is not there yet.
    """
    return file_sha256(path / "benchmark.json" if path.is_dir() else path)
