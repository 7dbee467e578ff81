"""How findings are worded, as data that a user can replace (`en.toml` tells the form)."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from convirt.data.reports.lexicons import fold
from convirt.errors import InputError

MAX_BYTES = 1 << 20
LANGUAGES = ("en",)
"""Languages that ship with the package."""

_NEVER = re.compile(r"(?!)")
_JOINING = re.compile(r"[-‐-―/_\s]+")
_PHRASE = re.compile(r"[^\W_]|[ ()|*.']")
_KEYS: dict[str, tuple[str, ...]] = {
    "": ("language", "no_finding", "findings", "negation", "uncertainty", "clauses"),
    "findings": ("mentions", "absent", "uncertain", "ignored", "pathology"),
    "negation": ("before", "after", "ignored"),
    "uncertainty": ("before", "after"),
    "clauses": ("ends",),
}
"""What each kind of table may hold; the empty name is the file itself."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """The wording of one finding, compiled; what is not there never matches."""

    name: str
    mentions: re.Pattern[str]
    absent: re.Pattern[str] = _NEVER
    uncertain: re.Pattern[str] = _NEVER
    ignored: re.Pattern[str] = _NEVER
    pathology: bool = True
    """Whether it makes a report abnormal."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cues:
    """Words before and after a mention that turn its meaning."""

    before: re.Pattern[str] = _NEVER
    after: re.Pattern[str] = _NEVER
    ignored: re.Pattern[str] = _NEVER


@dataclass(frozen=True, kw_only=True, eq=False)
class FindingsLexicon:
    """The findings of a lexicon in their order, and the cues around them."""

    findings: tuple[Finding, ...]
    negation: Cues
    uncertainty: Cues
    ends: re.Pattern[str]
    """Where a clause ends."""
    no_finding: str = ""
    """Name of the class of texts without pathology; empty if there is none."""
    source: str = field(default="", repr=False)
    """The TOML text that it was read from."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Every class, `no_finding` last."""
        return tuple(finding.name for finding in self.findings) + ((self.no_finding,) if self.no_finding else ())


def load_findings_lexicon(place: str | Path) -> FindingsLexicon:
    """Load a lexicon of findings.

    Args:
        place: `en`, or the path of a TOML file.

    Raises:
        InputError: No such file, or one that is no lexicon of findings.
    """
    if str(place) in LANGUAGES:
        return _shipped(str(place))
    path = Path(place)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"no findings lexicon {str(place)!r} ({reason}); name {' or '.join(LANGUAGES)}, or the path of a TOML file"
        ) from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES} bytes; that is no findings lexicon")
    try:
        return parse_findings_lexicon(data.decode("utf-8-sig"), where=str(path))
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8") from None


@cache
def _shipped(language: str) -> FindingsLexicon:
    name = f"{language}.toml"
    return parse_findings_lexicon(files(__package__).joinpath(name).read_text("utf-8"), where=name)


def parse_findings_lexicon(source: str, *, where: str) -> FindingsLexicon:
    """Compile the TOML text of a lexicon.

    Raises:
        InputError: It is not TOML, or not of the form that `en.toml` tells.
    """
    try:
        values = tomllib.loads(source)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{where} is not a TOML file: {str(error).splitlines()[0]}") from None
    _check_keys(values, "", where)
    tables = {name: _table(values, name, where) for name in ("negation", "uncertainty", "clauses")}
    findings = tuple(
        _finding(name, _table(_table(values, "findings", where), name, where), where)
        for name in _table(values, "findings", where)
    )
    no_finding = values.get("no_finding", "")
    if not isinstance(no_finding, str) or no_finding in (finding.name for finding in findings):
        raise InputError(f"{where}: no_finding must be a name that no finding bears")
    if not findings:
        raise InputError(f'{where}: there are no findings; give each a table such as [findings."Edema"]')
    return FindingsLexicon(
        findings=findings,
        negation=Cues(**_compiled(tables["negation"], "negation", where)),
        uncertainty=Cues(**_compiled(tables["uncertainty"], "uncertainty", where)),
        ends=_compiled(tables["clauses"], "clauses", where).get("ends", _NEVER),
        no_finding=no_finding,
        source=source,
    )


def _finding(name: str, table: dict[str, Any], where: str) -> Finding:
    place = f"findings.{name}"
    pathology = table.get("pathology", True)
    if not isinstance(pathology, bool):
        raise InputError(f"{where}: {place}.pathology must be true or false")
    phrases = {key: value for key, value in table.items() if key != "pathology"}
    compiled = _compiled(phrases, "findings", where, place)
    if "mentions" not in compiled:
        raise InputError(f"{where}: {place} has no mentions, so it would never be found")
    return Finding(name=name, pathology=pathology, **compiled)


def _table(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    table = values.get(name, {})
    if not isinstance(table, dict):
        raise InputError(f"{where}: {name} must be a table")
    return table


def _check_keys(values: Mapping[str, Any], kind: str, where: str, place: str = "") -> None:
    known = _KEYS[kind]
    if unknown := sorted(set(values) - set(known)):
        inside = f" in {place or kind}" if kind else ""
        raise InputError(f"{where}: unknown key {unknown[0]!r}{inside}; known are {', '.join(known)}")


def _compiled(table: Mapping[str, Any], kind: str, where: str, place: str = "") -> dict[str, re.Pattern[str]]:
    """One pattern for each list of phrases that is not empty."""
    place = place or kind
    _check_keys(table, kind, where, place)
    patterns: dict[str, re.Pattern[str]] = {}
    for key, phrases in table.items():
        if not isinstance(phrases, list) or not all(isinstance(p, str) and p.strip() for p in phrases):
            raise InputError(f"{where}: {place}.{key} must be a list of phrases")
        if phrases:
            patterns[key] = compile_phrases(phrases, where=f"{where}: {place}.{key}")
    return patterns


def compile_phrases(phrases: list[str], *, where: str) -> re.Pattern[str]:
    """One pattern for any of the phrases, to search normalised text (`normalise`) with.

    Raises:
        InputError: A phrase has other signs than letters, figures, spaces, `( | ) *` and `...`, or its brackets do
            not pair.
    """
    return re.compile("|".join(rf"\b(?:{_expression(phrase, where)})(?!\w)" for phrase in phrases))


def _expression(phrase: str, where: str) -> str:
    text = normalise(phrase)
    if wrong := next((sign for sign in text if not _PHRASE.fullmatch(sign)), None):
        raise InputError(f"{where}: {phrase!r} holds {wrong!r}; a phrase has words, (a|b), * and ... only")
    parts = [part.replace("(", "(?:").replace("*", r"\w*") for part in text.split(" ... ")]
    if any("." in part for part in parts):
        raise InputError(f"{where}: {phrase!r} must have ` ... ` between words only")
    expression = r"(?: \w+){0,4} ".join(parts)
    try:
        empty = re.fullmatch(expression, "")
    except re.error as error:
        raise InputError(f"{where}: {phrase!r}: {error}; brackets must pair, as in (a|b)") from None
    if empty:
        raise InputError(f"{where}: {phrase!r} may stand for nothing at all")
    return expression


def normalise(text: str) -> str:
    """A text as phrases see it: small letters without accents, single spaces, hyphens and slashes as spaces."""
    return _JOINING.sub(" ", fold(text)).strip()
