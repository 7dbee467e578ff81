"""Prompts: what stands for a label (a positive and a negative side) or for a class, in words.

They are data: a TOML file with a table `pairs` (label -> positive, negative) and a table `classes` (class -> prompts),
or a CSV or Parquet table with the columns `label`, `role` (positive, negative or class) and `text`. Sets that come
with the package lie beside this file.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from convirt.data.tables import read_frame
from convirt.errors import InputError

BUILT_IN = ("chexpert", "phantom")
_ROLES = ("positive", "negative", "class")

Prompts = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Prompts by label and by class."""

    pairs: Mapping[str, tuple[Prompts, Prompts]] = field(default_factory=dict)
    """Label -> positive and negative prompts."""
    classes: Mapping[str, Prompts] = field(default_factory=dict)
    """Class -> prompts."""
    source: str
    """Where they come from, for messages."""
    sha256: str
    """Hash of the file's bytes."""

    def pair_of(self, label: str) -> tuple[Prompts, Prompts]:
        """Positive and negative prompts of a label, whatever its case.

        Raises:
            InputError: There is none.
        """
        return _found(self.pairs, label, f"{self.source} has no positive and negative prompts for label")

    def class_of(self, name: str) -> Prompts:
        """Prompts of a class: its own, or else the positive side of its pair.

        Raises:
            InputError: There is none.
        """
        known = {**{label: positive for label, (positive, _) in self.pairs.items()}, **self.classes}
        return _found(known, name, f"{self.source} has no prompts for class")


def _key(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _found(known: Mapping[str, Any], name: str, problem: str) -> Any:
    found = {_key(given): prompts for given, prompts in known.items()}.get(_key(name))
    if found is None:
        raise InputError(f"{problem} {name!r}; it has {', '.join(known) or 'none'}")
    return found


def read_prompts(source: str | Path) -> PromptSet:
    """Read prompts.

    Args:
        source: Name of a built-in set (`chexpert`, `phantom`), or path of a TOML, CSV or Parquet file.

    Raises:
        InputError: No such file, or it does not hold prompts.
    """
    if str(source) in BUILT_IN:
        return _from_toml(files("convirt.evaluation.zero_shot").joinpath(f"{source}.toml").read_bytes(), str(source))
    path = Path(source)
    if not path.is_file():
        raise InputError(f"there are no prompts at {path}; give a file, or a built-in set: {', '.join(BUILT_IN)}")
    if path.suffix.lower() == ".toml":
        return _from_toml(path.read_bytes(), str(path))
    frame, digest = read_frame(path, ["label", "role", "text"])
    roles = frame["role"].str.lower()
    if unknown := sorted(set(roles) - set(_ROLES)):
        raise InputError(f"{path}: unknown role {unknown[0]!r} of a prompt; known are {', '.join(_ROLES)}")
    content: dict[str, dict[str, Any]] = {"pairs": {}, "classes": {}}
    for label, role, text in zip(frame["label"], roles, frame["text"], strict=True):
        if role == "class":
            content["classes"].setdefault(label, []).append(text)
        else:
            content["pairs"].setdefault(label, {}).setdefault(role, []).append(text)
    return _checked(content, str(path), digest)


def _from_toml(data: bytes, source: str) -> PromptSet:
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: no TOML ({error}); repair it") from None
    return _checked(content, source, sha256(data).hexdigest())


def _checked(content: Mapping[str, Any], source: str, digest: str) -> PromptSet:
    if unknown := sorted(set(content) - {"pairs", "classes"}):
        raise InputError(f"{source}: unknown table {unknown[0]!r}; prompts stand under [pairs.LABEL] and [classes]")
    pairs, classes = content.get("pairs", {}), content.get("classes", {})
    if not isinstance(pairs, dict) or not isinstance(classes, dict) or not (pairs or classes):
        raise InputError(f"{source} holds no prompts; they stand under [pairs.LABEL] and [classes]")
    for label, sides in pairs.items():
        if not isinstance(sides, dict) or set(sides) != {"positive", "negative"}:
            raise InputError(f"{source}: label {label!r} needs both positive and negative prompts, and nothing else")
    return PromptSet(
        pairs={
            label: (_texts(sides["positive"], label, source), _texts(sides["negative"], label, source))
            for label, sides in pairs.items()
        },
        classes={name: _texts(texts, name, source) for name, texts in classes.items()},
        source=source,
        sha256=digest,
    )


def _texts(value: Any, label: str, source: str) -> Prompts:
    texts: Sequence[Any] = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"{source}: the prompts of {label!r} must be texts, at least one and none empty")
    return tuple(text.strip() for text in texts)
