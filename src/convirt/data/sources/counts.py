"""What a prepared data set should hold, by its publishers and by the paper, beside what it does hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from convirt.data.preparing.audit import Audit
from convirt.data.preparing.options import Options
from convirt.data.preparing.pairs import PairPlan, Read
from convirt.data.preparing.prepare import prepare_corpus

PAPER = "ConVIRT, section 3.1"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One published count."""

    what: str
    """In words, with its unit, such as `studies`."""
    count: str
    """Which of our counts it is: a name, or `images/pairs` for a ratio."""
    published: float
    source: str
    """Who says so."""
    about: float = 0.0
    """How far ours may be from it and still agree, as a share: published figures are often rounded."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A published count and ours."""

    figure: Figure
    ours: float

    @property
    def agrees(self) -> bool:
        return abs(self.ours - self.figure.published) <= self.figure.about * self.figure.published

    @property
    def published(self) -> str:
        """The published count as it is written."""
        return f"{'about ' if self.figure.about else ''}{_form(self.figure.published)}"

    @property
    def verdict(self) -> str:
        """By how much ours differs: in units while these are few, else as a share."""
        difference = self.ours - self.figure.published
        if self.agrees:
            return "agrees"
        if abs(difference) < 1000 and not self.figure.about:
            return f"{difference:+,.0f}"
        return f"{difference / self.figure.published:+.1%}"

    def __str__(self) -> str:
        return f"{_form(self.ours)} {self.figure.what} ({self.published} in {self.figure.source}: {self.verdict})"


def prepare_studies(
    plans: Sequence[PairPlan],
    read: Read,
    out: Path,
    *,
    options: Options,
    settings: dict[str, Any],
    audit: Audit,
    salt: str = "",
    figures: Sequence[Figure],
    listed: Mapping[str, float],
) -> Path:
    """Do what `prepare_corpus` does, and set its counts and those of `listed` beside the published `figures`.

    What differs is a note of the audit; all of them are printed as a table.
    """
    compared: list[Comparison] = []

    def conclude(final: Mapping[str, int]) -> list[str]:
        compared[:] = compare(figures, {**listed, **final})
        return notes(compared)

    prepare_corpus(plans, read, out, options=options, settings=settings, audit=audit, salt=salt, conclude=conclude)
    if compared:
        Console().print(to_table(compared))
    return out


def compare(figures: Sequence[Figure], counts: Mapping[str, float]) -> list[Comparison]:
    """Set each figure beside our count; figures of which we have no count are left out."""
    compared = []
    for figure in figures:
        above, _, below = figure.count.partition("/")
        if above in counts and (not below or counts.get(below)):
            compared.append(Comparison(figure=figure, ours=counts[above] / (counts[below] if below else 1)))
    return compared


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what differs from the published counts, and what agrees, a line each."""
    differing = [str(comparison) for comparison in comparisons if not comparison.agrees]
    agreeing = [str(comparison) for comparison in comparisons if comparison.agrees]
    titled = (("counts unlike the published", differing), ("counts as published", agreeing))
    return [f"{title}: {'; '.join(lines)}" for title, lines in titled if lines]


def to_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the comparison as a table for the terminal."""
    table = Table(title="Counts beside the published ones", title_justify="left")
    for heading, justify in (("what", "left"), ("here", "right"), ("published", "right"), ("by", "left"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for comparison in comparisons:
        figure = comparison.figure
        table.add_row(figure.what, _form(comparison.ours), comparison.published, figure.source, comparison.verdict)
    return table


def _form(count: float) -> str:
    return f"{count:,.0f}" if count == int(count) or count >= 100 else f"{count:.2f}".rstrip("0")
