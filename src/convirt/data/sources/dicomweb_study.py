"""One study of a DICOMweb server, pulled to disk: an instance that is there already is not asked for again."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import UID

from convirt.data.imaging.dicom import MODALITIES, VIEW_POSITIONS
from convirt.data.imaging.pixels import Unreadable
from convirt.data.sources.dicomweb_server import DicomWebServer, Instance, Missing, Study, read_header
from convirt.data.sources.structured_report import (
    DOCUMENT_CLASSES,
    REPORT_CLASSES,
    ReportText,
    join_reports,
    read_report_object,
)

SEXES = ("M", "F", "O")
_AGE = re.compile(r"\d{3}[DWMY]")
_FOR_PROCESSING = "For Processing"


@dataclass(frozen=True, kw_only=True)
class PulledItem:
    """An instance that is not a report."""

    uid: str
    file: str = ""
    """Path below the folder, with forward slashes; empty if it is not there."""
    view: str = ""
    problem: str = ""
    """Why it cannot be used, a phrase under which the audit counts it."""
    detail: str = ""
    quoted: str = ""
    failure: bool = False
    """Whether it should have been usable."""


@dataclass(frozen=True, kw_only=True)
class PulledStudy:
    """A study as it lies on disk."""

    uid: str
    patient: str
    accession: str
    items: tuple[PulledItem, ...]
    """Its instances but for reports, in their order."""
    report: str
    """Text of its report objects; empty if there is none."""
    report_problems: tuple[str, ...]
    """Reasons why report objects were not used."""
    attributes: Mapping[str, str]
    """What is known of `sex`, `age` and `modality`."""
    foreign: int = 0
    """Values of these, and of views, that the standard does not have: they are left out, since they may be any text."""


def pull_study(server: DicomWebServer, study: Study, *, modality: str, folder: Path) -> PulledStudy:
    """Bring all that a study needs to `folder`/STUDY/INSTANCE.dcm.

    Args:
        server: Where from.
        study: What.
        modality: Images of another modality are left where they are; empty: all are wanted.
        folder: Where to.

    Raises:
        InputError: The server fails for too long.
    """
    items: list[PulledItem] = []
    texts: list[ReportText] = []
    problems: list[str] = []
    attributes: dict[str, str] = {}
    foreign = [study.sex] if study.sex not in ("", *SEXES) else []
    for part in (folder / study.uid).glob(".*.part"):  # of a command that was killed: only one writes to the folder
        part.unlink(missing_ok=True)
    for instance in server.instances(study.uid):
        if instance.sop_class in REPORT_CLASSES | DOCUMENT_CLASSES:
            try:
                _pull_instance(server, instance, folder)
                texts.append(read_report_object(folder / _file(instance)))
            except Unreadable as problem:
                problems.append(problem.reason)
            continue
        item, known = _pull_image(server, instance, modality, folder, foreign)
        items.append(item)
        attributes = {**known, **attributes}
    if study.sex in SEXES:
        attributes["sex"] = study.sex
    return PulledStudy(
        uid=study.uid,
        patient=study.patient,
        accession=study.accession,
        items=tuple(items),
        report=join_reports(texts),
        report_problems=tuple(problems),
        attributes=dict(sorted(attributes.items())),
        foreign=len(foreign),
    )


def _pull_image(
    server: DicomWebServer, instance: Instance, modality: str, folder: Path, foreign: list[str]
) -> tuple[PulledItem, dict[str, str]]:
    """Bring an image, if it is one that is wanted; return it, and what its header says of the patient.

    `foreign` receives values that the standard does not have.
    """
    aside = _set_aside(UID(instance.sop_class), instance.modality, modality)
    if aside is None:
        try:
            header = _pull_instance(server, instance, folder)
        except Unreadable as problem:
            return PulledItem(
                uid=instance.uid, problem=problem.reason, detail=problem.detail, quoted=problem.quoted, failure=True
            ), {}
        # The listing need not have said it.
        aside = _set_aside(UID(str(header.get("SOPClassUID", ""))), str(header.get("Modality", "")), modality)
    if aside is not None:
        return PulledItem(uid=instance.uid, problem=aside[0], detail=aside[1]), {}

    def term(name: str, fits: Callable[[str], object]) -> str:
        value = str(header.get(name, "") or "").strip().upper()
        if not value or fits(value):
            return value
        foreign.append(value)
        return ""

    known = {"age": term("PatientAge", _AGE.fullmatch), "modality": term("Modality", MODALITIES.__contains__)}
    item = PulledItem(uid=instance.uid, file=_file(instance), view=term("ViewPosition", VIEW_POSITIONS.__contains__))
    return item, {name: value for name, value in known.items() if value}


def _set_aside(sop_class: UID, modality: str, wanted: str) -> tuple[str, str] | None:
    """Say why an instance is not a wanted image, as far as its class and modality tell."""
    if sop_class and sop_class.name != sop_class and "Image Storage" not in sop_class.name:
        return "not an image", sop_class.name
    if _FOR_PROCESSING in sop_class.name:
        return "raw image, not for presentation", sop_class.name
    if wanted and modality and modality not in wanted.replace("\\", ",").split(","):
        return "image of another modality", modality if modality in MODALITIES else "unknown"
    return None


def _file(instance: Instance) -> str:
    """Where an instance lies below the folder."""
    return f"{instance.study}/{instance.uid}.dcm"


def _pull_instance(server: DicomWebServer, instance: Instance, folder: Path) -> pydicom.Dataset:
    """Return the header of an instance that is, or now is, on disk.

    Raises:
        Unreadable: The server does not give it.
    """
    path = folder / _file(instance)
    if path.is_file():
        try:
            header = read_header(path)
            if header.get("SOPInstanceUID") == instance.uid:
                return header
        except ValueError:
            path.unlink()  # cut off by a power failure, perhaps
    try:
        server.retrieve(instance, path)
        return read_header(path)
    except (Missing, ValueError) as error:
        raise Unreadable("instance that the server does not give", type(error).__name__, str(error)[:200]) from error
