"""Published counts of a data set (by its publishers and by the paper) beside those of the files at hand."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table

from convirt.data.preparing.pairs import Row

PAPER = "ConVIRT, section 3.1"


@dataclass(kw_only=True)
class Listing:
    """What the table of a data set lists, before any filter."""

    studies: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    images: Counter[str] = field(default_factory=Counter)
    """Images of each split."""

    def add(self, row: Row) -> None:
        """Count the image of one row."""
        self.studies.add(row.study)
        self.patients.add(row.patient)
        self.images[row.split] += 1

    def counts(self) -> dict[str, float]:
        """Return the counts under the names that a `Figure` refers to."""
        splits = {f"listed_{split}": number for split, number in self.images.items() if split}
        listed = {"listed_studies": len(self.studies), "listed_patients": len(self.patients)}
        return {"listed_images": self.images.total(), **listed, **splits}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One published count."""

    what: str
    """In words, with its unit, such as `studies`."""
    count: str
    """Which of our counts it is: a name, or `images/pairs` for a ratio."""
    published: float
    source: str
    """Where it was published."""
    about: float = 0.0
    """How far ours may be from it and still agree, as a share: published figures are often rounded."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A published count and ours."""

    figure: Figure
    ours: float

    @property
    def agrees(self) -> bool:
        """Whether ours is as near to the published count as its rounding allows."""
        return abs(self.ours - self.figure.published) <= self.figure.about * self.figure.published

    @property
    def published(self) -> str:
        """The published count in words."""
        return f"{'about ' if self.figure.about else ''}{_number(self.figure.published)}"

    @property
    def verdict(self) -> str:
        """By how much ours differs: in units if these are few, else as a share."""
        difference = self.ours - self.figure.published
        if self.agrees:
            return "agrees"
        if abs(difference) < 1000 and not self.figure.about:
            return f"{difference:+,.0f}"
        return f"{difference / self.figure.published:+.1%}"

    def __str__(self) -> str:
        return f"{_number(self.ours)} {self.figure.what} ({self.published} in {self.figure.source}: {self.verdict})"


def compare(figures: Sequence[Figure], counts: Mapping[str, float]) -> list[Comparison]:
    """Set each figure beside our count; figures of which we have no count are left out."""
    compared = []
    for figure in figures:
        above, _, below = figure.count.partition("/")
        if above in counts and (not below or counts.get(below)):
            compared.append(Comparison(figure=figure, ours=counts[above] / (counts[below] if below else 1)))
    return compared


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return one line on the counts that differ from the published ones, and one on those that agree."""
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
        table.add_row(figure.what, _number(comparison.ours), comparison.published, figure.source, comparison.verdict)
    return table


def _number(count: float) -> str:
    return f"{count:,.0f}" if count == int(count) or count >= 100 else f"{count:.2f}".rstrip("0")
