"""Findings under the name of an examination: CHEST, TWO VIEWS: The lungs are clear.

Many departments write the examination, or the organs one by one, where others write Findings. Which words make such a
heading, and in which sections it may stand, is data of the lexicon (`[examinations]`). It counts as Findings only in a
report that has none, and never where it tells with what was compared, how it was done or why it was asked for.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from convirt.data.reports.lexicons import Lexicon, fold, normalise

MAX_NAME = 80
"""Characters of the longest name of an examination."""

_LETTERS = re.compile(r"[^\W\d_]+")
_NAME = re.compile(r"[\w \t,/&().:'’+-]+")
_LEAD = re.compile(r"[ \t>#*_=~|•·\[<({–—-]*+")
_DECORATIONS = " \t*_=~|#>]}<[{:."
_DASH = re.compile(r"[ \t]+(?:[–—]|--?)[ \t]+")
_ENDED = re.compile(r"[.!?;]\s+")
_COLON = re.compile(r"(?<!\d):|:(?!\d)")  # not that of an hour
_AFTER = re.compile(r"[ \t]*[*_]{0,3}")


@dataclass(frozen=True)
class Examination:
    """The name of an examination, or of an organ, that findings stand under."""

    label: str
    """As written; `` for an organ, whose name stays with its text: `LUNGS: Clear.`"""
    start: int
    end: int
    """Place of the heading with its decorations: what follows `end` are findings."""


def find_examination(flat: str, start: int, end: int, lexicon: Lexicon, *, at_once: bool) -> Examination | None:
    """Find the first name of an examination that findings stand under; those after it are part of its text.

    Args:
        flat: The report, flattened.
        start: Where the body of a section that is not kept begins.
        end: Where it ends.
        lexicon: Words of examinations.
        at_once: Whether it may begin the body. If not, what begins it is the section's own (`COMPARISON:\\nCHEST CT:`),
            as far as the next empty line.
    """
    own = False
    place = start
    while place < end:
        stop = flat.find("\n", place, end)
        stop = end if stop < 0 else stop
        line = flat[place:stop]
        own = own and bool(line.strip())
        # Few lines have a name; what can be none is told apart in a fraction of the time.
        may_be = stop - place > 1 and (":" in line or _DASH.search(line, 0, 2 * MAX_NAME) or line.isupper())
        for found in _names(flat, place, stop, lexicon) if may_be else ():
            own = own or not (at_once or flat[start : found.start].strip(_DECORATIONS + "\n"))
            if not own:
                return found if _are_findings(flat, found, end, lexicon) else None
        place = stop + 1
    return None


def _names(flat: str, start: int, stop: int, lexicon: Lexicon) -> Iterator[Examination]:
    """Yield the names in a line: at its start, or inside it in capitals after the end of a sentence."""
    lead = _LEAD.match(flat, start, min(stop, start + MAX_NAME))
    begin = lead.end() if lead else start
    if alone := _judge(flat[begin : min(stop, begin + MAX_NAME + 1)], start, stop, lexicon, alone=True):
        yield alone
        return
    if dash := _DASH.search(flat, begin, min(stop, begin + MAX_NAME)):
        found = _judge(flat[begin : dash.start()], start, dash.end(), lexicon)
        if found and found.label.isupper():
            yield found
    for colon in (match.start() for match in _COLON.finditer(flat, begin, stop)):
        left = max(begin, colon - MAX_NAME)
        ends = [match.end() for match in _ENDED.finditer(flat, left, colon)]
        places = dict.fromkeys([*([begin] if left == begin else []), *ends[-1:]])
        after = _AFTER.match(flat, colon + 1)
        for place in places:
            first = start if place == begin else place
            found = _judge(flat[place:colon], first, after.end() if after else colon + 1, lexicon, inside=place > begin)
            if found:
                yield found
                break


def _judge(
    label: str, start: int, end: int, lexicon: Lexicon, *, inside: bool = False, alone: bool = False
) -> Examination | None:
    """Whether a label is made of nothing but words of examinations, and which."""
    name = label.strip(_DECORATIONS)
    capital = name.isupper() or (name[:1].isupper() and not inside and not alone)
    if not capital or len(label) > MAX_NAME or not _NAME.fullmatch(name):
        return None
    known = lexicon.examinations
    words = set(_LETTERS.findall(fold(name)))
    if not words <= known.names | known.structures | known.words:
        return None
    if words & known.names:
        return Examination(name, start, end)
    return Examination("", start, start) if words & known.structures and name.isupper() and not alone else None


def _are_findings(flat: str, found: Examination, end: int, lexicon: Lexicon) -> bool:
    """Whether what follows tells more than which views were taken, when and of whom."""
    known = lexicon.examinations
    body = flat[found.end : end].strip()
    if flat[found.end : found.end + 1] == "\n" and body[-1:] not in tuple(".!?"):
        return False
    first = f" {normalise(_LETTERS.sub(lambda word: f' {word[0]} ', body[: 4 * MAX_NAME].partition(chr(10))[0]))} "
    if any(f" {phrase} " in first for phrase in known.clinical):
        return False
    empty = known.names | known.words | known.fillers
    return any(fold(word.group()) not in empty for word in _LETTERS.finditer(body))
