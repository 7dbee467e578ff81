"""Findings under the name of an examination or an organ, and what under such a name is none."""

from pathlib import Path

import pytest

from convirt.data.reports import Lexicon, load_lexicon, parse_report, parse_sections
from convirt.data.reports.lexicons import ENGLISH

SPANISH = load_lexicon("es")
FOUND = [
    "CHEST, TWO VIEWS:\nLungs are clear.\nIMPRESSION: Normal.",
    "CHEST, TWO VIEWS: Lungs are clear.\nIMPRESSION: Normal.",
    "CHEST, TWO VIEWS - Lungs are clear.\nIMPRESSION - Normal.",
    "**Chest (PA and lateral):** Lungs are clear.\n**Impression:** Normal.",
    "FINAL REPORT\n AP CHEST, 8:09 A.M. ON ___:\n\n Lungs are clear.\n\n IMPRESSION: Normal.",
    "EXAMINATION:\nPA AND LATERAL CHEST RADIOGRAPHS:\nLungs are clear.\nIMPRESSION: Normal.",
    "PORTABLE CHEST RADIOGRAPH\n\nHISTORY: Cough.\n\nSINGLE VIEW OF THE CHEST:\nLungs are clear.\nIMPRESSION: Normal.",
    "INDICATION: Cough. CHEST X-RAY: Lungs are clear. IMPRESSION: Normal.",
    "COMPARISON:\nCHEST CT: Pneumonia.\nCHEST: Worse.\n\nCHEST RADIOGRAPH: Lungs are clear.\nIMPRESSION: Normal.",
    "CHEST RADIOGRAPH\r\nLungs are clear.\r\nIMPRESSION: Normal.",
]
NOT_FOUND = [
    "CHEST X-RAY\n\n45-year-old woman with a mass.\n\nIMPRESSION: Normal.",
    "CHEST, TWO VIEWS:\nHistory of asthma.\nIMPRESSION: Normal.",
    "CHEST, TWO VIEWS: 3/4/2010 at 8:09 A.M.\nIMPRESSION: Normal.",
    "TECHNIQUE: Digital.\nCHEST: PA and lateral views were obtained on 3 May 2010.\nIMPRESSION: Normal.",
    "COMPARISON: CHEST RADIOGRAPH: Pneumonia.\nIMPRESSION: Normal.",
    "COMPARISON:\nCHEST CT: Pneumonia.\nCHEST, TWO VIEWS: Effusion.\nIMPRESSION: Normal.",
    "INDICATION:\nCHEST: crackles.\nIMPRESSION: Normal.",
    "INDICATION: Tumour. In the chest: crackles. Lungs: wheezes.\nIMPRESSION: Normal.",
    "CHEST RADIOGRAPH\nJ. Smith, MD\n\nIMPRESSION: Normal.",
    "PRIOR CHEST RADIOGRAPH: Pneumonia.\nIMPRESSION: Normal.",
    "CHEST WARD:\nBed 4.\nIMPRESSION: Normal.",
    "WET READ: CHEST: Pneumonia.\nIMPRESSION: Normal.",
]


def kept(text: str, lexicon: Lexicon = ENGLISH) -> list[tuple[str, str]]:
    return [(s.name, " ".join(text[s.start : s.end].split())) for s in parse_sections(text, lexicon) if s.kept]


@pytest.mark.parametrize("text", FOUND)
def test_text_under_the_name_of_an_examination_is_findings(text: str) -> None:
    assert kept(text) == [("findings", "Lungs are clear."), ("impression", "Normal.")]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_history_technique_and_comparison_are_not(text: str) -> None:
    assert kept(text) == [("impression", "Normal.")]


def test_organs_keep_their_names_and_other_examinations_follow() -> None:
    text = "HISTORY: Cough.\nLUNGS: Clear.\nHEART: Normal.\nIMPRESSION: Normal."
    assert kept(text) == [("findings", "LUNGS: Clear. HEART: Normal."), ("impression", "Normal.")]
    text = "CHEST, TWO VIEWS: Clear.\nABDOMEN: Gas.\nCOMPARISON: None.\nRIBS, LEFT: Fracture.\nIMPRESSION: Fracture."
    assert [body for _, body in kept(text)] == ["Clear. ABDOMEN: Gas.", "RIBS, LEFT: Fracture.", "Fracture."]


@pytest.mark.parametrize("heading", ["FINDINGS", "REPORT"])
def test_a_report_with_findings_has_no_others(heading: str) -> None:
    assert kept(f"CHEST, TWO VIEWS: Pneumonia.\n{heading}: Clear.") == kept(f"{heading}: Clear.")


def test_an_impression_is_not_parted() -> None:
    text = "IMPRESSION:\nCHEST, TWO VIEWS: Clear.\nADDENDUM:\nCHEST CT: Nodule."
    assert kept(text) == [("impression", "CHEST, TWO VIEWS: Clear.")]


def test_an_hour_is_no_heading() -> None:
    assert kept("AP CHEST, 5:17 A.M.  The lungs are clear.") == []


def test_spanish_examinations() -> None:
    text = "MOTIVO: Tos.\nRX DE TÓRAX (PA Y LATERAL):\nPulmones claros.\nIMPRESIÓN: Normal."
    assert kept(text, SPANISH) == [("findings", "Pulmones claros."), ("impression", "Normal.")]
    text = "RADIOGRAFÍA DE TÓRAX:\nMujer de 40 años con tos.\nIMPRESIÓN: Normal."
    assert kept(text, SPANISH) == [("impression", "Normal.")]


def test_an_extending_lexicon_adds_words_or_turns_them_off(tmp_path: Path) -> None:
    text = "CATHETER SERIES: Clear.\nIMPRESSION: Normal."
    (tmp_path / "more.toml").write_text('extends = "en"\n[examinations]\nnames = ["Catheter"]\n')
    (tmp_path / "none.toml").write_text('extends = "en"\n[examinations]\nsections = []\n')
    assert len(kept(text)) == 1
    assert len(kept(text, load_lexicon(tmp_path / "more.toml"))) == 2
    assert len(kept(FOUND[0], load_lexicon(tmp_path / "none.toml"))) == 1
    assert parse_report(FOUND[0]).sections == ("findings", "impression")
