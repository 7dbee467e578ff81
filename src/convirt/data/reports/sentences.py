"""Sentences of a report: rules for prose that is wrapped, listed, abbreviated and de-identified.

A full stop ends a sentence unless the word before it or the character after it speaks against it; blank lines and
items of lists end one always. Each place is judged from a slice of bounded length, so the time is linear in the text.
"""

import re
from collections.abc import Iterator

from convirt.data.reports.lexicons import ENGLISH, Lexicon, fold
from convirt.data.reports.sections import flatten

_STOP = re.compile(r"[.!?]++")
_CLOSING = "\"'”’»)]"
_OPENING = " \t\n\"'“‘«([¿¡"
_BULLET = re.compile(r"\s*+(?:\(?(\d{1,2})[.)](?!\d)|\((\d{1,2})\)|[-–•*·]++(?=\s))\s*+")
_ITEM = re.compile(r"[ \t]*+(?:\(?\d{1,2}[.)](?:\s|(?=[^\W\d_]))|\(\d{1,2}\)\s|[-–•*·]++\s)")
_RULE = re.compile(r"[ \t]*+(?:[-=~*.]{3,}+|_{8,}+)[ \t]*+\Z")
_TITLE = re.compile(r"\s*+(?:[^\W\d_]++|[^:\n]++:)\s*+")
_LETTER = re.compile(r"[^\W\d_]")
_LOOK_BACK = 60
"""Characters before a full stop that decide whether it ends a sentence."""

_NARROW = 60
"""Columns of the narrowest wrapped text: shorter lines were broken on purpose."""


def sentence_spans(text: str, lexicon: Lexicon = ENGLISH) -> list[tuple[int, int]]:
    """Return where the sentences of a text start and end: `text[start:end]`, in their order.

    The number or bullet of an item of a list belongs to its sentence; what holds no letter (a lone `___`) is left out.
    """
    flat = flatten(text)
    words = flat.replace("XXXX", "")
    has_capitals = words != words.lower()
    spans = []
    for start, end in _blocks(flat, lexicon):
        for first, last in _Block(flat, start, end, lexicon, has_capitals).sentences():
            piece = flat[first:last]
            if _LETTER.search(_without_bullet(piece).replace("XXXX", "")):
                first += len(piece) - len(piece.lstrip())
                spans.append((first, first + len(piece.strip())))
    return spans


def split_sentences(text: str, lexicon: Lexicon = ENGLISH) -> list[str]:
    """Part a text into sentences: wrapped lines are joined, blank lines and items of lists part.

    Numbers and bullets of lists are removed; what holds no letter (a lone `___`) is left out.
    """
    return [" ".join(_without_bullet(text[a:b]).split()) for a, b in sentence_spans(text, lexicon)]


def _without_bullet(sentence: str) -> str:
    bullet = _BULLET.match(sentence)
    return sentence[bullet.end() :] if bullet else sentence


def _blocks(flat: str, lexicon: Lexicon) -> Iterator[tuple[int, int]]:
    """Yield pieces of text that no sentence leaves: paragraphs, items of lists, lines of their own."""
    lines = flat.split("\n")
    width = max(_NARROW, max(len(line.rstrip()) for line in lines))
    start = place = 0
    above = ""
    for line in lines:
        blank = not line.strip() or bool(_RULE.match(line))
        if blank or _ITEM.match(line) or _breaks(above, line, width, lexicon):
            yield start, place
            start = place + len(line) if blank else place
        above = "" if blank else line
        place += len(line) + 1
    yield start, len(flat)


def _breaks(above: str, line: str, width: int, lexicon: Lexicon) -> bool:
    """Whether a line was broken on purpose: its next word would have fitted, and starts with a capital."""
    words = above.split()
    following = line.split(maxsplit=1)
    if not words or not following[0][0].isupper() or not words[-1][-1].isalnum():
        return False
    if len(above.rstrip()) + 1 + len(following[0]) > width:
        return False
    return fold(words[-1]) not in lexicon.continuing


class _Block:
    """A paragraph or an item of a list, parted into sentences."""

    def __init__(self, flat: str, start: int, end: int, lexicon: Lexicon, has_capitals: bool) -> None:
        self._flat, self._start, self._end = flat, start, end
        self._lexicon = lexicon
        self._has_capitals = has_capitals
        self._two = next((m.start() for m in re.finditer(r"(?<=\s)2[.)]\s", flat[start:end])), -1) + start

    def sentences(self) -> Iterator[tuple[int, int]]:
        """Yield the start and the end of each sentence, its number included."""
        first = self._start
        number = self._number(first)
        for stop in _STOP.finditer(self._flat, self._start, self._end):
            if stop.start() < first:
                continue
            if listed := self._list_number(first, stop, number):
                yield first, listed[0]
                first, number = listed
                continue
            end = stop.end()
            while end < self._end and self._flat[end] in _CLOSING:
                end += 1
            if self._ends(first, stop, end):
                yield first, end
                first = end
                number = self._number(first) or number
        yield first, self._end

    def _number(self, first: int) -> int:
        """The number that a sentence begins with, as an item of a list; 0 if there is none."""
        bullet = _BULLET.match(self._flat, first, self._end)
        return int(bullet[1] or bullet[2] or 0) if bullet else 0

    def _words_before(self, first: int, stop: int) -> list[str]:
        return self._flat[max(first, stop - _LOOK_BACK) : stop].split()

    def _list_number(self, first: int, stop: re.Match[str], number: int) -> tuple[int, int] | None:
        """Where an item of a list starts that no full stop precedes (`1. Clear 2. Normal`), and its number."""
        head = self._flat[max(first, stop.start() - 3) : stop.start()]
        digits = re.search(r"\s(\d{1,2})\Z", head)
        if digits is None or stop[0] != ".":
            return None
        following = self._flat[stop.end() : stop.end() + 2].strip()
        start = stop.start() - len(digits[1])
        if int(digits[1]) != number + 1 or not following[:1].isupper():
            return None
        if not number and (
            self._two < start or not _TITLE.fullmatch(self._flat, first, min(start, first + _LOOK_BACK))
        ):
            return None  # `grade 1.`; but `Hand 1. No fracture. 2. No mass.`
        return start, int(digits[1])

    def _ends(self, first: int, stop: re.Match[str], end: int) -> bool:
        """Whether the sentence that began at `first` ends with a full stop (`end`: after closing brackets)."""
        flat = self._flat
        place = end
        while place < self._end and flat[place] in _OPENING:
            place += 1
        if place == self._end or flat[place] in ",;:.!?":
            return False
        following = flat[place]
        if flat[stop.start() - 1].isspace() or stop.start() == first:  # `normal . Heart`; but neither `.5` nor `?mass`
            spaced = stop.start() > first and place > end
            return spaced and "." in stop[0] and following.isupper() and bool(flat[first : stop.start()].strip())
        words = self._words_before(first, stop.start())
        before = words[-1].lstrip("([\"'“‘«¿¡")
        if place == end and not self._missing_space(before, end):
            return False
        return self._word_ends(words, before, following, stop[0], first)

    def _word_ends(self, words: list[str], before: str, following: str, stop: str, first: int) -> bool:
        """Whether a full stop after a word ends a sentence, by that word and what follows."""
        folded = fold(before)
        if not before or folded in self._lexicon.abbreviations:
            return False
        if before.isdigit() and len(words) == 1:
            return False  # `1.` that begins an item of a list
        if folded in self._lexicon.before_number and following.isdigit():
            return False
        initial = len(before) == 1 and before.isupper() and len(words) > 1
        if initial and fold(words[-2]).rstrip(".") in self._lexicon.titles:
            return False
        if following.islower() and self._has_capitals:
            # More likely an abbreviation that no list knows, unless the word before it is long.
            word = before.rstrip(_CLOSING)
            return stop == "." and len(word) >= 5 and word.isalpha() and word.islower()
        return True

    def _missing_space(self, before: str, end: int) -> bool:
        """Whether a full stop without a space after it may end a sentence: `effusion.No`, not `2.5`, `U.S.`, `a.b`."""
        after = self._flat[end : end + 2]
        if not before or "/" in before or "@" in before or "." in before or not after[:1].isupper():
            return False
        if self._flat[end - 1] in _CLOSING:
            return True
        if before.isupper() or not before[-1].isalpha():
            # In capitals or with a digit, it takes a long word or a place: `XXXX.Lungs`, `T4.Normal`, not `M.D.`
            both = after.isupper() and len(before) >= 4
            return len(before) >= 2 and (len(after) < 2 or after[1].islower() or both)
        return len(before) >= 2 and before[-1].islower()
