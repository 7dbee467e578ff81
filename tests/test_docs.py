"""What the documentation names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def table_lines(page: str) -> list[str]:
    """Rows of the tables of a page, without their headings."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return [
        line
        for line in lines
        if line.startswith("| ") and not line.startswith(("| idea |", "| question |", "| constant |"))
    ]


def test_every_file_and_test_that_the_paper_page_names_exists():
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([\w/]+\.py)`", page))
    assert len(files) > 20
    assert not [name for name in files if not (ROOT / "src" / "convirt" / name).is_file()]
    tests = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", page))
    assert len(tests) > 50
    found = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py")}
    assert not [f"{file}::{name}" for file, name in tests if f"def {name}(" not in found.get(file, "")]


@pytest.mark.parametrize("line", table_lines("paper.md"), ids=lambda line: line.split("|")[1].strip()[:40])
def test_every_row_of_the_paper_page_names_a_test(line):
    assert re.search(r"`test_\w+\.py::test_\w+`", line)
    assert line.count("|") == 5
