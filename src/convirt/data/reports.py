"""Reports: which text of a report is kept, its sentences, and its tokens (ConVIRT, sections 2.3 and appendix A).

The paper keeps Findings and Impression and tokenises with CoreNLP 4.0.0's default English tokenizer, which also
defines its rule "shorter than 3 tokens". Ours is spaCy's rule-based English tokenizer, with sentence rules of our own
for the language of reports; both count punctuation marks as tokens, but they part some words differently.
"""

import re
from dataclasses import dataclass
from functools import cache

import spacy
from spacy.language import Language
from spacy.tokens import Doc, Token

MIN_TOKENS = 3
"""Pairs whose text is shorter are removed (A)."""

_FINDINGS = "FINDINGS?|OBSERVATIONS?"
_IMPRESSION = "IMPRESSIONS?|CONCLUSIONS?"
_KEPT_NAMES = (
    f"(?:FINAL )?(?:{_FINDINGS})(?: AND | & | ?/ ?)(?:{_IMPRESSION})",
    f"(?:FINAL )?(?:{_IMPRESSION})(?: AND | & | ?/ ?)(?:{_FINDINGS}|RECOMMENDATIONS?)",
    f"(?:FINAL )?(?:{_FINDINGS}|{_IMPRESSION})",
)
# A closed list: an unknown heading such as LUNGS: or HEART: is part of the Findings it stands in.
_OTHER_NAMES = (
    "(?:(?:CLINICAL|PATIENT|MEDICAL|PERTINENT|BRIEF) )?(?:HISTORY|INDICATIONS?|INFORMATION|CONTEXT|DETAILS)",
    "INDICATIONS? FOR (?:EXAM(?:INATION)?|STUDY)",
    "REASON FOR (?:THE |THIS )?(?:EXAM(?:INATION)?|STUDY|VISIT)",
    "CLINICAL (?:QUESTION|DIAGNOSIS|STATEMENT)|SYMPTOMS?",
    "EXAM(?:INATION)?(?: TYPE| DATE)?|(?:TYPE OF )?STUD(?:Y|IES)|DATE OF (?:EXAM(?:INATION)?|STUDY)",
    "COMPARISONS?(?: STUD(?:Y|IES))?|TECHNIQUES?|PROCEDURES?(?: COMMENTS)?|PROTOCOL|VIEWS?",
    "CONTRAST|(?:RADIATION )?DOSE|MEDICATIONS?",
    "WET READ(?:ING)?|PRELIMINARY (?:REPORT|READ(?:ING)?)|FINAL REPORT|ADDENDUM",
    "RECOMMENDATIONS?|NOTIFICATIONS?|COMMUNICATIONS?|ATTESTATION|COMMENTS?|DISCLAIMER",
    "(?:ELECTRONICALLY )?SIGNED(?: BY)?|DICTATED(?: BY)?|(?:ATTENDING )?RADIOLOGIST|REPORTED BY",
)
# Never \s: a heading stays on its line, and runs of empty lines must not make the search slow.
_KEPT = "|".join(_KEPT_NAMES).replace(" ", r"[ \t]+").replace(r"[ \t]+?", r"[ \t]*")
_OTHER = "|".join(_OTHER_NAMES).replace(" ", r"[ \t]+")
_NAME = rf"(?:(?P<kept>{_KEPT})|(?P<other>{_OTHER}))"
_LEAD = r"[ \t>#*_]*(?:\d{1,2}[.)][ \t]*)?"
_HEADING = re.compile(
    # At the start of a line, in any case, with a colon or a dash.
    rf"^{_LEAD}(?i:{_NAME})[ \t*_]*(?::|[ \t][-–—][ \t])[*_]*"
    # Alone on its line; the capital tells it from the last word of a wrapped line.
    rf"|^{_LEAD}(?=[A-Z])(?i:{_NAME.replace('P<', 'P<alone_')})[ \t*_]*$"
    # Inside a line, in capitals with a colon.
    rf"|(?<=\s)[*_]*{_NAME.replace('P<', 'P<capital_')}[ \t]*:[*_]*"
    # Inside a line, with a colon, after the end of a sentence.
    rf"|(?:(?<=[.!?;:_\])]\s)|(?<=\s\s))[*_]*(?=[A-Z])(?i:{_NAME.replace('P<', 'P<inside_')})[ \t]*:[*_]*"
    # At the start of a line, in capitals, and what follows is not in capitals.
    rf"|^{_LEAD}(?P<bare_kept>{_KEPT})[ \t]+(?=[A-Z]?[a-z]|\d|_|XX|No\b|A\b)",
    re.MULTILINE,
)

# Never the end of a sentence, whatever follows.
_ABBREVIATIONS = frozenset(
    {"dr", "drs", "mr", "mrs", "ms", "prof", "st", "approx", "ca", "cf", "e.g", "eg", "i.e", "ie", "vs", "incl", "resp"}
)
# Not the end of a sentence before a number: `No. 3`, `Im. 12`.
_BEFORE_NUMBER = frozenset({"no", "nos", "fig", "figs", "se", "ser", "im", "img", "vol", "lev", "est", "max", "min"})
_ENDS = frozenset({".", "!", "?", "..", "..."})
_CLOSING = frozenset({'"', "'", "”", "’", ")", "]"})
_BRACKETS = _CLOSING | {"(", "["}
_BULLET = re.compile(r"^\s*(?:\(?\d{1,2}[.)](?!\d)|\(\d{1,2}\)|[-–•*·]+(?=\s))\s*")
_BREAK = re.compile(r"\n\s*\n|\n(?=[ \t]*(?:\(?\d{1,2}[.)]\s|\(\d{1,2}\)\s|[-–•*·]+\s))")


@dataclass(frozen=True, kw_only=True)
class Report:
    """The part of a report that a pair keeps."""

    text: str
    """Kept text on one line: sections in their order, wrapped lines joined."""
    sentences: tuple[str, ...]
    """Its sentences, without the numbers and bullets of lists; none is without a word."""
    tokens: int
    """Tokens of the kept text, punctuation marks included."""
    has_sections: bool
    """Whether Findings or Impression were found; if not, the whole text is kept."""


def kept_sections(report: str) -> list[str]:
    """Return the bodies of Findings and Impression in their order; empty if the report has no such heading.

    Headings may be in capitals or not, with a colon or alone on a line, merged (FINDINGS AND IMPRESSION); CONCLUSION
    counts as Impression and OBSERVATIONS as Findings. Other known headings end a section, unknown ones do not.
    """
    sections: list[str] = []
    headings = list(_HEADING.finditer(report))
    ends = [*(heading.start() for heading in headings[1:]), len(report)]
    for heading, end in zip(headings, ends, strict=False):
        if any(text for name, text in heading.groupdict().items() if name.endswith("kept")):
            sections.append(report[heading.end() : end].strip())
    return sections


def parse_report(report: str) -> Report:
    """Keep Findings and Impression where they exist, else the whole text, and part it into sentences."""
    report = report.replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ")
    sections = kept_sections(report)
    bodies = sections or [report]
    text = " ".join(" ".join(bodies).split())
    sentences = tuple(sentence for body in bodies for sentence in split_sentences(body))
    return Report(text=text, sentences=sentences, tokens=count_tokens(text), has_sections=bool(sections))


def split_sentences(text: str) -> list[str]:
    """Part a text into sentences: wrapped lines are joined, blank lines and items of lists part.

    Numbers and bullets of lists are removed; what holds no letter (a lone `___`) is left out.
    """
    sentences = []
    for block in _BREAK.split(text):
        document = _pipeline()(" ".join(block.split()))
        for span in document.sents:
            sentence = _BULLET.sub("", span.text).strip()
            if re.search(r"[^\W\d_]", sentence.replace("XXXX", "")):
                sentences.append(sentence)
    return sentences


def count_tokens(text: str) -> int:
    """Count the tokens of a text, as spaCy's English tokenizer parts it; punctuation counts, white space does not."""
    return sum(not token.is_space for token in _pipeline().make_doc(text))


@cache
def _pipeline() -> Language:
    pipeline = spacy.blank("en")
    pipeline.max_length = 10**8  # rules need little memory; the default guards a statistical parser
    pipeline.add_pipe("report_sentences")
    return pipeline


@Language.component("report_sentences")
def _mark_sentences(document: Doc) -> Doc:
    """Set `is_sent_start` on each token by the rules of reports."""
    has_capitals = any(character.isupper() for character in document.text)
    first = 0  # first token of the sentence at hand
    ended = False
    for token in document:
        starts = token.i == 0
        if ended and token.text not in _CLOSING and token.text not in _ENDS:
            starts = True
        token.is_sent_start = starts
        if starts:
            first = token.i
            ended = False
        if not ended:
            ended = _ends_sentence(document, token, first, has_capitals)
    return document


def _ends_sentence(document: Doc, token: Token, first: int, has_capitals: bool) -> bool:
    """Whether a sentence that began at token `first` ends with `token`."""
    if not token.text.endswith((".", "!", "?")):
        return False
    end = token.idx + len(token)
    # The word as written, not the token: spaCy parts `im.` like a contraction, and leaves `C.` and `e.g.` whole.
    start = max(document.text.rfind(" ", document[first].idx, end) + 1, document[first].idx)
    before = document.text[start:end].rstrip(".!?").lstrip("([\"'“‘")
    following = next((t for t in document[token.i + 1 :] if t.text not in _BRACKETS), None)
    if not before or following is None or following.text[0] in ",;:":
        return False
    if before.lower() in _ABBREVIATIONS:
        return False
    if before.isdigit() and start == document[first].idx:
        return False  # `1.` that begins an item of a list
    if before.lower() in _BEFORE_NUMBER and following.text[0].isdigit():
        return False
    if following.text[0].islower() and has_capitals:
        # More likely an abbreviation that no list knows, unless the word before it is long.
        return token.text == "." and len(before) >= 5 and before.isalpha() and before.islower()
    return True
