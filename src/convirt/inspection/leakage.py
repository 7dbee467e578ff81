"""What one split of a collection shares with another, and what a collection shares with a second one.

A verdict of leakage rests on patients and pictures. Equal or similar reports alone are no proof, since normal reports
repeat: they are counted and named, and left to the reader. Between two collections, what is shared is a leak if it
leads from what the first trains on into what the second tests on (`convirt.inspection.repeats`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convirt.data.records import ImageRecord
from convirt.inspection.collections import Collection
from convirt.inspection.near_images import NearImages, find_near_images
from convirt.inspection.near_texts import NearTexts, find_near_texts
from convirt.inspection.repeats import (
    Crossings,
    Items,
    Repeats,
    Shared,
    cross,
    find_repeats,
    find_shared,
    joins,
    patients_across,
    split_masks,
)
from convirt.inspection.survey import Survey

LONG = 12
"""Words from which on a report that is held by one patient a side is rarely the same by chance."""


def row_items(survey: Survey) -> Items:
    """Splits and patients of the rows."""
    return Items(split_N=survey.column("split_R"), patient_N=survey.column("patient_R"))


def image_reader(collection: Collection, survey: Survey) -> Callable[[int], ImageRecord]:
    """Return what reads an image of a collection again, by its place in the survey."""
    row_I = survey.column("row_I")

    def read(place: int) -> ImageRecord:
        row = int(row_I[place])
        first = int(np.searchsorted(row_I, row))
        return collection.row(row).images[place - first]

    return read


def text_reader(collection: Collection, survey: Survey) -> Callable[[int], str]:
    """Return what reads a distinct text again, by its place among them."""
    return lambda place: collection.row(int(survey.first_T[place])).text


def band_matrix(survey: Survey) -> np.ndarray:
    """The MinHash bands of the distinct texts, [B, T]."""
    count = len(survey.first_T)
    return survey.column("bands_TB").reshape(count, -1).T if count else np.empty((1, 0), np.uint32)


@dataclass(frozen=True, kw_only=True)
class Within:
    """Repetitions in a collection, and what they carry from split to split."""

    patients: int
    """Patients in more than one split."""
    patient_rows: list[np.ndarray]
    """Rows of the first of them."""
    files: Repeats
    """Same source file."""
    pixels: Repeats
    """Same prepared pixels."""
    near: NearImages
    near_across: np.ndarray
    """Whether each pair of `near` joins two splits."""
    near_patients: np.ndarray
    """Whether it joins two patients."""
    doubtful_across: np.ndarray
    """Whether each pair of look-alikes joins two splits."""
    texts: Repeats
    """Same words."""
    near_texts: NearTexts
    near_texts_across: int

    def reasons(self) -> list[str]:
        """What carries pictures or people from split to split."""
        found = [
            (self.patients, "patients in more than one split"),
            (self.files.across_splits, "source files in more than one split"),
            (self.pixels.across_splits, "pictures, pixel by pixel, in more than one split"),
            (int(self.near_across.sum()), "pairs of near-duplicate images across splits"),
        ]
        return [f"{count:,} {what}" for count, what in found if count]


def look_within(survey: Survey, collection: Collection) -> Within:
    """Find what repeats in a collection."""
    rows = row_items(survey)
    row_I = survey.column("row_I")
    images = rows.take(row_I)
    pixels_I = survey.column("pixels_I")
    near = find_near_images(survey.coarse, pixels_I, image_reader(collection, survey))
    masks_I = split_masks(pixels_I, images.split_N)
    first, second = near.pairs_P2.T
    patients, patient_rows = patients_across(rows)
    near_texts = find_near_texts(band_matrix(survey), text_reader(collection, survey))
    firsts_T = survey.column("first_T").astype(np.int64)
    masks_T = split_masks(survey.column("text_R"), rows.split_N)[firsts_T] if len(firsts_T) else np.empty(0, np.uint64)
    return Within(
        patients=patients,
        patient_rows=patient_rows,
        files=find_repeats(survey.column("source_I"), images),
        pixels=find_repeats(pixels_I, images),
        near=near,
        near_across=_joins_splits(masks_I[first], masks_I[second]),
        doubtful_across=_joins_splits(*(masks_I[side] for side in near.doubtful_P2.T)),
        near_patients=np.array([joins(images.take(pair))[1] for pair in near.pairs_P2], bool),
        texts=find_repeats(survey.column("text_R"), rows),
        near_texts=near_texts,
        near_texts_across=int(_joins_splits(*(masks_T[side] for side in near_texts.pairs_P2.T)).sum()),
    )


def _joins_splits(first_P: np.ndarray, second_P: np.ndarray) -> np.ndarray:
    """Whether two groups of items, of these splits each, have an item in different splits on either side."""
    both = first_P | second_P
    return (both & (both - np.uint64(1))) != 0  # more than one bit


@dataclass(frozen=True, kw_only=True)
class Between:
    """What two collections share."""

    patients: Shared | None
    """Each patient once; None if patients cannot be compared."""
    files: Shared
    pixels: Shared
    near: NearImages
    """Places in the first, and in the second after it."""
    near_shared: Shared
    texts: Shared
    telling: int
    """Rows of the second with the same report as a row of the first, long, and of one patient on either side."""
    near_texts: NearTexts
    crossings: dict[str, Crossings]
    """Shared items of each kind by the splits that they join."""
    splits: tuple[list[str], list[str]]
    """Names of the splits of the two."""

    def reasons(self) -> list[str]:
        """What the two share in pictures and people that leads from training into testing."""
        names = {
            "patients": "patients of the other side",
            "files": "images with the same source file",
            "pixels": "images with the same pixels",
            "near": "near-duplicate images",
        }
        found = [
            (self.crossings[kind].leaks(*self.splits), what) for kind, what in names.items() if kind in self.crossings
        ]
        return [f"{count:,} {what}" for count, what in found if count]

    def ways(self, kind: str) -> list[str]:
        """From where into where items of a kind leak, where splits have names."""
        cells = self.crossings[kind].by_split(*self.splits) if kind in self.crossings else []
        return [f"{cell['first'] or 'all'} into {cell['second'] or 'all'}" for cell in cells if _is_named_leak(cell)]

    def harmless(self) -> bool:
        """Whether they share something that is no leak."""
        return any(len(found.first_N) for kind, found in self.crossings.items() if kind != "texts")


def _is_named_leak(cell: dict[str, Any]) -> bool:
    return bool(cell["leak"] and (cell["first"] or cell["second"]))


class Joined:
    """Two memory-mapped arrays, one after the other."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, places: np.ndarray, /) -> np.ndarray:
        late = places >= len(self.first)
        values = np.empty((len(places), self.first.shape[1]), np.uint8)
        values[~late] = self.first[places[~late]]
        values[late] = self.second[places[late] - len(self.first)]
        return values


def look_between(
    first: Survey, collection: Collection, second: Survey, other: Collection, *, patients: bool
) -> Between:
    """Find what two collections share.

    Args:
        first: Survey of the collection at hand.
        collection: What it is of.
        second: Survey of the other one.
        other: What that is of.
        patients: Whether patient hashes of the two mean the same.
    """
    files, pixels, texts = (
        find_shared(first.column(name), second.column(name)) for name in ("source_I", "pixels_I", "text_R")
    )
    near = _near_between(first, collection, second, other)
    near_shared = Shared(
        pairs_P2=near.pairs_P2, first=len(np.unique(near.pairs_P2[:, 0])), second=len(np.unique(near.pairs_P2[:, 1]))
    )
    crossings = {
        "files": cross(files, _masks(first, "source_I"), _own_splits(second, "source_I")),
        "pixels": cross(pixels, _masks(first, "pixels_I"), _own_splits(second, "pixels_I")),
        "near": cross(near_shared, _masks(first, "pixels_I"), _masks(second, "pixels_I")),
        "texts": cross(texts, _masks(first, "text_R"), _own_splits(second, "text_R")),
    }
    shared = _shared_patients(first, second) if patients else None
    if shared:
        crossings["patients"] = cross(shared, _masks(first, "patient_R"), _masks(second, "patient_R"))
    return Between(
        patients=shared,
        files=files,
        pixels=pixels,
        near=near,
        near_shared=near_shared,
        texts=texts,
        telling=_telling(first, second, texts),
        near_texts=_near_texts_between(first, collection, second, other),
        crossings=crossings,
        splits=(first.splits, second.splits),
    )


def _splits_of(survey: Survey, name: str) -> np.ndarray:
    split_R = survey.column("split_R")
    return split_R[survey.column("row_I").astype(np.int64)] if name.endswith("_I") else split_R


def _masks(survey: Survey, name: str) -> np.ndarray:
    """The splits in which the key of each item occurs, as bits."""
    return split_masks(survey.column(name), _splits_of(survey, name))


def _own_splits(survey: Survey, name: str) -> np.ndarray:
    """The split of each item itself, as a bit."""
    return np.uint64(1) << _splits_of(survey, name).astype(np.uint64)


def _shared_patients(first: Survey, second: Survey) -> Shared:
    """The patients of both, each by its first row."""
    found = find_shared(first.column("patient_R"), second.column("patient_R"))
    _, once = np.unique(found.pairs_P2[:, 0], return_index=True)  # the first row there stands for the patient
    return Shared(pairs_P2=found.pairs_P2[np.sort(once)], first=len(once), second=len(once))


def _near_between(first: Survey, collection: Collection, second: Survey, other: Collection) -> NearImages:
    count = len(first.row_I)
    sides = np.repeat(np.array([0, 1], np.uint8), [count, len(second.row_I)])
    readers = image_reader(collection, first), image_reader(other, second)
    found = find_near_images(
        Joined(first.coarse, second.coarse),
        np.concatenate([first.column("pixels_I"), second.column("pixels_I")]),
        lambda place: readers[0](place) if place < count else readers[1](place - count),
        sides,
    )
    shift = np.array([0, count])
    moved = {"pairs_P2": found.pairs_P2 - shift, "doubtful_P2": found.doubtful_P2 - shift}
    return NearImages(**{**vars(found), **moved})


def _near_texts_between(first: Survey, collection: Collection, second: Survey, other: Collection) -> NearTexts:
    count = len(first.first_T)
    readers = text_reader(collection, first), text_reader(other, second)
    if not count or not len(second.first_T):
        return find_near_texts(np.empty((1, 0), np.uint32), readers[0])
    sides = np.repeat(np.array([0, 1], np.uint8), [count, len(second.first_T)])
    found = find_near_texts(
        np.concatenate([band_matrix(first), band_matrix(second)], axis=1),
        lambda place: readers[0](place) if place < count else readers[1](place - count),
        sides,
    )
    pairs_P2 = found.pairs_P2 - np.array([0, count])
    texts = [
        survey.column("text_R")[survey.column("first_T").astype(np.int64)[places]]
        for survey, places in zip((first, second), pairs_P2.T, strict=True)
    ]
    other_words = texts[0] != texts[1]  # the same words are counted as the same report
    changed = {"pairs_P2": pairs_P2[other_words], "alike_P": found.alike_P[other_words]}
    return NearTexts(**{**vars(found), **changed})


def _telling(first: Survey, second: Survey, texts: Shared) -> int:
    """Count shared reports that are long and, on either side, of a single row or patient."""
    single = []
    for survey in (first, second):
        text_R, patient_R = survey.column("text_R"), survey.column("patient_R")
        owner_R = np.where(patient_R == 0, np.arange(len(patient_R)).astype(np.uint64), patient_R)
        owned = np.unique(np.stack([text_R, owner_R]), axis=1)[0]
        values, counts = np.unique(owned, return_counts=True)
        single.append(values[counts == 1])
    place = texts.pairs_P2[:, 1]
    text_P = second.column("text_R")[place]
    long = second.column("words_R")[place] >= LONG
    return int((long & np.isin(text_P, single[0]) & np.isin(text_P, single[1])).sum())
