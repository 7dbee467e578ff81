"""From plans to a corpus: the one way in which every `prepare ...` verb ends.

A source (a table, an archive of files, a server) makes `PairPlan`s and a function that reads one; what happens then,
to every source alike, happens here.
"""

import multiprocessing
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table as RichTable

from convirt.data.audit import Audit
from convirt.data.corpora import SPLITS, Corpus, CorpusWriter
from convirt.data.options import Options
from convirt.data.pairing import PairContent, PairPlan
from convirt.data.pixels import Unreadable
from convirt.data.records import ImageRecord, Pair
from convirt.data.reports import MIN_TOKENS
from convirt.errors import InputError
from convirt.versions import versions

__all__ = ["Options", "prepare_corpus"]

_CHUNK = 8  # pairs a worker takes at once
_CHUNKS_AHEAD = 4  # for each worker; bounds what waits in memory to be written
_WORTH_WORKERS = 500  # fewer pairs are read before a second process has started (spaCy brings torch with it)

Read = Callable[[PairPlan], PairContent]


def prepare_corpus(
    plans: Sequence[PairPlan],
    read: Read,
    out: Path,
    *,
    options: Options,
    settings: dict[str, Any],
    audit: Audit,
    conclude: Callable[[Mapping[str, int]], Sequence[str]] | None = None,
) -> Path:
    """Read planned pairs and write them as a prepared corpus, with its audit; print both as tables.

    Args:
        plans: The pairs to be, in the order of the corpus; their splits are final.
        read: Gives the content of a pair. It can be pickled and is a pure function of its files. If it raises
            `Unreadable`, every row of the pair is set aside for that reason, as a failure.
        out: Folder to write the corpus to; it must not exist yet, or be empty.
        options: How.
        settings: Where the pairs come from, JSON values; kept in `corpus.json` beside `options`.
        audit: What became of the rows that are in no plan; the others are entered here.
        conclude: Makes notes for the audit of the final counts (`pairs`, `pairs_train` ..., `images`, `sentences`,
            `patients`), for example beside published ones.

    Returns:
        `out`.

    Raises:
        InputError: Too many unusable rows, no pair left, or `out` is taken; nothing is written then.
    """
    out = Path(out)
    settings = {
        **settings,
        "image_size": options.image_size,
        "min_tokens": MIN_TOKENS,
        "max_failures": options.max_failures,
        "versions": versions(),
    }
    with CorpusWriter(out, image_size=options.image_size, settings=settings) as writer:
        files = _SeenFiles()
        _check_failures(audit, options.max_failures)
        contents = _read_all(read, plans, options.workers or os.cpu_count() or 1)
        for plan, content in track(zip(plans, contents, strict=True), "reading", len(plans), transient=True):
            if pair := _finish_pair(plan, content, audit):
                files.add(pair)
                writer.add(pair)
            _check_failures(audit, options.max_failures)
        if not files:
            raise InputError(f"no pair of {audit.table} is left; rows dropped: {audit.summary()}")
        audit.notes += files.notes()
        if conclude is not None:
            audit.notes.extend(conclude(writer.counts()))
        writer.audit = audit.to_json()
    _print(audit, Corpus.open(out))
    return out


def _check_failures(audit: Audit, max_failures: float) -> None:
    if audit.failures > max_failures * audit.considered:
        raise InputError(
            f"{audit.failures} of {audit.considered} rows cannot be used, more than max_failures = {max_failures:g}; "
            f"nothing was written; first: {audit.first_failure}; correct the rows or raise --max-failures"
        )


def _finish_pair(plan: PairPlan, content: PairContent | Unreadable, audit: Audit) -> Pair | None:
    """Enter a pair's rows in the audit; return the pair, or None if nothing of it is left."""
    if isinstance(content, Unreadable):
        for row in plan.rows:
            audit.drop(row.number, content.reason, image=row.image, detail=content.detail, failure=True)
        return None
    if not content.images:
        reason = "text shorter than 3 tokens" if content.report.text else "no text"
        if content.report.tokens >= MIN_TOKENS:
            reason = "text without a word"
        for row in plan.rows:
            audit.drop(row.number, reason, image=row.image, detail=content.report.text[:80])
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


class _SeenFiles:
    """Finds files of identical content that several patients share: they can carry a patient across splits."""

    def __init__(self) -> None:
        self._places: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)

    def add(self, pair: Pair) -> None:
        for image in pair.images:
            self._places[image.sha256].setdefault(pair.patient_id, (pair.split, image.source))

    def __bool__(self) -> bool:
        return bool(self._places)

    def notes(self) -> list[str]:
        notes = []
        for places in self._places.values():
            if len(places) > 1:
                crossing = " across splits" if len({split for split, _ in places.values()}) > 1 else ""
                listed = ", ".join(f"{source} ({patient}, {split})" for patient, (split, source) in places.items())
                notes.append(f"identical image files of different patients{crossing}: {listed}")
        return notes


def _read_all(read: Read, plans: Sequence[PairPlan], workers: int) -> Iterator[PairContent | Unreadable]:
    """Yield the content of each plan, in order; what is yielded does not depend on the number of workers."""
    if workers == 1 or len(plans) < _WORTH_WORKERS:
        yield from (_attempt(read, plan) for plan in plans)
        return
    # Spawned, not forked: this process may hold threads (torch, Arrow), which a fork copies in any state.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    chunks = (plans[start : start + _CHUNK] for start in range(0, len(plans), _CHUNK))
    try:
        waiting = deque(pool.submit(_read_chunk, read, chunk) for chunk in islice(chunks, workers * _CHUNKS_AHEAD))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(_read_chunk, read, chunk) for chunk in islice(chunks, 1))
            yield from done
    except BrokenProcessPool as error:
        raise InputError("a worker process was killed, perhaps for memory; try again with --workers 1") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_chunk(read: Read, plans: Sequence[PairPlan]) -> list[PairContent | Unreadable]:
    return [_attempt(read, plan) for plan in plans]


def _attempt(read: Read, plan: PairPlan) -> PairContent | Unreadable:
    try:
        return read(plan)
    except Unreadable as problem:
        return problem


def _print(audit: Audit, corpus: Corpus) -> None:
    console = Console()
    console.print(audit.to_table())
    table = RichTable(title="Corpus", title_justify="left")
    for heading in ("split", "pairs", "patients", "images", "sentences"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    lengths: dict[str, Any] = {name: corpus.column_lengths(name) for name in ("images", "sentences")}
    for split in SPLITS:
        chosen = corpus.indices(split)
        table.add_row(
            split,
            str(len(chosen)),
            str(len(set(corpus.patient_ids[chosen]))),
            *(str(int(lengths[name][chosen].sum())) for name in ("images", "sentences")),
        )
    console.print(table)
    console.print(f"wrote {corpus.path}", markup=False, soft_wrap=True)
    for note in audit.notes[:5]:
        console.print(f"note: {note}", style="yellow", markup=False)
    if len(audit.notes) > 5:
        console.print(f"note: {len(audit.notes) - 5} more in {corpus.path / 'audit.json'}", style="yellow")
    for split in ("train", "val"):
        if not len(corpus.indices(split)):
            console.print(f"note: no pair is in split {split}; pretraining needs some", style="yellow")
