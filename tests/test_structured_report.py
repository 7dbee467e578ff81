"""Texts of structured reports and encapsulated documents."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from convirt.data.imaging.pixels import Unreadable
from convirt.data.reports import parse_report
from convirt.data.sources.structured_report import ReportText, join_reports, read_report_object, structured_text
from orthanc import coded, item, new_dataset, report_dataset, write

ABOUT = {"patient": "P", "study": "1.2.3", "accession": "A"}
PDF, CDA = "1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.104.2"


def tree(children: Iterable[Dataset]) -> Dataset:
    """A structured report with this content."""
    dataset = report_dataset("", "", **ABOUT)
    dataset.ContentSequence = list(children)
    return dataset


def document(sop_class: str, kind: str, data: bytes) -> Dataset:
    """A document wrapped in DICOM, padded to an even length as the standard asks."""
    dataset = new_dataset(sop_class, modality="DOC", **ABOUT)
    dataset.MIMETypeOfEncapsulatedDocument, dataset.EncapsulatedDocumentLength = kind, len(data)
    dataset.EncapsulatedDocument = data + b"\0" * (len(data) % 2)
    return dataset


def test_coded_sections_are_kept_in_order_and_nothing_else() -> None:
    text = structured_text(report_dataset("Lungs: clear.", "Normal.", **ABOUT))
    assert text == "Lungs: clear.\n\nNormal."
    assert "Doe" not in text
    report = parse_report(text)
    assert report.text == "Lungs: clear. Normal."


def test_codes_count_in_any_language() -> None:
    sections = [
        ("121060", "Historia", "Tos."),
        ("121070", "Hallazgos", "Sin lesiones."),
        ("121076", "Conclusiones", "Normal."),
    ]
    containers = [
        item("CONTAINER", coded(code, meaning), children=[item("TEXT", coded("1", "x", "99X"), text)])
        for code, meaning, text in sections
    ]
    assert structured_text(tree(containers)) == "Sin lesiones.\n\nNormal."


def test_several_findings_and_nested_ones_stay_in_order() -> None:
    inner = item(
        "CONTAINER", coded("T-28000", "Lung", "SRT"), children=[item("TEXT", coded("121071", "Finding"), "Two.")]
    )
    findings = item(
        "CONTAINER",
        coded("121070", "Findings"),
        children=[
            item("TEXT", coded("121071", "Finding"), "One."),
            inner,
            item("CODE", coded("121071", "Finding")),
            item("TEXT", coded("121071", "Finding"), "Three.", [item("TEXT", coded("1", "Detail", "99X"), "Four.")]),
        ],
    )
    assert structured_text(tree([findings])) == "One. Two. Three. Four."


def test_texts_without_codes_keep_their_headings() -> None:
    texts = [("Indication", "Cough."), ("Findings", "Clear."), ("Impression", "Normal.")]
    text = structured_text(tree(item("TEXT", coded(name[:3], name, "99LOCAL"), body) for name, body in texts))
    assert text == "Indication:\nCough.\n\nFindings:\nClear.\n\nImpression:\nNormal."
    assert parse_report(text).text == "Clear. Normal."


def test_a_whole_report_in_one_text_is_the_report() -> None:
    body = "INDICATION: Cough.\r\nFINDINGS: Clear.\r\nIMPRESSION: Normal."
    text = structured_text(tree([item("TEXT", coded("11528-7", "Radiology Report", "LN"), body)]))
    assert text == body
    assert parse_report(text).text == "Clear. Normal."


def test_who_observed_whom_is_left_out() -> None:
    aside = item("TEXT", coded("121008", "Person Observer Name"), "Dr. John Doe")
    aside.RelationshipType = "HAS OBS CONTEXT"
    assert structured_text(tree([aside, item("TEXT", coded("1", "Text", "99X"), "Clear.")])) == "Clear."


@pytest.mark.parametrize("children", [[], [item("CODE", coded("121071", "Finding"))], [item("TEXT", None, "  ")]])
def test_a_report_without_text_is_unreadable(children: list[Dataset]) -> None:
    with pytest.raises(Unreadable, match="without text"):
        structured_text(tree(children))


def test_content_without_end_is_refused() -> None:
    nested = item("TEXT", coded("1", "x", "99X"), "text")
    for _ in range(40):
        nested = item("CONTAINER", coded("1", "x", "99X"), children=[nested])
    with pytest.raises(Unreadable, match="nested too deeply"):
        structured_text(tree([nested]))
    with pytest.raises(Unreadable, match="too large"):
        structured_text(tree([item("TEXT", coded("1", "x", "99X"), "text")] * 20_001))


CDA_TEXT = b"""<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"><title>Report</title><recordTarget>
<patientRole><patient><name>Doe</name></patient></patientRole></recordTarget><component><structuredBody><component>
<section><title>Findings</title><text><paragraph>Clear <b>lungs</b>.</paragraph><list><item>No effusion.</item>
</list></text></section></component>
<component><section><title>Impression:</title><text>Normal.</text></section></component>
</structuredBody></component></ClinicalDocument>"""


def test_cda_and_plain_text_documents_are_read(tmp_path: Path) -> None:
    report = read_report_object(write(document(CDA, "text/XML", CDA_TEXT), tmp_path))
    assert report.text == "Findings:\nClear lungs.\nNo effusion.\n\nImpression:\nNormal."
    plain = (
        b'<ClinicalDocument xmlns="urn:hl7-org:v3"><nonXMLBody><text>All clear.</text></nonXMLBody></ClinicalDocument>'
    )
    assert read_report_object(write(document(CDA, "text/xml", plain), tmp_path)).text == "All clear."
    text = "FINDINGS: Größe normal."
    assert read_report_object(write(document(CDA, "text/plain", text.encode()), tmp_path)).text == text


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (document(PDF, "application/pdf", b"%PDF-1.4"), "report as PDF, which is not read"),
        (document(CDA, "text/xml", b"%PDF-1.4"), "report as PDF, which is not read"),
        (document(CDA, "image/png", b"\x89PNG"), "report document of a kind that is not read"),
        (document(CDA, "text/xml", b"<a"), "report document that cannot be read"),
        (document(CDA, "text/xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'), "report document that cannot be read"),
        (document(CDA, "text/xml", b"<a/>"), "report object without text"),
        (document(CDA, "text/plain", b"  "), "report object without text"),
    ],
)
def test_documents_that_are_not_read_are_set_aside_with_a_reason(tmp_path: Path, dataset: Dataset, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_report_object(write(dataset, tmp_path))
    assert caught.value.reason == reason


@pytest.mark.filterwarnings("ignore")  # pydicom's, of damaged values: the verb ignores them too
def test_mutated_report_objects_are_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    objects = [report_dataset("Clear.", "Normal.", **ABOUT), document(CDA, "text/xml", CDA_TEXT)]
    originals = [write(dataset, tmp_path).read_bytes() for dataset in objects]
    refused = 0
    for number in range(300):
        data = bytearray(originals[number % 2])
        if rng.random() < 0.3:
            data = data[: rng.integers(len(data))]
        for place in rng.integers(0, max(len(data), 1), rng.integers(1, 6)):
            if data:
                data[place] = rng.integers(256)
        (tmp_path / "mutated.dcm").write_bytes(data)
        try:
            read_report_object(tmp_path / "mutated.dcm")
        except Unreadable:
            refused += 1
    assert 30 < refused < 300


def written(uid: str, text: str, *, replaces: tuple[str, ...] = (), verified: bool = True, at: str = "1") -> ReportText:
    return ReportText(uid=uid, text=text, replaces=frozenset(replaces), verified=verified, written=at)


@pytest.mark.parametrize(
    ("reports", "text"),
    [
        ([], ""),
        ([written("1", "a")], "a"),
        ([written("1", "b", at="2"), written("2", "a", at="1")], "a\n\nb"),
        ([written("1", "a"), written("2", "a")], "a"),
        ([written("1", "old"), written("2", "new", replaces=("1",))], "new"),
        ([written("1", "draft", verified=False, at="0"), written("2", "final")], "final"),
        ([written("1", "draft", verified=False)], "draft"),
        ([written("1", "a", replaces=("2",)), written("2", "b", replaces=("1",))], "a\n\nb"),
    ],
)
def test_the_valid_reports_of_a_study_are_joined(reports: list[ReportText], text: str) -> None:
    assert join_reports(reports) == text
