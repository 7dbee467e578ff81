"""The audit: what became of every row of a source table, with the reason."""

from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

EXCLUDED = "excluded by filter"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row that was dropped or repaired."""

    row: int
    """Number of the row in its table, from 1, the header not counted."""
    image: str = ""
    """The image as the row names it."""
    detail: str = ""
    """What was seen in this row."""


@dataclass(kw_only=True)
class Audit:
    """Counts every row once: as kept, as repaired (and kept), or as dropped."""

    table: str
    """Name of the table."""
    total: int
    """Its rows."""
    notes: list[str] = field(default_factory=list)
    """What concerns no single row."""
    _dropped: dict[str, list[Entry]] = field(default_factory=dict)
    _repaired: dict[str, list[Entry]] = field(default_factory=dict)
    _failed: set[int] = field(default_factory=set)
    _dropped_rows: set[int] = field(default_factory=set)
    _repaired_rows: set[int] = field(default_factory=set)
    _first_failure: str = ""

    def drop(self, row: int, reason: str, *, image: str = "", detail: str = "", failure: bool = False) -> None:
        """Count a row as dropped; `failure` tells a row that could not be used from one that was not wanted."""
        assert row not in self._dropped_rows, f"row {row} dropped twice"
        self._dropped_rows.add(row)
        self._dropped.setdefault(reason, []).append(Entry(row=row, image=image, detail=detail))
        if failure:
            self._failed.add(row)
            if not self._first_failure:
                named = f"row {row}, {image}" if image else f"row {row}"
                self._first_failure = f"{named}: {reason}" + (f" ({detail})" if detail else "")

    def repair(self, row: int, reason: str, *, image: str = "", detail: str = "") -> None:
        """Count a row as repaired; a row that is dropped as well counts as dropped alone."""
        self._repaired_rows.add(row)
        self._repaired.setdefault(reason, []).append(Entry(row=row, image=image, detail=detail))

    @property
    def failures(self) -> int:
        """Rows that could not be used."""
        return len(self._failed)

    @property
    def considered(self) -> int:
        """Rows that the filters let through."""
        return self.total - len(self._dropped.get(EXCLUDED, []))

    @property
    def first_failure(self) -> str:
        """The first row that could not be used, and why; empty if there is none."""
        return self._first_failure

    def summary(self) -> str:
        """Return the reasons for dropping with their counts, on one line."""
        return ", ".join(f"{reason} ({len(entries)})" for reason, entries in sorted(self._dropped.items()))

    def counts(self) -> dict[str, int]:
        """Return the rows in all, kept as they were, repaired, and dropped."""
        dropped = len(self._dropped_rows)
        repaired = len(self._repaired_rows - self._dropped_rows)
        return {
            "total": self.total,
            "kept": self.total - dropped - repaired,
            "repaired": repaired,
            "dropped": dropped,
            "failed": self.failures,
        }

    def to_json(self) -> dict[str, Any]:
        """Return what `audit.json` holds: counts, and for every reason its rows and files."""
        return {
            "table": self.table,
            "rows": self.counts(),
            "row_numbers": "from 1, the header not counted; failed rows are among the dropped",
            "dropped": self._reasons(self._dropped),
            "repaired": self._reasons(self._live_repairs()),
            "notes": self.notes,
        }

    def _live_repairs(self) -> dict[str, list[Entry]]:
        live = {
            reason: [entry for entry in entries if entry.row not in self._dropped_rows]
            for reason, entries in self._repaired.items()
        }
        return {reason: entries for reason, entries in live.items() if entries}

    @staticmethod
    def _reasons(reasons: dict[str, list[Entry]]) -> dict[str, Any]:
        return {
            reason: {
                "count": len(entries),
                "rows": [
                    {name: value for name, value in vars(entry).items() if value}
                    for entry in sorted(entries, key=lambda entry: entry.row)
                ],
            }
            for reason, entries in sorted(reasons.items())
        }

    def to_table(self) -> Table:
        """Return the counts as a table for the terminal."""
        table = Table(title=f"Rows of {self.table}", title_justify="left")
        table.add_column("what")
        table.add_column("rows", justify="right")
        table.add_column("for example")
        counts = self.counts()
        table.add_row("in the table", str(counts["total"]), "")
        table.add_row("kept as they are", str(counts["kept"]), "")
        for title, reasons in (("repaired", self._live_repairs()), ("dropped", self._dropped)):
            table.add_row(title, str(counts[title]), "", style="bold")
            for reason, entries in sorted(reasons.items()):
                first = min(entries, key=lambda entry: entry.row)
                table.add_row(f"  {reason}", str(len(entries)), f"row {first.row} {first.image}".strip())
        return table
