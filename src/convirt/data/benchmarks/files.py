"""Files of a benchmark's source: found below the folder that the user named, and nowhere else."""

import hashlib
import os
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from convirt.data.paths import said_of_close_file
from convirt.data.tables import read_frame
from convirt.errors import InputError

_DEEPEST = 64  # folders in the path of an image


def find(root: Path, *names: str) -> Path:
    """The first of these files that stands below the root, also as `.gz`.

    Raises:
        InputError: None does.
    """
    if (found := find_optional(root, *names)) is None:
        raise InputError(
            f"there is no {' or '.join(names)} in {root}; --root names the folder that holds it (a link to a file "
            "outside is not followed)"
        )
    return found


def find_optional(root: Path, *names: str) -> Path | None:
    """`find`, or None."""
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; --root names the folder of the data set")
    for name in names:
        for path in (root / name, root / f"{name}.gz"):
            if path.is_file() and path.resolve().is_relative_to(root.resolve()):
                return path
    return None


def read_source(path: Path, columns: Sequence[str], where: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table that must be whole: its rows that pass the filters, stripped text.

    Args:
        path: CSV or Parquet.
        columns: What it must have; further columns come as well.
        where: Filters `column=value1,value2`.

    Raises:
        InputError: A row that does not fit the header, no such column, or no row left.
    """
    return read_frame(path, [("", name) for name in columns], where)[0].reset_index(drop=True)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        InputError: It cannot be read, is no UTF-8, or has a null byte.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no text: byte 0x{error.object[error.start]:02x} at {error.start}; copy it again"
        ) from error
    if "\0" in text:
        raise InputError(f"{path} is no text: it has a null byte; copy it again")
    return text.splitlines()


def names_of(columns: Sequence[str]) -> tuple[str, ...]:
    """Names of columns, which commas may separate.

    Raises:
        InputError: One is named twice.
    """
    names = tuple(part.strip() for item in columns for part in item.split(",") if part.strip())
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise InputError(f"column {twice[0]!r} is named twice; name each once")
    return names


def hash_file(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_images(images: Sequence[str], root: Path, *, there: bool) -> None:
    """Refuse images that lead out of their folder, and, if they should be there, images that are missing.

    Args:
        images: Paths relative to the root.
        root: Image folder.
        there: Whether the files must exist; without them a benchmark is built from tables alone.

    Raises:
        InputError: One line with the count and the first.
    """
    distinct = list(dict.fromkeys(images))
    if outside := leading_out(distinct, root):
        raise InputError(
            f"{len(outside)} of {len(distinct)} images lead out of {root}, the first is {outside[0]!r}; correct the "
            "table"
        )
    missing = [name for name in distinct if there and not (root / name).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(distinct)} images are missing below {root}, the first is {missing[0]}"
            f"{said_of_close_file(root, missing[0])}; complete them, or build from the tables alone with --no-images"
        )


def leading_out(images: Sequence[str], root: Path) -> list[str]:
    """The images whose path ends outside the root: by `..`, as an absolute path, or through a link."""
    base = os.path.realpath(root)

    def place(path: str) -> str:
        """`in` or `out`; `missing` where there is nothing, so that nothing below can lead anywhere."""
        above, _, _ = path.rpartition("/")
        if path and (found := known(above)) != "in":
            return found
        full = os.path.join(base, path)
        try:
            linked = stat.S_ISLNK(os.lstat(full).st_mode)
        except OSError:
            return "missing"
        return "in" if not linked or Path(os.path.realpath(full)).is_relative_to(base) else "out"

    known = cache(place)  # of folders, which are few; called once for each image, place needs no memory of its own
    found = []
    for name in images:
        steps = name.split("/")
        plain = name and "\0" not in name and not os.path.isabs(name) and ".." not in steps and len(steps) < _DEEPEST
        if not plain or place(os.path.normpath(name)) == "out":
            found.append(name)
    return found


def unique_images(frame: pd.DataFrame, where: str) -> None:
    """Refuse a table with two rows of one image.

    Raises:
        InputError: It names the first.
    """
    if (twice := frame["image"].duplicated()).any():
        raise InputError(f"{where}: image {frame['image'][twice].iloc[0]!r} stands in several rows; keep one")
