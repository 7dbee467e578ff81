"""Studies of public data sets: where their images lie, which rows make a pair, and which pairs are held out.

What `plan_pairs` does for a table of a hospital's own, these functions do for layouts that are known beforehand: the
folder of a study gives its images, a listing of texts gives its report (ConVIRT, section 3.1: a pair is a report and
all images of its study).
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import track

from convirt.data.imaging.pixels import Unreadable
from convirt.data.preparing.audit import Audit
from convirt.data.preparing.options import Options
from convirt.data.preparing.pairs import PairContent, PairPlan, Read, Row, is_usable, make_content, read_image
from convirt.data.sources.texts import Place
from convirt.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan(PairPlan):
    """A pair to be whose text stays in its file until a worker reads it."""

    place: Place
    """Where the text lies, as `texts.py` or `rows.py` understand it."""


@dataclass(kw_only=True)
class Listing:
    """What the table of a data set lists, filters aside, for comparison with published counts."""

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


class Texts(Protocol):
    """Gives the text at a place (or its Findings and Impression): `ZipTexts`, `FolderTexts`, the rows of a table."""

    def read(self, place: Place) -> str | tuple[str, str]: ...


def read_study(root: Path, texts: Texts, options: Options, plan: PairPlan) -> PairContent:
    """Read the text of a planned study from its place, and its images from below `root`."""
    assert isinstance(plan, StudyPlan)
    return make_content(plan, texts.read(plan.place), partial(read_image, root, options), options)


def find_file(root: Path, *patterns: str) -> Path | None:
    """Return the first file or folder of the root that fits one of the patterns, in their order.

    Raises:
        InputError: It is a link that leads out of the root.
    """
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if not path.resolve().is_relative_to(root.resolve()):
                raise InputError(f"{path} is a link that leads out of {root}; put the file itself there, or name it")
            return path
    return None


class ImageFolders:
    """Finds images by listing the folder of a study once; nothing outside the root is ever named."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = os.path.realpath(root)
        self._names = lru_cache(maxsize=256)(self._list)  # the rows of a study stand close together

    def find(self, folder: str, stem: str, suffixes: Sequence[str]) -> str | None:
        """Return the path, relative to the root, of the first `stem + suffix` there is, or None.

        Args:
            folder: Folder relative to the root.
            stem: File name without its extension.
            suffixes: Extensions in the order of preference, small letters.
        """
        names = self._names(folder)
        for suffix in suffixes:
            if (name := names.get(f"{stem}{suffix}")) is not None:
                return f"{folder}/{name}" if folder else name
        return None

    def subfolders(self, folder: str) -> list[str]:
        """Return the names of the folders in `folder`, in order; none that a link leads out of the root to."""
        try:
            with os.scandir(os.path.join(self.root, folder)) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if entry.is_dir() and (not entry.is_symlink() or self._holds(entry.path))
                )
        except OSError:
            return []

    def _list(self, folder: str) -> Mapping[str, str]:
        """Map the names of files, their extension in small letters, to the names as they are."""
        path = os.path.join(self.root, folder)
        names: dict[str, str] = {}
        try:
            if not self._holds(path):
                return names
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_file() and (not entry.is_symlink() or self._holds(entry.path)):
                        stem, suffix = os.path.splitext(entry.name)
                        names[stem + suffix.lower()] = entry.name
        except (OSError, ValueError):
            return names
        return names

    def _holds(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip(os.sep) + os.sep)


def plan_studies(
    rows: Iterable[Row],
    places: Callable[[Row], Place],
    audit: Audit,
    *,
    attributes: Callable[[Sequence[Row]], dict[str, str]],
) -> list[PairPlan]:
    """Make one pair of all rows of a study.

    Args:
        rows: Usable rows with their split; `study` names the pair and is unique among all patients.
        places: Where the text of a study lies, from its first row.
        audit: Receives rows that name the same image twice, or another patient than their study has.
        attributes: What to keep with a pair, from its rows.

    Returns:
        The pairs in the order of their first rows.
    """
    studies: dict[str, dict[str, Row]] = {}
    for row in rows:
        images = studies.setdefault(row.study, {row.source: row})
        first = next(iter(images.values()))
        if first.patient != row.patient:
            detail = f"the patient of row {first.number} is another"
            audit.drop(row.number, "study of two patients", image=row.image, detail=detail, failure=True)
        elif (same := images.setdefault(row.source, row)) is not row:
            detail = f"first in row {same.number}"
            audit.drop(row.number, "same image twice in one pair", image=row.image, detail=detail)
    plans: list[PairPlan] = []
    for study, images in studies.items():
        members = tuple(images.values())
        plans.append(
            StudyPlan(
                pair_id=study,
                patient=members[0].patient,
                split=members[0].split,
                rows=members,
                text="",
                attributes=attributes(members),
                place=places(members[0]),
            )
        )
    return plans


def progress(items: Iterable[T], what: str) -> Iterable[T]:
    """Pass items through, with a bar on standard error while they do; not how many, which is not known."""
    return track(items, what, console=Console(stderr=True), transient=True)


def joined_views(rows: Sequence[Row]) -> str:
    """Return the distinct views of a study, as `PA; LATERAL`."""
    return "; ".join(dict.fromkeys(row.view for row in rows if row.view))


def hold_out_pairs(plans: Sequence[PairPlan], number: int, read: Read, options: Options) -> list[PairPlan]:
    """Put `number` random pairs in `val` and all others in `train`, whoever their patients are (ConVIRT, appendix A).

    Pairs are ranked by a hash of seed and id; those whose text cannot be kept are passed over, so that
    exactly `number` are left after them. Only the texts of the drawn pairs are read.
    """
    ranked = sorted(plans, key=lambda plan: _rank("validation pairs", options.seed, plan.pair_id))
    chosen = set(islice((plan.pair_id for plan in ranked if _has_text(plan, read, options)), number))
    _check_number(len(chosen), number, len(plans))
    return [replace(plan, split="val" if plan.pair_id in chosen else "train") for plan in plans]


def hold_out_patients(plans: Sequence[PairPlan], number: int, read: Read, options: Options) -> list[PairPlan]:
    """Put random patients with `number` usable pairs together in `val` and all others in `train`.

    A patient who would make them more than `number` is passed over.
    """
    patients: dict[str, list[PairPlan]] = {}
    for plan in plans:
        patients.setdefault(plan.patient, []).append(plan)
    chosen: set[str] = set()
    left = number
    for patient in sorted(patients, key=lambda name: _rank("validation patients", options.seed, name)):
        if not left:
            break
        usable = sum(_has_text(plan, read, options) for plan in patients[patient])
        if 0 < usable <= left:
            left -= usable
            chosen.add(patient)
    _check_number(number - left, number, len(plans))
    return [replace(plan, split="val" if plan.patient in chosen else "train") for plan in plans]


def shared_patients(plans: Sequence[PairPlan]) -> int:
    """Return how many patients have pairs in more than one split."""
    splits: dict[str, set[str]] = {}
    for plan in plans:
        splits.setdefault(plan.patient, set()).add(plan.split)
    return sum(len(names) > 1 for names in splits.values())


def _rank(purpose: str, seed: int, name: str) -> bytes:
    return sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()


def _has_text(plan: PairPlan, read: Read, options: Options) -> bool:
    try:
        return is_usable(read(replace(plan, rows=())).report, options)
    except Unreadable:
        return False


def _check_number(found: int, number: int, pairs: int) -> None:
    if found < number or number >= pairs:
        raise InputError(
            f"{number} validation pairs cannot be drawn from {pairs} pairs and leave some to train on; "
            "lower --val-pairs, or choose --split official"
        )
