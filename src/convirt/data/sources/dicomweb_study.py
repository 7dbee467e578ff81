"""One study of a DICOMweb server, pulled to disk: an instance that is there already is not asked for again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import UID

from convirt.data.imaging.pixels import Unreadable
from convirt.data.sources.dicomweb_server import DicomWebServer, Instance, Missing, Study, read_header
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
    """An instance that is not a report."""

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
        if instance.sop_class in REPORT_CLASSES | DOCUMENT_CLASSES:
            try:
                _pull_instance(server, instance, folder)
                texts.append(read_report_object(folder / _file(instance)))
            except Unreadable as problem:
                problems.append(problem.reason)
            continue
        item, known = _pull_image(server, instance, modality, folder)
        items.append(item)
        attributes = {**known, **attributes}
    return PulledStudy(
        uid=study.uid,
        patient=study.patient,
        accession=study.accession,
        items=tuple(items),
        report=join_reports(texts),
        report_problems=tuple(problems),
        attributes=dict(sorted(attributes.items())),
    )


def _pull_image(
    server: DicomWebServer, instance: Instance, modality: str, folder: Path
) -> tuple[PulledItem, dict[str, str]]:
    """Bring an image, if it is one that is wanted; return it, and what its header says of the patient."""
    aside = _set_aside(UID(instance.sop_class), instance.modality, modality)
    if aside is None:
        try:
            header = _pull_instance(server, instance, folder)
        except Unreadable as problem:
            return PulledItem(uid=instance.uid, problem=problem.reason, detail=problem.detail, failure=True), {}
        # The listing need not have said it.
        aside = _set_aside(UID(str(header.get("SOPClassUID", ""))), str(header.get("Modality", "")), modality)
    if aside is not None:
        return PulledItem(uid=instance.uid, problem=aside[0], detail=aside[1]), {}
    known = {name: str(header.get(tag, "") or "") for name, tag in (("age", "PatientAge"), ("modality", "Modality"))}
    item = PulledItem(uid=instance.uid, file=_file(instance), view=str(header.get("ViewPosition", "") or ""))
    return item, {name: value for name, value in known.items() if value}


def _set_aside(sop_class: UID, modality: str, wanted: str) -> tuple[str, str] | None:
    """Say why an instance is not a wanted image, as far as its class and modality tell."""
    if sop_class and sop_class.name != sop_class and "Image Storage" not in sop_class.name:
        return "not an image", sop_class.name
    if _FOR_PROCESSING in sop_class.name:
        return "raw image, not for presentation", sop_class.name
    if wanted and modality and modality not in wanted.replace("\\", ",").split(","):
        return "image of another modality", modality
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
        raise Unreadable("instance that the server does not give", str(error)[:200]) from error
