"""Words: errors in one line, with settings spelled as the options that users type; and words that say nothing."""

import inspect
import itertools
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args

MISSING = frozenset(
    ("nan", "NaN", "NAN", "<NA>", "N/A", "n/a", "#N/A", "NULL", "Null", "null", "None", "NaT", "NA", "na")
)
"""Cells that say that nothing is there, as spreadsheets and programs write them: they are read as empty."""
_SAID = frozenset(word.casefold() for word in MISSING)


def says_nothing(text: str) -> bool:
    """Whether a whole text says in any case that there is none: a report `NONE`; as a cell, `none` may be a class."""
    return text.strip().casefold() in _SAID


def clip(text: str, width: int) -> str:
    """Return text of at most `width` characters, cut between words where it is longer, and marked as cut."""
    if len(text) <= width:
        return text
    head = text[: width - 3]
    if not text[width - 3].isspace() and " " in head:
        head = head.rpartition(" ")[0]
    return f"{head.rstrip()} ..."[:width]


def fold(boxed: str, prog: str) -> str:
    """Make one line of tyro's boxed, coloured error: what is wrong, and where to read more."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", boxed)
    lines = [re.sub(r"^[│╭╰]\s?|\s*[│╮╯]$", "", line).rstrip() for line in text.splitlines()]
    # Where standard output has no line characters, a rule also stands between the title and what is wrong.
    is_rule = re.compile(r"\s*[─-]{4,}\s*").fullmatch
    head = list(itertools.takewhile(lambda line: not is_rule(line), itertools.dropwhile(is_rule, lines[1:])))
    said = " ".join(line.strip() for line in head)
    if "Missing from" in said:
        missing = [word for line in head for word in re.findall(r"^\s*(--[\w.-]+|[A-Z_]+ \[.*?\])", line)]
        said = f"missing {', '.join(missing)}" if missing else said
    if close := re.search(r"Perhaps you meant:\s*(--[\w.-]+)", " ".join(lines)):
        said += f" (did you mean {close[1]}?)"
    said = re.sub(r"Error parsing ([\w.-]+): ", r"\1: ", said)
    said = _plainly(said, " ".join(lines))
    said = re.sub(r"(--)?config\.", r"\1", re.sub(r"\s*Argument helptext:.*", "", said))
    said = re.sub(r"^([\w.-]+): (?=\1\.)", "", said)
    return f"{said.rstrip('.')}; see {prog} --help"


def _plainly(said: str, whole: str) -> str:
    """What tyro says of a number, of several, or of one or none, without the names of Python's types."""
    said = re.sub(r"invalid literal for int\(\) with base 10: (?='.*')", "not a whole number: ", said)
    said = said.replace("could not convert string to float: ", "not a number: ")
    if not (
        option := re.match(
            r"([\w.-]+): (?:no type matching|Could not find valid parse|Could not parse arguments)", said
        )
    ):
        return said
    given = re.search(r"(?:instantiated from|for arguments:|parse arguments) \[(.*?)\]", said)
    values = re.findall(r"'((?:[^'\\]|\\.)*)'", given[1]) if given else []
    wanted = re.search(rf"{re.escape(option[1])} [^()]*?(INT\|FLOAT|INT|FLOAT)", whole)
    if not wanted or not values:
        return said
    for value in values:
        try:
            int(value) if wanted[1] == "INT" else float(value)
        except ValueError:
            return f"{option[1]}: {value!r} is not a {'whole number' if wanted[1] == 'INT' else 'number'}"
    return said


def option_names(target: Callable[..., Any]) -> set[str]:
    """Settings of a function or a dataclass as Python names them, those of nested dataclasses as `transform.size`."""
    names: set[str] = set()
    for parameter in inspect.signature(target).parameters.values():
        inner = set(_inside(parameter.annotation))
        names |= inner or {parameter.name}
    return names


def _inside(kind: Any) -> Iterator[str]:
    """Names of the fields of a dataclass, also of one that `Annotated` wraps."""
    kind = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    for field in fields(kind) if is_dataclass(kind) else ():
        yield field.name
        yield from (f"{field.name}.{name}" for name in _inside(field.type))


def spelled(message: str, names: Collection[str]) -> str:
    """A message with settings spelled as options: `image_size must be ...` becomes `--image-size must be ...`.

    A name that is a plain word is a setting only where the message opens with what it must be. What stands in quotes is
    the user's and stays.
    """
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    compound = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if not name.isalpha())
    message = re.sub(rf"^((?:{words})(?:\.\w+)*)(?= must )", lambda found: _option(found[1]), message)
    if not compound:
        return message
    pattern = re.compile(rf"'[^']*'|\"[^\"]*\"|(?<![\w./=-])({compound})(?![\w/=-]|\.\w)")
    return pattern.sub(lambda found: _option(found[1]) if found[1] else found[0], message)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
