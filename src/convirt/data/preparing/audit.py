"""The audit: what became of every row of a source table, with the reason.

Memory does not grow with what is entered: a byte a row says how it ended, the entries themselves wait in a temporary
file. `audit.csv` lists every one of them, `audit.json` the counts and the first of each reason.
"""

import csv
import heapq
import json
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from rich.table import Table

EXCLUDED = "excluded by filter"
LISTED = 1000
"""Rows of one reason that `audit.json` lists; `audit.csv` lists all."""

_DROPPED, _REPAIRED, _FAILED = 1, 2, 4
_IN_MEMORY = 4 * 2**20  # bytes of entries before they go to disk


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row that was dropped or repaired."""

    fate: Literal["dropped", "failed", "repaired"]
    """`failed` rows are dropped ones that could not be used; the other dropped ones were not wanted."""
    row: int
    """Number of the row in its table, from 1, the header not counted."""
    reason: str
    """One of few phrases."""
    image: str = ""
    """The image as the row names it."""
    detail: str = ""
    """What was seen in this row."""

    def named(self) -> dict[str, Any]:
        """What `audit.json` says of it below its reason."""
        return {name: value for name in ("row", "image", "detail") if (value := getattr(self, name))}


class Audit:
    """Counts every row once: as kept, as repaired (and kept), or as dropped.

    Attributes:
        table: Name of the table.
        total: Its rows.
        notes: What concerns no single row.
        alias: What an image is called in what is written and shown; set for the paths of which nothing may be kept.
        first_failure: The first row that was entered as one that could not be used, and why; empty if there is none.
    """

    def __init__(self, *, table: str, total: int, notes: Iterable[str] = ()) -> None:
        self.table = table
        self.total = total
        self.notes: list[str] = list(notes)
        self.alias: Callable[[str], str] = str
        self.first_failure = ""
        self._fates = bytearray(total + 1)
        self._dropped: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._spool: IO[str] = tempfile.SpooledTemporaryFile(  # noqa: SIM115  # closed with the audit
            _IN_MEMORY, "w+", encoding="utf-8", errors="surrogatepass"
        )
        weakref.finalize(self, self._spool.close)

    def drop(self, row: int, reason: str, *, image: str = "", detail: str = "", failure: bool = False) -> None:
        """Count a row as dropped; `failure` tells a row that could not be used from one that was not wanted."""
        fate: Literal["dropped", "failed"] = "failed" if failure else "dropped"
        self.enter(Entry(fate=fate, row=row, reason=reason, image=image, detail=detail))

    def repair(self, row: int, reason: str, *, image: str = "", detail: str = "") -> None:
        """Count a row as repaired; a row that is dropped as well counts as dropped alone."""
        self.enter(Entry(fate="repaired", row=row, reason=reason, image=image, detail=detail))

    def enter(self, entry: Entry) -> None:
        """Count an entry, perhaps one that another process made."""
        if entry.row >= len(self._fates):
            self._fates.extend(bytes(entry.row + 1 - len(self._fates)))
        fate = self._fates[entry.row]
        if entry.fate == "repaired":
            self._rows["repaired"] += not fate & (_REPAIRED | _DROPPED)
            fate |= _REPAIRED
        else:
            assert not fate & _DROPPED, f"row {entry.row} dropped twice"
            self._rows["repaired"] -= bool(fate & _REPAIRED)
            self._rows["dropped"] += 1
            self._dropped[entry.reason] += 1
            fate |= _DROPPED
        if entry.fate == "failed":
            fate |= _FAILED
            self._rows["failed"] += 1
            if not self.first_failure:
                named = f"row {entry.row}, {entry.image}" if entry.image else f"row {entry.row}"
                self.first_failure = f"{named}: {entry.reason}" + (f" ({entry.detail})" if entry.detail else "")
        self._fates[entry.row] = fate
        self._spool.write(json.dumps(list(vars(entry).values())) + "\n")

    def entries(self) -> Iterator[Entry]:
        """Give what was entered, in that order, without the repairs of rows that were dropped in the end."""
        self._spool.seek(0)
        try:
            for line in self._spool:
                fate, row, reason, image, detail = json.loads(line)
                if fate != "repaired" or not self._fates[row] & _DROPPED:
                    yield Entry(fate=fate, row=row, reason=reason, image=self.alias(image), detail=detail)
        finally:
            self._spool.seek(0, 2)

    @property
    def failures(self) -> int:
        """Rows that could not be used."""
        return self._rows["failed"]

    @property
    def considered(self) -> int:
        """Rows that the filters let through."""
        return self.total - self._dropped[EXCLUDED]

    def summary(self) -> str:
        """Return the reasons for dropping with their counts, on one line."""
        return ", ".join(f"{reason} ({count})" for reason, count in sorted(self._dropped.items()) if count)

    def counts(self) -> dict[str, int]:
        """Return the rows in all, kept as they were, repaired, and dropped."""
        dropped, repaired = self._rows["dropped"], self._rows["repaired"]
        return {
            "total": self.total,
            "kept": self.total - dropped - repaired,
            "repaired": repaired,
            "dropped": dropped,
            "failed": self.failures,
        }

    def to_json(self) -> dict[str, Any]:
        """Return what `audit.json` holds: counts, and for every reason its number of rows and the first of them."""
        reasons = self._reasons(LISTED)
        return {
            "table": self.table,
            "rows": self.counts(),
            "row_numbers": "from 1, the header not counted; failed rows are among the dropped",
            "listed": f"up to {LISTED} rows of each reason, in their order; audit.csv lists all",
            **{
                title: {
                    reason: {"count": count, "rows": [entry.named() for entry in first]}
                    for reason, (count, first) in reasons[title].items()
                }
                for title in ("dropped", "repaired")
            },
            "notes": self.notes,
        }

    def _reasons(self, listed: int) -> dict[str, dict[str, tuple[int, list[Entry]]]]:
        """Give, below `dropped` and `repaired`, each reason's count and its first `listed` rows by number."""
        counts: dict[str, Counter[str]] = {"dropped": Counter(), "repaired": Counter()}
        heaps: dict[tuple[str, str], list[tuple[int, int, Entry]]] = {}
        for place, entry in enumerate(self.entries()):
            title = "repaired" if entry.fate == "repaired" else "dropped"
            counts[title][entry.reason] += 1
            heap = heaps.setdefault((title, entry.reason), [])
            # Negative: the heap gives up the largest row; the place keeps entries from being compared.
            add = heapq.heappush if len(heap) < listed else heapq.heappushpop
            add(heap, (-entry.row, -place, entry))
        return {
            title: {
                reason: (count, [entry for *_, entry in sorted(heaps[title, reason], reverse=True)])
                for reason, count in sorted(found.items())
            }
            for title, found in counts.items()
        }

    def write_csv(self, path: Path, *, failed: bool = False) -> None:
        """Write every entry as a row of a CSV table, in the order in which they were made; or the failed alone."""
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("row", "fate", "reason", "image", "detail"))
            for entry in self.entries():
                if failed and entry.fate != "failed":
                    continue
                writer.writerow((entry.row, entry.fate, entry.reason, entry.image, entry.detail))

    def to_table(self) -> Table:
        """Return the counts as a table for the terminal."""
        table = Table(title=f"Rows of {self.table}", title_justify="left")
        table.add_column("what")
        table.add_column("rows", justify="right")
        table.add_column("for example")
        counts = self.counts()
        table.add_row("in the table", str(counts["total"]), "")
        table.add_row("kept as they are", str(counts["kept"]), "")
        reasons = self._reasons(1)
        for title in ("repaired", "dropped"):
            table.add_row(title, str(counts[title]), "", style="bold")
            for reason, (count, (first,)) in reasons[title].items():
                table.add_row(f"  {reason}", str(count), f"row {first.row} {first.image}".strip())
        return table
