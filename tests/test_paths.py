"""Paths that differ from a file by spelling: the file that is close is named."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from convirt.data.benchmarks.files import check_images
from convirt.data.paths import close_file
from convirt.errors import InputError
from flat_verbs import read_table


@pytest.mark.parametrize(
    ("there", "named", "difference"),
    [
        ("a/b.png", "a\\b.png", "backslashes"),
        ("a/b.PNG", "a/b.png", "letter case"),
        ("A/b.png", "a/B.png", "letter case"),
        ("a/b c.png", "a/b%20c.png", "percent signs"),
        ("a/b%20c.png", "a/b c.png", "percent signs"),
        ("a/Mu\u0308ller.png", "a/M\u00fcller.png", "Unicode form"),
        ("a/M\u00fcller.png", "a/Mu\u0308ller.png", "Unicode form"),
        ("A b/c.png", "a%20b\\c.png", "backslashes and percent signs"),
    ],
)
def test_a_close_file_is_named(tmp_path: Path, there: str, named: str, difference: str) -> None:
    (tmp_path / there).parent.mkdir()
    Image.new("L", (8, 8)).save(tmp_path / there, "png")
    found = close_file(tmp_path, named)
    assert found is not None
    assert found[0] == there
    assert difference in found[1]
    with pytest.raises(InputError, match=r"1 of 1 images are missing.*there is .*which differs in"):
        check_images([named], tmp_path, there=True)
    pd.DataFrame({"image": [named], "label": ["x"]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=r"there is .*which differs in"):
        read_table(tmp_path / "t.csv", tmp_path, label_column=None, split_column=None)


@pytest.mark.parametrize("named", ["../B.png", "sub/../../B.png", "/B.png", "out/B.png", "c.png", "", "b\0.png"])
def test_nothing_outside_the_folder_is_close(tmp_path: Path, named: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "b.png").touch()
    (tmp_path / "root" / "Out").symlink_to(tmp_path)
    assert close_file(tmp_path / "root", named) is None
