"""`convirt prepare chexpert-plus`: CheXpert Plus, the radiographs of CheXpert with their reports and demographics.

    ROOT/df_chexpert_plus_240401.csv          one row an image: path_to_image, path_to_dcm, report, section_* ...
    ROOT/PNG/train/patient42142/study5/view1_frontal.png

The table names the images `train/patient42142/study5/view1_frontal.jpg` whatever their format; here they are looked for
as .png, .jpg or .dcm, in the root or up to two folders below it (`PNG/PNG/`, `CheXpert-v1.0/` ...). Rows repeat the
report for each image of a study; it is read from its place in the table when its pair is prepared.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Literal

from convirt.data.imaging.pixels import Unreadable
from convirt.data.preparing.audit import EXCLUDED, Audit
from convirt.data.preparing.identities import table_mark
from convirt.data.preparing.options import DEFAULTS, SharedOptions
from convirt.data.preparing.pairs import PairPlan, Row
from convirt.data.sources.counts import Figure, Listing
from convirt.data.sources.rows import StreamedTable, read_cells
from convirt.data.sources.studies import (
    ImageFolders,
    check_places,
    deal_patients,
    find_file,
    plan_studies,
    prepare_studies,
    progress,
    read_study,
)
from convirt.data.sources.texts import Place
from convirt.data.splits import check_patients, given_split
from convirt.errors import InputError
from convirt.wording import says_nothing

_RELEASE = "CheXpert Plus"
FIGURES = (
    Figure(what="images listed", count="listed_images", published=223_462, source=_RELEASE),
    Figure(what="images listed for train", count="listed_train", published=223_228, source=_RELEASE),
    Figure(what="images listed for val", count="listed_val", published=234, source="CheXpert"),
    Figure(what="studies listed", count="listed_studies", published=187_711, source=_RELEASE),
    Figure(what="patients listed", count="listed_patients", published=64_725, source=_RELEASE),
)

_TEXTS = ("section_findings", "section_impression", "report")
_IMAGES = ("path_to_image", "path_to_dcm", "deid_patient_id", "frontal_lateral", "ap_pa", "split")
_PATH = re.compile(r"(?:^|.*/)((?:train|valid|test)/(patient\d+/study\d+))/([^/\\]+)\.\w{2,5}")
_DEPTH = 2  # folders between the root and train/ or valid/
_PARTS = frozenset({"train", "valid", "test"})
_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")


@dataclass(frozen=True, kw_only=True)
class TableReports:
    """Reports in the rows of a CSV table; a place is a row's first byte and length."""

    path: Path
    columns: tuple[int, ...]
    """Where Findings, Impression and the whole report stand among the columns."""

    @classmethod
    def of(cls, table: StreamedTable) -> "TableReports":
        """Return the reports of a table of CheXpert Plus."""
        return cls(path=table.path, columns=tuple(table.header.index(name) for name in _TEXTS))

    def read(self, place: Place) -> str | tuple[str, str]:
        """Return Findings and Impression where the table has one of them, else the whole report.

        Raises:
            Unreadable: The table has changed since it was planned from.
        """
        cells = read_cells(self.path, (int(place[0]), int(place[1])))
        if len(cells) <= max(self.columns):
            raise Unreadable("report not found", "the table has changed")
        findings, impression, report = (_known(cells[column]) for column in self.columns)
        return (findings, impression) if findings or impression else report


def prepare_chexpert_plus(
    root: Path,
    out: Path,
    *,
    table: Path | None = None,
    split: Literal["official", "patient"] = "official",
    val_share: float = 0.1,
    test_share: float = 0.0,
    where: Sequence[str] = (),
    keep_columns: Sequence[str] = (),
    options: SharedOptions = DEFAULTS,
) -> Path:
    """Turn CheXpert Plus into a prepared corpus: a pair is a study, with all its images and its report.

    The corpus keeps the paths of the images, which hold the ids of patients, unless --sources hashed.

    Args:
        root: Folder of the images, as PNG, JPEG or DICOM; paths of the table may start up to two folders below it.
        out: Folder to write the corpus to; it must not exist yet, or be empty.
        table: The table of reports; default: `df_chexpert_plus_*.csv` in the root.
        split: `official` (train; the 234 images of CheXpert's validation set are val), or `patient` (random patients).
        val_share: Share of patients for validation, if the split is by patient.
        test_share: Share of patients for test, if the split is by patient.
        where: Filters `column=value1,value2`, for example `frontal_lateral=Frontal`; default: all images.
        keep_columns: Further columns to keep with each pair; sex, age and view are kept.
        options: What all sources share.

    Returns:
        The corpus folder.

    Raises:
        InputError: A table, folder or option that cannot be used, or too many unusable rows; nothing is written then.
    """
    root, out = check_places(root, out, "CheXpert Plus")
    source = report_table(root, table, where, keep_columns)
    audit = Audit(table=source.name, total=0)
    plans, listed = plan_chexpert_plus(root, source, audit, keep=keep_columns)
    shares = {"seed": options.seed, "val_share": val_share, "test_share": test_share}
    if split == "patient":
        official, plans = plans, deal_patients(plans, shares, audit)
        both = zip(official, plans, strict=True)
        if moved := len({new.patient for old, new in both if old.split != "train" and new.split == "train"}):
            audit.notes.append(f"{moved} patients of the validation set, CheXpert's usual test set, are in train")
    else:
        given = ((row.patient, row.split) for plan in plans for row in plan.rows)
        check_patients(given, remedy="choose --split patient")
    settings = {
        "source": "chexpert-plus",
        "table": {"name": source.name, "mark": table_mark(source.sha256)},
        "where": list(where),
        "keep_columns": list(keep_columns),
        "split": shares if split == "patient" else "official",
    }
    return prepare_studies(
        plans,
        partial(read_study, root, TableReports.of(source), options),
        out,
        options=options,
        settings=settings,
        audit=audit,
        salt=source.sha256,
        figures=FIGURES,
        listed=listed,
    )


def report_table(root: Path, table: Path | None, where: Sequence[str], keep: Sequence[str]) -> StreamedTable:
    """Open the table of reports.

    Raises:
        InputError: It is not there, packed, or lacks a column.
    """
    path = Path(table) if table is not None else find_file(root, "df_chexpert_plus_*.csv", "df_chexpert_plus_*.csv.gz")
    if path is None:
        raise InputError(f"{root} has no df_chexpert_plus_*.csv; name the table with --table")
    if path.suffix.lower() != ".csv":
        raise InputError(
            f"table {path.name} must be an unpacked .csv, for its reports are read from their places in it"
        )
    return StreamedTable(path, [*_IMAGES, *_TEXTS, "sex", "age", *keep], where=where)


def plan_chexpert_plus(
    root: Path, table: StreamedTable, audit: Audit, *, keep: Sequence[str] = ()
) -> tuple[list[PairPlan], dict[str, float]]:
    """Decide which studies to prepare, in their official split, and enter every other row in the audit.

    Args:
        root: Folder of the images.
        table: The table of reports.
        audit: Receives dropped and repaired rows, the number of all rows, and notes.
        keep: Further columns to keep.

    Returns:
        The pairs, and what is listed, for the comparison with published counts.
    """
    places: dict[str, Place] = {}
    listing = Listing()
    rows = _usable_rows(root, table, places, audit, listing, ("sex", "age", *keep))
    plans = plan_studies(rows, audit, places=places)
    return plans, listing.counts()


class _Images:
    """Finds the image of a row, in whatever format and folder it was downloaded."""

    def __init__(self, root: Path) -> None:
        self._folders = ImageFolders(root)
        self._bases = list(self._find_bases("", _DEPTH))
        if not self._bases:
            raise InputError(
                f"{root} has no folder train/ or valid/, nor has a folder in it; --root names the folder of the images"
            )

    def _find_bases(self, base: str, depth: int) -> Iterator[str]:
        names = self._folders.subfolders(base)
        if not _PARTS.isdisjoint(names):
            yield base
        for name in names if depth else ():
            if name not in _PARTS:
                yield from self._find_bases(f"{base}/{name}" if base else name, depth - 1)

    def find(self, *paths: str) -> str | None:
        """Return the path below the root of the first of these images, named as in CheXpert, that is there."""
        named = [match.groups() for path in paths if (match := _PATH.fullmatch(path))]
        for suffix in _SUFFIXES:
            for base in self._bases:
                for folder, _, stem in named:
                    if source := self._folders.find(f"{base}/{folder}" if base else folder, stem, (suffix,)):
                        return source
        return None


def _usable_rows(
    root: Path, table: StreamedTable, places: dict[str, Place], audit: Audit, listing: Listing, keep: Sequence[str]
) -> Iterator[Row]:
    """Yield the rows whose image is there, and note in `places` where the text of each study stands."""
    images = _Images(root)
    texts: dict[str, bytes] = {}
    same: dict[tuple[str, ...], dict[str, str]] = {}  # few distinct ones: most of their memory is shared
    for streamed in progress(table.fitting(audit), "listing images"):
        image, dicom, patient, side, projection, split, findings, impression, report, *kept = streamed.cells
        path = _PATH.fullmatch(image)
        if not path or not path[2].startswith(f"{patient}/"):
            reason = "path that does not fit the patient" if path else "path that is not CheXpert's"
            audit.drop(streamed.number, reason, image=image[:200], quoted=patient[:80], failure=True)
            continue
        values = tuple(_known(value).removesuffix(".0") for value in kept)
        row = Row(
            number=streamed.number,
            image=image,
            source="",
            patient=sys.intern(patient),
            study=sys.intern(path[2]),
            split=given_split(split or path[1].partition("/")[0]),
            view=sys.intern(_known(projection) or _known(side)),
            attributes=same.setdefault(
                values, {name: value for name, value in zip(keep, values, strict=True) if value}
            ),
        )
        listing.add(row)
        if streamed.excluded:
            audit.drop(row.number, EXCLUDED, image=image)
        elif (source := images.find(image, dicom)) is None:
            audit.drop(row.number, "image not found", image=image, failure=True)
        else:
            _note_text(row, streamed.place, (findings, impression, report), places, texts, audit)
            yield replace(row, source=source)


def _note_text(
    row: Row, place: Place, parts: tuple[str, ...], places: dict[str, Place], texts: dict[str, bytes], audit: Audit
) -> None:
    """Note the place of a study's first text; rows of one study may differ in theirs."""
    text = b"" if not any(map(_known, parts)) else sha256("\0".join(parts).encode()).digest()
    if not texts.get(row.study):
        places[row.study], texts[row.study] = place, text
    elif text and text != texts[row.study]:
        audit.repair(row.number, "differing texts of one study, the first kept", image=row.image)


def _known(value: str) -> str:
    return "" if says_nothing(value) else value.strip()
