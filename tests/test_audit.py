"""The audit counts every row once, however many there are."""

import csv
import resource
from pathlib import Path

from convirt.data.preparing import audit as module
from convirt.data.preparing.audit import EXCLUDED, Audit


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
