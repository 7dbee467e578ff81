"""What every evaluation verb leaves behind: `metrics.json`, the arrays behind it, and a printed table."""

import json
import math
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from convirt.errors import InputError

FORMAT = 1
_PACKAGES = ("convirt", "torch", "timm", "transformers", "scikit-learn", "numpy", "pandas", "pillow")

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

    def print(self, console: Console | None = None) -> None:
        """Print one table of figures for each task and head, and one of differences."""
        console = console or Console()
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row["task"], row["head"] or ""), []).append(row)
        for (task, head), rows in groups.items():
            console.print(_figures(f"{task} · {HEADS[head]}" if head else task, rows))
        if self.comparisons:
            console.print(_differences(self.comparisons))


HEADS = {"paper": "linear head (the paper's)", "logistic": "logistic regression"}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


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


def _settings(rows: Sequence[Row]) -> list[tuple[str, float | None]]:
    return list(dict.fromkeys((row["metric"], row["fraction"]) for row in rows))


def _figures(title: str, rows: Sequence[Row]) -> Table:
    """Methods as columns, metrics and fractions as rows: mean, spread over seeds, interval; chance at the end."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    by_fraction = any(row["fraction"] is not None for row in rows)
    table = Table(title=title, title_justify="left", caption=_caption(rows), caption_justify="left")
    table.add_column("metric")
    if by_fraction:
        table.add_column("labels", justify="right")
    for method in methods:
        table.add_column(method, justify="right")
    table.add_column("chance", justify="right")
    last = None
    for metric, fraction in _settings(rows):
        cells = {row["method"]: row for row in rows if (row["metric"], row["fraction"]) == (metric, fraction)}
        if by_fraction and last not in (None, metric):
            table.add_section()
        last = metric
        labels = [share(fraction) if fraction is not None else ""] if by_fraction else []
        figures = [_figure(cells.get(method)) for method in methods]
        table.add_row(metric, *labels, *figures, f"{next(iter(cells.values()))['chance']:.3f}")
    return table


def _figure(row: Row | None) -> str:
    if row is None:
        return "-"
    spread = f" ±{row['std']:.3f}" if row["std"] is not None else ""
    return f"[bold]{row['mean']:.3f}[/bold]{spread} [dim]{row['ci_low']:.3f}–{row['ci_high']:.3f}[/dim]"


def _caption(rows: Sequence[Row]) -> str:
    first = rows[0]
    spaces = ", ".join(dict.fromkeys(row["space"] for row in rows))
    spread = "mean ± spread over seeds, " if first["std"] is not None else ""
    return (
        f"space: {spaces}; {first['n_test']} test items of {first['n_patients']} patients; "
        f"{spread}95 % bootstrap interval over patients"
    )


def _differences(comparisons: Sequence[Row]) -> Table:
    table = Table(title="Differences, paired over patients", title_justify="left")
    for name in ("task", "head", "metric", "labels"):
        table.add_column(name)
    table.add_column("difference", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("excludes 0")
    last = None
    for row in comparisons:
        pair = f"{row['a']} − {row['b']}"
        if pair != last:
            table.add_section()
            table.add_row(f"[bold]{pair}[/bold]")
            last = pair
        fraction = "" if row["fraction"] is None else share(row["fraction"])
        table.add_row(
            row["task"],
            row["head"] or "",
            row["metric"],
            fraction,
            f"{row['difference']:+.3f}",
            f"{row['ci_low']:+.3f} to {row['ci_high']:+.3f}",
            "yes" if row["excludes_zero"] else "no",
        )
    return table
