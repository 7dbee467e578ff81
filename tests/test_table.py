"""Reading labelled tables: what is understood, and one clear line for what is not."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from convirt.errors import InputError
from flat_verbs import read_table


@pytest.fixture
def archive(tmp_path):
    """Six images and a function that writes a table of them and reads it."""
    for i in range(6):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    columns = {
        "image": [f"{i}.png" for i in range(6)],
        "case": ["p0", "p0", "p1", "p2", "p3", "p4"],
        "split": ["train", "Training", "train", "dev", "test", "test"],
        "finding": ["1", "2", "1", "2", "1", "2"],
        "kind": ["CT", "CT", "CT", "MR", "CT", "CT"],
    }

    def read(changes=None, suffix="csv", **options):
        frame = pd.DataFrame({**columns, **(changes or {})})
        path = tmp_path / f"table.{suffix}"
        if suffix == "parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False)
        options = {"label_column": "finding", "patient_column": "case", **options}
        return read_table(path, tmp_path, **options)

    read.folder = tmp_path
    return read


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_single_label_table(archive, suffix):
    table = archive(suffix=suffix)
    assert table.classes == ("1", "2")  # labels are strings
    assert table.targets_NC.argmax(axis=1).tolist() == [0, 1, 0, 1, 0, 1]
    assert table.labels_N.tolist() == ["1", "2", "1", "2", "1", "2"]
    assert table.splits_N.tolist() == ["train"] * 3 + ["val", "test", "test"]
    assert table.rows("test").tolist() == [4, 5]
    assert table.paths[3].name == "3.png"
    assert table.sha256 == hashlib.sha256((archive.folder / f"table.{suffix}").read_bytes()).hexdigest()
    assert archive(suffix=suffix, patient_column=None).patients_N.tolist() == list(table.images)


def test_numbers_and_nothing_in_parquet_are_text(archive):
    table = archive({"finding": [1, 2, 1, 2, 1, None]}, suffix="parquet")
    assert table.classes == ("1", "2")
    assert table.rows_without_label == 1


def test_a_multi_label_table_keeps_gaps(archive):
    changes = {"edema": ["1", "0", "", "1.0", "0.0", "1"], "fracture": ["0", "True", "1", "", "0", "false"]}
    table = archive(changes, label_column=None, label_columns=("edema", "fracture"))
    assert table.multi_label
    expected = [[1, 0], [0, 1], [np.nan, 1], [1, np.nan], [0, 0], [1, 0]]
    np.testing.assert_array_equal(table.targets_NC, expected)


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        (["Effusion", "Edema", "effusion", "Edema", "Effusion", "edema"], ("Edema", "Effusion")),
        (["1", "0", "1.0", "0", "1", "0.0"], ("0", "1")),
        (["No finding", "x", "no  finding", "x", "No finding", "x"], ("No finding", "x")),
    ],
)
def test_spellings_of_one_class_are_one_and_named(archive, capsys, given, classes):
    assert archive({"finding": given}).classes == classes
    assert "spellings of one class" in capsys.readouterr().err


def test_spellings_of_one_patient_count_as_one(archive):
    cases = ["1001", "1001.0", "0001001", "p2", "P3", "p3"]
    assert archive({"case": cases}).patients_N.tolist() == ["1001"] * 3 + ["p2", "p3", "p3"]


def test_rows_can_be_chosen(archive):
    table = archive(where=["kind=CT", "finding=1"], label_column=None)
    assert table.images == ("0.png", "2.png", "4.png")
    assert table.targets_NC.shape == (3, 0)
    table = archive({"finding": ["1", "", "1", "2", "1", "2"]})
    assert table.rows_without_label == 1
    assert len(table) == 5
    assert table.take(np.array([4, 0])).images == ("5.png", "0.png")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"image_column": "picture"}, r"no column 'picture'; its columns are: image, case"),
        ({}, {"label_column": "label"}, "--label-column: table table.csv has no column 'label'; its"),
        ({}, {"label_column": "Findings"}, r"no column 'Findings' \(did you mean 'finding'\?\); its columns"),
        (
            {},
            {"label_column": None, "label_columns": ("kinds",)},
            "--label-columns: table table.csv has no column 'kinds' \\(did you mean 'kind'",
        ),
        ({}, {"where": ["kind=US"]}, "passes the filter 'kind=US'"),
        ({}, {"where": ["modality=CT"]}, "no column 'modality'"),
        ({}, {"label_columns": ("finding",)}, "not both"),
        (
            {},
            {"label_column": None, "label_columns": ("finding",)},
            r"row \d: label column 'finding' holds '2'; use 1, 0 or",
        ),
        ({"split": ["train"] * 5 + ["holdout"]}, {}, "row 6: unknown split 'holdout'"),
        ({"split": ["train"] * 5 + [""]}, {}, "unknown split ''"),
        ({"case": ["p0", "p0", "p1", "p1", "p3", "p4"]}, {}, "patient 'p1' is in splits train and val"),
        ({"case": ["p0", "", "p1", "p2", "p3", "p4"]}, {}, "no value in the patient column"),
        ({"image": ["0.png", "0.png", "2.png", "3.png", "4.png", "5.png"]}, {}, "image '0.png' stands in several rows"),
        ({"image": ["0.png", "1.png", "x.png", "y.png", "4.png", "5.png"]}, {}, r"2 of 6 images .* missing.*x\.png"),
        ({"finding": ["1"] * 6}, {}, "one class only, '1'"),
        ({"finding": [""] * 6}, {}, "no row has a value in the label column"),
        ({}, {"role_column": "kind"}, "unknown role"),
    ],
)
def test_bad_tables_give_one_line(archive, changes, options, message):
    with pytest.raises(InputError, match=message) as caught:
        archive(changes, **options)
    assert "\n" not in str(caught.value)


def test_a_split_without_rows_is_named(archive):
    with pytest.raises(InputError, match="no test rows"):
        archive({"split": ["train"] * 5 + ["val"]}).rows("test")


def test_bad_files_give_one_line(tmp_path):
    read = {"images": tmp_path, "label_column": "finding"}
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.csv", **read)
    (tmp_path / "latin.csv").write_bytes("image,finding\nfoo.png,épanchement\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not utf-8"):
        read_table(tmp_path / "latin.csv", **read)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="is empty"):
        read_table(tmp_path / "empty.csv", **read)
    (tmp_path / "header.csv").write_text("image,finding,split\n")
    with pytest.raises(InputError, match="has no rows"):
        read_table(tmp_path / "header.csv", **read)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match="not a readable Parquet") as caught:
        read_table(tmp_path / "broken.parquet", **read)
    assert "\n" not in str(caught.value)
    (tmp_path / "ok.csv").write_text("image,finding,split\na.png,x,train\nb.png,y,test\n")
    with pytest.raises(InputError, match="no image folder"):
        read_table(tmp_path / "ok.csv", tmp_path / "nowhere", label_column="finding")
