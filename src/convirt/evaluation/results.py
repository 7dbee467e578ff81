"""What every evaluation verb leaves behind: `metrics.json`, the arrays behind it, and printed tables."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from convirt.atomic import atomic_file, check_out_folder, disk_errors, write_json
from convirt.errors import InputError
from convirt.evaluation.inputs.options import check_counts
from convirt.evaluation.printing import show, tables
from convirt.evaluation.rows import correct_families
from convirt.versions import versions

if TYPE_CHECKING:
    from convirt.evaluation.inputs.table import OpenTable

_FREE = ("out", "batch_size", "device", "details")
"""Arguments that change no figure, but for rounding."""

FORMAT = 2
"""Of `metrics.json`; 2 has rows of several settings, and corrected p-values."""

METRICS, PREDICTIONS = "metrics.json", "predictions.npz"


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that one call of a verb found."""

    verb: str
    config: Mapping[str, Any]
    """The arguments of the call."""
    seeds: Sequence[int]
    data: Mapping[str, Any]
    """Fingerprints and counts of what was evaluated on."""
    rows: Sequence[Mapping[str, Any]]
    """One figure of one method each (`Row`); each gets the seeds' numbers and the hashes of `data`."""
    comparisons: Sequence[Mapping[str, Any]]
    """One difference between two methods each; each gets its p-value corrected over its family."""
    predictions: Mapping[str, NDArray] = field(default_factory=dict)
    """The arrays that the figures were computed from, for `predictions.npz`."""
    wall_seconds: float = 0.0
    notes: Sequence[str] = ()
    """Caveats that are printed below the figures, such as a benchmark's known faults."""
    beside: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Further rows by kind: `calibration`, `operating_points`, `subgroups`, `classes`."""
    files: Sequence[str] = ()
    """Names of further files that lie beside `metrics.json`, the one to open first."""
    encoder: str | None = None
    """Name of the folder of a checkpoint that lies beside `metrics.json`."""

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
        with disk_errors(folder):
            if self.predictions:
                with atomic_file(folder / PREDICTIONS) as file:
                    np.savez_compressed(file, **dict[str, Any](self.predictions))
            write_json(folder / METRICS, self.payload())
        return folder / METRICS

    def finish(self, out: str | Path, *, details: bool = True) -> "Results":
        """Write to the folder `out`, print, say what was written, and return the same."""
        self.write(out)
        self.print(details=details)
        written = [METRICS, *([PREDICTIONS] if self.predictions else []), *self.files]
        written += [f"{self.encoder}/ (the encoder, for other verbs)"] if self.encoder else []
        first = self.files[0] if self.files else METRICS
        said = f"wrote {', '.join(written)} to {out}; open {Path(out) / first}"
        Console().print(said, markup=False, highlight=False, soft_wrap=True)
        return self

    def print(self, console: Console | None = None, *, details: bool = True) -> None:
        """Print the figures of each head, or of the retrieval tasks, and the differences.

        Args:
            console: Where to.
            details: Whether calibration, operating points, subgroups and classes are printed as well.
        """
        console = console or Console()
        main, more = tables(self.verb, self.rows, self.comparisons, self.beside)
        for table in [*main, *more] if details else main:
            show(table, console)
        if more and not details:
            kinds = ", ".join(str(kind).replace("_", " ") for kind, rows in self.beside.items() if rows)
            console.print(f"not shown, with --details or in {METRICS}: {kinds}", highlight=False, soft_wrap=True)
        for note in self.notes:
            console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of a verb that evaluates a table: its arguments, and when it began."""

    verb: str
    arguments: Mapping[str, Any]
    """As the command line has them, see `flat`."""
    started: float
    """By `time.monotonic`."""

    @classmethod
    def begin(cls, verb: str, arguments: Mapping[str, Any], *counts: str) -> "Call":
        """Refuse what can be refused before any work is done.

        Args:
            verb: Its name.
            arguments: Of the call, `out` among them.
            counts: Names of the arguments that must be at least 1.

        Raises:
            InputError: The output folder cannot be one, or a count is below 1.
        """
        check_out_folder(arguments["out"])
        check_counts(**{name: arguments[name] for name in counts})
        return cls(verb=verb, arguments=arguments, started=time.monotonic())

    def check_same(self, opened: "OpenTable") -> None:
        """`check_same` with the table that is evaluated."""
        check_same(self.arguments["out"], self.verb, self.arguments, opened.table.sha256)

    def finish(
        self,
        opened: "OpenTable",
        *,
        data: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        row_values: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        seeds: Sequence[int] = (0,),
        notes: Sequence[str] = (),
        **found: Any,
    ) -> Results:
        """Write and print what was found.

        Args:
            opened: The table or benchmark, which every row names.
            data: Fingerprints and counts.
            rows: Figures.
            row_values: Further names and values of every row and of `data`.
            config: What the arguments were completed with.
            seeds: Of what was trained.
            notes: Caveats beside those of the table.
            found: Comparisons, predictions, further rows, files and encoder, as `Results` has them.
        """
        shared = dict(row_values or {})
        results = Results(
            verb=self.verb,
            config={**self.arguments, **(config or {})},
            seeds=seeds,
            data={**data, **shared, **opened.described()},
            rows=[{**row, **opened.described(), **shared} for row in rows],
            wall_seconds=time.monotonic() - self.started,
            notes=[*opened.notes, *notes],
            **found,
        )
        return results.finish(self.arguments["out"], details=self.arguments.get("details", True))


def with_benchmark(rows: Sequence[Mapping[str, Any]], opened: "OpenTable") -> list[dict[str, Any]]:
    """Rows with the name, split, hashes of lists and notes of the benchmark, if it is one."""
    return [{**row, **opened.described()} for row in rows]


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
    path = Path(out) / METRICS
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
