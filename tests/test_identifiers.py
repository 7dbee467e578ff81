"""Identifiers in report text: what is found, what is left alone, and what masking leaves."""

import importlib.util
import itertools
import random
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from defusedxml import ElementTree

from convirt.data.identifiers.finding import GAP, KINDS, LIMITS, find_identifiers, outline, redact
from identifier_texts import CARRIERS, planted_texts, score
from linear_time import assert_linear


def found(text: str) -> list[tuple[str, str]]:
    """Kind and text of every finding."""
    return [(item.kind, text[item.start : item.end]) for item in find_identifiers(text)]


@pytest.mark.parametrize(
    "text",
    [
        *CARRIERS,
        "Dr. ___ was notified. Dr. XXXX XXXX was called at XXXX. Signed by [NAME].",
        "Kerley B lines, Hampton hump, Swan-Ganz catheter, Bosniak IIF, Crohn disease, Graves' disease.",
        "T4 and T12-L1; L1-L2; C3/4/5; segments 2-3-12; grade 3/4; strength 5/5; 1/2 of the lung.",
        "2.5 x 3 cm, 10 x 12 mm, 0.1 mmol/kg, FiO2 40%, SpO2 94, ICD J18.9, BI-RADS 4, TE 90 TR 3500.",
        "Mass at 12:00 in the right breast, 4 cm from the nipple; another at the 10:30 position.",
        "MR. Cysts do not enhance. MS plaques. DR chest. MRI BRAIN. MR angiography of the MR. BRAIN.",
        "The 2 may represent cysts. Findings may 3 be. Dec 3 mm. The march of time. Mar 4 cm.",
        "DO NOT REPEAT. CLINICALLY DO NOT TREAT. PA AND LATERAL. NP SWAB.",
        "Reported by RADIOLOGY. Reviewed by Cardiology. Interpreted by the attending radiologist.",
        "Aged 45, 67-year-old, 89 y/o, 95 % of predicted, 99 mm, 90 degrees, 92 days, 100 years ago.",
        "In 2012, since 1998, a 2010 study, the 1990s.",
        "Image 4:23, ratio 2:1, dilution 1:20, titer 1:40, cardiothoracic ratio of 16.2/24.7.",
        "PMID: 24131592 and NCT01234567; WBC 10000000/uL; 1000000 copies.",
        "with Down Syndrome, by Color Doppler, per Fleischner Society guidelines, Real Time PCR.",
        "Patient B. Non-contrast CT. Patient 1: AP radiograph. Neoplasm Name: Pilocytic Astrocytoma.",
        "se compara con estudio previo, sin cambios. Vértebras D8-D9. Índice 0,52. En 2012.",
        "",
    ],
    ids=lambda text: text[:40],
)
def test_what_reports_are_full_of_stays(text):
    assert found(text) == []
    assert redact(text) == (text, Counter())


@pytest.mark.parametrize(
    ("text", "kind", "identifier"),
    [
        ("seen by Dr. Smith.", "NAME", "Smith"),
        ("DR. JOHN SMITH AT NOON", "NAME", "JOHN SMITH"),
        ("seen by Dr. De la Cruz.", "NAME", "De la Cruz"),
        ("Drs. Hale and Moore agree", "NAME", "Hale and Moore"),
        ("Prof. Szymańska agrees", "NAME", "Szymańska"),
        ("Electronically signed by: J. O'Neill-Brown", "NAME", "J. O'Neill-Brown"),
        ("Patient: SMITH, JOHN A", "NAME", "SMITH, JOHN A"),
        ("Jane Doe, RN", "NAME", "Jane Doe"),
        ("Informado por: Dra. María del Carmen López", "NAME", "María del Carmen López"),
        ("on 03/04/2012.", "DATE", "03/04/2012"),
        ("on 2012-03-04.", "DATE", "2012-03-04"),
        ("the 4th of March, 2012.", "DATE", "4th of March, 2012"),
        ("el 4 de marzo de 2012.", "DATE", "4 de marzo de 2012"),
        ("04-MAR-12 film", "DATE", "04-MAR-12"),
        ("compared with 3/4, stable", "DATE", "3/4"),
        ("in January", "DATE", "January"),
        ("20120304", "DATE", "20120304"),
        ("at 10:30 am", "TIME", "10:30 am"),
        ("at 0830 hrs", "TIME", "0830 hrs"),
        ("call (555) 123-4567 x12", "PHONE", "(555) 123-4567 x12"),
        ("pager 12345", "PHONE", "12345"),
        ("tel. 612 345 678", "PHONE", "612 345 678"),
        ("MRN 123456", "RECORD", "123456"),
        ("Acc# 12345-AB", "RECORD", "12345-AB"),
        ("UID 1.2.840.113619.2.1.1.5", "RECORD", "1.2.840.113619.2.1.1.5"),
        ("historia clínica nº 445566", "RECORD", "445566"),
        ("write to a.b@example.org", "EMAIL", "a.b@example.org"),
        ("see https://example.org/a?b=1.", "URL", "https://example.org/a?b=1"),
        ("a 93-year-old man", "AGE", "93-year-old"),
        ("mujer de 97 años", "AGE", "97 años"),
        ("at 123 Main Street, Boston", "ADDRESS", "123 Main Street"),
        ("Boston, MA 02114", "ZIP", "MA 02114"),
        ("SSN 123-45-6789", "NATIONAL_ID", "123-45-6789"),
        ("DNI 12345678Z", "NATIONAL_ID", "12345678Z"),
    ],
)
def test_each_kind_is_found_whole(text, kind, identifier):
    assert (kind, identifier) in found(text)
    masked, counts = redact(text)
    assert identifier not in masked
    assert f"[{kind}]" in masked
    assert counts[kind] >= 1


def test_a_wrong_check_letter_is_no_national_id():
    assert ("NATIONAL_ID", "12345678A") not in found("DNI 12345678A")


@pytest.mark.parametrize(("part", "least"), [("dev", 1.0), ("first", 0.99), ("test", 0.93)])
def test_planted_identifiers_are_masked(part, least):
    result = score(planted_texts(part, 200), find_identifiers)
    assert sum(result.planted.values()) > 400
    assert sum(result.masked.values()) >= least * sum(result.planted.values())
    assert result.wrong == 0


def test_masking_changes_nothing_else_and_is_done_once():
    for text in planted_texts("dev", 40, seed=3):
        masked, counts = redact(text.text)
        assert redact(masked) == (masked, Counter())
        assert sum(counts.values()) == len(find_identifiers(text.text))
        rest, place = "", 0
        for item in find_identifiers(text.text):
            rest += text.text[place : item.start] + f"[{item.kind}]"
            place = item.end
        assert masked == rest + text.text[place:]


def test_findings_are_in_order_and_apart_in_any_text():
    rng = random.Random(0)
    pieces = [
        "Dr. ",
        "Smith",
        "12",
        "/",
        "-",
        ".",
        " ",
        "\n",
        "2012",
        "Acc# ",
        "May",
        ",",
        "@",
        "a.b",
        "é",
        "X",
        "___",
        ":",
    ]
    for _ in range(400):
        text = "".join(rng.choices(pieces, k=30))
        items = find_identifiers(text)
        assert all(0 <= item.start < item.end <= len(text) and item.kind in KINDS for item in items)
        assert all(a.end <= b.start for a, b in itertools.pairwise(items))


@pytest.mark.parametrize(
    "piece",
    ["A ", "Aa ", "Aa, ", "A. ", "AB ", "Dr. ", "Dr.\n", "de la ", "signed by ", "1", "1 ", "12-", "1.", "a@", "May 1 ",
     "http://", "Aa-", "O'", "1 Main ", "Calle Aa ", "acc ", "(555) ", "Patient:", "\t", "a1b2c3d4-"],
)  # fmt: skip
def test_no_text_takes_long(piece):
    assert_linear(lambda text: find_identifiers(f"Dr. {text}X"), piece, length=5_000)


def test_an_outline_shows_the_shape_alone():
    text = "Signed by Jane Q. Doe on 03/04/2012, call 555-123-4567."
    shown = [outline(text, item) for item in find_identifiers(text)]
    assert shown[0] == "Signed by [NAME Xxxx X. Xxx] on [DATE], call [PHONE]"
    assert "[DATE 00/00/0000]" in shown[1]
    assert not any(part in line for line in shown for part in ("Jane", "Doe", "2012", "4567"))


def test_gaps_of_others_and_our_own_are_known():
    for text in ("by Dr. ___ at", "XXXX-year-old", "[**Known lastname**]", "on [DATE]."):
        assert GAP.search(text)
    assert not GAP.search("an X-ray of the xiphoid, _italic_")


def test_limits_are_said():
    assert len(LIMITS) >= 6
    assert found("Jane Doe was here") == []  # the first limit: no cue
    assert found("seen on 3/4") != []


@pytest.mark.skipif(importlib.util.find_spec("torchxrayvision") is None, reason="the package torchxrayvision is absent")
def test_deidentified_reports_hold_next_to_nothing():
    spec = importlib.util.find_spec("torchxrayvision")
    assert spec is not None
    assert spec.origin is not None
    texts = []
    with tarfile.open(Path(spec.origin).parent / "data" / "NLMCXR_reports.tgz") as archive:
        for member in list(archive)[:1200]:
            if member.name.endswith(".xml") and (file := archive.extractfile(member)):
                parts = ElementTree.parse(file).getroot().iter("AbstractText")
                texts.append("\n".join(part.text for part in parts if part.text))
    assert len(texts) > 1000
    assert sum(len(find_identifiers(text)) for text in texts) <= 2
    assert sum(GAP.search(text) is not None for text in texts) > 500
