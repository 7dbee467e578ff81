"""What all public data sets share: their images, the rows that make a pair, held-out pairs, and the corpus.

`plan_pairs` plans from a hospital's own table; here the layout is known beforehand: the folder of a study gives its
images, a listing of texts gives its report (ConVIRT, section 3.1: a pair is a report and all images of its study).
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import track

from convirt.data.imaging.pixels import Unreadable
from convirt.data.preparing.audit import SPELLINGS, Audit
from convirt.data.preparing.options import Options
from convirt.data.preparing.pairs import PairContent, PairPlan, Read, Row, is_usable, make_content, read_image
from convirt.data.sources.counts import Comparison, Figure, compare, notes, to_table
from convirt.data.sources.texts import Place
from convirt.data.splits import canonical_id, respelt, split_by_patient
from convirt.errors import InputError

T = TypeVar("T")
_NO_LABELS: Mapping[str, Mapping[str, str]] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan(PairPlan):
    """A planned pair whose text stays in its file until a worker reads it."""

    place: Place
    """Where the text lies, as `texts.py` or `rows.py` understand it."""


class Texts(Protocol):
    """Gives the text at a place (or its Findings and Impression): `ZipTexts`, `FolderTexts`, the rows of a table."""

    def read(self, place: Place) -> str | tuple[str, str]:
        """Return the text; `Unreadable` sets the pair aside."""


def check_places(root: Path, out: Path, data_set: str) -> tuple[Path, Path]:
    """Return the folder of a data set and that of the corpus, if the one can be read and the other written.

    Raises:
        InputError: `root` is not a folder, or `out` is taken.
    """
    from convirt.data.preparing.unfinished import check_out

    root, out = Path(root), Path(out)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; --root names the folder of {data_set}")
    check_out(out)
    return root, out


def prepare_studies(
    plans: Sequence[PairPlan],
    read: Read,
    out: Path,
    *,
    options: Options,
    settings: dict[str, Any],
    audit: Audit,
    salt: str = "",
    figures: Sequence[Figure] = (),
    listed: Mapping[str, float] | None = None,
) -> Path:
    """Do what `prepare_corpus` does, and set its counts and those of `listed` beside the published `figures`.

    Every count that differs is a note of the audit; all of them are printed as a table.
    """
    from convirt.data.preparing.prepare import prepare_corpus

    compared: list[Comparison] = []

    def conclude(final: Mapping[str, int]) -> list[str]:
        compared[:] = compare(figures, {**(listed or {}), **final})
        return notes(compared)

    prepare_corpus(plans, read, out, options=options, settings=settings, audit=audit, salt=salt, conclude=conclude)
    if compared:
        Console().print(to_table(compared))
    return out


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
    """Finds images by listing the folder of a study once; a path outside the root is never given."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = os.path.realpath(root)
        self._names = lru_cache(maxsize=256)(self._list)  # the rows of a study stand close together

    def find(self, folder: str, stem: str, suffixes: Sequence[str]) -> str | None:
        """Return the path, relative to the root, of the first `stem + suffix` that exists, or None.

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
        """Return the names of the folders in `folder`, in order, without links that lead out of the root."""
        try:
            with os.scandir(os.path.join(self.root, folder)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() and self._is_ours(entry))
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
                    if entry.is_file() and self._is_ours(entry):
                        stem, suffix = os.path.splitext(entry.name)
                        names[stem + suffix.lower()] = entry.name
        except (OSError, ValueError):
            return names
        return names

    def _is_ours(self, entry: os.DirEntry[str]) -> bool:
        return not entry.is_symlink() or self._holds(entry.path)

    def _holds(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip(os.sep) + os.sep)


def plan_studies(
    rows: Iterable[Row],
    audit: Audit,
    *,
    places: Mapping[str, Place] | None = None,
    labels: Mapping[str, Mapping[str, str]] = _NO_LABELS,
) -> list[PairPlan]:
    """Make one pair of all rows of a study.

    Its attributes are those of its first row, the views of all rows as `view`, and its labels.

    Args:
        rows: Usable rows; `study` names the pair and is unique among all patients.
        audit: Receives rows without a patient, with another one than their study has, or with the same image twice.
        places: Where the text of each study lies, of every study; looked up after the last row. None: its first row
            holds it.
        labels: Further attributes of studies.

    Returns:
        The pairs in the order of their first rows, each in the split of its first row.
    """
    studies: dict[str, dict[str, Row]] = {}
    for row in rows:
        if not row.patient:
            audit.drop(row.number, "no patient", image=row.image, failure=True)
            continue
        images = studies.setdefault(row.study, {row.source: row})
        first = next(iter(images.values()))
        if canonical_id(first.patient) != canonical_id(row.patient):
            detail = f"the patient of row {first.number} is another"
            audit.drop(row.number, "study of two patients", image=row.image, detail=detail, failure=True)
        elif (same := images.setdefault(row.source, row)) is not row:
            detail = f"first in row {same.number}"
            audit.drop(row.number, "same image twice in one pair", image=row.image, detail=detail)
        elif first.patient != row.patient:
            audit.respell(row.number, first.number, image=row.image)
    plans: list[PairPlan] = []
    for study, images in studies.items():
        first, *_ = members = tuple(images.values())
        view = joined_views(members)
        attributes = {**first.attributes, **({"view": view} if view else {}), **labels.get(study, {})}
        common: dict[str, Any] = {
            "pair_id": study,
            "patient": first.patient,
            "split": first.split,
            "rows": members,
            "attributes": attributes,
        }
        if places is None:
            plans.append(PairPlan(text=first.text, **common))
        else:
            plans.append(StudyPlan(text="", place=places[study], **common))
    return plans


def progress(items: Iterable[T], what: str) -> Iterable[T]:
    """Pass items through, with a moving bar on standard error; their number is not known."""
    return track(items, what, console=Console(stderr=True), transient=True)


def joined_views(rows: Sequence[Row]) -> str:
    """Return the distinct views of a study, as `PA; LATERAL`."""
    return "; ".join(dict.fromkeys(row.view for row in rows if row.view))


def deal_patients(plans: Sequence[PairPlan], shares: Mapping[str, Any], audit: Audit) -> list[PairPlan]:
    """Return the pairs in the splits of their patients, who are dealt out by `split_by_patient`.

    A patient whose id is spelt in several ways (1001 and 1001.0) is one patient under one of them.

    Args:
        plans: The pairs, in any split.
        shares: `seed`, `val_share` and `test_share`.
        audit: Receives the rows under another spelling.
    """
    if taken := respelt(plan.patient for plan in plans):
        first = {plan.patient: plan.rows[0].number for plan in reversed(plans)}
        for plan in plans:
            if (patient := taken.get(plan.patient)) is not None:
                for row in plan.rows:
                    audit.respell(row.number, first[patient], image=row.image)
        audit.notes.append(f"{len(set(taken.values()))} {SPELLINGS}")
        plans = [replace(plan, patient=taken.get(plan.patient, plan.patient)) for plan in plans]
    splits = split_by_patient((plan.patient for plan in plans), **shares)
    return [replace(plan, split=splits[plan.patient]) for plan in plans]


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
