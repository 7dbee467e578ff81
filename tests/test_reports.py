"""Sections, sentences and tokens of reports (ConVIRT, sections 2.3 and appendix A)."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from convirt.data.reports import count_tokens, kept_sections, parse_report, sentence_spans, split_sentences
from open_i import open_i_reports

OPENI = Path(__file__).parents[1].parent / "shared" / "data" / "openi_four" / "manifest.csv"
MARKS = Path(__file__).parent / "data" / "open_i_sentence_starts.json"

MIMIC_STYLE = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___-year-old woman with cough.

 COMPARISON:  None.

 FINDINGS:

 Cardiac size is normal.  There is an approx. 2.5 cm nodule (e.g. a granuloma) at the level of
 T4.  No effusion, i.e. dry.  Discussed with Dr. ___ by phone at 3:45 p.m. on the day.  No prior films for
 comparison.
 LUNGS: Clear.

 IMPRESSION:

 1. No acute cardiopulmonary
 process.
 2. Stable 3 mm nodule vs. vessel. 3. Compression fracture of T4.

 NOTIFICATION:  Called to the ward.
"""


def test_only_findings_and_impression_are_kept() -> None:
    report = parse_report(MIMIC_STYLE)
    assert report.has_sections
    assert report.sentences == (
        "Cardiac size is normal.",
        "There is an approx. 2.5 cm nodule (e.g. a granuloma) at the level of T4.",
        "No effusion, i.e. dry.",
        "Discussed with Dr. ___ by phone at 3:45 p.m. on the day.",
        "No prior films for comparison.",
        "LUNGS: Clear.",
        "No acute cardiopulmonary process.",
        "Stable 3 mm nodule vs. vessel.",
        "Compression fracture of T4.",
    )
    for gone in ("EXAMINATION", "year-old", "COMPARISON", "ward", "FINDINGS", "\n"):
        assert gone not in report.text


@pytest.mark.parametrize(
    ("report", "sections"),
    [
        ("FINDINGS: Heart normal.\nIMPRESSION: Normal chest.", ["Heart normal.", "Normal chest."]),
        ("Findings: Heart normal.\nImpression: Normal chest.", ["Heart normal.", "Normal chest."]),
        ("findings:\nHeart normal.\n\nimpression:\nNormal chest.", ["Heart normal.", "Normal chest."]),
        ("FINDINGS\nHeart normal.\n\nIMPRESSION\nNormal chest.", ["Heart normal.", "Normal chest."]),
        ("Findings\nHeart normal.\nImpression\nNormal chest.", ["Heart normal.", "Normal chest."]),
        ("FINDINGS AND IMPRESSION: Heart normal.", ["Heart normal."]),
        ("Findings/Impression:\nHeart normal.", ["Heart normal."]),
        ("IMPRESSION AND RECOMMENDATION: Heart normal.", ["Heart normal."]),
        ("IMPRESSION No acute disease.", ["No acute disease."]),
        ("IMPRESSION: Old.\nADDENDUM: Called.\nIMPRESSION: New.", ["Old.", "New."]),
        ("INDICATION: Cough FINDINGS: Lungs clear IMPRESSION: Normal.", ["Lungs clear", "Normal."]),
        ("CONCLUSION: Normal chest.\nRECOMMENDATION: None.", ["Normal chest."]),
        ("WET READ: Pneumonia.\nFINDINGS: Clear.", ["Clear."]),
        ("**FINDINGS:** Clear. **IMPRESSION:** Normal.", ["Clear.", "Normal."]),
        ("INDICATION: cough.\nFINDINGS:\nIMPRESSION:\n", ["", ""]),
        ("Findings consistent with pneumonia.", []),
        ("FINDINGS CONSISTENT WITH PNEUMONIA.", []),
        ("The lungs are clear.\nNo impression on the oesophagus.", []),
        ("", []),
    ],
)
def test_headings(report: str, sections: list[str]) -> None:
    assert kept_sections(report) == sections


def test_without_sections_the_whole_text_is_kept() -> None:
    report = parse_report("INDICATION: cough.\nThe lungs\nare clear.")
    assert not report.has_sections
    assert report.text == "INDICATION: cough. The lungs are clear."


def test_empty_sections_keep_nothing() -> None:
    report = parse_report("INDICATION: Cough for a week.\nFINDINGS:\nIMPRESSION:")
    assert (report.text, report.sentences, report.tokens) == ("", (), 0)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A nodule of approx. 2.5 cm. It is new.", ["A nodule of approx. 2.5 cm.", "It is new."]),
        ("Seen by Dr. ___ today. Stable.", ["Seen by Dr. ___ today.", "Stable."]),
        ("Fracture of T4. Heart normal.", ["Fracture of T4.", "Heart normal."]),
        ("Size is 3 cm.\nThe edge is\nsharp.", ["Size is 3 cm.", "The edge is sharp."]),
        ("1. One thing.\n2. Another.\n   3) A third", ["One thing.", "Another.", "A third"]),
        ("1. No acute disease. 2. Stable nodule.", ["No acute disease.", "Stable nodule."]),
        ("- No effusion\n- No edema", ["No effusion", "No edema"]),
        ("Upper abdomen\n\nNo mass seen", ["Upper abdomen", "No mass seen"]),
        ("See fig. 3 and im. 12. Normal.", ["See fig. 3 and im. 12.", "Normal."]),
        ("lungs are clear. heart is normal.", ["lungs are clear.", "heart is normal."]),
        ("No effusion. heart is normal. T2.", ["No effusion.", "heart is normal.", "T2."]),
        ("Susp. lesion in the Left lung.", ["Susp. lesion in the Left lung."]),
        ("Clear.Normal heart.", ["Clear.", "Normal heart."]),
        ("Effusion.. Atelectasis noted.", ["Effusion..", "Atelectasis noted."]),
        ('The "dural tail." Is there a mass? No!', ['The "dural tail."', "Is there a mass?", "No!"]),
        ("Deficient in vitamin C. Rickets.", ["Deficient in vitamin C.", "Rickets."]),
        ("?Ground-glass opacities?, typical.", ["?Ground-glass opacities?, typical."]),
        ("___. XXXX. Clear.", ["Clear."]),
        ("A nodule measures .5 cm. It is new.", ["A nodule measures .5 cm.", "It is new."]),
        ("Seen at 3 a.m. Stable at 5 p.m. today.", ["Seen at 3 a.m.", "Stable at 5 p.m. today."]),
        ("Small effusion.No pneumothorax.", ["Small effusion.", "No pneumothorax."]),
        (
            "Left XXXX.In the lobe (see above).New at T4.Stable.",
            ["Left XXXX.", "In the lobe (see above).", "New at T4.", "Stable."],
        ),
        (
            "Seen by J.P.Smith at www.clinic.Org in the U.S.Today.",
            ["Seen by J.P.Smith at www.clinic.Org in the U.S.Today."],
        ),
        ("1. Low volumes 2. Exam limited 3. Clear. New.", ["Low volumes", "Exam limited", "Clear.", "New."]),
        ("Hand 1. No fracture. 2. No mass.", ["Hand", "No fracture.", "No mass."]),
        ("Sprain of grade 1. Stable since 2. Unchanged.", ["Sprain of grade 1.", "Stable since 2.", "Unchanged."]),
        ("1.Lucency. 2.No evidence.", ["Lucency.", "No evidence."]),
        ("Dated 3.5.2020. The heart is 12.5 cm.", ["Dated 3.5.2020.", "The heart is 12.5 cm."]),
        ("Told to Dr. J. Smith. Stable.", ["Told to Dr. J. Smith.", "Stable."]),
        ("Lungs normal . XXXX intact . . No mass. .", ["Lungs normal .", "XXXX intact . .", "No mass. ."]),
        ("Heart size normal\nLungs clear\nNo effusion", ["Heart size normal", "Lungs clear", "No effusion"]),
        ("Changes of\nHodgkin disease", ["Changes of Hodgkin disease"]),
        (
            "The patient has pneumonia caused by the bacterium named long ago\nStreptococcus pneumoniae.",
            ["The patient has pneumonia caused by the bacterium named long ago Streptococcus pneumoniae."],
        ),
        ("• One\n• Two\n  more\n(3) Three", ["One", "Two more", "Three"]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("No change", 2), ("Normal chest.", 3), ("  No \n\n change  ", 2), ("2.5 cm", 2)]
)
def test_tokens_count_punctuation_and_not_white_space(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_sentences_of_open_i_start_where_a_reader_marked_them() -> None:
    """Marked by hand in 200 reports by someone who had not seen what the parser makes of them."""
    marks = json.loads(MARKS.read_text())
    reports = open_i_reports()
    assert len(marks) == 200
    agreed = found = marked = 0
    differ = set()
    for number, mark in marks.items():
        text = reports[number].text
        assert hashlib.sha256(text.encode()).hexdigest() == mark["sha256"]
        starts = {start for start, _ in sentence_spans(text)}
        agreed += len(starts & set(mark["starts"]))
        found += len(starts)
        marked += len(mark["starts"])
        differ |= {(number, start) for start in starts ^ set(mark["starts"])}
    assert 2 * agreed / (found + marked) >= 0.98
    assert differ == {
        ("1229", 89),  # "effusion or The heart": words are missing, and no full stop
        ("1740", 438),  # "consolidation Please correlate": no full stop
        ("2812", 136),  # "XXXX.": a sentence of which nothing is left, which we leave out
    }


def test_spans_are_the_sentences_with_their_numbers() -> None:
    text = "1. No\r\nacute disease. 2. Stable.\n\n- New line"
    assert [text[start:end] for start, end in sentence_spans(text)] == [
        "1. No\r\nacute disease.",
        "2. Stable.",
        "- New line",
    ]
    assert split_sentences(text) == ["No acute disease.", "Stable.", "New line"]


@pytest.mark.skipif(not OPENI.exists(), reason="the four Open-i reports are not beside this checkout")
@pytest.mark.parametrize(
    "form", ["FINDINGS:\n{0}\n\nIMPRESSION:\n{1}\n", "INDICATION: {2} FINDINGS: {0} IMPRESSION: {1}"]
)
def test_real_reports_of_open_i(form: str) -> None:
    for row in pd.read_csv(OPENI).itertuples():
        report = parse_report(form.format(row.findings, row.impression, row.indication))
        assert report.text == " ".join(f"{row.findings} {row.impression}".split())
        joined = " ".join(report.sentences).replace("1. ", "")
        assert joined == report.text.replace("1. ", "")
        assert all(sentence.endswith(".") for sentence in report.sentences)
        assert all(sentence.rstrip(".").count(". ") == 0 for sentence in report.sentences)
        assert len(report.sentences) in (8, 9)
