"""Sections of free-text reports: all of Open-i in fifteen styles, hospitals' habits, Spanish, lexicons of a user."""

import pickle
import random
import re
import tomllib
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from convirt.data.reports import (
    ENGLISH,
    MIN_TOKENS,
    Lexicon,
    fields_report,
    kept_sections,
    load_lexicon,
    parse_report,
    parse_sections,
    sentence_spans,
)
from convirt.data.reports.parsing import REPAIR_LINE_ENDS
from convirt.errors import InputError
from linear_time import assert_linear
from open_i import OpenIReport, open_i_reports
from report_styles import STYLES

SPANISH = load_lexicon("es")
DATA = Path(__file__).parent / "data" / "reports"

SECOND_REPORT = "2415"
"""Its IMPRESSION field holds a second whole report: IMPRESSION: Exam: ... Comparison: ... History: ... FINDINGS: ...
IMPRESSION: ... Nothing tells it from a report with an addendum, so headings of kept sections go, and all else stays."""


def words(text: str) -> str:
    return " ".join(text.split())


def kept(text: str) -> dict[str, list[str]]:
    """Kept sections of a text: name to bodies, white space normalised."""
    found: dict[str, list[str]] = {}
    for section in parse_sections(text):
        if section.kept:
            # The COMPARISON of report 1823 ends in "INDICATION /", which joins the heading after it on one line.
            found.setdefault(section.name.removeprefix("indication and "), []).append(
                words(text[section.start : section.end])
            )
    return found


def expected(report: OpenIReport, style: str) -> dict[str, list[str]]:
    if style == "merged":
        return {"findings and impression": [words(report.text)]} if report.text else {}
    fields = {"findings": report.findings, "impression": report.impression}
    return {name: [words(text)] for name, text in fields.items() if text}


@pytest.mark.parametrize("style", STYLES)
def test_the_fields_of_all_open_i_reports_come_back(style: str) -> None:
    reports = open_i_reports()
    assert len(reports) == 3955
    differ = [n for n, report in reports.items() if kept(STYLES[style](report)) != expected(report, style)]
    assert differ == [SECOND_REPORT]
    second = reports[SECOND_REPORT]
    stays = re.sub(r" (FINDINGS|IMPRESSION): ", " ", second.text)
    found = [body for bodies in kept(STYLES[style](second)).values() for body in bodies]
    assert sorted(" ".join(found).split()) == sorted(stays.split())


def test_the_usable_reports_of_open_i_give_sentences_and_tokens() -> None:
    reports = open_i_reports()
    empty = [n for n, report in reports.items() if not report.text]
    imageless = [n for n, report in reports.items() if not report.images]
    usable = {n: report for n, report in reports.items() if report.text and report.images}
    assert (len(empty), len(imageless), len(usable)) == (28, 104, 3826)
    short = {n: report.text for n, report in usable.items() if not long_enough(report)}
    assert short == {}


def long_enough(report: OpenIReport) -> bool:
    parsed = fields_report(report.findings, report.impression)
    assert parsed.text == words(report.text.replace("<BR>", " "))  # one report has it
    return parsed.tokens >= MIN_TOKENS and bool(parsed.sentences)


def cases(name: str) -> list[dict[str, Any]]:
    return tomllib.loads((DATA / f"{name}.toml").read_text(encoding="utf-8"))["case"]


CASES = [(ENGLISH, case) for case in cases("mimic_style")] + [(SPANISH, case) for case in cases("spanish")]


@pytest.mark.parametrize(("lexicon", "case"), CASES, ids=[case["title"] for _, case in CASES])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_reports_as_hospitals_write_them(lexicon: Lexicon, case: dict[str, Any], form: str) -> None:
    """With accents as one character or as two."""
    text = unicodedata.normalize(form, case["report"])
    found = [(s.name, words(text[s.start : s.end])) for s in parse_sections(text, lexicon) if s.kept]
    assert found == [(name, unicodedata.normalize(form, body)) for name, body in case["kept"]]
    report = parse_report(text, lexicon)
    assert report.sections == tuple(name for name, _ in case["kept"])
    assert report.has_sections == bool(case["kept"])
    if "sentences" in case:
        assert report.sentences == tuple(unicodedata.normalize(form, sentence) for sentence in case["sentences"])


def test_sections_have_names_headings_and_places() -> None:
    text = (
        "Chest film\r\n**Clinical history:** Cough\r\n\r\nFINDINGS/IMPRESSION -\tClear.\r\nCOMPARISON (old): None\r\n"
    )
    sections = parse_sections(text)
    assert [(s.name, s.heading, text[s.start : s.end], s.kept) for s in sections] == [
        ("", "", "Chest film", False),
        ("indication", "Clinical history", "Cough", False),
        ("findings and impression", "FINDINGS/IMPRESSION", "Clear.", True),
        ("comparison", "COMPARISON", "None", False),
    ]
    assert parse_sections("") == parse_sections(" \n ") == []
    assert [s.name for s in parse_sections("No heading here.")] == [""]


@pytest.mark.parametrize(
    "text",
    [
        "findings:\nHeart normal.\n\nimpression:\nNormal chest.",
        "== Findings ==\nHeart normal.\n== Impression ==\nNormal chest.",
        "1) FINDINGS. \nHeart normal.\n2) IMPRESSION. \nNormal chest.",
        "II. Findings: Heart normal.\nIII. Impression: Normal chest.",
        "A. FINDINGS: Heart normal.\nB. IMPRESSION: Normal chest.",
        "FINDINGS— Heart normal.\nIMPRESSION— Normal chest.",
        "FINDINGS- Heart normal.\nIMPRESSION- Normal chest.",
        "FINDINGS\tHeart normal.\nIMPRESSION\tNormal chest.",
        "Findings   Heart normal.\nImpression   Normal chest.",
        "[FINDINGS]\nHeart normal.\n[IMPRESSION]\nNormal chest.",
        "__FINDINGS__:\nHeart normal.\n> IMPRESSION:\nNormal chest.",
        "FINDINGS\n========\nHeart normal.\nIMPRESSION\n----------\nNormal chest.",
        "FINDINGS：Heart normal.\u2028IMPRESSION：Normal chest.",
        "\ufeffFINDINGS:\u00a0Heart normal.\rIMPRESSION:\u00a0Normal chest.",
        "Chest Findings: Heart normal.\nFinal Impression: Normal chest.",
        "FINDINGS:Heart normal.\nIMPRESSION:Normal chest.",
        "HISTORY: cough, FINDINGS: Heart normal. IMPRESSION: Normal chest.",
        "Technique and comparison: None. Findings: Heart normal. Impression: Normal chest.",
    ],
)
def test_decorated_headings(text: str) -> None:
    assert [words(body) for body in kept_sections(text)] == ["Heart normal.", "Normal chest."]


@pytest.mark.parametrize(
    "text",
    [
        "Finding of note is a nodule.",
        "The impression: none.",
        "No findings\nto report",
        "X-findings: none",
        "Clinical impression: pneumonia.",
        "contrast-enhanced CT\nstudy-related findings",
        "FINDINGS CONSISTENT WITH: PNEUMONIA",
        "Indication: rule out pneumonia",
        "There are no acute\nfindings.",
        "There are no acute\nfindings\n\nDr. ___",
    ],
)
def test_what_is_no_heading_of_a_kept_section(text: str) -> None:
    assert kept_sections(text) == []


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("FINDINGS: Comparison: ___. Wide lungs.\nIMPRESSION: COPD.", "Comparison: ___.|Wide lungs.|COPD."),
        ("FINDINGS: Technique: one view. Mass seen.\nIMPRESSION: Mass.", "Technique: one view.|Mass seen.|Mass."),
        ("FINDINGS:\nHistory: a fall. Rib broken.\nIMPRESSION: Fracture.", "History: a fall.|Rib broken.|Fracture."),
        ("Findings: Clear. Comparison: none. No mass.", "Clear.|Comparison: none.|No mass."),
        ("IMPRESSION: Old scars. HISTORY: fall. New mass.", "Old scars.|HISTORY: fall.|New mass."),
        ("IMPRESSION: Recommendation: chest CT. Mass.", "Recommendation: chest CT.|Mass."),
        ("IMPRESSION: RECOMMENDATION: chest CT. Mass.", "RECOMMENDATION: chest CT.|Mass."),
        ("EXAM: Chest.\nIMPRESSION: Mass. RECOMMENDATION: CT. New clot.", "Mass.|RECOMMENDATION: CT.|New clot."),
        ("FINDINGS: Clear.\nComparison: last year. Mass.\nCOMPARISON: None.", "Clear.|Comparison: last year.|Mass."),
        ("FINDINGS: Clear.\nTECHNIQUE: PA.\nIMPRESSION: Normal.", "Clear.|Normal."),
        ("IMPRESSION: Clear.\nElectronically signed by: Dr. X", "Clear."),
    ],
)
def test_in_doubt_nothing_is_cut(text: str, sentences: str) -> None:
    assert list(parse_report(text).sentences) == sentences.split("|")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("HISTORY: Fall.\nFINDINGS: Opacity.\nCOMMENT: Pneumonia.", ["Opacity.", "Pneumonia."]),
        ("FINDINGS: Opacity.\nIMPRESSION: Pneumonia.\nCOMMENT: Told to the ward.", ["Opacity.", "Pneumonia."]),
        ("FINDINGS: Opacity.\nOPINION: Pneumonia.\nCOMMENTS: Told.", ["Opacity.", "Pneumonia."]),
        ("REPORT: Opacity.\nInterpretation: Pneumonia.", ["Opacity.", "Pneumonia."]),
        ("HISTORY: Fall.\nCOMMENT: Pneumonia.", ["Pneumonia."]),
        ("FINDINGS: Opacity.\nIMPRESSION: Pneumonia.\nSUMMARY: Treat.", ["Opacity.", "Pneumonia.", "Treat."]),
    ],
)
def test_a_comment_or_an_opinion_concludes_a_report_without_impression(text: str, sentences: list[str]) -> None:
    assert list(parse_report(text).sentences) == sentences


def test_a_comment_does_not_displace_findings_without_a_heading() -> None:
    report = parse_report("The lungs are clear.\nCOMMENT: Told to the ward.")
    assert report.sentences == ("The lungs are clear.", "COMMENT: Told to the ward.")
    spanish = parse_report("HALLAZGOS: Opacidad.\nCOMENTARIO: Neumonía basal.", SPANISH)
    assert spanish.sentences == ("Opacidad.", "Neumonía basal.")


LINE_ENDS = [
    "\\n", "\\r\\n", "<br>", "<BR />", "<p>", "</p><p>", "</div>", "_x000D_", "_x000d_\n", "\\.br\\", "~", "~~ ",
    "&#10;", "&#13;&#10;", "&#xD;&#xA;", "\\X0D\\", "\\X0D\\\\X0A\\", "\\X0D0A\\", "\\par ", "\\par\n", "\\line ",
]  # fmt: skip


@pytest.mark.parametrize("mark", LINE_ENDS)
def test_line_ends_of_other_systems(mark: str) -> None:
    lines = [
        "INDICATION: Cough.",
        "FINDINGS: A nodule of ~2 cm.",
        "No effusion",
        "Heart normal.",
        "IMPRESSION: Nodule.",
    ]
    report = parse_report(mark.join(lines))
    assert report.sentences == ("A nodule of ~2 cm.", "No effusion", "Heart normal.", "Nodule.")
    assert report.repairs == (REPAIR_LINE_ENDS,)
    fields = fields_report(f"Clear.{mark}No mass", f"Normal{mark}Stable.")
    assert (fields.sentences, fields.repairs) == (("Clear.", "No mass", "Normal", "Stable."), (REPAIR_LINE_ENDS,))
    assert kept_sections(mark.join(lines))[1] == "Nodule."


@pytest.mark.parametrize(
    "text", ["About ~3 cm.", "From ~ 1 to\n2 cm < 3.", "In C:\\new\\report\non \\\\server\\radiology", "a_x000"]
)
def test_what_is_not_a_line_end(text: str) -> None:
    report = parse_report(text)
    assert (report.text, report.repairs) == (words(text), ())


@pytest.mark.parametrize("missing", ["nan", "NaN", "None", "N/A", "NULL", "<NA>", " na "])
def test_missing_values_written_out_are_not_text(missing: str) -> None:
    assert parse_report(f"FINDINGS: {missing} IMPRESSION: No mass.").sentences == ("No mass.",)
    assert parse_report(missing).text == fields_report(missing, missing).text == ""
    assert parse_report(missing).sentences == parse_report(f"FINDINGS: {missing}").sentences == ()
    assert fields_report(missing, "No mass.").text == "No mass."


def test_codes_and_the_administration_after_a_report_are_not_sentences() -> None:
    text = (
        "FINDINGS: Large heart.\nIMPRESSION:\n1. Cardiomegaly.\n2. No edema.\nSUMMARY:2-ABNORMAL, REPORTED BEFORE\n"
        "END OF IMPRESSION\nACCESSION NUMBER:\nAB1234\nPrimary Diagnostic Code: MINOR ABNORMALITY\n"
    )
    report = parse_report(text)
    assert report.sentences == ("Large heart.", "Cardiomegaly.", "No edema.")
    assert report.text == "Large heart. 1. Cardiomegaly. 2. No edema."
    assert parse_report("FINDINGS: 2-VIEW CHEST IS NORMAL.").sentences == ("2-VIEW CHEST IS NORMAL.",)


def test_fields_are_kept_whole_and_edits_reach_them() -> None:
    report = fields_report("Chest. Comparison: larger than before.", " Seen by Dr. Smith. IMPRESSION: Stable. ")
    assert report.text == "Chest. Comparison: larger than before. Seen by Dr. Smith. IMPRESSION: Stable."
    assert report.sections == ("findings", "impression")
    assert fields_report("", "").sections == fields_report("", "").sentences == ()
    masked = parse_report("HISTORY: Smith.\nIMPRESSION: Seen by Smith.", edit=lambda text: text.replace("Smith", "[X]"))
    assert (masked.text, masked.sentences) == ("Seen by [X].", ("Seen by [X].",))


def test_a_lexicon_of_a_user_extends_or_replaces(tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text(
        'extends = "en"\nnot_headings = ["contrast"]\n[sections.findings]\nheadings = ["report(s|)", "comment"]\n'
        '[sections.impression]\nkept = false\n[sentences]\nabbreviations = ["Lat."]\n'
    )
    ours = load_lexicon(tmp_path / "ours.toml")
    text = "Reports: Left lat. Mass seen.\nCOMMENT: New.\nIMPRESSION: Old."
    assert parse_report(text, ours).sentences == ("Left lat. Mass seen.", "New.")
    assert "contrast" in ENGLISH.headings
    assert "contrast" not in ours.headings
    assert ours.sha256 not in ("", ENGLISH.sha256)
    (tmp_path / "de.toml").write_text(
        'language = "de"\njoiners = ["und"]\n[sections.findings]\nkept = true\nheadings = ["Befund(e|)"]\n'
        '[sections.impression]\nkept = true\nheadings = ["Beurteilung"]\n',
        encoding="utf-8",
    )
    german = load_lexicon(str(tmp_path / "de.toml"))
    assert kept_sections("BEFUND UND BEURTEILUNG: Normal.\nFINDINGS: x", german) == ["Normal.\nFINDINGS: x"]
    assert pickle.loads(pickle.dumps(german)) == german


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"headings =", "is not a TOML file"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"a = " + b"[" * 5000, "is not a TOML file"),
        (b"x" * (1 << 20) + b"xx", "larger than"),
        (b"", "so nothing would be kept"),
        (b'extends = "fr"', "is not a shipped language"),
        (b"extends = []", "extends must be a text"),
        (b"extra = 1", "unknown key 'extra'"),
        (b"sections = 3", "must be a table"),
        (b"[examinations]\nname = []", "unknown key 'name'"),
        (b'extends = "en"\n[examinations]\nnames = 3', "names must be a list of words"),
        (b"[sections]\nfindings = 3", "sections.findings must be a table"),
        (b"[sections.findings]\nkeep = true", "unknown key 'keep' in sections.findings"),
        (b"[sections.findings]\nkept = 1", "sections.findings.kept must be true or false"),
        (b"[sections.findings]\nheadings = [1]", "headings must be a list of words"),
        (b'[sections.findings]\nheadings = ["a(b"]', "brackets must pair"),
        (b'[sections.findings]\nheadings = ["' + b"(a|b|c|d|e|f|g|h)" * 12 + b'"]', "more than 20000 headings"),
        (b"[sentences]\nwords = []", "unknown key 'words'"),
        (b"language = 3", "language must be a text"),
    ],
)
def test_a_bad_lexicon_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_lexicon(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("language", ["fr", "", ".", "nowhere.toml", "\x00", "x" * 5000])
def test_an_unknown_language_is_one_clear_line(language: str) -> None:
    with pytest.raises(InputError, match="there is no lexicon"):
        load_lexicon(language)


ADVERSARIAL = [
    "\n", " ", "\t", "\r\n", "- \n", "\n \n", "\n-", "a\nB\n", "A:", ":", ".", ". ", "..", ".?!", "((.", "(", "[", "*",
    " *", "#_", "___", "-", "a.", "a.b", "T4.N", "ab.C", "Dr. J. ", "I. ", "no.1", "1. A 2. ", "2. A", "1.1", "XXXX. ",
    "'s ", "n't", "e.g.", "FINDINGS", "FINDINGS:", "FINDINGS\n", "FINDINGS - ", "FINDINGS AND ", "FINDINGS (a) ",
    "FINDINGS / ", "Findings  A", "a\nfindings:\nB findings: ", "history & ", "CHEST:", "CHEST:\n", "A. CHEST: PA\n",
    "<br", "<p ", "~", "~ ", "\\n", "\\X0D", "FINDINGS: Comparison: ", "IMPRESSION: COMMENT: A ",
    "CHEST\n", "\n \nCOMPARISON:\nCHEST:\n", "\u0301", "é", "\x85", "\ufdfa", "\x00",
]  # fmt: skip


@pytest.mark.parametrize("unit", ADVERSARIAL)
def test_no_text_makes_parsing_slow(unit: str) -> None:
    check_growth(unit, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ADVERSARIAL)
def test_a_megabyte_takes_four_times_as_long_as_a_quarter(unit: str) -> None:
    check_growth(unit, 250_000, runs=1)


def check_growth(unit: str, length: int, runs: int = 3) -> None:
    assert_linear(parse_report, unit, length, runs)
    assert_linear(lambda text: parse_report(f"FINDINGS: {text}x"), unit, length, runs)


def test_places_hold_for_any_text() -> None:
    rng = random.Random(0)
    pieces = [
        "FINDINGS", "Impression", "comparison", "and", "/", ":", " - ", "\n", "\r\n", "\n\n", ". ", ".", "1. ", "XXXX",
        "___", "Lungs clear", "Dr", "T4", "2.5 cm", "**", "(", ")", "\t", "\u00a0", "é",
        "e\u0301", "\x00", "?", "A", "- ",
    ]  # fmt: skip
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randrange(40)))
        end = 0
        for section in parse_sections(text):
            assert end <= section.start <= section.end <= len(text)
            assert section.heading in text[: section.start]
            end = section.end
        end = 0
        for start, stop in sentence_spans(text):
            assert end <= start < stop <= len(text)
            assert text[start:stop] == text[start:stop].strip("\t\n\r ")
            end = stop
        parse_report(text, SPANISH)
