"""Pairs on their way into a corpus: the plan of one, and what reading it gives (ConVIRT, section 2.1)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from convirt.data.identifiers.finding import redact
from convirt.data.imaging.pixels import FIRST, Choice, Unreadable, read_inside
from convirt.data.imaging.prepared import prepare_bytes
from convirt.data.preparing.options import Options
from convirt.data.records import ImageRecord
from convirt.data.reports import MIN_TOKENS, Lexicon, Report, fields_report, load_lexicon, parse_report


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One usable row: one image and the text beside it."""

    number: int
    image: str
    """As the table names it."""
    source: str
    """The same, normalised: relative to the image root."""
    text: str
    patient: str
    study: str
    split: str
    view: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairPlan:
    """One pair to be: rows that share a text."""

    pair_id: str
    patient: str
    split: str
    rows: tuple[Row, ...]
    text: str
    """The report; empty where `read` fetches it."""
    attributes: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class PairContent:
    """What a worker makes of a plan; one item for each row."""

    report: Report
    images: tuple[ImageRecord | None, ...] = ()
    problems: tuple[Unreadable | None, ...] = ()
    repairs: tuple[tuple[str, ...], ...] = ()


def read_content(root: Path, plan: PairPlan, options: Options, choice: Choice = FIRST) -> PairContent:
    """Read a planned pair whose text is in its plan and whose images are files below `root`."""
    return make_content(plan, plan.text, partial(read_image, root, options, choice=choice), options)


def read_image(
    root: Path, options: Options, row: Row, *, choice: Choice = FIRST
) -> tuple[ImageRecord, tuple[str, ...]]:
    """Read the image file of a row; what it does to the image is said in `prepare_bytes`.

    Raises:
        Unreadable: There is no such image below `root`.
    """
    return prepare_bytes(
        read_inside(root, row.source),
        source=row.source,
        suffix=Path(row.source).suffix.lower(),
        image_size=options.image_size,
        bits=options.bits,
        view=row.view,
        frame=choice.frame,
        window=choice.window,
    )


def is_usable(report: Report, options: Options) -> bool:
    """Tell whether a pair with this text is kept: long enough (A), with a word in it, and with sections if need be."""
    if options.unsectioned == "drop" and not report.has_sections:
        return False
    return report.tokens >= MIN_TOKENS and bool(report.sentences)


def make_content(
    plan: PairPlan,
    text: str | tuple[str, str],
    load: Callable[[Row], tuple[ImageRecord, tuple[str, ...]]],
    options: Options,
) -> PairContent:
    """Parse the text of a planned pair and, if it is long enough, read its images: what every source's `read` ends in.

    Args:
        plan: The pair.
        text: Its whole report, or Findings and Impression where a source has the two as fields.
        load: Gives the record of a row's image and what had to be repaired; raises `Unreadable`.
        options: How.
    """
    masked: dict[str, None] = {}

    def mask(body: str) -> str:
        body, found = redact(body)
        masked.update(dict.fromkeys(f"identifier masked: {kind}" for kind in sorted(found)))
        return body

    lexicon, edit = _lexicon(options.lexicon or options.language), mask if options.redact else None
    if isinstance(text, str):
        report = parse_report(text, lexicon, edit=edit)
    else:
        report = fields_report(*text, lexicon, edit=edit)
    if not is_usable(report, options):
        return PairContent(report=report)
    images: list[ImageRecord | None] = []
    problems: list[Unreadable | None] = []
    repairs: list[tuple[str, ...]] = []
    for row in plan.rows:
        image: ImageRecord | None = None
        problem: Unreadable | None = None
        repaired: tuple[str, ...] = ()
        try:
            image, repaired = load(row)
        except Unreadable as error:
            problem = error
        images.append(image)
        problems.append(problem)
        repairs.append((*repaired, *masked, *report.repairs))
    return PairContent(report=report, images=tuple(images), problems=tuple(problems), repairs=tuple(repairs))


@cache
def _lexicon(language: str | Path) -> Lexicon:
    return load_lexicon(language)
