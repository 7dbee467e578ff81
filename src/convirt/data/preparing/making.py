"""Making one shard: what a worker does, in whatever process it runs.

A shard is a run of planned pairs. Its file depends on them alone, and it is either there whole or not at all.
"""

import json
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convirt.data.imaging.pixels import Unreadable
from convirt.data.preparing.audit import Audit
from convirt.data.preparing.identities import Identities, names_patient
from convirt.data.preparing.pairing import PairContent, PairPlan
from convirt.data.records import ImageRecord, Pair
from convirt.data.reports import MIN_TOKENS
from convirt.data.shards import ShardWriter
from convirt.wording import clip

Read = Callable[[PairPlan], PairContent]


class Stopped(Exception):
    """The command is to end; the shard at hand is given up."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all shards of a corpus have in common; it crosses processes and machines."""

    read: Read
    """Gives the content of a pair."""
    image_size: int
    """Larger side of the prepared images, pixels."""
    identities: Identities
    """Gives pairs and patients their ids."""


def make_shard(
    job: Job,
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
    # Names of its own: a process that outlived its command must not write into another's file.
    own = secrets.token_hex(4)
    part = shard.with_name(f".{shard.name}.{own}.part")
    audit = Audit(table="", total=0)
    telling = 0
    try:
        with ShardWriter(part, image_size=job.image_size) as writer:
            for plan in plans:
                if stopped():
                    raise Stopped
                with guard(plan) if guard else nullcontext():
                    content = _attempt(job.read, plan)
                if pair := _finish_pair(plan, content, audit):
                    hidden = job.identities.hide(pair)
                    telling += sum(names_patient(image.source, pair.patient_id) for image in hidden.images)
                    writer.add(hidden)
        about: dict[str, Any] = {
            "bytes": part.stat().st_size if writer.digests else 0,
            "failures": audit.failures,
            "sources_with_patient": telling,
            "counts": dict(writer.counts),
            "digests": [digest.hex() for digest in writer.digests],
            "entries": [vars(entry) for entry in audit.entries()],
        }
        if writer.digests:
            _settle(part, shard)
        part_of_piece = piece.with_name(f".{piece.name}.{own}.part")
        part_of_piece.write_text(json.dumps(about), encoding="utf-8")
        _settle(part_of_piece, piece)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _settle(part: Path, path: Path) -> None:
    """Give a written file its name, once it has reached the disk."""
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    os.replace(part, path)


def _attempt(read: Read, plan: PairPlan) -> PairContent | Unreadable:
    try:
        return read(plan)
    except Unreadable as problem:
        return problem


def _finish_pair(plan: PairPlan, content: PairContent | Unreadable, audit: Audit) -> Pair | None:
    """Enter a pair's rows in the audit; return the pair, or None if nothing of it is left."""
    if isinstance(content, Unreadable):
        for row in plan.rows:
            audit.drop(row.number, content.reason, image=row.image, detail=content.detail, failure=True)
        return None
    if not content.images:
        reason = "text shorter than 3 tokens" if content.report.text else "no text"
        if content.report.tokens >= MIN_TOKENS:
            reason = "neither Findings nor Impression" if content.report.sentences else "text without a word"
        for row in plan.rows:
            audit.drop(row.number, reason, image=row.image, detail=clip(content.report.text, 80))
        return None
    kept: list[ImageRecord] = []
    for row, image, problem, repairs in zip(plan.rows, content.images, content.problems, content.repairs, strict=True):
        if image is None:
            assert problem is not None
            audit.drop(row.number, problem.reason, image=row.image, detail=problem.detail, failure=True)
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
        attributes=plan.attributes,
    )
