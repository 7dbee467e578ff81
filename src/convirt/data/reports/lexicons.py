"""Lexicons: which headings and abbreviations the reports of a language have, as data that a user can replace.

A lexicon is a TOML file. English and Spanish ship with the package (`en.toml` tells the form); a user's file stands
alone, or adds to a shipped one with `extends = "en"`: its headings then move to the section it names them in, and
`not_headings` takes headings away.
"""

import hashlib
import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from itertools import islice, product
from pathlib import Path
from typing import Any

from convirt.errors import InputError

MAX_BYTES = 1 << 20
MAX_HEADINGS = 20_000
"""Limits of a lexicon file: its size, and its headings when every `(a|b)` is written out."""

_SENTENCE_WORDS = ("abbreviations", "titles", "before_number", "continuing")
_EXAMINATION_WORDS = ("sections", "after", "at_once_after", "names", "structures", "words", "fillers", "clinical")
_SECTION_KEYS = {"kept": bool, "inside_lines": bool, "headings": list}
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
    """Load a lexicon.

    Args:
        language: A shipped language, `en` or `es`, or the path of a TOML file.

    Raises:
        InputError: No such language or file, or a file that is no lexicon.
    """
    if str(language) in LANGUAGES:
        return _build([_shipped(str(language))])
    path = Path(language)
    if not _is_file(path):
        raise InputError(
            f"there is no lexicon {str(language)!r}; name {' or '.join(LANGUAGES)}, or the path of a TOML file"
        )
    source = _Source.read(path)
    base = source.values.get("extends")
    if base is None:
        return _build([source])
    if base not in LANGUAGES:
        raise InputError(f"{path}: extends = {base!r} is no shipped language; it may be {' or '.join(LANGUAGES)}")
    return _build([_shipped(base), source])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, a null byte
        return False


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
class _Source:
    """One TOML file, read and not yet checked."""

    name: str
    data: bytes
    values: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "_Source":
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; name a lexicon that can be read") from error
        if len(data) > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES} bytes; that is no lexicon")
        return cls.parse(str(path), data)

    @classmethod
    def parse(cls, name: str, data: bytes) -> "_Source":
        try:
            return cls(name, data, tomllib.loads(data.decode("utf-8-sig")))
        except UnicodeDecodeError as error:
            raise InputError(f"{name} is not UTF-8 text; save it as UTF-8") from error
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(f"{name} is not a TOML file: {str(error).splitlines()[0]}") from error

    def strings(self, table: Mapping[str, Any], key: str) -> list[str]:
        """Return a list of strings of a table; empty if it is not there."""
        values = table.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
            raise InputError(f"{self.name}: {key} must be a list of words")
        return values

    def table(self, table: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Return a table of a table; empty if it is not there."""
        values = table.get(key, {})
        if not isinstance(values, dict):
            raise InputError(f"{self.name}: {key} must be a table")
        return values


def _shipped(language: str) -> _Source:
    name = f"{language}.toml"
    return _Source.parse(name, files(__package__).joinpath(name).read_bytes())


def _build(sources: list[_Source]) -> Lexicon:
    joiners = frozenset(fold(word) for source in sources for word in source.strings(source.values, "joiners"))
    headings: dict[str, str] = {}
    flags: dict[str, dict[str, bool]] = {}
    words: dict[str, set[str]] = {key: set() for key in _SENTENCE_WORDS}
    for source in sources:
        _check_keys(source)
        for name, section in source.table(source.values, "sections").items():
            _check_section(source, name, section)
            flags.setdefault(name, {}).update({k: v for k, v in section.items() if isinstance(v, bool)})
            for pattern in source.strings(section, "headings"):
                headings |= dict.fromkeys((normalise(text, joiners) for text in _expand(source, pattern)), name)
                _check_count(source, headings)
        for pattern in source.strings(source.values, "not_headings"):
            for text in _expand(source, pattern):
                headings.pop(normalise(text, joiners), None)
        for key in _SENTENCE_WORDS:
            words[key] |= {
                fold(word).rstrip(".") for word in source.strings(source.table(source.values, "sentences"), key)
            }
    headings.pop("", None)
    kept = frozenset(name for name in flags if flags[name].get("kept", False))
    if not kept & set(headings.values()):
        raise InputError(f"{sources[-1].name}: no section with headings has `kept = true`, so nothing would be kept")
    return Lexicon(
        language=sources[-1].values.get("language", sources[0].values.get("language", "")),
        headings=headings,
        kept=kept,
        line_only=frozenset(name for name in flags if not flags[name].get("inside_lines", True)),
        joiners=joiners,
        examinations=_examinations(sources),
        sha256=hashlib.sha256(b"\n".join(source.data for source in sources)).hexdigest(),
        **{key: frozenset(values) for key, values in words.items()},
    )


def _examinations(sources: list[_Source]) -> ExaminationWords:
    """Join the `[examinations]` of the files; `sections` of a later file replaces, so that `[]` turns them off."""
    tables = [(source, source.table(source.values, "examinations")) for source in sources]
    sections = [source.strings(table, "sections") for source, table in tables if "sections" in table]
    words = {
        key: frozenset(normalise(word) for source, table in tables for word in source.strings(table, key))
        for key in _EXAMINATION_WORDS[1:]
    }
    return ExaminationWords(sections=tuple(sections[-1]) if sections else (), **words)


def _check_keys(source: _Source) -> None:
    known = {"language", "extends", "joiners", "not_headings", "sections", "sentences", "examinations"}
    _check_known(source, set(source.values), known)
    _check_known(source, set(source.table(source.values, "sentences")), set(_SENTENCE_WORDS))
    _check_known(source, set(source.table(source.values, "examinations")), set(_EXAMINATION_WORDS))
    if not isinstance(source.values.get("language", ""), str):
        raise InputError(f"{source.name}: language must be a word")


def _check_known(source: _Source, keys: set[str], known: set[str]) -> None:
    if unknown := sorted(keys - known):
        raise InputError(f"{source.name}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")


def _check_section(source: _Source, name: str, section: Any) -> None:
    if not isinstance(section, dict):
        raise InputError(f"{source.name}: sections.{name} must be a table")
    for key, value in section.items():
        if key not in _SECTION_KEYS:
            raise InputError(
                f"{source.name}: unknown key {key!r} in sections.{name}; known: {', '.join(_SECTION_KEYS)}"
            )
        if not isinstance(value, _SECTION_KEYS[key]):
            raise InputError(f"{source.name}: sections.{name}.{key} must be a {_SECTION_KEYS[key].__name__}")


def _check_count(source: _Source, headings: Mapping[str, str]) -> None:
    if len(headings) > MAX_HEADINGS:
        raise InputError(f"{source.name}: more than {MAX_HEADINGS} headings once every (a|b) is written out")


def _expand(source: _Source, pattern: str) -> Iterator[str]:
    """Yield what a pattern such as `(final |)finding(s|)` stands for."""
    parts = _CHOICE.split(pattern)
    if any(c in "()|" for part in parts[::2] for c in part):
        raise InputError(f"{source.name}: heading {pattern!r}: brackets must pair and not nest, as in `finding(s|)`")
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return islice(("".join(choice) for choice in product(*choices)), MAX_HEADINGS + 1)


LANGUAGES = ("en", "es")
"""Languages that ship with the package."""
ENGLISH = load_lexicon("en")
