"""Findings from the sentences of a report: named, denied or in doubt, by rules (after CheXpert; Irvin et al. 2019).

A finding is first looked for by name; then cues in the same clause decide. Of several mentions in one report a
present one counts before an uncertain one, and that before an absent one, as in the CheXpert labeler.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from convirt.data.findings.lexicon import Cues, Finding, FindingsLexicon, normalise

PRESENT, ABSENT, UNCERTAIN = 1, 0, -1
_ORDER = (PRESENT, UNCERTAIN, ABSENT)
_STOPS = re.compile(r"[;:!?]|\.(?= |$)")
_NEAR = re.compile(r",| and | or |;")
_STRETCH = re.compile(r".{1,400}(?!\w)|.{1,400}", re.DOTALL)
"""What runs on for longer is no sentence, and is cut between words, so that hostile text costs little."""


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
    text = normalise(sentence)
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
