"""What spreadsheets write is read as it was meant, and what they lose is named."""

from pathlib import Path

import pytest

from convirt.data.splits import canonical_id, check_patients
from convirt.data.tables import read_table
from convirt.errors import InputError


def written(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n', "SEP=;\n"])
def test_the_separator_that_excel_announces(tmp_path: Path, first: str) -> None:
    table = read_table(written(tmp_path, f"{first}a;b, c\n1;x, y\n2;z\n"))
    assert table.header == ["a", "b, c"]
    assert table.rows.column("b, c").to_pylist() == ["x, y", "z"]
    assert any("names the separator" in note for note in table.notes)


def test_a_line_that_does_not_fit_is_counted_with_the_announcement(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "sep=;\na;b\n1;2\n1;2;3\n"))
    assert table.malformed == {2: "line 4: 3 cells, the header has 2"}


@pytest.mark.parametrize(
    ("header", "mark"),
    [('a;"b, c";d', ";"), ('"a, b"\tc\td', "\t"), ('"a;b",c,d', ",")],
    ids=["semicolon", "tab", "comma"],
)
def test_a_quoted_separator_in_the_header_decides_nothing(tmp_path: Path, header: str, mark: str) -> None:
    table = read_table(written(tmp_path, f"{header}\n{mark.join('123')}\n"))
    assert len(table.header) == 3
    assert [table.rows.column(name)[0].as_py() for name in table.header] == ["1", "2", "3"]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_header_with_a_comma_outside_quotes_is_judged_by_the_rows(tmp_path: Path, mark: str) -> None:
    table = read_table(
        written(tmp_path, mark.join(["image, name", "text"]) + "\n" + mark.join(["1.png", "a, b"]) + "\n")
    )
    assert table.header == ["image, name", "text"]
    assert table.rows.column("text").to_pylist() == ["a, b"]


def test_a_header_that_no_known_mark_parts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 1, cannot be read as cells parted by ',' .*sep=\^"):
        read_table(written(tmp_path, '"image, name"^"text"\n"1"^"2"\n'))


def test_empty_columns_at_the_end_are_left_out_and_said(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a,b,,\n1,2,,\n3,4\n5,6,,x\n"))
    assert table.header == ["a", "b"]
    assert table.rows.column("b").to_pylist() == ["2", "4"]
    assert table.malformed == {3: "line 4: 4 cells, the header has 2"}  # nothing that is written there is lost unsaid
    assert any("2 columns without a name" in note for note in table.notes)


def test_empty_cells_beyond_the_last_column(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a;b\n1;2;;\n3;4;\n5;6\n"))
    assert table.rows.column("b").to_pylist() == ["2", "4", "6"]
    assert any("2 rows end in empty cells" in note for note in table.notes)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_with_its_mark(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding == "utf-16" else "\ufeff"
    table = read_table(written(tmp_path, f"{mark}name,age\nMüller,7\n".encode(encoding)))
    assert table.rows.column("name").to_pylist() == ["Müller"]


@pytest.mark.parametrize(("head", "kind"), [(b"PK\x03\x04rest", ".xlsx"), (b"\xd0\xcf\x11\xe0\xa1\xb1", ".xls")])
@pytest.mark.parametrize("name", ["t.xlsx", "t.csv"])
def test_a_workbook_is_told_how_to_be_saved(tmp_path: Path, head: bytes, kind: str, name: str) -> None:
    with pytest.raises(InputError, match=rf"an Excel workbook \({kind}\); save the sheet as `CSV UTF-8`"):
        read_table(written(tmp_path, head, name))


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "None", "<NA>", "N/A", "n/a", "NULL", "null", "#N/A", " nan ", "NA", "na"]
)
def test_missing_values_that_are_written_out(tmp_path: Path, word: str) -> None:
    table = read_table(written(tmp_path, f"patient,text\np1,{word}\n{word},nan is a word here\n"))
    assert table.rows.column("patient").to_pylist() == ["p1", ""]
    assert table.rows.column("text").to_pylist() == ["", "nan is a word here"]
    assert sum("read as missing" in note for note in table.notes) == 2


@pytest.mark.parametrize("other", ["1001.0", "0001001", " 1001", "1001,0", "１００１"])
def test_spellings_of_one_id(other: str) -> None:
    assert canonical_id(other) == canonical_id("1001")
    with pytest.raises(InputError, match=r"patient '1001' or .* is in the given splits test and train"):
        check_patients([("1001", "train"), (other, "test")])


@pytest.mark.parametrize(
    ("one", "other"), [("1001", "1010"), ("p1", "p10"), ("1.5", "15"), ("0", "00a"), ("a-1", "a1")]
)
def test_other_ids_stay_apart(one: str, other: str) -> None:
    assert canonical_id(one) != canonical_id(other)
