"""`convirt prepare archive`: a folder of images and one table become a prepared corpus.

This is the way in for any hospital's own archive, and for the paper's bone archive in particular (ConVIRT, section
3.1). Every row of the table ends in the audit as kept, repaired or dropped.
"""

import multiprocessing
import os
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table as RichTable

from convirt.data.audit import Audit
from convirt.data.corpora import SPLITS, Corpus, CorpusWriter, check_free
from convirt.data.pairing import Columns, PairContent, PairPlan, plan_pairs, read_content
from convirt.data.records import ImageRecord, Pair
from convirt.data.reports import MIN_TOKENS
from convirt.data.tables import Table, read_table
from convirt.errors import InputError
from convirt.versions import versions

_CHUNK = 8  # pairs a worker takes at once
_CHUNKS_AHEAD = 4  # for each worker; bounds what waits in memory to be written
_WORTH_WORKERS = 500  # fewer pairs are read before a second process has started (spaCy brings torch with it)


def prepare_archive(
    images: Path,
    table: Path,
    image_column: str,
    text_column: str,
    patient_column: str,
    out: Path,
    *,
    study_column: str | None = None,
    split_column: str | None = None,
    view_column: str | None = None,
    id_column: str | None = None,
    keep_columns: Sequence[str] = (),
    where: Sequence[str] = (),
    encoding: str = "utf-8",
    image_size: int = 256,
    seed: int = 0,
    val_share: float = 0.1,
    test_share: float = 0.1,
    max_failures: float = 0.1,
    workers: int | None = None,
) -> Path:
    """Turn a folder of PNG, JPEG or DICOM files and a CSV or Parquet table into a prepared corpus.

    Of each report, Findings and Impression are kept where they exist, else the whole text; pairs whose text has fewer
    than 3 tokens are dropped. Rows that cannot be used are set aside and listed in OUT/audit.json.

    Args:
        images: Folder that the table's image paths start from.
        table: CSV (also .gz) or Parquet table, one row an image.
        image_column: Column with the path of the image.
        text_column: Column with the report; several columns, separated by commas, are joined in their order.
        patient_column: Column with the patient: no patient is ever in two splits.
        out: Folder to write the corpus to; it must not exist yet, or be empty.
        study_column: Column that groups rows (images) into one pair; without it every row is a pair.
        split_column: Column with the given split (train, val, valid, dev, validation, test ...); without it patients
            are dealt out by seed.
        view_column: Column with the view or projection of the image.
        id_column: Column that identifies a row; it must be unique.
        keep_columns: Further columns to keep with each pair.
        where: Filters `column=value1,value2`; a row must pass all of them.
        encoding: Text encoding of a CSV table.
        image_size: Larger side of the prepared images, in pixels.
        seed: Seed of the split by patient.
        val_share: Share of patients for validation, if no split column is given.
        test_share: Share of patients for test, if no split column is given.
        max_failures: Largest share of rows that may be unusable; above it nothing is written.
        workers: Processes that read images; default: one for each processor. The corpus does not depend on it.

    Returns:
        The corpus folder.

    Raises:
        InputError: Bad table, columns, splits or folder, or too many unusable rows; nothing is written then.
    """
    images, out = Path(images), Path(out)
    _check_options(images, image_size, max_failures, workers)
    check_free(out)
    source = read_table(table, encoding=encoding)
    columns = Columns(
        image=image_column,
        text=_text_columns(text_column, source),
        patient=patient_column,
        study=study_column,
        split=split_column,
        view=view_column,
        id=id_column,
        keep=tuple(keep_columns),
    )
    audit = Audit(table=source.name, total=len(source.frame) + len(source.malformed), notes=list(source.notes))
    shares = {"seed": seed, "val_share": val_share, "test_share": test_share}
    plans = plan_pairs(source, columns, images, where, shares, audit)
    settings = {
        "table": {"name": source.name, "sha256": source.sha256, "encoding": encoding},
        "columns": {name: list(value) if isinstance(value, tuple) else value for name, value in vars(columns).items()},
        "where": list(where),
        "image_size": image_size,
        "min_tokens": MIN_TOKENS,
        "max_failures": max_failures,
        "split": "given" if split_column else shares,
        "versions": versions(),
    }
    read = partial(read_content, images, image_size=image_size, min_tokens=MIN_TOKENS)
    with CorpusWriter(out, image_size=image_size, settings=settings) as writer:
        files = _SeenFiles()
        _check_failures(audit, max_failures)
        contents = _read_all(read, plans, workers or os.cpu_count() or 1)
        for plan, content in track(zip(plans, contents, strict=True), "reading", len(plans), transient=True):
            if pair := _finish_pair(plan, content, audit):
                files.add(pair)
                writer.add(pair)
            _check_failures(audit, max_failures)
        if not files:
            raise InputError(f"no pair of {source.name} is left; rows dropped: {audit.summary()}")
        audit.notes += files.notes()
        writer.audit = audit.to_json()
    _print(audit, Corpus.open(out))
    return out


def _check_options(images: Path, image_size: int, max_failures: float, workers: int | None) -> None:
    if not images.is_dir():
        raise InputError(f"{images} is no folder; --images names the folder that image paths start from")
    if image_size < 16:
        raise InputError(f"image_size must be at least 16, got {image_size}")
    if not 0 <= max_failures <= 1:
        raise InputError(f"max_failures is a share between 0 and 1, got {max_failures}")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")


def _text_columns(text_column: str, table: Table) -> tuple[str, ...]:
    if text_column in table.frame.columns:
        return (text_column,)
    return tuple(name.strip() for name in text_column.split(","))


def _check_failures(audit: Audit, max_failures: float) -> None:
    if audit.failures > max_failures * audit.considered:
        raise InputError(
            f"{audit.failures} of {audit.considered} rows cannot be used, more than max_failures = {max_failures:g}; "
            f"nothing was written; first: {audit.first_failure}; correct the rows or raise --max-failures"
        )


def _finish_pair(plan: PairPlan, content: PairContent, audit: Audit) -> Pair | None:
    """Enter a pair's rows in the audit; return the pair, or None if nothing of it is left."""
    if not content.images:
        reason = "text shorter than 3 tokens" if plan.text else "no text"
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


def _read_all(read: partial[PairContent], plans: list[PairPlan], workers: int) -> Iterator[PairContent]:
    """Yield the content of each plan, in order; what is yielded does not depend on the number of workers."""
    if workers == 1 or len(plans) < _WORTH_WORKERS:
        yield from map(read, plans)
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


def _read_chunk(read: partial[PairContent], plans: list[PairPlan]) -> list[PairContent]:
    return [read(plan) for plan in plans]


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
