"""Sections of a free-text report: where they start and end, and under which heading (ConVIRT, appendix A).

A heading is a label that the lexicon knows, at the start of a line (before a colon or a dash, or alone there) or inside
a line before a colon. Whatever it reads, each place is judged from a slice of bounded length: the time is linear in the
text.

In doubt nothing is cut from a kept section: a comparison too many harms less than findings lost. So only the heading of
another kept section ends one, or a heading at the start of a line that is written as the kept one is (in capitals or
not). `FINDINGS: Comparison: none. The lungs are clear.` has no comparison section.
"""

import re
from bisect import bisect_left as bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace

from convirt.data.reports.examinations import find_examination
from convirt.data.reports.lexicons import ENGLISH, Lexicon

RULE_STAND_IN = "a comment or an opinion kept as the conclusion"
RULE_EXAMINATION = "findings under the name of an examination"
RULE_LABEL_LEFT = "a known label inside a kept section left in its text"
RULE_CLOSED = "what closes a report cut off inside a line"

MAX_LABEL = 80
"""Characters of the longest heading."""

# Every substitute is as long as what it stands for, so that places in the flat text are places in the text.
_FLAT = {ord(c): " " for c in "\u00a0\u2007\u202f\u3000\ufeff\u200b\x00"}
_FLAT |= {ord(c): "\n" for c in "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"} | {ord("："): ":"}
# HTML and XML, Excel, HL7, RTF, escapes. A lone tilde may mean "about": `~2 cm`; `\\n` before a small letter, a path.
_LINE_END = re.compile(
    r"<br\s{0,3}/?>|</?(?:p|div)(?:\s[^<>]{0,80})?>|&#(?:1[03]|x0{0,3}[ad]);|(?:\\X0[ad]){1,2}\\|\\X0[ad]0[ad]\\"
    r"|_x000[ad]_|\\\.(?:br|sp)\\|\\(?:par|line)\b ?|(?-i:(?:\\r)?\\n|\\r)(?-i:(?![a-z]))"
    r"|(?<=[^\s~])~+(?=[ ]{0,80}(?-i:[A-Z]|\d{1,2}[.)]\s))",
    re.IGNORECASE,
)
# Possessive: a run of decorations is taken whole or not at all.
_LEAD = re.compile(r"[ \t>#*_=~|•·\[<({–—-]*+(?:(?:\d{1,2}|I{1,3}|I?[VX]|VI{1,3}|[A-H])[.)](?=[ \t*_])[ \t*_]*+)?")
_DECORATIONS = " \t*_=~|#>])}<[({:"
_ASIDE = re.compile(r"[ \t]*[(\[][^()\[\]\n]{0,60}[)\]]$")
_DASH = re.compile(r"[ \t]*+(?:[–—]|--|-(?=[ \t]|$)|(?<=[ \t])-)[ \t]*+")
_AFTER_COLON = re.compile(r"\*{1,3}|_{1,2}(?!_)")
_RULE = re.compile(r"\s*\n[ \t]*[-=~*]{3,}+[ \t]*(?=\n|$)")
_BARE_NEXT = re.compile(r"[ \t]+(?=[A-Z]?[a-zà-ÿ]|\d|_|XX|[NA][o]?\b)")
_GAP = re.compile(r"[ \t]*\t[ \t]*|[ \t]{2,}")
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a report; sections come in their order and leave out nothing but headings and white space."""

    name: str
    """Its name in the lexicon, such as `findings`; a heading that joins two gives `findings and impression`, and text
    before the first heading is named ``."""
    heading: str
    """The heading as written, without colon and decorations; `` before the first heading."""
    start: int
    end: int
    """Its text without the heading is `report[start:end]`; nothing may be between them."""
    kept: bool
    """Whether the lexicon keeps it."""
    rules: tuple[str, ...] = ()
    """Rules beyond plain headings that decided about it, as the audit names them."""


@dataclass(frozen=True)
class _Heading:
    names: tuple[str, ...]
    label: str
    start: int  # of the heading with its decorations
    end: int  # start of the body
    sure: bool = True  # a label in small letters may be a wrapped phrase
    inside: bool = False  # a line, and not at its start


def flatten(text: str) -> str:
    """Return a text of the same length whose lines end in `\\n` and whose spaces are plain."""
    return text.replace("\r\n", " \n").translate(_FLAT)


def read_line_ends(text: str) -> str:
    """Return a text in which other systems' line ends, such as `<br>`, `_x000D_` or HL7's `\\.br\\`, are plain ones."""
    text = _LINE_END.sub("\n", text)
    return text if "\n" in text else text.replace("\\r", "").replace("\\n", "\n")


def parse_sections(text: str, lexicon: Lexicon = ENGLISH) -> list[Section]:
    """Part a report into sections; a text without headings is one section named ``, an empty one has none."""
    flat = flatten(text)
    left: list[int] = []
    headings = _drop_doubtful(flat, list(_find_headings(flat, lexicon, left)), lexicon)
    examinations = set(_find_examinations(flat, headings, lexicon))
    headings = sorted([*headings, *examinations], key=lambda heading: heading.start)
    stand_ins = _stand_ins(flat, headings, lexicon)
    keeps = lexicon.kept | stand_ins
    sections = []
    start, end = _trim(flat, 0, headings[0].start if headings else len(flat))
    if start < end:
        sections.append(Section(name="", heading="", start=start, end=end, kept=False))
    ends = [*(heading.start for heading in headings[1:]), len(flat)]
    for heading, limit in zip(headings, ends, strict=False):
        start, end = _trim(flat, heading.end, limit)
        kept = not keeps.isdisjoint(heading.names)
        name = " and ".join(heading.names)
        place = flat.find(heading.label, heading.start)
        label = text[place : place + len(heading.label)]
        acted = {
            RULE_STAND_IN: kept and not stand_ins.isdisjoint(heading.names) and start < end,
            RULE_EXAMINATION: heading in examinations,
            RULE_LABEL_LEFT: kept and bisect(left, start) < bisect(left, end),
            RULE_CLOSED: bool(sections) and sections[-1].kept and heading.inside and not kept,
        }
        rules = tuple(rule for rule, acts in acted.items() if acts)
        sections.append(Section(name=name, heading=label, start=start, end=end, kept=kept, rules=rules))
    return sections


def kept_sections(report: str, lexicon: Lexicon = ENGLISH) -> list[str]:
    """Return the bodies of the kept sections (Findings and Impression) in their order; empty if there are none.

    Headings may be in capitals or not, with a colon or alone on a line, merged (FINDINGS AND IMPRESSION); CONCLUSION
    counts as Impression and OBSERVATIONS as Findings. Other known headings end a section, unknown ones do not; but in a
    report without Findings the name of an examination (CHEST, TWO VIEWS:) heads them.
    """
    report = read_line_ends(report)
    return [report[section.start : section.end] for section in parse_sections(report, lexicon) if section.kept]


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    body = text[start:end]
    start += len(body) - len(body.lstrip())
    return start, start + len(body.strip())


def _find_headings(flat: str, lexicon: Lexicon, left: list[int]) -> Iterator[_Heading]:
    """Yield the headings; `left` receives where a known label inside a kept section was left in its text."""
    small = flat == flat.lower()
    one_line = "\n" not in flat.strip()
    above: _Heading | None = None  # whose section is kept
    place = 0
    while place < len(flat):
        end = flat.find("\n", place)
        end = len(flat) if end < 0 else end
        heading = _at_line_start(flat, place, end, lexicon)
        if heading and above and _is_doubtful(flat, heading, above, lexicon):
            left.append(flat.find(heading.label, heading.start))
        elif heading:
            above = None if lexicon.kept.isdisjoint(heading.names) else replace(heading, inside=one_line)
            yield heading
            place = heading.end
        while (colon := flat.find(":", place, end)) >= 0:
            if heading := _before_colon(flat, place, colon, lexicon, above, small, left):
                above = None if lexicon.kept.isdisjoint(heading.names) else heading
                yield heading
            place = colon + 1
        place = max(place, end + 1)


def _is_doubtful(flat: str, heading: _Heading, above: _Heading, lexicon: Lexicon) -> bool:
    """Whether a label in the section of the kept heading above it is written otherwise, and so part of the text.

    What closes a report may be written otherwise, but not in the line below the kept heading, where its text begins;
    there only a line about the patient ends it that says no more (`Patient: ___`).
    """
    if not lexicon.kept.isdisjoint(heading.names) or heading.label.isupper() == above.label.isupper():
        return False
    between = flat[above.end : min(heading.start, above.end + MAX_LABEL)]
    directly = not between.strip() and between.count("\n") < 2
    line = flat[heading.end : heading.end + MAX_LABEL].partition("\n")[0]
    goes_on = lexicon.line_only.isdisjoint(heading.names) or ". " in line or len(line) == MAX_LABEL
    return (directly and goes_on) or not lexicon.closing.issuperset(heading.names)


def _at_line_start(flat: str, start: int, end: int, lexicon: Lexicon) -> _Heading | None:
    """Find the heading that a line begins with, if any."""
    lead = _LEAD.match(flat, start, min(end, start + 2 * MAX_LABEL))
    begin = lead.end() if lead else start
    head = flat[begin : min(end, begin + MAX_LABEL)]
    if not head or not head[0].isalpha():
        return None
    return (
        _with_colon(flat, start, begin, head, lexicon)
        or _with_dash(start, begin, head, lexicon)
        or _alone(flat, start, begin, end, head, lexicon)
        or _bare(start, begin, head, lexicon)
    )


def _with_colon(flat: str, start: int, begin: int, head: str, lexicon: Lexicon) -> _Heading | None:
    """FINDINGS: ..., Findings (chest): ..., CT CHEST FINDINGS: ..."""
    label, colon, _ = head.partition(":")
    if not colon:
        return None
    label, names = _lookup(label, lexicon)
    words = label.split()
    if not names and "." not in label and all(word[0].isupper() or not word[0].isalpha() for word in words):
        names = tuple(name for name in lexicon.find(words[-1]) if name in lexicon.kept)
    if not names:
        return None
    return _Heading(names, label, start, _skip(flat, begin + head.index(":") + 1), any(c.isupper() for c in label))


def _with_dash(start: int, begin: int, head: str, lexicon: Lexicon) -> _Heading | None:
    """FINDINGS - ..., Findings— ..."""
    dash = _DASH.search(head)
    if dash is None or not head[0].isupper():
        return None
    label, names = _lookup(head[: dash.start()], lexicon)
    return _Heading(names, label, start, begin + dash.end()) if names else None


def _alone(flat: str, start: int, begin: int, end: int, head: str, lexicon: Lexicon) -> _Heading | None:
    """FINDINGS, **Findings**, == Findings ==, each alone on its line; then perhaps a line of dashes."""
    if end - begin > MAX_LABEL:
        return None
    label, names = _lookup(head, lexicon)
    if not names:
        label, names = _lookup(head.rstrip(". "), lexicon) if head.isupper() else (label, ())
    if not names:
        return None
    sure = label[0].isupper()
    if not sure and not _starts_afresh(flat, start):
        return None
    rule = _RULE.match(flat, end, end + 3 * MAX_LABEL)
    return _Heading(names, label, start, rule.end() if rule else end, sure)


def _bare(start: int, begin: int, head: str, lexicon: Lexicon) -> _Heading | None:
    """IMPRESSION No acute disease: only kept sections, in capitals before words that are not; or before a wide gap."""
    gap = _GAP.search(head)
    if gap and head[0].isupper() and gap.end() < len(head) and not head[gap.end()].islower():
        label, names = _lookup(head[: gap.start()], lexicon)
        if names and lexicon.line_only.isdisjoint(names):
            return _Heading(names, label, start, begin + gap.end())
    words = list(_WORD.finditer(head))[: lexicon.longest]
    for word in reversed(words):
        label = head[: word.end()]
        if label.isupper() and _BARE_NEXT.match(head, word.end()):
            names = lexicon.find(label)
            if not lexicon.kept.isdisjoint(names):
                return _Heading(names, label, start, begin + word.end())
    return None


def _lookup(label: str, lexicon: Lexicon) -> tuple[str, tuple[str, ...]]:
    """Return a label without decorations and asides, and the sections it names."""
    whole = label.strip(_DECORATIONS)
    if names := lexicon.find(whole):
        return whole, names
    short = _ASIDE.sub("", label.rstrip(" \t*_")).strip(_DECORATIONS)
    return (short, lexicon.find(short)) if short else (whole, ())


def _before_colon(
    flat: str, start: int, colon: int, lexicon: Lexicon, above: _Heading | None, small: bool, left: list[int]
) -> _Heading | None:
    """Find the heading that ends at a colon inside a line; `small`: the text has no capitals at all."""
    begin = max(start, colon - MAX_LABEL)
    before = _ASIDE.sub("", flat[begin:colon].rstrip(" \t*_"))
    words = list(_WORD.finditer(before))[-lexicon.longest :]
    for word in words:
        label = before[word.start() :].lstrip("*_[(#")
        names = lexicon.find(label) if label[:1].isalnum() else ()
        if not names:
            continue
        place = begin + word.start()
        if place == 0 or not flat[place - 1].isspace():
            return None
        heading = _Heading(names, label, place, _skip(flat, colon + 1), inside=True)
        if _is_heading(flat, heading, lexicon, above, small):
            return heading
        if above and lexicon.kept.isdisjoint(names) and label[0].isupper():
            left.append(place)
        return None
    return None


def _is_heading(flat: str, heading: _Heading, lexicon: Lexicon, above: _Heading | None, small: bool) -> bool:
    """Whether a known label inside a line is a heading: capitals are, others need the end of a sentence before them.

    Only what closes a report ends a kept section so, where the kept heading too stands inside a line, or the whole
    report in one line.
    """
    label, names = heading.label, heading.names
    if not lexicon.line_only.isdisjoint(names):
        return False
    before = flat[max(0, heading.start - 8) : heading.start].rstrip()[-1:]
    ended = before in (".", "!", "?", ";", ":", "_", "]", "*", "")
    kept = not lexicon.kept.isdisjoint(names)
    if above and not kept:
        like_above = above.inside and label.isupper() == above.label.isupper() and label[0].isupper()
        directly = not flat[above.end : above.end + MAX_LABEL].strip() or not flat[above.end : heading.start].strip()
        return lexicon.closing.issuperset(names) and like_above and (ended or label.isupper()) and not directly
    if label.isupper():
        return True
    return ended or kept or above is None if label[0].isupper() else kept and (small or ended)


def _skip(flat: str, place: int) -> int:
    """Skip what closes a decorated heading after its colon: **FINDINGS:** ..."""
    closing = _AFTER_COLON.match(flat, place)
    return closing.end() if closing else place


def _drop_doubtful(flat: str, headings: list[_Heading], lexicon: Lexicon) -> list[_Heading]:
    """Drop labels in small letters at the start of a line that go on from the line above: a wrapped `prior\\nexam:`."""
    if not any(heading.sure for heading in headings):
        return headings
    return [heading for heading in headings if heading.sure or _starts_afresh(flat, heading.start)]


def _find_examinations(flat: str, headings: list[_Heading], lexicon: Lexicon) -> Iterator[_Heading]:
    """Yield names of examinations that head findings, in a report without Findings and before its Impression."""
    known = lexicon.examinations
    if not known.sections or any(name in known.sections for heading in headings for name in heading.names):
        return
    bodies: list[tuple[tuple[str, ...], int]] = [((), 0), *((heading.names, heading.end) for heading in headings)]
    ends = [*(heading.start for heading in headings), len(flat)]
    for (names, start), end in zip(bodies, ends, strict=True):
        if not lexicon.kept.isdisjoint(names):
            return
        if known.after.issuperset(names):
            at_once = known.at_once_after.issuperset(names)
            if found := find_examination(flat, start, end, lexicon, at_once=at_once):
                yield _Heading(known.sections[:1], found.label, found.start, found.end)


def _stand_ins(flat: str, headings: list[_Heading], lexicon: Lexicon) -> frozenset[str]:
    """Return the sections that are kept for want of others: COMMENT where no Impression exists.

    Not in a report whose findings stand under no heading: with a kept section, they would be lost.
    """
    names = {name for heading in headings for name in heading.names}
    if lexicon.kept.isdisjoint(names) and (not headings or flat[: headings[0].start].strip()):
        return frozenset()
    return frozenset(name for name, others in lexicon.instead_of.items() if names.isdisjoint(others))


def _starts_afresh(flat: str, place: int) -> bool:
    above = flat[max(0, place - 2 * MAX_LABEL) : place].rstrip(" \t")
    return not above.strip() or above.endswith("\n\n") or above.rstrip()[-1] in ".!?:;_*"
