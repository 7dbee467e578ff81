"""`convirt inspect`: what a corpus holds, what leaks from split to split, and what it shares with another."""

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from convirt.atomic import atomic_file
from convirt.data.records import Pair
from convirt.errors import InputError
from convirt.inspection import findings as f
from convirt.inspection.collections import Collection, Columns, CorpusRows, Integrity, open_collection, tell
from convirt.inspection.findings import describe_between
from convirt.inspection.leakage import Between, Within, image_reader, look_between, look_within
from convirt.inspection.naming import Comparison, check_salt_from, compare_naming, known_salts
from convirt.inspection.page import SHOWN, alike_images, print_audit, render, sample_rows
from convirt.inspection.survey import Survey, take_survey
from convirt.inspection.verdicts import judge_between, judge_within
from convirt.versions import versions

FORMAT = 1
LEAKAGE = 1
"""Exit status of `--strict` after leakage."""
UNCHECKED = 3
"""Exit status of `--strict` if none was found, but patients could not be compared."""
DAMAGED = 4
"""Exit status of `--strict` if a corpus does not hold what it was written with: then nothing else counts."""


def inspect(
    corpus: Path,
    *,
    against: Path | None = None,
    out: Path | None = None,
    no_images: bool = False,
    strict: bool = False,
    images: Path | None = None,
    against_images: Path | None = None,
    image_column: str = "image",
    patient_column: str | None = None,
    split_column: str | None = None,
    text_column: str | None = None,
    distinct_patients: bool = False,
    salt_from: Path | None = None,
) -> Path:
    """Audit a corpus, a benchmark folder or a labelled table; with --against, also find what it shares with another.

    Prints a summary and writes inspect.html, one page that fetches nothing, and inspect.json. Looked for: patients,
    source files, identical and near-duplicate images across splits (or on both sides); repeated reports and sentences;
    identifiers left in reports; whether a corpus has the fingerprint that it was written with. The last line is a
    verdict; the exit status is 0 whatever it says, unless --strict.

    Between the two, the first is what a network is pretrained on and --against what it is tested on: what leads from
    train into val or test, or from val into test, is leakage. What lies in train of both is counted by split and judged
    harmless, as is the first one's test. A side without splits counts whole; splits of other names do too.

    Args:
        corpus: Prepared corpus, benchmark folder, or CSV or Parquet table.
        against: Another one; what the two share is leakage from one to the other.
        out: Folder for inspect.html and inspect.json; by default CORPUS-inspect beside the corpus.
        no_images: Give counts and row numbers only: no pixels, no report text, no ids, no file names, so that the page
            and the file may leave the house.
        strict: For scripts: exit with status 1 if there is leakage, and with 3 if none was found but patients could not
            be compared. Equal reports alone are no leakage. Before either, status 4 says that a corpus is damaged: its
            content has not the fingerprint that it was written with.
        images: Folder that the image paths of a table start from; a benchmark knows its own.
        against_images: The same for --against.
        image_column: Column of a table with the path of the image.
        patient_column: Column of a table with the patient.
        split_column: Column of a table with the split.
        text_column: Column of a table with the report.
        distinct_patients: The two sides are of different people (two archives that both count from 1): do not compare
            their ids, and do not miss it.
        salt_from: Table that a corpus with hashed ids was prepared from (without CONVIRT_SALT): plain ids of the other
            side are hashed alike and compared. Not needed if the other side is that table or a benchmark built of it.

    Returns:
        The page.

    Raises:
        InputError: Nothing to inspect there, not one image can be read, --salt-from is not the table of the corpus, or
            the folder cannot be written.
    """
    columns = Columns(image=image_column, patient=patient_column, split=split_column, text=text_column)
    collection = open_collection(corpus, images, columns)
    size = collection.about.get("image_size")
    other = open_collection(against, against_images or images, columns, size) if against else None
    comparison = _compare(collection, other, distinct_patients, salt_from)
    folder = _prepare_folder(Path(out) if out else Path(f"{os.path.abspath(corpus)}-inspect"))
    audit, gallery = _audit(collection, other, Path(corpus), not no_images, comparison)
    page = folder / "inspect.html"
    _write(page, render(audit, gallery))
    _write(folder / "inspect.json", json.dumps(audit, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    print_audit(audit, page)
    sides = [audit, *([audit["against"]] if other else [])]
    if strict and any(side["integrity"] and not side["integrity"]["intact"] for side in sides):
        raise SystemExit(DAMAGED)
    for failure, status in (("leak", LEAKAGE), ("unchecked", UNCHECKED)):
        if strict and any(side["verdict"][failure] for side in sides):
            raise SystemExit(status)
    return page


def _compare(
    collection: Collection, other: Collection | None, distinct_patients: bool, salt_from: Path | None
) -> Comparison:
    """Decide how patients are compared, before the work."""
    sides = [side.naming for side in (collection, other) if side]
    salts = known_salts(salt_from, *sides)
    check_salt_from(salt_from, salts, *sides)
    if other is None:
        return Comparison(possible=False, note="")
    if distinct_patients:
        return Comparison(possible=False, note="ids of the two sides name different people", declined=True)
    return compare_naming(collection.naming, other.naming, salts)


def _audit(
    collection: Collection, other: Collection | None, path: Path, show: bool, comparison: Comparison
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the audit, and the pictures for its page."""
    survey = _survey(collection, comparison.hash_first)
    within = look_within(survey, collection)
    audit: dict[str, Any] = {
        "format": FORMAT,
        "versions": versions(),
        "name": collection.name if show else "",
        "about": collection.about,
        "shows_data": show,
        "unreadable": collection.unreadable,
        "integrity": tell(survey.integrity, show),
        "splits": f.count_splits(survey),
        "source": f.read_audit(path, show),
        "images_per_pair": f.distribution(survey.column("images_R")),
        "sentences_per_pair": f.distribution(survey.column("sentences_R")),
        "tokens_per_sentence": f.token_bands(survey.tokens),
        **f.describe_people(survey),
        "pixels": f.describe_images(survey),
        "within": f.describe_within(within, survey),
        "sentences": f.describe_sentences(survey, collection, show),
        "identifiers": f.describe_identifiers(survey, show),
    }
    audit["verdict"] = judge_within(within, survey, collection)
    gallery: dict[str, Any] = {"sample": [], "within": [], "between": []}
    if show:
        gallery["sample"] = sample_rows(collection)
        gallery["within"] = _within_pictures(within, survey, collection)
    if other is not None:
        second = _survey(other, comparison.hash_second)
        between = look_between(survey, collection, second, other, patients=comparison.possible)
        audit["against"] = {
            "name": other.name if show else "",
            "about": other.about,
            "unreadable": other.unreadable,
            "integrity": tell(second.integrity, show),
            "splits": f.count_splits(second),
            "patients_note": comparison.note,
            **describe_between(between, survey, second),
            "verdict": judge_between(between, comparison, (survey, second), (collection, other)),
        }
        if show:
            gallery["between"] = _between_pictures(between, survey, collection, second, other)
    return audit, gallery


def _survey(collection: Collection, identities: Any) -> Survey:
    def follow(rows: Iterable[Pair], count: int) -> Iterable[Pair]:
        return track(rows, f"reading {collection.name}", count, transient=True)

    rename = (lambda name: identities.of("patient", name)) if identities else None
    integrity = Integrity(collection.corpus) if isinstance(collection, CorpusRows) else None
    return take_survey(collection, rename=rename, integrity=integrity, follow=follow)


def _within_pictures(within: Within, survey: Survey, collection: Collection) -> list[dict[str, Any]]:
    """Alike images of a collection: identical ones of different splits or patients, then near-duplicates."""
    read = image_reader(collection, survey)
    row_I, split_R = survey.column("row_I"), survey.column("split_R")

    def where(place: int) -> str:
        row = int(row_I[place])
        return f"row {row}" + (f", {survey.splits[split_R[row]]}" if len(survey.splits) > 1 else "")

    same = np.array([members[:2] for members in within.pixels.members[: SHOWN // 2]], np.int64).reshape(-1, 2)
    order = np.lexsort((-within.near.likeness_P, ~within.near_across))
    near = within.near.pairs_P2[order][: SHOWN - len(same)]
    captions = [f"same pixels: {where(a)} and {where(b)}" for a, b in same]
    captions += [
        f"near-duplicate, {within.near.likeness_P[number]:.2f}: {where(a)} and {where(b)}"
        for number, (a, b) in zip(order, near, strict=False)
    ]
    doubtful = within.near.doubtful_P2[np.argsort(~within.doubtful_across, kind="stable")]
    captions += [f"look-alike: {where(a)} and {where(b)}" for a, b in doubtful[:SHOWN]]
    return alike_images(np.concatenate([same, near, doubtful]), (read, read), captions)


def _between_pictures(
    between: Between, first: Survey, collection: Collection, second: Survey, other: Collection
) -> list[dict[str, Any]]:
    """Images that the two collections share, identical ones first."""
    same = between.pixels.pairs_P2[: SHOWN // 2]
    order = np.argsort(-between.near.likeness_P, kind="stable")
    near = between.near.pairs_P2[order][: SHOWN - len(same)]
    captions = ["same pixels"] * len(same)
    captions += [f"near-duplicate, {score:.2f}" for score in between.near.likeness_P[order]]
    pairs = np.concatenate([same, near])
    rows, others = first.column("row_I"), second.column("row_I")
    captions = [
        f"{caption}: row {rows[a]} and row {others[b]} of the other"
        for caption, (a, b) in zip(captions, pairs, strict=False)
    ]
    return alike_images(pairs, (image_reader(collection, first), image_reader(other, second)), captions)


def _prepare_folder(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give --out a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror or error}); give another --out") from error
    return folder


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))
