"""The table of a study, from what its cells have left so far."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convirt.analysis.studies.definition import Cell, Tasks, scores_of
from convirt.atomic import write_text
from convirt.evaluation.rows import AnyRow as Row


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """One line a cell."""

    columns: tuple[str, ...]
    """Names of the scores."""
    lines: tuple[tuple[Cell, str, float | None, dict[str, Row]], ...]
    """Cell, state, best validation figure, scores by name."""

    def markdown(self) -> str:
        """The table for people: scores in percent with their 95 % intervals."""
        header = ["cell", "state", "validation", *self.columns]
        rows = [header, ["---"] * len(header)]
        for cell, state, loss, scores in self.lines:
            figures = [_figure(scores.get(column)) for column in self.columns]
            rows.append([cell.name, state, "-" if loss is None else f"{loss:.4f}", *figures])
        return "\n".join("| " + " | ".join(value.replace("|", "/") for value in row) + " |" for row in rows) + "\n"

    def csv(self) -> str:
        """The table for programs: scores as shares."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        bounds = [f"{column}{end}" for column in self.columns for end in ("", ", low", ", high")]
        writer.writerow(["cell", "settings", "state", "validation", *bounds])
        for cell, state, loss, scores in self.lines:
            values: list[object] = []
            for column in self.columns:
                row = scores.get(column)
                values += ["", "", ""] if row is None else [row["mean"], row["ci_low"], row["ci_high"]]
            settings = json.dumps(dict(cell.overrides))
            writer.writerow([cell.name, settings, state, "" if loss is None else loss, *values])
        return file.getvalue()


def _figure(row: Row | None) -> str:
    if row is None:
        return "-"
    return f"{100 * row['mean']:.1f} ({100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f})"


def collect_table(cells: Sequence[Cell], tasks: Tasks, out: Path) -> StudyTable:
    """What there is of each cell."""
    lines = []
    for cell in cells:
        folder = out / cell.folder
        lines.append((cell, state_of(folder, tasks), _validation(folder), scores_of(folder)))
    columns = tuple(dict.fromkeys(name for *_, scores in lines for name in scores))
    return StudyTable(columns=columns, lines=tuple(lines))


def state_of(folder: Path, tasks: Tasks) -> str:
    """`done`, `failed`, `pretraining`, `evaluating` or `not begun`."""
    if (folder / "failed.json").is_file():
        return "failed"
    if (folder / "run" / "metrics.json").is_file():
        return "evaluating" if tasks.missing(folder) else "done"
    return "pretraining" if (folder / "run").is_dir() else "not begun"


def _validation(folder: Path) -> float | None:
    path = folder / "run" / "metrics.json"
    if not path.is_file():
        return None
    metrics = json.loads(path.read_text())
    return next((value for key, value in metrics.items() if key.startswith("best_validation_")), None)


def write_table(table: StudyTable, out: Path) -> None:
    """Write table.md and table.csv."""
    write_text(out / "table.md", table.markdown())
    write_text(out / "table.csv", table.csv())
