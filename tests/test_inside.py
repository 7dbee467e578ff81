"""Nothing outside the root is read, also if a link comes between planning and reading."""

import os
from pathlib import Path

import pytest

from convirt.data.imaging.pixels import Unreadable, read_inside

SECRET = b"secret"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_bytes(SECRET)
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(b"inside")
    return root


@pytest.mark.parametrize("source", ["a/b/file", "./a/../a/b/file", "link", "folder/file", "absolute"])
def test_files_inside_are_read(root: Path, source: str) -> None:
    (root / "link").symlink_to("a/b/file")
    (root / "folder").symlink_to(root / "a" / "b")
    assert read_inside(root, str(root / "a/b/file") if source == "absolute" else source) == b"inside"


def test_the_root_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    assert read_inside(root.parent / "alias", "a/b/file") == b"inside"


@pytest.mark.parametrize(
    "source", ["../secret.txt", "a/../../secret.txt", "link", "folder/secret.txt", "twice", "absolute"]
)
def test_files_outside_are_not(root: Path, source: str) -> None:
    (root / "link").symlink_to("../secret.txt")
    (root / "folder").symlink_to("..")
    (root / "twice").symlink_to("link")
    with pytest.raises(Unreadable, match="leads out"):
        read_inside(root, str(root.parent / "secret.txt") if source == "absolute" else source)


@pytest.mark.parametrize("source", ["none", "a", "", "a\0b", "x" * 5000, "loop", "pipe", "a/b/file/more"])
def test_what_is_no_file_is_refused_at_once(root: Path, source: str) -> None:
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    with pytest.raises(Unreadable, match="cannot be opened"):
        read_inside(root, source)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_that_comes_after_the_check_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    resolve = Path.resolve

    def swapped(path: Path, strict: bool = False) -> Path:
        real = resolve(path, strict)
        if path.name == "file":  # checked now; what follows is what an attacker does before it is opened
            if what == "file":
                (root / "a/b/file").unlink()
                (root / "a/b/file").symlink_to(root.parent / "secret.txt")
            else:
                (root / "a" / "b").rename(root / "a" / "c")
                (root.parent / "b").mkdir()
                (root.parent / "b" / "file").write_bytes(SECRET)
                (root / "a" / "b").symlink_to(root.parent / "b")
        return real

    monkeypatch.setattr(Path, "resolve", swapped)
    with pytest.raises(Unreadable, match="cannot be opened"):
        read_inside(root, "a/b/file")


def test_a_huge_file_is_not_read(root: Path) -> None:
    with (root / "huge").open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(Unreadable, match="too large"):
        read_inside(root, "huge")
