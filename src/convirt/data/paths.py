"""Files whose names nearly are what a table says: how a path that is not found differs from a file that is there."""

import os
import unicodedata
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote


def close_file(root: str | Path, name: str) -> tuple[str, str] | None:
    """Find the file below `root` that a path means but for its spelling.

    Args:
        root: Folder that paths start from; nothing outside is looked at.
        name: A path that does not exist there.

    Returns:
        The path of the file relative to the root, and how the two differ in words; None if there is no such file.
    """
    steps = [step for step in unquote(name).replace("\\", "/").split("/") if step not in ("", ".")]
    if not steps or ".." in steps or "\0" in name or os.path.isabs(name):
        return None
    folder, found = os.path.realpath(root), list[str]()
    for step in steps:
        if os.path.lexists(os.path.join(folder, *found, step)):
            found.append(step)
        elif (entry := _entries(os.path.join(folder, *found)).get(_folded(step))) is not None:
            found.append(entry)
        else:
            return None
    real = os.path.realpath(os.path.join(folder, *found))
    if not os.path.isfile(real) or not real.startswith(folder.rstrip(os.sep) + os.sep):
        return None
    path = "/".join(found)
    return path, _difference(name, path)


def said_of_close_file(root: str | Path, name: str) -> str:
    """What a message about a missing file adds: which file is close and how it differs; empty if none is."""
    close = close_file(root, name)
    return f" (there is {close[0]!r}, which differs in {close[1]})" if close else ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", unquote(name)).casefold()).strip()


@lru_cache(maxsize=64)
def _entries(folder: str) -> dict[str, str]:
    """The names in a folder by what is left of them without spelling; of several alike the first."""
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except OSError:
        return {}
    return {_folded(name): name for name in names}


def _difference(name: str, path: str) -> str:
    decoded, there = unquote(name), unquote(path)
    composed, composed_there = (unicodedata.normalize("NFC", text) for text in (decoded.replace("\\", "/"), there))
    differs = {
        "backslashes": "\\" in decoded,
        "percent signs that stand for other characters (%20)": (decoded != name) != (there != path),
        "letter case": composed != composed_there and composed.casefold() == composed_there.casefold(),
        "the Unicode form of its letters": composed == composed_there and decoded.replace("\\", "/") != there,
    }
    return " and ".join(what for what, so in differs.items() if so) or "its spelling"
