"""What every evaluation verb leaves behind: `metrics.json`, the arrays behind it, and a printed table."""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from convirt.data.benchmarks.folder import Benchmark
from convirt.errors import InputError
from convirt.versions import versions

FORMAT = 1

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
    """One figure of one method each."""
    comparisons: Sequence[Row]
    """One difference between two methods each."""
    predictions: Mapping[str, NDArray] = field(default_factory=dict)
    """The arrays that the figures were computed from, for `predictions.npz`."""
    wall_seconds: float = 0.0
    notes: Sequence[str] = ()
    """What has to be said beside every figure, such as a benchmark's known faults."""

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
                _replace(
                    folder / "predictions.npz",
                    lambda file: np.savez_compressed(file, **dict[str, Any](self.predictions)),
                )
            text = json.dumps(self.payload(), indent=1, allow_nan=False) + "\n"
            _replace(folder / "metrics.json", lambda file: file.write(text.encode()))
        except OSError as error:
            raise InputError(f"cannot write results to {folder}: {error.strerror or error}") from error
        return folder / "metrics.json"

    def finish(self, out: str | Path) -> "Results":
        """Write to the folder `out`, print, and return the same."""
        self.write(out)
        self.print()
        return self

    def print(self, console: Console | None = None) -> None:
        """Print the figures of each head, or of the retrieval tasks, and then the differences."""
        console = console or Console()
        for head in dict.fromkeys(row["head"] for row in self.rows):
            title = "retrieval" if self.verb == "retrieve" else self.verb
            console.print(_figures([row for row in self.rows if row["head"] == head], title))
        if self.comparisons:
            console.print(_differences(self.comparisons))
        for note in self.notes:
            console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)


def beside(rows: Sequence[Row], benchmark: Benchmark | None) -> list[Row]:
    """Rows with what a benchmark has to say beside each: its name, split, hashes of its lists, and notes."""
    return [{**row, **benchmark.described()} for row in rows] if benchmark else list(rows)


HEADS = {"paper": "linear head (the paper's)", "logistic": "logistic regression"}


def check_out(out: str | Path) -> None:
    """Refuse an output folder that cannot be one, before any work is done."""
    if Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"{out} is a file; give --out a folder")


def _replace(path: Path, write: Any) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


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


def share(fraction: float) -> str:
    """A label fraction as text: `1 %`, `all`."""
    return "all" if fraction == 1 else f"{100 * fraction:g} %"


def _figures(rows: Sequence[Row], title: str) -> Table:
    """Methods as columns, as in the paper; tasks, metrics and label fractions as rows; chance in the last column."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    tasks = list(dict.fromkeys((row["task"], row["space"]) for row in rows))
    head = rows[0]["head"]
    title = f"{tasks[0][0]}, {HEADS[head]}" if head else title
    table = Table(title=title, title_justify="left", caption=_caption(rows), caption_justify="left")
    for name in ("metric", "labels") if head else ("task (space)", "metric"):
        table.add_column(name, no_wrap=name == "metric")
    for method in methods:
        table.add_column(method, justify="right")
    table.add_column("chance", justify="right")
    last = None
    for key, cells in _grouped(rows, "task", "space", "metric", "fraction").items():
        task, space, metric, fraction = key
        section = (task, metric) if head else (task,)
        if last not in (None, section):
            table.add_section()
        opening = section != last
        last = section
        if head:
            names = [metric if opening else "", share(fraction)]
        else:
            names = [f"{task}\n[dim]({space})[/dim]" if opening else "", metric]
        by_method = {row["method"]: row for row in cells}
        figures = [_figure(by_method.get(method)) for method in methods]
        table.add_row(*names, *figures, f"{cells[0]['chance']:.3f}")
    return table


def _grouped(rows: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by these keys, equal leading keys together, otherwise in the order of their first row."""
    places: list[dict[Any, int]] = [{} for _ in keys]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        for place, key in zip(places, keys, strict=True):
            place.setdefault(row[key], len(place))
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    order = sorted(groups, key=lambda group: [place[value] for place, value in zip(places, group, strict=True)])
    return {group: groups[group] for group in order}


def _figure(row: Row | None) -> str:
    if row is None:
        return "-"
    spread = f" ±{row['std']:.3f}" if row["std"] is not None else ""
    return f"[bold]{row['mean']:.3f}[/bold]{spread}\n[dim]{row['ci_low']:.3f}–{row['ci_high']:.3f}[/dim]"


def _caption(rows: Sequence[Row]) -> str:
    first = rows[0]
    interval = "below each figure its 95 % bootstrap interval over patients"
    if first["head"] is None:
        return interval
    spread = "; ± is the spread over seeds" if first["std"] is not None else ""
    unit = first.get("unit", "image")
    tested = f"{first['n_test']} test {'studies' if unit == 'study' else f'{unit}s'} of {first['n_patients']} patients"
    return f"space: {first['space']}; {tested}{spread}; {interval}"


def _differences(comparisons: Sequence[Row]) -> Table:
    """One row for each pair of methods and metric (or task), one column for each label fraction (or metric)."""
    by_fraction = comparisons[0]["fraction"] is not None
    column, keys = ("fraction", ("head", "metric")) if by_fraction else ("metric", ("task",))
    settings = list(dict.fromkeys(row[column] for row in comparisons))
    caption = "95 % interval of the paired bootstrap; bold where it excludes zero"
    table = Table(title="differences, paired over patients", title_justify="left", caption=caption)
    table.caption_justify = "left"
    for name in ("difference", *keys):
        table.add_column(name)
    for setting in settings:
        table.add_column(share(setting) if by_fraction else setting, justify="right")
    last = None
    for (a, b, *names), cells in _grouped(comparisons, "a", "b", *keys).items():
        if last not in (None, (a, b)):
            table.add_section()
        pair = f"{a} − {b}" if (a, b) != last else ""
        last = (a, b)
        by_setting = {row[column]: row for row in cells}
        table.add_row(pair, *names, *(_difference(by_setting.get(setting)) for setting in settings))
    return table


def _difference(row: Row | None) -> str:
    if row is None:
        return "-"
    text = f"{row['difference']:+.3f}"
    text = f"[bold]{text}[/bold]" if row["excludes_zero"] else text
    return f"{text}\n[dim]{row['ci_low']:+.3f} to {row['ci_high']:+.3f}[/dim]"
