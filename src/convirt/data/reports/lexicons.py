"""Lexicons: words of a language as data that a user can replace: headings and abbreviations, or names of findings.

A lexicon is a TOML file; this module reads every kind. That of headings ships in English and Spanish (`en.toml` shows
the form); a user's file stands alone, or adds to a shipped one with `extends = "en"`: its headings then move to the
section it names them in, and `not_headings` takes headings away.
"""

import hashlib
import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from itertools import islice, product
from pathlib import Path
from typing import Any

from convirt.errors import InputError

MAX_BYTES = 1 << 20
MAX_HEADINGS = 20_000
"""Limits of a lexicon file: its size, and its headings when every `(a|b)` is written out."""

LANGUAGES = ("en", "es")
"""Languages whose headings ship with the package."""

Form = Mapping[str, Any]
"""Keys that a table may have: `bool`, `str`, `list` (of words) or the form of an inner table. `*` is any key."""

_SENTENCE_WORDS = ("abbreviations", "titles", "before_number", "continuing")
_EXAMINATION_WORDS = ("after", "at_once_after", "names", "structures", "words", "fillers", "clinical")
_FORM: Form = {
    "language": str,
    "extends": str,
    "joiners": list,
    "not_headings": list,
    "sections": {
        "*": {"kept": bool, "inside_lines": bool, "closing": bool, "instead_of": list, "headings": list},
    },
    "sentences": dict.fromkeys(_SENTENCE_WORDS, list),
    "examinations": dict.fromkeys(("sections", *_EXAMINATION_WORDS), list),
}
_SEPARATORS = re.compile(r"[\s\-_'’‐-―]+")
_JOINING = re.compile(r"\s*[/&+,]\s*")
_CHOICE = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True, kw_only=True)
class ExaminationWords:
    """Words of the names of examinations, and where such a name heads the findings; all folded."""

    sections: tuple[str, ...] = ()
    """Text under an examination's name is of the first of these sections, in a report that has none of them."""
    after: frozenset[str] = frozenset()
    """Sections in which such a name ends their text, besides the text before the first heading."""
    at_once_after: frozenset[str] = frozenset()
    """Of these, the ones whose heading it may follow at once."""
    names: frozenset[str] = frozenset()
    """Words that make a label the name of an examination: `chest`, `radiograph`."""
    structures: frozenset[str] = frozenset()
    """Organs whose name may begin the findings and stays with its text: `LUNGS: Clear.`"""
    words: frozenset[str] = frozenset()
    """Other words of such names."""
    fillers: frozenset[str] = frozenset()
    """Words of texts that tell no more than the views, the date or the study before."""
    clinical: frozenset[str] = frozenset()
    """Phrases of a history: a text whose first line has one is no finding."""


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Headings, and words that a full stop may follow inside a sentence, of one language."""

    language: str
    headings: Mapping[str, str]
    """Normalised heading (`normalise`) to the name of its section."""
    kept: frozenset[str] = frozenset()
    """Sections that a pair keeps."""
    line_only: frozenset[str] = frozenset()
    """Sections whose headings count at the start of a line only."""
    closing: frozenset[str] = frozenset()
    """Sections that come after a report's last findings: they may end a kept section whatever their heading's shape."""
    instead_of: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Sections that are kept where none of these others exists."""
    joiners: frozenset[str] = frozenset()
    """Words that join two headings: FINDINGS AND IMPRESSION."""
    abbreviations: frozenset[str] = frozenset()
    """Words whose full stop never ends a sentence, without that stop, folded."""
    titles: frozenset[str] = frozenset()
    """Abbreviations that initials may follow."""
    before_number: frozenset[str] = frozenset()
    """Words whose full stop does not end a sentence before a number."""
    continuing: frozenset[str] = frozenset()
    """Words that a wrapped line may end with, but no sentence."""
    examinations: ExaminationWords = ExaminationWords()
    """Names of examinations, which may stand for the heading of the findings."""
    sha256: str = field(default="", repr=False)
    """Hash of the file(s) it was read from."""

    @cached_property
    def longest(self) -> int:
        """Words of the longest heading, joined headings included."""
        return 2 * max((len(heading.split()) for heading in self.headings), default=0) + 1

    def find(self, label: str) -> tuple[str, ...]:
        """Return the section(s) that a label is the heading of: () if none, several if it joins headings."""
        heading = normalise(label, self.joiners)
        if name := self.headings.get(heading):
            return (name,)
        if " & " not in heading:
            return ()
        names = [self.headings.get(part) for part in heading.split(" & ")]
        return tuple(dict.fromkeys(name for name in names if name)) if all(names) else ()


def load_lexicon(language: str | Path) -> Lexicon:
    """Load a lexicon of headings.

    Args:
        language: A shipped language, `en` or `es`, or the path of a TOML file.

    Raises:
        InputError: No such language or file, or a file that is not a lexicon.
    """
    lexicon = find_lexicon_file(language, "lexicon", __package__, LANGUAGES).checked(_FORM)
    if (base := lexicon.values.get("extends")) is None:
        return _build([lexicon])
    if base not in LANGUAGES:
        raise InputError(
            f"{lexicon.name}: extends = {base!r} is not a shipped language; it may be {' or '.join(LANGUAGES)}"
        )
    return _build([find_lexicon_file(base, "lexicon", __package__, LANGUAGES).checked(_FORM), lexicon])


def fold(text: str) -> str:
    """Return a text without capitals and accents."""
    if text.isascii():
        return text.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def normalise(label: str, joiners: frozenset[str] = frozenset()) -> str:
    """Return a heading in the form that lexicons compare: folded, single spaces, `&` for whatever joins two."""
    words = _SEPARATORS.sub(" ", _JOINING.sub(" & ", fold(label))).split()
    return " ".join("&" if word in joiners and 0 < i < len(words) - 1 else word for i, word in enumerate(words))


@dataclass(frozen=True)
class LexiconFile:
    """One TOML file of a lexicon."""

    name: str
    """Its path, or the name of a shipped one: how messages call it."""
    data: bytes
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Its content, once it is `checked`."""

    def checked(self, form: Form) -> "LexiconFile":
        """Return the file with its content.

        Raises:
            InputError: It is not TOML, or not of this form.
        """
        try:
            values = tomllib.loads(self.data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name} is not UTF-8 text; save it as UTF-8") from error
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(f"{self.name} is not a TOML file: {str(error).splitlines()[0]}") from error
        _check(self.name, values, form)
        return replace(self, values=values)


def find_lexicon_file(place: str | Path, kind: str, package: str, shipped: tuple[str, ...]) -> LexiconFile:
    """Find a lexicon by its name or path; it is not yet checked.

    Args:
        place: The name of a shipped lexicon, or the path of a TOML file.
        kind: What messages call such a file.
        package: Where the shipped ones lie.
        shipped: Their names.

    Raises:
        InputError: There is no such file, or it cannot be read or is too large.
    """
    if str(place) in shipped:
        return LexiconFile(f"{place}.toml", files(package).joinpath(f"{place}.toml").read_bytes())
    path = Path(place)
    try:
        found = path.is_file()
    except (OSError, ValueError):  # too long a name, a null byte
        found = False
    if not found:
        raise InputError(f"there is no {kind} {str(place)!r}; name {' or '.join(shipped)}, or the path of a TOML file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; name a {kind} that can be read") from error
    if len(data) > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES} bytes; that is not a {kind}")
    return LexiconFile(str(path), data)


def _check(name: str, table: Any, form: Form, place: str = "") -> None:
    if not isinstance(table, dict):
        raise InputError(f"{name}: {place} must be a table")
    for key, value in table.items():
        kind = form.get(key, form.get("*"))
        inner = f"{place}.{key}" if place else key
        if kind is None:
            inside = f" in {place}" if place else ""
            raise InputError(f"{name}: unknown key {key!r}{inside}; known are {', '.join(form)}")
        if isinstance(kind, Mapping):
            _check(name, value, kind, inner)
        elif kind is list:
            if not isinstance(value, list) or not all(isinstance(word, str) and word.strip() for word in value):
                raise InputError(f"{name}: {inner} must be a list of words or phrases")
        elif not isinstance(value, kind):
            raise InputError(f"{name}: {inner} must be {'true or false' if kind is bool else 'a text in quotes'}")


def _build(sources: list[LexiconFile]) -> Lexicon:
    joiners = frozenset(fold(word) for source in sources for word in source.values.get("joiners", []))
    headings: dict[str, str] = {}
    flags: dict[str, dict[str, Any]] = {}
    for source in sources:
        for name, section in source.values.get("sections", {}).items():
            flags.setdefault(name, {}).update({key: value for key, value in section.items() if key != "headings"})
            for pattern in section.get("headings", []):
                headings |= dict.fromkeys((normalise(text, joiners) for text in _expand(source, pattern)), name)
                if len(headings) > MAX_HEADINGS:
                    raise InputError(
                        f"{source.name}: more than {MAX_HEADINGS} headings once every (a|b) is written out"
                    )
        for pattern in source.values.get("not_headings", []):
            for text in _expand(source, pattern):
                headings.pop(normalise(text, joiners), None)
    headings.pop("", None)
    kept = frozenset(name for name in flags if flags[name].get("kept", False))
    if not kept & set(headings.values()):
        raise InputError(f"{sources[-1].name}: no section with headings has `kept = true`, so nothing would be kept")
    sentences = {
        key: frozenset(fold(word).rstrip(".") for word in _words(sources, "sentences", key)) for key in _SENTENCE_WORDS
    }
    examinations = {
        key: frozenset(normalise(word) for word in _words(sources, "examinations", key)) for key in _EXAMINATION_WORDS
    }
    # The list of a later file replaces the earlier one, so that `sections = []` turns examinations off.
    under = [source.values.get("examinations", {}).get("sections") for source in sources]
    return Lexicon(
        language=sources[-1].values.get("language", sources[0].values.get("language", "")),
        headings=headings,
        kept=kept,
        line_only=frozenset(name for name in flags if not flags[name].get("inside_lines", True)),
        closing=frozenset(name for name in flags if flags[name].get("closing", False)),
        instead_of={name: frozenset(flags[name]["instead_of"]) for name in flags if flags[name].get("instead_of")},
        joiners=joiners,
        examinations=ExaminationWords(
            sections=tuple(next((names for names in reversed(under) if names is not None), ())), **examinations
        ),
        sha256=hashlib.sha256(b"\n".join(source.data for source in sources)).hexdigest(),
        **sentences,
    )


def _words(sources: list[LexiconFile], table: str, key: str) -> list[str]:
    return [word for source in sources for word in source.values.get(table, {}).get(key, [])]


def _expand(source: LexiconFile, pattern: str) -> Iterator[str]:
    """Yield what a pattern such as `(final |)finding(s|)` stands for."""
    parts = _CHOICE.split(pattern)
    if any(c in "()|" for part in parts[::2] for c in part):
        raise InputError(f"{source.name}: heading {pattern!r}: brackets must pair and not nest, as in `finding(s|)`")
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return islice(("".join(choice) for choice in product(*choices)), MAX_HEADINGS + 1)


ENGLISH = load_lexicon("en")
