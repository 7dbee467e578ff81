"""What is written appears whole or not at all, with the rights that the umask leaves; refusals are one line."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import write_corpus
from convirt.atomic import atomic_file, atomic_folder, check_writable, refusal
from convirt.data.loading.export import export
from convirt.data.phantom.boxes import phantom
from convirt.errors import InputError
from convirt.evaluation.results import Results


@pytest.fixture(params=[0o022, 0o027, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_what_is_written_follows_the_umask(umask: int, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=6, val=2)
    export(corpus, str(tmp_path / "web"))
    empty = Results(verb="x", config={}, seeds=[0], data={}, rows=[], comparisons=[])
    empty.write(tmp_path / "results")
    phantom(tmp_path / "phantom", patients=10, size=32, workers=1)
    for name in ("corpus", "web", "results", "phantom"):
        for path in (tmp_path / name, *(tmp_path / name).rglob("*")):
            wanted = (0o777 if path.is_dir() else 0o666) & ~umask
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert not list(tmp_path.glob(".*"))


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as file:
        file.write(b"old")
        assert not (tmp_path / "a").exists()
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "a") as file:
        file.write(bytes([1 // 0]))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "b" / "c") as folder:
        (folder / "x").write_text(str(1 // 0))
    assert list((tmp_path / "b").iterdir()) == []
    with atomic_folder(tmp_path / "b" / "c") as folder:
        (folder / "x").touch()
        assert not (tmp_path / "b" / "c").exists()
    assert list((tmp_path / "b").rglob("*")) == [tmp_path / "b" / "c", tmp_path / "b" / "c" / "x"]


def test_places_that_refuse_are_named_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    for fine in (tmp_path / "mine", tmp_path / "new" / "folder"):
        check_writable(fine)
    with pytest.raises(InputError, match=r"file/x cannot be written: .*/file is a file; choose another --out"):
        check_writable(tmp_path / "file" / "x")
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path / "mine")
    with pytest.raises(InputError, match=r"mine/x/y cannot be written: you may not write to .*/mine; choose"):
        check_writable(tmp_path / "mine" / "x" / "y")


def test_what_the_system_refuses_is_said_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "missing").read_bytes()
    assert refusal(caught.value) == f"{tmp_path}/missing: no such file or directory; check the path"
    assert refusal(OSError("odd")) == "odd"
