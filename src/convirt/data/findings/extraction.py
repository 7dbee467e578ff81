"""Findings from the sentences of a report: named, denied or in doubt, by rules (after CheXpert; Irvin et al. 2019).

A finding is first looked for by name; then cues in the same clause decide. Of several mentions in one report a
present one counts before an uncertain one, and that before an absent one, as in the CheXpert labeler. How findings are
worded is data that a user can replace; `en.toml` shows the form.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convirt.data.reports.lexicons import Form, LexiconFile, find_lexicon_file, fold
from convirt.errors import InputError

PRESENT, ABSENT, UNCERTAIN = 1, 0, -1
_ORDER = (PRESENT, UNCERTAIN, ABSENT)
_STOPS = re.compile(r"[;:!?]|\.(?= |$)")
_NEAR = re.compile(r",| and | or |;")
_STRETCH = re.compile(r".{1,400}(?!\w)|.{1,400}", re.DOTALL)
"""What runs on for longer is no sentence, and is cut between words, so that hostile text costs little."""

LANGUAGES = ("en",)
"""Languages whose findings ship with the package."""

_NEVER = re.compile(r"(?!)")
_JOINING = re.compile(r"[-‐-―/_\s]+")
_PHRASE = re.compile(r"[^\W_]|[ ()|*.']")
_FORM: Form = {
    "language": str,
    "no_finding": str,
    "findings": {"*": {"mentions": list, "absent": list, "uncertain": list, "ignored": list, "pathology": bool}},
    "negation": {"before": list, "after": list, "ignored": list},
    "uncertainty": {"before": list, "after": list},
    "clauses": {"ends": list},
}


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


def extract_findings(sentences: Iterable[str], lexicon: FindingsLexicon) -> dict[str, int | None]:
    """The findings of a report, or of any of its sentences.

    Args:
        sentences: Sentences of one report.
        lexicon: What to look for.

    Returns:
        For each class of the lexicon 1 (present), 0 (absent), -1 (uncertain) or None (not mentioned). The class
        without findings is 1 if no pathology is present or uncertain, else None.
    """
    said: dict[str, list[int]] = {finding.name: [] for finding in lexicon.findings}
    for sentence in sentences:
        for name, status in _read(sentence, lexicon):
            said[name].append(status)
    found: dict[str, int | None] = {
        name: next((status for status in _ORDER if status in statuses), None) for name, statuses in said.items()
    }
    if lexicon.no_finding:
        sick = any(found[f.name] in (PRESENT, UNCERTAIN) for f in lexicon.findings if f.pathology)
        found[lexicon.no_finding] = None if sick else PRESENT
    return found


def findings_vector(found: Mapping[str, int | None], *, uncertain: float = 1.0) -> NDArray[np.float32]:
    """The multi-hot vector of what `extract_findings` gave: 1 for present, `uncertain` for uncertain, else 0."""
    value = {PRESENT: 1.0, UNCERTAIN: uncertain}
    return np.array([value.get(status, 0.0) if status is not None else 0.0 for status in found.values()], np.float32)


@lru_cache(maxsize=1 << 17)
def _read(sentence: str, lexicon: FindingsLexicon) -> tuple[tuple[str, int], ...]:
    """Each finding that a sentence speaks of, with its status; the same sentences stand in many reports."""
    text = _normalise(sentence)
    found: list[tuple[str, int]] = []
    clauses = _clauses(text, lexicon)
    for finding in lexicon.findings:
        found += [(finding.name, status) for clause in clauses for status in _statuses(clause, finding, lexicon)]
    return tuple(dict.fromkeys(found))


def _clauses(text: str, lexicon: FindingsLexicon) -> list[str]:
    """Parts of a sentence that cues do not reach beyond; a conjunction opens its clause."""
    clauses: list[str] = []
    for part in _STRETCH.findall(text):
        starts = {0, *(m.end() for m in _STOPS.finditer(part)), *(m.start() for m in lexicon.ends.finditer(part))}
        clauses += [part[a:b] for a, b in pairwise([*sorted(starts), len(part)]) if part[a:b].strip()]
    return clauses


def _statuses(clause: str, finding: Finding, lexicon: FindingsLexicon) -> list[int]:
    """What a clause says of a finding, once for each mention."""
    text = _blank(clause, finding.ignored)
    found: list[int] = []
    for pattern, status in ((finding.uncertain, UNCERTAIN), (finding.absent, ABSENT)):
        if pattern.search(text):
            found.append(status)
            text = _blank(text, pattern)
    found += [_status(text, mention, lexicon) for mention in finding.mentions.finditer(text)]
    return found


def _status(text: str, mention: re.Match[str], lexicon: FindingsLexicon) -> int:
    """Whether a mention is meant, denied or in doubt, by the cues around it."""
    doubt_before, doubt_after = _cues(text, mention, lexicon.uncertainty)
    # `cannot exclude` is doubt and no negation, though it holds one.
    plain = _blank(text, lexicon.uncertainty.before, lexicon.uncertainty.after, lexicon.negation.ignored)
    denied_before, denied_after = _cues(plain, mention, lexicon.negation)
    if denied_after or denied_before > doubt_before:
        return ABSENT
    return UNCERTAIN if doubt_before >= 0 or doubt_after else PRESENT


def _cues(text: str, mention: re.Match[str], cues: Cues) -> tuple[int, bool]:
    """Where the last cue before the end of a mention begins (-1: there is none), and whether one follows closely."""
    before = max((m.start() for m in cues.before.finditer(text, 0, mention.end())), default=-1)
    after = cues.after.search(text, mention.end())
    return before, after is not None and not _NEAR.search(text, mention.end(), after.start())


def _blank(text: str, *patterns: re.Pattern[str]) -> str:
    """Put a sign that no phrase holds over every match; places stay where they were."""
    for pattern in patterns:
        text = pattern.sub(lambda match: "\0" * len(match.group()), text)
    return text


def load_findings_lexicon(place: str | Path) -> FindingsLexicon:
    """Load a lexicon of findings.

    Args:
        place: `en`, or the path of a TOML file.

    Raises:
        InputError: No such file, or one that is not a lexicon of findings.
    """
    return _compile(find_lexicon_file(place, "findings lexicon", __package__, LANGUAGES))


def parse_findings_lexicon(source: str, *, where: str) -> FindingsLexicon:
    """Compile the TOML text of a lexicon.

    Raises:
        InputError: It is not TOML, or not of the form that `en.toml` shows.
    """
    return _compile(LexiconFile(where, source.encode()))


@lru_cache(maxsize=8)
def _compile(file: LexiconFile) -> FindingsLexicon:
    values = file.checked(_FORM).values
    findings = tuple(_finding(name, table, file.name) for name, table in values.get("findings", {}).items())
    no_finding = values.get("no_finding", "")
    if no_finding in (finding.name for finding in findings):
        raise InputError(f"{file.name}: no_finding must be a name that no finding has")
    if not findings:
        raise InputError(f'{file.name}: there are no findings; give each a table such as [findings."Edema"]')
    cues = {
        key: _patterns(values.get(key, {}), f"{file.name}: {key}") for key in ("negation", "uncertainty", "clauses")
    }
    return FindingsLexicon(
        findings=findings,
        negation=Cues(**cues["negation"]),
        uncertainty=Cues(**cues["uncertainty"]),
        ends=cues["clauses"].get("ends", _NEVER),
        no_finding=no_finding,
        source=file.data.decode("utf-8-sig"),
    )


def _finding(name: str, table: Mapping[str, Any], where: str) -> Finding:
    place = f"{where}: findings.{name}"
    patterns = _patterns({key: value for key, value in table.items() if key != "pathology"}, place)
    if "mentions" not in patterns:
        raise InputError(f"{place} has no mentions, so it would never be found")
    return Finding(name=name, pathology=table.get("pathology", True), **patterns)


def _patterns(table: Mapping[str, list[str]], place: str) -> dict[str, re.Pattern[str]]:
    """Compile each list of phrases that is not empty into one pattern, to search normalised text with."""
    return {
        key: re.compile("|".join(rf"\b(?:{_expression(phrase, f'{place}.{key}')})(?!\w)" for phrase in phrases))
        for key, phrases in table.items()
        if phrases
    }


def _expression(phrase: str, where: str) -> str:
    text = _normalise(phrase)
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


def _normalise(text: str) -> str:
    """A text as phrases see it: small letters without accents, single spaces, hyphens and slashes as spaces."""
    return _JOINING.sub(" ", fold(text)).strip()
