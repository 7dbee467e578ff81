"""`convirt prepare mimic-cxr`: MIMIC-CXR-JPG 2.0.0 with the reports of MIMIC-CXR (ConVIRT, section 3.1, appendix A).

    ROOT/mimic-cxr-2.0.0-metadata.csv.gz      one row an image: dicom_id, subject_id, study_id, ViewPosition ...
    ROOT/mimic-cxr-2.0.0-split.csv.gz         dicom_id, study_id, subject_id, split; needed for the official split
    ROOT/mimic-cxr-2.0.0-chexpert.csv.gz      labels of each study, if wanted
    ROOT/files/p10/p10000032/s50414267/<dicom_id>.jpg
    ROOT/mimic-cxr-reports.zip                files/p10/p10000032/s50414267.txt; or the same unpacked

Every table may be unpacked (.csv). Where the .jpg of an image is missing, its .dcm of MIMIC-CXR is taken;
without the metadata, `cxr-record-list.csv.gz` of that data set lists the images, and their views stay unknown.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from convirt.data.preparing.audit import EXCLUDED, Audit
from convirt.data.preparing.identities import table_mark
from convirt.data.preparing.options import DEFAULTS, SharedOptions
from convirt.data.preparing.pairs import PairPlan, Row
from convirt.data.sources.counts import PAPER, Figure, Listing
from convirt.data.sources.rows import StreamedTable
from convirt.data.sources.studies import (
    ImageFolders,
    check_places,
    find_file,
    hold_out_pairs,
    hold_out_patients,
    plan_studies,
    prepare_studies,
    progress,
    read_study,
    shared_patients,
)
from convirt.data.sources.texts import FolderTexts, Place, ZipTexts
from convirt.data.splits import check_patients, given_split
from convirt.errors import InputError
from convirt.wording import clip

_RELEASE = "MIMIC-CXR-JPG 2.0.0"
FIGURES = (
    Figure(what="images listed", count="listed_images", published=377_110, source=_RELEASE),
    Figure(what="studies listed", count="listed_studies", published=227_835, source=_RELEASE),
    Figure(what="patients listed", count="listed_patients", published=65_379, source=_RELEASE),
    Figure(what="reports", count="reports", published=227_835, source="MIMIC-CXR 2.0.0"),
    Figure(what="pairs", count="pairs", published=217_000, source=PAPER, about=0.0025),
    Figure(what="images a pair", count="images/pairs", published=1.7, source=PAPER, about=0.03),
    Figure(what="sentences a pair", count="sentences/pairs", published=6.0, source=PAPER, about=0.0085),
)
OFFICIAL = (
    Figure(what="images listed for train", count="listed_train", published=368_960, source=_RELEASE),
    Figure(what="images listed for val", count="listed_val", published=2_991, source=_RELEASE),
    Figure(what="images listed for test", count="listed_test", published=5_159, source=_RELEASE),
)
PAPER_SPLIT = (Figure(what="validation pairs", count="pairs_val", published=5_000, source="ConVIRT, appendix A"),)

_LEVELS = ("files", "p[0-9]{2}", "p[0-9]{8}", r"s(?P<study>[0-9]{8})\.txt")
_IDS = re.compile(r"[0-9A-Za-z]([0-9A-Za-z-]|\.(?!\.)){0,80} [0-9]{8} [0-9]{8}")
_SUFFIXES = (".jpg", ".jpeg", ".dcm")
_METADATA = ("mimic-cxr-*-metadata.csv", "mimic-cxr-*-metadata.csv.gz")
_RECORDS = ("cxr-record-list.csv", "cxr-record-list.csv.gz")

MIMIC_DEFAULTS = replace(DEFAULTS, unsectioned="drop")
NOTHING: Mapping[str, dict[str, str]] = {}
Split = Literal["official", "paper", "patient"]


def prepare_mimic_cxr(
    root: Path,
    out: Path,
    *,
    reports: Path | None = None,
    split: Split = "official",
    val_pairs: int = 5000,
    where: Sequence[str] = (),
    labels: Literal["none", "chexpert", "negbio"] = "none",
    patients: Path | None = None,
    options: SharedOptions = MIMIC_DEFAULTS,
) -> Path:
    """Turn MIMIC-CXR-JPG 2.0.0 and the reports of MIMIC-CXR into a prepared corpus: a pair is a study.

    The corpus keeps the paths of the images, which hold the ids of patients and studies, unless --sources hashed.

    Args:
        root: Folder of MIMIC-CXR-JPG: the tables `mimic-cxr-2.0.0-*.csv.gz` (or .csv) and `files/`.
        out: Folder to write the corpus to; it must not exist yet, or be empty.
        reports: `mimic-cxr-reports.zip`, or the folder it was unpacked to; default: looked for in the root.
        split: `official` (train, validate, test of the data set), `paper` (random pairs for validation, whoever their
            patients are), or `patient` (as many pairs of random patients, none of whom is in train).
        val_pairs: How many pairs `paper` and `patient` hold out for validation.
        where: Filters `column=value1,value2` on the metadata, for example `ViewPosition=PA,AP`; default: all views.
        labels: Labels of the study to keep with each pair.
        patients: `patients.csv.gz` of MIMIC-IV, which knows sex and age of the same patients.
        options: What all sources share; reports with neither Findings nor Impression are dropped, as in the paper.

    Returns:
        The corpus folder.

    Raises:
        InputError: A table, folder, archive or option that cannot be used, or too many unusable rows; nothing is
            written then.
    """
    root, out = check_places(root, out, "MIMIC-CXR-JPG")
    table = image_table(root, where, dated=patients is not None)
    texts = find_reports(root, reports)
    read = partial(read_study, root, texts, options)
    audit = Audit(table=table.name, total=0)
    plans, listed = plan_mimic_cxr(
        root,
        table,
        texts,
        audit,
        known=Demographics(Path(patients) if patients is not None else None),
        splits=official_splits(root) if split == "official" else None,
        labels=study_labels(root, labels),
    )
    if split != "official":
        draw = hold_out_pairs if split == "paper" else hold_out_patients
        plans = draw(plans, val_pairs, read, options)
        audit.notes.append(f"split {split}: {shared_patients(plans)} patients have pairs both in train and in val")
    settings = {
        "source": "mimic-cxr",
        "table": {"name": table.name, "mark": table_mark(table.sha256)},
        "reports": texts.path.name,
        "where": list(where),
        "labels": labels,
        "demographics": patients is not None,
        "split": split if split == "official" else {"kind": split, "seed": options.seed, "val_pairs": val_pairs},
    }
    return prepare_studies(
        plans,
        read,
        out,
        options=options,
        settings=settings,
        audit=audit,
        salt=table.sha256,
        figures=(*FIGURES, *(OFFICIAL if split == "official" else PAPER_SPLIT)),
        listed=listed,
    )


def find_reports(root: Path, reports: Path | None) -> ZipTexts | FolderTexts:
    """Return where the reports are: as the user says, else an archive or folder of the usual name in the root.

    Raises:
        InputError: There is nothing of the kind.
    """
    if reports is not None and not Path(reports).exists():
        raise InputError(
            f"--reports {reports} does not exist; give the path of mimic-cxr-reports.zip, or of the folder that it was "
            "unpacked to"
        )
    found = Path(reports) if reports is not None else find_file(root, "mimic-cxr-reports.zip", "mimic-cxr-reports")
    if found is None:
        found = root
    if found.is_file():
        return ZipTexts(path=found, levels=_LEVELS[1:])
    for path, levels in ((found, _LEVELS), (found, _LEVELS[1:]), (found / "mimic-cxr-reports", _LEVELS)):
        texts = FolderTexts(path=path, levels=levels)
        if next(texts.listing(), None) is not None:
            return texts
    raise InputError(
        f"no reports in {found}: neither mimic-cxr-reports.zip nor files/p10/p10000032/s50414267.txt and the like; "
        "name the archive or folder with --reports"
    )


def image_table(root: Path, where: Sequence[str] = (), *, dated: bool = False) -> StreamedTable:
    """Open the table that lists the images.

    Args:
        root: Folder of the tables.
        where: Filters.
        dated: Whether the dates of the studies are needed.

    Raises:
        InputError: The root has no such table or no images, or the table lacks a column.
    """
    columns = ["dicom_id", "subject_id", "study_id"]
    if path := find_file(root, *_METADATA):
        table = StreamedTable(path, [*columns, "ViewPosition", *(["StudyDate"] if dated else [])], where=where)
    elif path := find_file(root, *_RECORDS):
        table = StreamedTable(path, columns, where=where)
    else:
        raise InputError(
            f"{root} has neither mimic-cxr-2.0.0-metadata.csv.gz nor cxr-record-list.csv.gz; {_other_root(root)}"
        )
    if not (root / "files").is_dir():
        raise InputError(f"{root} has no folder files/ with the images; put it beside {path.name}")
    return table


def _other_root(root: Path) -> str:
    """What to do about a root without the table of images: name the right folder, if the given one is near it."""
    for base, depth in ((root.resolve().parent, ""), (root, "*/"), (root, "*/*/")):
        for name in (*_METADATA, *_RECORDS):
            for found in sorted(base.glob(f"{depth}{name}")):
                return f"{found.name} is in {found.parent}: give --root {found.parent}"
    return "put the tables of MIMIC-CXR-JPG beside its folder files/"


def plan_mimic_cxr(
    root: Path,
    table: StreamedTable,
    texts: ZipTexts | FolderTexts,
    audit: Audit,
    *,
    splits: Mapping[str, str] | None,
    labels: Mapping[str, dict[str, str]] = NOTHING,
    known: "Demographics | None" = None,
) -> tuple[list[PairPlan], dict[str, float]]:
    """Decide which studies to prepare, and enter every other row of the table in the audit.

    Args:
        root: Folder of the images.
        table: The table of images.
        texts: The reports.
        audit: Receives dropped rows, the number of all rows, and notes.
        splits: Split of each patient; None: all pairs are in `train` for the time being.
        labels: Labels of the studies.
        known: Sex and age of the patients.

    Returns:
        The pairs, and what is listed, for the comparison with published counts.
    """
    places, doubled = _index(texts)
    listing = Listing()
    rows = list(_usable_rows(root, table, places, splits, audit, listing, known or Demographics(None)))
    if without := len(places.keys() - listing.studies):
        audit.notes.append(f"{without} reports are of studies without an image in {table.name}; they are left out")
    if doubled:
        audit.notes.append(f"{doubled} reports stand twice in {texts.path.name}; the last of each is taken")
    if dicom := sum(row.source.endswith(".dcm") for row in rows):
        audit.notes.append(f"{dicom} images are read from DICOM, for want of a .jpg")
    plans = plan_studies(rows, audit, places=places, labels=labels)
    return plans, {**listing.counts(), "reports": len(places)}


def _index(texts: ZipTexts | FolderTexts) -> tuple[dict[str, Place], int]:
    """Return the place of each study's report, `s50414267` -> place, and how many stand there twice."""
    places: dict[str, Place] = {}
    listed = 0
    for match, place in texts.listing():
        places[sys.intern(f"s{match['study']}")] = place
        listed += 1
    if not places:
        raise InputError(f"{texts.path} holds no report named like p10/p10000032/s50414267.txt; name another --reports")
    return places, listed - len(places)


def _usable_rows(
    root: Path,
    table: StreamedTable,
    places: Mapping[str, Place],
    splits: Mapping[str, str] | None,
    audit: Audit,
    listing: Listing,
    known: "Demographics",
) -> Iterator[Row]:
    """Yield the rows whose image, report and split are there; the others go to the audit."""
    folders = ImageFolders(root)
    for streamed in progress(table.fitting(audit), "listing images"):
        dicom, patient, study, view, date = (*streamed.cells, "", "")[:5]
        if not _IDS.fullmatch(f"{dicom} {patient} {study}"):
            quoted = clip(" ".join(streamed.cells), 80)
            audit.drop(streamed.number, "ids that are not MIMIC-CXR's", quoted=quoted, failure=True)
            continue
        folder = f"files/p{patient[:2]}/p{patient}/s{study}"
        row = Row(
            number=streamed.number,
            image=f"{folder}/{dicom}.jpg",
            source="",
            patient=sys.intern(f"p{patient}"),
            study=sys.intern(f"s{study}"),
            split="train" if splits is None else splits.get(f"p{patient}", ""),
            view=sys.intern(view),
            attributes=known.of(patient, date),
        )
        listing.add(row)
        if streamed.excluded:
            audit.drop(row.number, EXCLUDED, image=row.image)
        elif row.study not in places:
            audit.drop(row.number, "no report of the study", image=row.image, failure=True)
        elif not row.split:
            audit.drop(row.number, "no split given for the patient", image=row.image, failure=True)
        elif (source := folders.find(folder, dicom, _SUFFIXES)) is None:
            audit.drop(row.number, "image not found", image=row.image, failure=True)
        else:
            yield replace(row, image=source, source=source)


def official_splits(root: Path) -> dict[str, str]:
    """Return the split of each patient, `p10000032` -> `train`.

    Raises:
        InputError: The split table is missing, or a patient is in two splits.
    """
    path = find_file(root, "mimic-cxr-*-split.csv", "mimic-cxr-*-split.csv.gz")
    if path is None:
        raise InputError(f"{root} has no mimic-cxr-2.0.0-split.csv.gz; put it there, or choose --split paper")
    given = {row.cells for row in StreamedTable(path, ["subject_id", "split"]) if not row.problem}
    splits = [(f"p{patient}", given_split(name)) for patient, name in sorted(given)]
    check_patients(splits, remedy="choose --split patient")
    return dict(splits)


def study_labels(root: Path, name: str) -> dict[str, dict[str, str]]:
    """Return the labels of each study that has some, `s50414267` -> `{"Edema": "1.0"}`; none for the name `none`.

    Raises:
        InputError: The table is missing.
    """
    if name == "none":
        return {}
    path = find_file(root, f"mimic-cxr-*-{name}.csv", f"mimic-cxr-*-{name}.csv.gz")
    if path is None:
        raise InputError(f"{root} has no mimic-cxr-2.0.0-{name}.csv.gz; put it there, or leave --labels out")
    columns = [column for column in StreamedTable(path, ["study_id"]).header if not column.endswith("_id")]
    labels: dict[str, dict[str, str]] = {}
    for row in StreamedTable(path, ["study_id", *columns]):
        if not row.problem:
            study, *values = row.cells
            labels[f"s{study}"] = {name: value for name, value in zip(columns, values, strict=True) if value}
    return labels


class Demographics:
    """Sex and age of the patients, from the table `patients.csv.gz` of MIMIC-IV, which shares its patients' ids."""

    def __init__(self, path: Path | None) -> None:
        """Read the table; without one, nothing is known of anyone."""
        self._patients: dict[str, tuple[str, int | None]] = {}
        self._same: dict[tuple[str, ...], dict[str, str]] = {}  # few distinct ones: their memory is shared
        if path is None:
            return
        distinct: dict[tuple[str, int | None], tuple[str, int | None]] = {}
        for row in StreamedTable(path, ["subject_id", "gender", "anchor_age", "anchor_year"]):
            if not row.problem:
                patient, sex, age, year = row.cells
                known = (sex, int(age) - int(year) if age.isdecimal() and year.isdecimal() else None)
                self._patients[patient] = distinct.setdefault(known, known)

    def of(self, patient: str, date: str) -> Mapping[str, str]:
        """Return what is known: `sex`, and `age` in years in the year of a date such as `21800506`."""
        sex, offset = self._patients.get(patient, ("", None))
        year = date[:4]
        age = str(int(year) + offset) if offset is not None and year.isdecimal() else ""
        known = {"sex": sex, "age": age}
        return self._same.setdefault((sex, age), {name: value for name, value in known.items() if value})
