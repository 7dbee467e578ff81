"""Sections, sentences and tokens of reports (ConVIRT, sections 2.3 and appendix A)."""

import time
from pathlib import Path

import pandas as pd
import pytest

from convirt.data.reports import count_tokens, kept_sections, parse_report, split_sentences

OPENI = Path(__file__).parents[1].parent / "shared" / "data" / "openi_four" / "manifest.csv"

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
    report = parse_report("INDICATION: cough.\nCHEST: The lungs\nare clear.")
    assert not report.has_sections
    assert report.text == "INDICATION: cough. CHEST: The lungs are clear."


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


@pytest.mark.parametrize("unit", ["\n", " ", "HISTORY ", "A ", "1. ", "FINDINGS AND ", "FINDINGS\n"])
def test_no_text_makes_the_heading_search_slow(unit: str) -> None:
    start = time.process_time()
    kept_sections(unit * 20_000)
    assert time.process_time() - start < 5  # a search that goes back over runs of white space takes minutes


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
