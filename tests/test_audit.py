"""The audit counts every row once, however many there are."""

import csv
import resource
from pathlib import Path

from convirt.data.preparing import audit as module
from convirt.data.preparing.audit import EXCLUDED, LITTLE_KEPT, Audit, Words
from convirt.data.reports import parse_report
from convirt.data.reports.sections import RULE_LABEL_LEFT, RULE_STAND_IN


def test_each_row_ends_in_one_way(tmp_path: Path) -> None:
    audit = Audit(table="t", total=6, notes=["a note"])
    audit.repair(1, "made grey")
    audit.repair(1, "turned")
    audit.repair(2, "made grey", image="b.png")
    audit.drop(2, "damaged", image="b.png", detail="at its end", failure=True)
    audit.drop(3, EXCLUDED)
    audit.drop(9, "no text")  # sources may count rows that no table announced
    assert audit.counts() == {"total": 6, "kept": 2, "repaired": 1, "dropped": 3, "failed": 1}
    assert (audit.failures, audit.considered) == (1, 5)
    assert audit.first_failure == "row 2, b.png: damaged (at its end)"
    assert audit.summary() == "damaged (1), excluded by filter (1), no text (1)"
    seen = audit.to_json()
    assert seen["repaired"] == {
        "made grey": {"count": 1, "rows": [{"row": 1}]},  # the repair of a dropped row is none
        "turned": {"count": 1, "rows": [{"row": 1}]},
    }
    assert seen["dropped"]["damaged"]["rows"] == [{"row": 2, "image": "b.png", "detail": "at its end"}]
    assert seen["notes"] == ["a note"]
    audit.write_csv(tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(newline="") as file:
        assert [(row["row"], row["fate"]) for row in csv.DictReader(file)] == [
            ("1", "repaired"),
            ("1", "repaired"),
            ("2", "failed"),
            ("3", "dropped"),
            ("9", "dropped"),
        ]


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    audit = Audit(table="t", total=1)
    audit.drop(1, "image not found", image='a\udc80,"b\n.png')
    audit.write_csv(tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(newline="", encoding="utf-8") as file:
        assert next(iter(csv.DictReader(file)))["image"] == 'a\\udc80,"b\n.png'


def test_many_rows_cost_no_memory_and_all_are_listed(tmp_path: Path) -> None:
    rows = 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    audit = Audit(table="t", total=rows)
    for row in range(rows, 0, -1):
        audit.drop(row, "image not found", image=f"files/p10/p{row:08d}/s{row:08d}/a-long-name-of-an-image-{row}.jpg")
    seen = audit.to_json()
    audit.write_csv(tmp_path / "audit.csv")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kilobytes; the names alone are 16,000
    listed = seen["dropped"]["image not found"]
    assert listed["count"] == rows
    assert [entry["row"] for entry in listed["rows"]] == list(range(1, module.LISTED + 1))
    with (tmp_path / "audit.csv").open() as file:
        assert sum(1 for _ in file) == rows + 1


LONG = "INDICATION: " + "An old man with cough, fever and pain for many days. " * 3 + "\nFINDINGS: Clear."
PLAIN = "INDICATION: Cough.\nFINDINGS: The lungs are clear and the heart is normal in size."


def test_the_words_of_all_reports_are_accounted_for_and_rules_are_named() -> None:
    audit = Audit(table="t", total=12)
    for row in range(1, 9):
        audit.note_report(row, parse_report(PLAIN))
    audit.note_report(9, parse_report(LONG), image="b.png")
    audit.note_report(10, parse_report("FINDINGS: Comparison: none. The lungs are clear.\nCOMMENT: Normal chest."))
    audit.note_report(11, parse_report("No heading at all."))
    audit.drop(9, "text shorter than 3 tokens", image="b.png")
    seen = audit.to_json()
    assert seen["rows"] == {"total": 12, "kept": 11, "repaired": 0, "dropped": 1, "failed": 0}
    assert seen["words"] == {
        "reports": 11,
        "kept": {"": 4, "comment": 2, "findings": 8 * 11 + 1 + 6},
        "cut": {"headings": 8 * 2 + 2 + 2, "indication": 8 + 33},
        "median_per_cent_kept": 91,
    }
    assert {reason: [row["row"] for row in entry["rows"]] for reason, entry in seen["noted"].items()} == {
        LITTLE_KEPT: [9],
        RULE_LABEL_LEFT: [10],
        RULE_STAND_IN: [10],
    }
    assert seen["noted"][LITTLE_KEPT]["rows"][0]["detail"] == "1 of 34 words"
    assert audit.words.warning().startswith(
        "1 of 11 reports kept less than a third of their words, where half keep at least 91 %"
    )


def test_an_archive_that_loses_most_of_its_text_is_told_about_lexicons() -> None:
    words = Words()
    assert words.warning() == ""
    for text in (LONG, LONG, LONG, PLAIN):
        words.add(parse_report(text))
    assert "half of all at most 2 %: headings of this archive may be unknown, see --lexicon" in words.warning()
    again = Words()
    again.merge(vars(words))
    again.merge(vars(words))
    assert (again.to_json()["reports"], again.median) == (8, words.median)
