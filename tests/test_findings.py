"""Findings from text: present, absent, uncertain; phantoms and real reports; lexicons that a user writes."""

from pathlib import Path

import numpy as np
import pytest

from convirt.data.findings import (
    extract_findings,
    findings_vector,
    load_findings_lexicon,
    parse_findings_lexicon,
)
from convirt.data.phantom.report import write_report
from convirt.data.phantom.study import draw_study
from convirt.data.reports import fields_report, parse_report
from convirt.errors import InputError
from linear_time import assert_linear
from open_i import open_i_reports

ENGLISH = load_findings_lexicon("en")
CHEXPERT = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Lung Opacity",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)


def found(*sentences: str) -> dict[str, int]:
    """What is mentioned at all."""
    return {name: status for name, status in extract_findings(sentences, ENGLISH).items() if status is not None}


def test_the_classes_are_chexperts() -> None:
    assert ENGLISH.classes == CHEXPERT
    assert tuple(extract_findings([], ENGLISH)) == CHEXPERT
    assert found() == {"No Finding": 1}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("There is a small left pleural effusion.", {"Pleural Effusion": 1}),
        ("No pleural effusion or pneumothorax.", {"Pleural Effusion": 0, "Pneumothorax": 0, "No Finding": 1}),
        ("Heart size is normal.", {"Cardiomegaly": 0, "No Finding": 1}),
        ("The cardiac silhouette is mildly enlarged.", {"Cardiomegaly": 1}),
        ("The heart is not enlarged.", {"Cardiomegaly": 0, "No Finding": 1}),
        ("Borderline cardiomegaly.", {"Cardiomegaly": -1}),
        ("Left basilar opacity may represent atelectasis.", {"Lung Opacity": 1, "Atelectasis": -1}),
        ("Small effusion cannot be excluded.", {"Pleural Effusion": -1}),
        ("Cannot exclude pneumonia.", {"Pneumonia": -1}),
        ("Pneumonia versus atelectasis.", {"Pneumonia": -1, "Atelectasis": -1}),
        ("The pneumothorax has resolved.", {"Pneumothorax": 0, "No Finding": 1}),
        ("Pneumothorax is not seen.", {"Pneumothorax": 0, "No Finding": 1}),
        ("Edema has resolved but there is a large effusion.", {"Edema": 0, "Pleural Effusion": 1}),
        ("No consolidation; mild edema.", {"Consolidation": 0, "Edema": 1}),
        ("Cardiomegaly without edema.", {"Cardiomegaly": 1, "Edema": 0}),
        ("No significant change in the pleural effusion.", {"Pleural Effusion": 1}),
        ("No findings to suggest pneumothorax.", {"Pneumothorax": 0, "No Finding": 1}),
        ("Pericardial effusion.", {"No Finding": 1}),
        ("PICC line ends in the superior vena cava.", {"Support Devices": 1, "No Finding": 1}),
        ("The right internal jugular catheter has been removed.", {"Support Devices": 0, "No Finding": 1}),
        ("Air-space   OPACITY.", {"Lung Opacity": 1, "Consolidation": 1}),
        ("The trachea is midline.", {"No Finding": 1}),
    ],
)
def test_a_sentence_says(sentence: str, expected: dict[str, int]) -> None:
    assert found(sentence) == expected


def test_of_several_mentions_the_present_one_counts_then_the_uncertain_one() -> None:
    denied, doubted, meant = "No pneumothorax.", "Possible pneumothorax.", "There is a pneumothorax."
    assert found(denied, doubted)["Pneumothorax"] == -1
    assert found(doubted, denied)["Pneumothorax"] == -1
    assert found(meant, denied, doubted)["Pneumothorax"] == 1
    assert "No Finding" not in found(denied, doubted)


def test_the_vector_counts_present_and_uncertain_findings() -> None:
    vector = findings_vector(extract_findings(["Possible edema, no effusion.", "Rib fracture."], ENGLISH))
    assert vector.dtype == np.float32
    assert {CHEXPERT[i] for i in np.flatnonzero(vector)} == {"Edema", "Fracture"}
    half = findings_vector(extract_findings(["Possible edema."], ENGLISH), uncertain=0.5)
    assert half[CHEXPERT.index("Edema")] == 0.5
    normal = findings_vector(extract_findings(["The lungs are clear."], ENGLISH))
    assert [CHEXPERT[i] for i in np.flatnonzero(normal)] == ["No Finding"]


def test_phantom_reports_give_the_phantoms_findings() -> None:
    """The labels are known: no finding of 400 reports is missed, and none invented."""
    for patient in range(400):
        study = draw_study(11, patient, 0)
        sentences = parse_report(write_report(study)).sentences
        statuses = extract_findings(sentences, ENGLISH)
        taken = {name.lower() for name, status in statuses.items() if status in (1, -1)}
        taken = {"pneumonia" if name == "consolidation" else name for name in taken}
        taken -= {"lung opacity", "support devices"}
        assert taken == set(study.categories), sentences


def test_real_reports_agree_with_their_index_terms() -> None:
    """benchmarks/findings.py has the figures of all classes; here a floor of three, by their simplest term."""
    names = ("Cardiomegaly", "Pleural Effusion", "Pneumothorax")
    statuses: dict[str, list[int | None]] = {name: [] for name in names}
    for report in open_i_reports().values():
        wanted = {term.split("/")[0] for term in report.terms} & set(names)
        if wanted and report.text:
            found_there = extract_findings(fields_report(report.findings, report.impression).sentences, ENGLISH)
            for name in wanted:
                statuses[name].append(found_there[name])
    for name, of_reports in statuses.items():
        assert len(of_reports) > 20
        assert sum(status in (1, -1) for status in of_reports) / len(of_reports) > 0.85, name


@pytest.mark.parametrize("unit", ["no ", "heart ", "opacity, ", "\0", "é", "heart is is is is is "])
def test_hostile_sentences_take_linear_time(unit: str) -> None:
    assert_linear(lambda text: extract_findings([text], ENGLISH), unit, 4_000)
    assert extract_findings([""], ENGLISH)["Edema"] is None


# Lexicons of a user

SMALL = """
no_finding = "normal"
[findings."mass"]
mentions = ["(mass|masses|tumo(u|)r*)", "soft ... swelling"]
[negation]
before = ["no"]
"""


def test_a_user_may_bring_other_findings(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    lexicon = load_findings_lexicon(path)
    assert lexicon.classes == ("mass", "normal")
    for sentence, status in {
        "A tumour.": 1,
        "Tumors.": 1,
        "Soft and painless swelling.": 1,
        "No masses.": 0,
        "Massive.": None,
        "amass": None,
    }.items():
        assert extract_findings([sentence], lexicon)["mass"] == status, sentence
    assert parse_findings_lexicon(lexicon.source, where="kept").classes == lexicon.classes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not a TOML file"),
        ('no_finding = "x"', "there are no findings"),
        ("findings = 3", "findings must be a table"),
        ("[findings.x]\nmention = ['a']", "unknown key 'mention' in findings.x"),
        ("[findings.x]\nabsent = ['a']", "has no mentions"),
        ("[findings.x]\nmentions = 'a'", "must be a list of words or phrases"),
        ("[findings.x]\nmentions = ['a', '']", "must be a list of words or phrases"),
        ("[findings.x]\nmentions = ['(a|b']", "brackets must pair"),
        ("[findings.x]\nmentions = ['a+']", "holds '+'"),
        ("[findings.x]\nmentions = ['a... b']", "between words only"),
        ("[findings.x]\nmentions = ['(a|)']", "may stand for nothing"),
        ("[findings.x]\nmentions = ['a']\npathology = 1", "true or false"),
        ("no_finding = 'x'\n[findings.x]\nmentions = ['a']", "a name that no finding has"),
        ("[findings.x]\nmentions = ['a']\n[negation]\nbehind = ['b']", "unknown key 'behind' in negation"),
        ("negations = 1", "unknown key 'negations'"),
    ],
)
def test_a_file_that_is_no_lexicon_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        load_findings_lexicon(path)
    said = str(refused.value)
    assert message in said
    assert str(path) in said
    assert "\n" not in said


@pytest.mark.parametrize("place", ["fr", "/nowhere/findings.toml", "a" * 5000, "nul\0byte", "/"])
def test_a_lexicon_that_is_not_there_is_one_line(place: str) -> None:
    with pytest.raises(InputError, match="no findings lexicon"):
        load_findings_lexicon(place)


def test_a_file_that_is_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    large, binary = tmp_path / "large.toml", tmp_path / "binary.toml"
    large.write_bytes(b"#" * (1 << 21))
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="larger than"):
        load_findings_lexicon(large)
    with pytest.raises(InputError, match="UTF-8"):
        load_findings_lexicon(binary)
