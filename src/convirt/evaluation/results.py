"""What every evaluation verb leaves behind: `metrics.json`, the arrays behind it, and a printed table."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from convirt.atomic import atomic_file
from convirt.atomic import check_out_folder as check_out
from convirt.errors import InputError
from convirt.evaluation.inputs.options import check_counts
from convirt.evaluation.layout import show
from convirt.evaluation.printing import tables
from convirt.evaluation.statistics.multiplicity import correct_families
from convirt.versions import versions

if TYPE_CHECKING:
    from convirt.data.benchmarks.folder import Benchmark
    from convirt.evaluation.inputs.table import OpenTable

__all__ = ("FORMAT", "Results", "Row", "beside", "check_counts", "check_out", "check_same", "with_benchmark")

_FREE = ("out", "batch_size", "device")
"""Arguments that change no figure, but for rounding."""

FORMAT = 2
"""Of `metrics.json`; 2 has rows of several settings, and corrected p-values."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that one call of a verb found."""

    verb: str
    config: Mapping[str, Any]
    """The arguments of the call."""
    seeds: Sequence[int]
    data: Mapping[str, Any]
    """Fingerprints and counts of what was evaluated on."""
    rows: Sequence[Row]
    """One figure of one method each; each gets the seeds' numbers and the hashes of `data`."""
    comparisons: Sequence[Row]
    """One difference between two methods each; each gets its p-value corrected over its family."""
    predictions: Mapping[str, NDArray] = field(default_factory=dict)
    """The arrays that the figures were computed from, for `predictions.npz`."""
    wall_seconds: float = 0.0
    notes: Sequence[str] = ()
    """What has to be said beside every figure, such as a benchmark's known faults."""
    beside: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Further rows by kind: `calibration`, `operating_points`, `subgroups`."""

    def __post_init__(self) -> None:
        hashes = {name: value for name, value in self.data.items() if name.endswith("_sha256")}
        rows = [{**row, "seed_numbers": list(self.seeds), **hashes} for row in self.rows]
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "comparisons", correct_families(self.comparisons))

    def payload(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return {
            "format": FORMAT,
            "verb": self.verb,
            "config": _plain(self.config),
            "seeds": list(self.seeds),
            "versions": versions(),
            "data": _plain(self.data),
            "wall_seconds": round(self.wall_seconds, 1),
            "rows": _plain(self.rows),
            "comparisons": _plain(self.comparisons),
            **{name: _plain(rows) for name, rows in self.beside.items()},
            "notes": list(self.notes),
        }

    def write(self, out: str | Path) -> Path:
        """Write `predictions.npz` and then `metrics.json` into the folder `out`, each in one move.

        Raises:
            InputError: The folder cannot be written.
        """
        folder = Path(out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.predictions:
                replace_file(
                    folder / "predictions.npz",
                    lambda file: np.savez_compressed(file, **dict[str, Any](self.predictions)),
                )
            text = json.dumps(self.payload(), indent=1, allow_nan=False) + "\n"
            replace_file(folder / "metrics.json", lambda file: file.write(text.encode()))
        except OSError as error:
            raise InputError(f"cannot write results to {folder}: {error.strerror or error}") from error
        return folder / "metrics.json"

    def finish(self, out: str | Path) -> "Results":
        """Write to the folder `out`, print, and return the same."""
        self.write(out)
        self.print()
        return self

    def print(self, console: Console | None = None) -> None:
        """Print the figures of each head, or of the retrieval tasks, the differences, and what stands beside them."""
        console = console or Console()
        for part in tables(self.verb, self.rows, self.comparisons, self.beside):
            show(part, console)
        for note in self.notes:
            console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)


def with_benchmark(rows: Sequence[Row], opened: "OpenTable") -> list[Row]:
    """Rows with what a benchmark has to say beside each: its name, split, hashes of its lists, and notes."""
    return [{**row, **opened.described()} for row in rows]


def beside(rows: Sequence[Row], benchmark: "Benchmark | None") -> list[Row]:
    """`with_benchmark` for `tsne` and `saliency`, until they take `TableOptions`."""
    return [{**row, **benchmark.described()} for row in rows] if benchmark else list(rows)


def check_same(out: str | Path, verb: str, arguments: Mapping[str, Any], table_sha256: str) -> None:
    """Refuse an output folder that holds the results of another call; the same call may be made again.

    Args:
        out: The folder; what cannot be read in it is nothing to lose.
        verb: What is called.
        arguments: Of the call.
        table_sha256: Of the table that is evaluated.

    Raises:
        InputError: The verb, an argument or the table is another one.
    """
    path = Path(out) / "metrics.json"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        config, data = dict(held["config"]), dict(held["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    asked = _plain(arguments)
    free = {name for name in asked if name in _FREE or _grows(config.get(name), asked[name])}
    other = [f"--{name.replace('_', '-')}" for name in asked if name not in free and config.get(name) != asked[name]]
    other += ["the content of the table"] if data.get("table_sha256") != table_sha256 else []
    if held.get("verb") != verb:
        other = ["the verb"]
    if other:
        raise InputError(f"{out} holds results of another call (other: {', '.join(other)}); give another --out")


def _grows(before: Any, now: Any) -> bool:
    """Whether a list was asked for that holds all of an earlier one: nothing found then is lost."""
    return isinstance(before, list) and isinstance(now, list) and bool(before) and all(item in now for item in before)


def replace_file(path: Path, write: Any) -> None:
    with atomic_file(path) as file:
        write(file)


def _plain(value: Any) -> Any:
    """Plain JSON values; what is not a finite number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no place in metrics.json")
