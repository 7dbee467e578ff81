"""Text of reports that are DICOM objects: structured reports, and documents encapsulated in DICOM.

A structured report (PS3.3, A.35; the templates TID 2000 and 2006 of PS3.16) is a tree: containers with a heading hold
texts. Its order is kept, headings are the names of concepts; who observed whom, and what is only measured or coded, is
left out. Of documents, CDA and plain text are read; a PDF is not, as its order of lines is not that of the report.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import pydicom
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from pydicom import Dataset

from convirt.data.imaging.pixels import Unreadable

REPORT_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.88.{number}" for number in (11, 22, 33, 34, 35))
"""Basic Text, Enhanced, Comprehensive, Comprehensive 3D and Extensible SR; dose, CAD and key object documents are not
reports."""
DOCUMENT_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.104.{number}" for number in (1, 2))
"""Encapsulated PDF and encapsulated CDA."""
MAX_BYTES = 32 * 2**20
_DEPTH = 32
_ITEMS = 20_000
# Concepts of DCM, CID 7001 and 7002, that the kept sections of a report go by.
_FINDINGS = frozenset({"121070", "121071"})
_IMPRESSION = frozenset({"121072", "121073", "121076", "121077"})
_ASIDE = frozenset({"HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES", "INFERRED FROM"})
_CDA = "{urn:hl7-org:v3}"


@dataclass(frozen=True, kw_only=True)
class ReportText:
    """One report object of a study."""

    uid: str
    text: str
    replaces: frozenset[str]
    """UIDs of the documents that it amends."""
    verified: bool
    written: str
    """Date and time, digits; orders the reports of a study."""


def read_report_object(path: Path) -> ReportText:
    """Read the text of a structured report or an encapsulated document.

    Raises:
        Unreadable: It cannot be read, holds no text, or holds it in a form that is not read.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Unreadable("report object too large", f"{path.stat().st_size} bytes")
        dataset = pydicom.dcmread(path)
        document = "EncapsulatedDocument" in dataset
        text = _document_text(dataset) if document else structured_text(dataset)
        replaced = dataset.get("PredecessorDocumentsSequence") or []
        return ReportText(
            uid=str(dataset.SOPInstanceUID),
            text=text,
            replaces=frozenset(_referenced(replaced)),
            verified=dataset.get("VerificationFlag", "") == "VERIFIED",
            written=re.sub(r"\D", "", f"{dataset.get('ContentDate', '')}{dataset.get('ContentTime', '')}"),
        )
    except Unreadable:
        raise
    except Exception as error:  # a damaged file can fail anywhere in the parser
        quoted = f"{error}\n".splitlines()[0][:200]  # it may quote the header, and with it the patient's name
        raise Unreadable("report object that cannot be read", type(error).__name__, quoted) from error


def join_reports(reports: Iterable[ReportText]) -> str:
    """Return the valid texts in time order: no amended reports, and no drafts where there is a verified one."""
    reports = list(reports)
    replaced = {uid for report in reports for uid in report.replaces}
    valid = [report for report in reports if report.uid not in replaced] or reports
    valid = [report for report in valid if report.verified] or valid
    ordered = sorted(valid, key=lambda report: (report.written, report.uid))
    return "\n\n".join(dict.fromkeys(report.text for report in ordered))


def structured_text(dataset: Dataset) -> str:
    """Return the text of a structured report.

    If it has sections coded as Findings, Impressions or Conclusions (in any language), their bodies alone; else
    everything, under the headings as written.

    Raises:
        Unreadable: There is no text in it.
    """
    sections: list[tuple[str, str, list[str]]] = []  # code, heading, paragraphs
    for code, heading, text in _texts(dataset, "", "", 0, [_ITEMS]):
        if not sections or sections[-1][:2] != (code, heading):
            sections.append((code, heading, []))
        sections[-1][2].append(text)
    if not sections:
        raise Unreadable("report object without text")
    if coded := [" ".join(texts) for code, _, texts in sections if code in _FINDINGS | _IMPRESSION]:
        return "\n\n".join(coded)
    if len(sections) == 1:  # its name is that of the whole: Report, Text
        return "\n".join(sections[0][2])
    return "\n\n".join(
        f"{heading}:\n{' '.join(texts)}" if heading else "\n".join(texts) for _, heading, texts in sections
    )


def _texts(item: Dataset, code: str, heading: str, depth: int, left: list[int]) -> Iterator[tuple[str, str, str]]:
    """Yield code and heading of the section, and the text, of each TEXT item below `item`, in order."""
    if depth > _DEPTH:
        raise Unreadable("report object nested too deeply", f"more than {_DEPTH} levels")
    for child in item.get("ContentSequence") or []:
        left[0] -= 1
        if left[0] < 0:
            raise Unreadable("report object too large", f"more than {_ITEMS} items")
        if child.get("RelationshipType", "") in _ASIDE:
            continue
        name = (child.get("ConceptNameCodeSequence") or [Dataset()])[0]
        own = (str(name.get("CodeValue", "")), str(name.get("CodeMeaning", "")).strip())
        # Below a heading, the name of an item only says what it is: a Finding among Findings.
        below = (code, heading) if heading else own
        if child.get("ValueType", "") == "CONTAINER" and own[1]:
            below = own if own[0] in _FINDINGS | _IMPRESSION or code not in _FINDINGS | _IMPRESSION else (code, heading)
        if child.get("ValueType", "") == "TEXT" and (text := str(child.get("TextValue", "") or "").strip()):
            yield *below, text
        yield from _texts(child, *below, depth + 1, left)


def _referenced(studies: Iterable[Dataset]) -> Iterator[str]:
    for study in studies:
        for series in study.get("ReferencedSeriesSequence") or []:
            for reference in series.get("ReferencedSOPSequence") or []:
                yield str(reference.get("ReferencedSOPInstanceUID", ""))


def _document_text(dataset: Dataset) -> str:
    kind = str(dataset.get("MIMETypeOfEncapsulatedDocument", "")).lower()
    data = bytes(dataset.EncapsulatedDocument).rstrip(b"\0")  # padded to an even length
    if kind == "application/pdf" or data.startswith(b"%PDF"):
        raise Unreadable("report as PDF, which is not read", "give its text in a table with --reports")
    if kind.startswith("text/plain"):
        text = data.decode("utf-8", "replace").strip()
    elif "xml" in kind:
        text = _cda_text(data)
    else:
        detail = "its MIME type is none of text/plain, XML and PDF" if kind else "no MIME type"
        raise Unreadable("report document of a kind that is not read", detail, kind[:80])
    if not text:
        raise Unreadable("report object without text")
    return text


def _cda_text(data: bytes) -> str:
    """Return the human-readable part of a CDA document: titles and texts of its sections, in order."""
    try:
        tree = fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError) as error:
        raise Unreadable("report document that cannot be read", f"CDA: {type(error).__name__}") from error
    parts: list[str] = []
    for section in tree.iter(f"{_CDA}section"):
        title = " ".join("".join(_walk(section.find(f"{_CDA}title"))).split()).rstrip(":")
        body = "".join(_walk(section.find(f"{_CDA}text")))
        body = "\n".join(filter(None, (" ".join(line.split()) for line in body.splitlines())))
        if body:
            parts.append(f"{title}:\n{body}" if title else body)
    if not parts:
        bodies = tree.iter(f"{_CDA}nonXMLBody")
        parts = [text for body in bodies for element in body if (text := _plain(element))]
    return "\n\n".join(parts)


def _plain(element: Element) -> str:
    is_plain = element.get("mediaType", "text/plain") == "text/plain" and element.get("representation", "TXT") == "TXT"
    return "".join(element.itertext()).strip() if is_plain else ""


def _walk(element: Element | None) -> Iterator[str]:
    """Yield the text below an element; blocks end lines."""
    if element is None:
        return
    yield element.text or ""
    for child in element:
        yield from _walk(child)
        if child.tag in {f"{_CDA}{name}" for name in ("paragraph", "br", "item", "tr", "caption", "list", "table")}:
            yield "\n"
        yield child.tail or ""
