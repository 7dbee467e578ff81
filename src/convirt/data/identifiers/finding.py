"""Identifiers left in the text of reports: found by rules, on this machine, and masked when asked.

The kinds are those of direct identifiers in the US rule on de-identification (45 CFR 164.514(b)(2), "Safe Harbor") that
occur in report text, in English and Spanish forms. Rules find what is written in a known way; what they cannot find is
`LIMITS`, which every audit prints. A text without a finding is not thereby de-identified.
"""

import re
from collections import Counter
from dataclasses import dataclass

from convirt.data.identifiers.names import NAMES
from convirt.data.identifiers.rules import DATES, NUMBERS, PLACES, TIMES

KINDS = {
    "NAME": "personal names after a title, before a degree, or after words such as 'signed by' and 'Patient:'",
    "DATE": "dates finer than a year, numeric or with English or Spanish months",
    "TIME": "times of day",
    "PHONE": "telephone, fax and pager numbers",
    "RECORD": "record, accession and account numbers, other long numbers, DICOM UIDs",
    "EMAIL": "e-mail addresses",
    "URL": "web addresses",
    "AGE": "ages above 89",
    "ADDRESS": "street addresses and post boxes",
    "ZIP": "postal codes beside a state, or named as such",
    "NATIONAL_ID": "US, Spanish, British, Brazilian and Italian personal numbers",
}
"""What is looked for."""
LIMITS = (
    "names without a title, a degree or a cue beside them, and names in lower-case text",
    "names that are also listed words of radiology or grammar, and the rest of a name after such a word",
    "names, places and dates misspelt or broken by spaces, and anything in other alphabets",
    "hospitals, cities, employers, relatives, rare diseases and events that identify without a number",
    "day and month without a year, such as 3/4, unless a word such as 'on' or 'dated' comes before",
    "short record numbers without a cue, and dates written as a year or a weekday alone",
    "languages other than English and Spanish",
    "text burned into the pixels of an image",
)
"""What these rules cannot find, for every report to say."""
GAP = re.compile(r"_{2,}|\bX{3,}\b|\[\*\*.*?\*\*\]|\[(?:" + "|".join(KINDS) + r")\]")
"""Where somebody has removed text: `___` (MIMIC-CXR), `XXXX` (Open-i), `[**...**]`, and our own tags."""

_RULES = (*DATES, *NUMBERS, *TIMES, *PLACES, *NAMES)
_WORTH_RULES = re.compile(r"[A-Z@\d]|\bdr\b", re.ASCII)


@dataclass(frozen=True, order=True)
class Found:
    """One identifier in a text: `text[start:end]`."""

    start: int
    end: int
    kind: str
    """A key of `KINDS`."""


def find_identifiers(text: str) -> list[Found]:
    """Find what identifies in a text.

    Args:
        text: A report, or a part of one.

    Returns:
        What was found, in order and apart from each other. Of findings that overlap the longest stands.
    """
    if not _WORTH_RULES.search(text):
        return []
    found = []
    lowered = text.lower()
    for rule in _RULES:
        if not any(piece in lowered for piece in rule.needs) or (rule.cue and not rule.cue.search(lowered)):
            continue
        for match in rule.pattern.finditer(text):
            if rule.accept is None or rule.accept(match):
                start, end = match.span("id")
                found.append(Found(start, end, rule.kind))
    found.sort(key=lambda item: (item.start - item.end, item.start))  # stable: earlier rules win among equals
    kept: list[Found] = []
    taken = bytearray(len(text))
    for item in found:
        if not any(taken[item.start : item.end]):
            taken[item.start : item.end] = b"\1" * (item.end - item.start)
            kept.append(item)
    return sorted(kept)


def redact(text: str) -> tuple[str, Counter[str]]:
    """Mask what `find_identifiers` finds by tags such as `[NAME]`.

    Returns:
        The masked text, and how many of each kind were masked.
    """
    parts, place = [], 0
    counts: Counter[str] = Counter()
    for item in find_identifiers(text):
        parts += [text[place : item.start], f"[{item.kind}]"]
        place = item.end
        counts[item.kind] += 1
    return "".join([*parts, text[place:]]), counts


def outline(text: str, item: Found, margin: int = 24) -> str:
    """Show a finding without giving it away: its shape (`Xxxxx`, `00/00/0000`) between the words beside it.

    Args:
        text: The text that it was found in.
        item: The finding.
        margin: How many characters to show on either side, with what was found there masked.
    """
    shape = re.sub(r"[^\W\d_]", lambda letter: "X" if letter[0].isupper() else "x", text[item.start : item.end])
    before = redact(text[: item.start])[0][-margin:]
    after = redact(text[item.end :])[0][:margin]
    return " ".join(f"{before}[{item.kind} {re.sub(r'[0-9]', '0', shape)}]{after}".split())
