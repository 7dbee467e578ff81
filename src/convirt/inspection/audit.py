"""The whole audit of a collection, alone or beside another, and the pictures of its page."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from convirt.data.records import Pair
from convirt.inspection import findings as f
from convirt.inspection.collections import Collection, CorpusRows, Integrity, tell
from convirt.inspection.findings import describe_between
from convirt.inspection.leakage import Between, Within, image_reader, look_between, look_within
from convirt.inspection.naming import Comparison, check_salt_from, compare_naming, known_salts
from convirt.inspection.page import SHOWN, alike_images, sample_rows
from convirt.inspection.survey import Survey, take_survey
from convirt.inspection.verdicts import judge_between, judge_within
from convirt.versions import versions

FORMAT = 1
"""Of `inspect.json`."""


def compare(
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


def audit_collections(
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
