"""Source tables: read by Arrow, and with the same values as by the `csv` module, row for row."""

import csv
import io
import random
from pathlib import Path

import pandas as pd
import pytest

from convirt.data import tables
from convirt.data.tables import Table, read_frame, read_table
from convirt.errors import InputError

CELLS = ["", "007", "x, y", 'q"q', '"', '""', "line\nbreak", "cr\r\nlf", "é", "NA", " sp ", "a;b", "t\tt", '5"', ' "x"']


def read(path: Path, data: str | bytes, **options: str) -> Table:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_table(path, **options)


def draw_table(rng: random.Random) -> str:
    """A table with all that CSV allows, in which some rows do not fit and some quotes are wrong."""
    delimiter, end = rng.choice(",,\t;"), rng.choice(["\n", "\r\n", "\r"])
    width = rng.randint(1, 4)
    lines = [delimiter.join(f"c{place}" for place in range(width))]
    for _ in range(rng.randint(1, 8)):
        cells = []
        for _ in range(width if rng.random() < 0.9 else rng.randint(1, 5)):
            cell = rng.choice(CELLS)
            if rng.random() < 0.2 or set(cell) & {delimiter, "\n", "\r"} or cell.startswith('"'):
                cell = '"' + cell.replace('"', '""') + '"'
            cells.append('"' + cell if rng.random() < 0.02 else cell)
        lines.append(delimiter.join(cells))
        lines += rng.choices([[], [""], [" "]], [20, 1, 1])[0]
    return ("\ufeff" if rng.random() < 0.1 else "") + end.join(lines) + rng.choice(["", end])


def read_naively(text: str) -> tuple[list[list[str]], list[int]] | None:
    """Rows that fit and the numbers of those that do not; None if quotes are open at the end."""
    text = text.removeprefix("\ufeff")
    head = text.splitlines()[0]
    delimiter = next((mark for mark in ",\t;" if mark in head), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    width, rows, wrong, number = len(next(reader)), [], [], 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return rows, wrong
        except csv.Error as error:
            if "unexpected end" in str(error):
                return None
            cells = []
            number += 1
            wrong.append(number)
            continue
        if cells:
            number += 1
            if len(cells) == width:
                rows.append(cells)
            else:
                wrong.append(number)


def test_any_table_has_the_values_that_the_csv_module_reads(tmp_path: Path) -> None:
    rng, kinds = random.Random(7), {"fits": 0, "does not fit": 0, "is open": 0}
    for _ in range(600):
        text = draw_table(rng)
        if (expected := read_naively(text)) is None:
            kinds["is open"] += 1
            with pytest.raises(InputError, match=r"quotes opened in the row at line \d+ are never closed"):
                read(tmp_path / "a.csv", text)
            continue
        rows, wrong = expected
        kinds["does not fit" if wrong else "fits"] += 1
        if not rows and not wrong:
            continue
        table = read(tmp_path / "a.csv", text)
        assert [list(row.values()) for row in table.rows.to_pylist()] == rows
        assert list(table.malformed) == wrong
        assert table.numbers.tolist() == sorted(set(range(1, len(rows) + len(wrong) + 1)) - set(wrong))
    assert min(kinds.values()) >= 5


def test_quotes_that_are_not_closed_never_swallow_a_row(tmp_path: Path) -> None:
    text = 'a,b\n1,"open\n2,"closed"\n3,z\n'
    table = read(tmp_path / "a.csv", text)
    assert table.malformed == {1: """line 2: ',' expected after '"'"""}
    assert (table.rows.to_pylist(), table.numbers.tolist()) == ([{"a": "3", "b": "z"}], [2])
    with pytest.raises(InputError, match="row at line 3 are never closed"):
        read(tmp_path / "a.csv", 'a,b\n1,x\n2,"open\n3,z\n')
    assert len(read(tmp_path / "a.csv", 'a,b\n1,5" of it\n2,a "b" c\n')) == 2  # within a cell they are characters


def test_rows_that_do_not_fit_are_named(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", 'a,b\n1,"x\ny"\n\n2\n3,x,y\n4,z\n')
    assert table.malformed == {2: "line 5: 1 cells, the header has 2", 3: "line 6: 3 cells, the header has 2"}
    assert table.frame.to_dict("index") == {1: {"a": "1", "b": "x\ny"}, 4: {"a": "4", "b": "z"}}
    with pytest.raises(InputError, match=r"row 2 does not fit the header \(line 5: 1 cells.*; repair it"):
        read_frame(tmp_path / "a.csv")


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_of_another_encoding_is_named(tmp_path: Path, packed: bool) -> None:
    frame = pd.DataFrame({"a": [str(k) for k in range(3000)], "b": ["x"] * 2999 + ["é"]})
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    frame.to_csv(path, index=False, encoding="cp1252")
    with pytest.raises(InputError, match="line 3001: byte 0xe9 at offset 19892 is not utf-8; save the table as UTF-8"):
        read_table(path)
    assert read_table(path, encoding="cp1252").frame["b"].iloc[-1] == "é"
    assert read(tmp_path / "b.csv", "a,b\n1,é\n".encode("utf-16"), encoding="utf-16").frame["b"].tolist() == ["é"]


def test_a_cell_that_no_table_holds_is_taken_for_open_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_LONGEST_CELL", 2000)
    assert len(read(tmp_path / "a.csv", f'a,b\n1,"{"x" * 1500}"\n')) == 1
    with pytest.raises(InputError, match="row at line 2 are never closed"):
        read(tmp_path / "a.csv", f'a,b\n1,"{"x" * 20_000}"\n')


def test_the_frame_of_a_whole_table_is_stripped_and_filtered(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(" kind ,text\nCT, one \nMR,two\n CT,three\n")
    frame, digest = read_frame(tmp_path / "a.csv", [("", "kind")], ["kind=CT"])
    assert frame.to_dict("index") == {1: {"kind": "CT", "text": "one"}, 3: {"kind": "CT", "text": "three"}}
    assert digest == read_table(tmp_path / "a.csv").sha256
    with pytest.raises(
        InputError, match=r"^--view-column: table a\.csv has no column 'view'; its columns are: kind, text"
    ):
        read_frame(tmp_path / "a.csv", [("--view-column", "view")])
    with pytest.raises(InputError, match=r"^table a\.csv has no column 'Kind' \(did you mean 'kind'\?\); its"):
        read_frame(tmp_path / "a.csv", [("", "Kind")])
