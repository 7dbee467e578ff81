"""The audit: what became of every row of a source table, with the reason.

Memory does not grow with what is entered: a byte a row says how it ended, the entries themselves wait in a temporary
file. `audit.csv` lists every one of them, `audit.json` the counts and the first of each reason.
"""

import csv
import heapq
import io
import json
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any, Literal

from rich.table import Table

from convirt.atomic import atomic_file
from convirt.data.reports import Report
from convirt.data.reports.parsing import HEADINGS

EXCLUDED = "excluded by filter"
LISTED = 1000
"""Rows of one reason that `audit.json` lists; `audit.csv` lists all."""

LITTLE_KEPT = "less than a third of the words kept"

SPELLINGS = "patients have ids in several spellings; each is one patient"
_STEPS = 300  # of a share; a hundred are the third below which a report is listed
_TITLES = ("dropped", "repaired", "noted")
_DROPPED, _REPAIRED, _FAILED = 1, 2, 4
_IN_MEMORY = 4 * 2**20  # bytes of entries before they go to disk


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row that was dropped or repaired, or of whose report something is worth a look."""

    fate: Literal["dropped", "failed", "repaired", "noted"]
    """`failed` rows are dropped ones that could not be used; the other dropped ones were not wanted. `noted` rows count
    as whatever else they are."""
    row: int
    """Number of the row in its table, from 1, the header not counted."""
    reason: str
    """One of few phrases."""
    image: str = ""
    """The image as the row names it."""
    detail: str = ""
    """What was seen in this row, in words of ours."""
    quoted: str = ""
    """What was seen, as it stands there: words of a report, an id, a name. It is shown where nothing is hidden."""

    def named(self) -> dict[str, Any]:
        """What `audit.json` says of it below its reason."""
        return {name: value for name in ("row", "image", "detail") if (value := getattr(self, name))}


_FIELDS = [f.name for f in fields(Entry)]


@dataclass
class Words:
    """The account of the words of all reports: each is kept or cut, and under what heading it stood."""

    kept: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    shares: Counter[str] = field(default_factory=Counter)
    """How many reports kept so many three-hundredths of their words."""

    def add(self, report: Report) -> None:
        """Enter one report; one without a word has no share."""
        self.kept.update(report.words_kept)
        self.cut.update(report.words_cut)
        kept, total = report.account
        if total:
            self.shares[str(_STEPS * kept // total)] += 1

    def merge(self, other: Mapping[str, Mapping[str, int]]) -> None:
        """Enter what another process counted."""
        for name, counts in other.items():
            getattr(self, name).update(counts)

    def to_json(self) -> dict[str, Any]:
        """Return what `audit.json` holds; nothing where no report was read (a corpus made again)."""
        if not self.shares:
            return {}
        return {
            "reports": self.shares.total(),
            "kept": dict(sorted(self.kept.items())),
            "cut": dict(sorted(self.cut.items())),
            "median_per_cent_kept": self.median,
        }

    @property
    def median(self) -> int:
        """The share of its words that half of the reports keep at least, per cent."""
        shares = sorted((int(share), count) for share, count in self.shares.items())
        seen = 0
        for share, count in shares:
            seen += count
            if 2 * seen >= self.shares.total():
                return 100 * share // _STEPS
        return 100

    def warning(self) -> str:
        """Say that some reports kept little, and whether that is how this archive writes; empty if none did."""
        few = sum(count for share, count in self.shares.items() if int(share) < 100)
        if not few:
            return ""
        head = f"{few} of {self.shares.total()} reports kept less than a third of their words"
        most = [item for item in self.cut.most_common(4) if item[0] != HEADINGS][:3]
        lost = ", ".join(f"{name or 'before the first heading'} {count}" for name, count in most)
        if self.median < 33:
            return (
                f"{head}, half of all at most {self.median} %: headings of this archive may be unknown, see --lexicon "
                f"(most words were cut under: {lost})"
            )
        return (
            f"{head}, where half keep at least {self.median} %; audit.csv lists them as {LITTLE_KEPT!r} "
            f"(most words were cut under: {lost})"
        )


class Audit:
    """Counts every row once: as kept, as repaired (and kept), or as dropped.

    Attributes:
        table: Name of the table.
        total: Its rows.
        notes: What concerns no single row.
        alias: What an image is called in what is written and shown; set for the paths of which nothing may be kept.
        quotes: Whether `quoted` is written and shown.
        words: What was kept of the words of the reports.
    """

    def __init__(self, *, table: str, total: int, notes: Iterable[str] = ()) -> None:
        self.table = table
        self.total = total
        self.notes: list[str] = list(notes)
        self.alias: Callable[[str], str] = str
        self.quotes = True
        self._first_failure: Entry | None = None
        self.words = Words()
        self._fates = bytearray(total + 1)
        self._dropped: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._spool: IO[str] = tempfile.SpooledTemporaryFile(  # noqa: SIM115  # closed with the audit
            _IN_MEMORY, "w+", encoding="utf-8", errors="surrogatepass"
        )
        weakref.finalize(self, self._spool.close)

    def drop(
        self, row: int, reason: str, *, image: str = "", detail: str = "", quoted: str = "", failure: bool = False
    ) -> None:
        """Count a row as dropped; `failure` tells a row that could not be used from one that was not wanted."""
        fate: Literal["dropped", "failed"] = "failed" if failure else "dropped"
        self.enter(Entry(fate=fate, row=row, reason=reason, image=image, detail=detail, quoted=quoted))

    def repair(self, row: int, reason: str, *, image: str = "", detail: str = "") -> None:
        """Count a row as repaired; a row that is dropped as well counts as dropped alone."""
        self.enter(Entry(fate="repaired", row=row, reason=reason, image=image, detail=detail))

    def respell(self, row: int, first: int, *, image: str = "") -> None:
        """Count a row under another spelling of its patient's id, who is that of row `first`: no id is named."""
        detail = f"counted as the patient of row {first}"
        self.repair(row, "another spelling of a patient's id", image=image, detail=detail)

    def note_report(self, row: int, report: Report, *, image: str = "") -> None:
        """Count what a report kept of its words, and name the rules that acted in it; `row` is its first."""
        self.words.add(report)
        for rule in report.rules:
            self.enter(Entry(fate="noted", row=row, reason=rule, image=image))
        kept, total = report.account
        if 3 * kept < total:
            detail = f"{kept} of {total} words"
            self.enter(Entry(fate="noted", row=row, reason=LITTLE_KEPT, image=image, detail=detail))

    def enter(self, entry: Entry) -> None:
        """Count an entry, perhaps one that another process made."""
        if entry.row >= len(self._fates):
            self._fates.extend(bytes(entry.row + 1 - len(self._fates)))
        fate = self._fates[entry.row]
        if entry.fate == "noted":
            pass
        elif entry.fate == "repaired":
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
            self._first_failure = self._first_failure or entry
        self._fates[entry.row] = fate
        self._spool.write(json.dumps(list(vars(entry).values())) + "\n")

    def entries(self, *, shown: bool = True) -> Iterator[Entry]:
        """Give what was entered, in that order, without the repairs of rows that were dropped in the end.

        `shown`: as it is written and shown, not as it was entered.
        """
        self._spool.seek(0)
        try:
            for line in self._spool:
                entry = Entry(**dict(zip(_FIELDS, json.loads(line), strict=True)))
                if entry.fate != "repaired" or not self._fates[entry.row] & _DROPPED:
                    yield self._shown(entry) if shown else entry
        finally:
            self._spool.seek(0, 2)

    def _shown(self, entry: Entry) -> Entry:
        detail = "; ".join(filter(None, (entry.detail, entry.quoted if self.quotes else "")))
        return replace(entry, image=self.alias(entry.image), detail=detail, quoted="")

    @property
    def first_failure(self) -> str:
        """The first row that was entered as one that could not be used, and why; empty if there is none."""
        if self._first_failure is None:
            return ""
        entry = self._shown(self._first_failure)
        named = f"row {entry.row}, {entry.image}" if entry.image else f"row {entry.row}"
        return f"{named}: {entry.reason}" + (f" ({entry.detail})" if entry.detail else "")

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
                for title in _TITLES
            },
            "words": self.words.to_json(),
            "notes": self.notes,
        }

    def _reasons(self, listed: int) -> dict[str, dict[str, tuple[int, list[Entry]]]]:
        """Give, below `dropped`, `repaired` and `noted`, each reason's count and its first `listed` rows by number."""
        counts: dict[str, Counter[str]] = {title: Counter() for title in _TITLES}
        heaps: dict[tuple[str, str], list[tuple[int, int, Entry]]] = {}
        for place, entry in enumerate(self.entries()):
            title = "dropped" if entry.fate == "failed" else entry.fate
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
        with atomic_file(path) as raw:
            file = io.TextIOWrapper(raw, "utf-8", "backslashreplace", newline="")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("row", "fate", "reason", "image", "detail"))
            for entry in self.entries():
                if failed and entry.fate != "failed":
                    continue
                writer.writerow((entry.row, entry.fate, entry.reason, entry.image, entry.detail))
            file.detach()  # flushed; `atomic_file` closes

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
        for title in ("repaired", "dropped", "noted"):
            if title != "noted":
                table.add_row(title, str(counts[title]), "", style="bold")
            elif reasons[title]:
                table.add_row("reports in which a rule acted", "", "", style="bold")
            for reason, (count, (first,)) in reasons[title].items():
                table.add_row(f"  {reason}", str(count), f"row {first.row} {first.image}".strip())
        return table
