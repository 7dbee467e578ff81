"""Pairs on their way into a corpus: the plan of one, what reading it gives, and the shard that a worker makes of many.

A shard depends on its planned pairs alone, and is there whole or not at all (ConVIRT, section 2.1).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from convirt.atomic import write_text
from convirt.data.identifiers.finding import redact
from convirt.data.imaging.pixels import FIRST, Choice, Unreadable, read_inside
from convirt.data.preparing.audit import Audit
from convirt.data.preparing.identities import Identities, names_patient
from convirt.data.preparing.options import Options
from convirt.data.records import ImageRecord, Pair
from convirt.data.reports import MIN_TOKENS, Lexicon, Report, fields_report, load_lexicon, parse_report
from convirt.wording import clip


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One usable row: one image and the text beside it."""

    number: int
    image: str
    """As the table names it."""
    source: str
    """The same, normalised: relative to the image root."""
    text: str = ""
    patient: str
    study: str
    split: str = ""
    view: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


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
    attributes: Mapping[str, str] | None = None
    """The attributes of the pair where they are others than planned, with identifiers masked."""


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
    from convirt.data.imaging.prepared import prepare_bytes

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
    attributes = {name: mask(value) for name, value in plan.attributes.items()} if options.redact else None
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
    return PairContent(
        report=report,
        images=tuple(images),
        problems=tuple(problems),
        repairs=tuple(repairs),
        attributes=attributes,
    )


@cache
def _lexicon(language: str | Path) -> Lexicon:
    return load_lexicon(language)


Read = Callable[[PairPlan], PairContent]


class Stopped(Exception):
    """The command is to end; the shard at hand is given up."""


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """What all shards of a corpus have in common; it crosses processes and machines."""

    read: Read
    """Gives the content of a pair."""
    image_size: int
    """Larger side of the prepared images, pixels."""
    identities: Identities
    """Gives pairs and patients their ids."""


def make_shard(
    job: ShardJob,
    plans: Sequence[PairPlan],
    shard: Path,
    piece: Path,
    stopped: Callable[[], bool] = bool,
    guard: Callable[[PairPlan], AbstractContextManager[None]] | None = None,
) -> None:
    """Read the pairs of one shard and write them; its piece comes last and says that it is finished.

    Args:
        job: What to do.
        plans: Its pairs.
        shard: The Arrow file to be; there is none if no pair is left.
        piece: The JSON file to be: the size of the shard, counts, a hash of each pair, entries of the audit,
            and how many images have a source path with the id of their patient.
        stopped: Asked before each pair.
        guard: What each pair is read in.

    Raises:
        Stopped: It was asked and said so.
    """
    from convirt.data.shards import ShardWriter

    audit = Audit(table="", total=0)
    leaking_paths = 0
    with ShardWriter(shard, image_size=job.image_size) as writer:
        for plan in plans:
            if stopped():
                raise Stopped
            with guard(plan) if guard else nullcontext():
                content = _attempt(job.read, plan)
            if pair := _finish_pair(plan, content, audit):
                hidden = job.identities.hide(pair)
                leaking_paths += sum(names_patient(image.source, pair.patient_id) for image in hidden.images)
                writer.add(hidden)
    if not writer.digests:
        shard.unlink()
    about: dict[str, Any] = {
        "bytes": shard.stat().st_size if writer.digests else 0,
        "failures": audit.failures,
        "sources_with_patient": leaking_paths,
        "counts": dict(writer.counts),
        "words": vars(audit.words),
        "digests": [digest.hex() for digest in writer.digests],
        "entries": [vars(entry) for entry in audit.entries(shown=False)],
    }
    write_text(piece, json.dumps(about))


def _attempt(read: Read, plan: PairPlan) -> PairContent | Unreadable:
    try:
        return read(plan)
    except Unreadable as problem:
        return problem


def _finish_pair(plan: PairPlan, content: PairContent | Unreadable, audit: Audit) -> Pair | None:
    """Enter a pair's rows in the audit; return the pair, or None if nothing of it is left."""
    if isinstance(content, Unreadable):
        for row in plan.rows:
            audit.drop(
                row.number, content.reason, image=row.image, detail=content.detail, quoted=content.quoted, failure=True
            )
        return None
    audit.note_report(plan.rows[0].number, content.report, image=plan.rows[0].image)
    if not content.images:
        reason = "text shorter than 3 tokens" if content.report.text else "no text"
        if content.report.tokens >= MIN_TOKENS:
            reason = "neither Findings nor Impression" if content.report.sentences else "text without a word"
        for row in plan.rows:
            audit.drop(row.number, reason, image=row.image, quoted=clip(content.report.text, 80))
        return None
    kept: list[ImageRecord] = []
    for row, image, problem, repairs in zip(plan.rows, content.images, content.problems, content.repairs, strict=True):
        if image is None:
            assert problem is not None
            audit.drop(
                row.number, problem.reason, image=row.image, detail=problem.detail, quoted=problem.quoted, failure=True
            )
            continue
        for repair in repairs:
            audit.repair(row.number, repair, image=row.image)
        kept.append(image)
    if not kept:
        return None
    return Pair(
        pair_id=plan.pair_id,
        patient_id=plan.patient,
        split=plan.split,
        images=tuple(kept),
        sentences=content.report.sentences,
        text=content.report.text,
        attributes=plan.attributes if content.attributes is None else dict(content.attributes),
    )
