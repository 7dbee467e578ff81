"""Pulling a study from a DICOMweb server: what is on disk already is not asked for again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import UID

from convirt.data.pixels import Unreadable
from convirt.data.sources.dicomweb_server import DicomWebServer, Instance, Missing, Study
from convirt.data.sources.instance_files import read_header
from convirt.data.sources.structured_report import (
    DOCUMENT_CLASSES,
    REPORT_CLASSES,
    ReportText,
    join_reports,
    read_report_object,
)

_FOR_PROCESSING = "For Processing"


@dataclass(frozen=True, kw_only=True)
class PulledItem:
    """An instance that is no report."""

    uid: str
    file: str = ""
    """Path below the folder, with forward slashes; empty if it is not there."""
    view: str = ""
    problem: str = ""
    """Why it cannot be used, a phrase under which the audit counts it."""
    detail: str = ""
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
    """What is known of `sex`, `age`, `modality` and `description`."""


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
    attributes = dict(study.attributes)
    for part in (folder / study.uid).glob(".*.part"):  # of a command that was killed: only one writes to the folder
        part.unlink(missing_ok=True)
    for instance in server.instances(study.uid):
        file = f"{study.uid}/{instance.uid}.dcm"
        if instance.sop_class in REPORT_CLASSES | DOCUMENT_CLASSES:
            try:
                _pull_instance(server, instance, folder / file)
                texts.append(read_report_object(folder / file))
            except Unreadable as problem:
                problems.append(problem.reason)
            continue
        if aside := _set_aside(instance, modality):
            items.append(PulledItem(uid=instance.uid, problem=aside[0], detail=aside[1]))
            continue
        try:
            header = _pull_instance(server, instance, folder / file)
        except Unreadable as problem:
            items.append(PulledItem(uid=instance.uid, problem=problem.reason, detail=problem.detail, failure=True))
            continue
        items.append(PulledItem(uid=instance.uid, file=file, view=str(header.get("ViewPosition", "") or "")))
        for name, keyword in (("age", "PatientAge"), ("modality", "Modality")):
            if value := str(header.get(keyword, "") or ""):
                attributes.setdefault(name, value)
    return PulledStudy(
        uid=study.uid,
        patient=study.patient,
        accession=study.accession,
        items=tuple(items),
        report=join_reports(texts),
        report_problems=tuple(problems),
        attributes=dict(sorted(attributes.items())),
    )


def _set_aside(instance: Instance, modality: str) -> tuple[str, str] | None:
    """Say why an instance is not worth pulling, as far as its listing tells."""
    name = UID(instance.sop_class).name
    if instance.sop_class and name != instance.sop_class and "Image Storage" not in name:
        return "not an image", name
    if _FOR_PROCESSING in name:
        return "raw image, not for presentation", name
    if modality and instance.modality and instance.modality not in modality.replace("\\", ",").split(","):
        return "image of another modality", instance.modality
    return None


def _pull_instance(server: DicomWebServer, instance: Instance, path: Path) -> pydicom.Dataset:
    """Return the header of an instance that is, or now is, on disk.

    Raises:
        Unreadable: The server does not give it.
    """
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
        raise Unreadable("instance that the server does not give", str(error)[:200]) from error
