"""Files of a benchmark's source: found below the folder that the user named, and nowhere else."""

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from convirt.data.tables import Table, read_table, require_columns
from convirt.errors import InputError


def find(root: Path, *names: str) -> Path:
    """The first of these files that stands below the root, also as `.gz`.

    Raises:
        InputError: None does.
    """
    if (found := find_optional(root, *names)) is None:
        raise InputError(f"there is no {' or '.join(names)} in {root}; --root names the folder that holds it")
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


def read_source(path: Path, columns: Sequence[str]) -> Table:
    """Read a table of a released data set, which must be whole.

    Raises:
        InputError: A row that does not fit the header, or no such column.
    """
    table = read_table(path)
    if table.malformed:
        row, problem = next(iter(table.malformed.items()))
        raise InputError(f"{path}: row {row} does not fit the header ({problem}); copy the file again")
    require_columns(table, columns)
    table.frame[:] = table.frame.apply(lambda column: column.str.strip())
    return table


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
            f"{len(missing)} of {len(distinct)} images are missing below {root}, the first is {missing[0]}; complete "
            "them, or build from the tables alone with --no-images"
        )


def leading_out(images: Sequence[str], root: Path) -> list[str]:
    """The images whose path ends outside the root: by `..`, as an absolute path, or through a link."""
    real = cache(os.path.realpath)  # few folders, many images
    inside = Path(real(root))
    found = []
    for name in images:
        path = Path(name)
        if not name or "\0" in name or path.is_absolute() or ".." in path.parts:
            found.append(name)
            continue
        full = root / path
        end = os.path.realpath(full) if os.path.islink(full) else real(full.parent)
        if not Path(end).is_relative_to(inside):
            found.append(name)
    return found


def unique_images(frame: pd.DataFrame, where: str) -> None:
    """Refuse a table with two rows of one image.

    Raises:
        InputError: It names the first.
    """
    if (twice := frame["image"].duplicated()).any():
        raise InputError(f"{where}: image {frame['image'][twice].iloc[0]!r} stands in several rows; keep one")
