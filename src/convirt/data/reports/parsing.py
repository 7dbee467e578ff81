"""From a report to what a pair keeps of it: text, sentences, tokens (ConVIRT, sections 2.3 and appendix A).

The paper counts tokens with CoreNLP 4.0.0's English tokenizer. Ours is one expression of the same kind: punctuation
counts, hyphens and slashes part words, contractions are two tokens, numbers and dotted letters are one.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convirt.data.reports.lexicons import ENGLISH, Lexicon
from convirt.data.reports.sections import parse_sections
from convirt.data.reports.sentences import split_sentences

MIN_TOKENS = 3
"""Pairs whose text is shorter are removed (A)."""

_TOKEN = re.compile(
    r"(?:[^\W\d_]\.){2,}+"  # e.g., p.m.
    r"|\d++(?:[.,:/]\d++)*+"  # 2.5, 3/4, 3:45
    r"|[^\W\d_]+?(?=n['’]t\b)|n['’]t\b"  # does + n't
    r"|['’](?:s|re|ve|ll|d|m)\b"
    r"|[^\W\d_][^\W_]*+"
    r"|_++|\.{2,}+|-{2,}+"
    r"|\S"
)


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
    sections: tuple[str, ...] = ()
    """Names of the kept sections in their order, as in the lexicon; empty if the whole text is kept."""


def parse_report(report: str, lexicon: Lexicon = ENGLISH, *, edit: Callable[[str], str] | None = None) -> Report:
    """Keep Findings and Impression where they exist, else the whole text, and part it into sentences.

    Args:
        report: The report as written.
        lexicon: Headings and abbreviations of its language.
        edit: Changes each kept text before it is parted into sentences, such as a mask of identifiers.
    """
    kept = [section for section in parse_sections(report, lexicon) if section.kept]
    bodies = [report[section.start : section.end] for section in kept] if kept else [report]
    return _assemble(bodies, [section.name for section in kept], lexicon, edit)


def fields_report(
    findings: str, impression: str, lexicon: Lexicon = ENGLISH, *, edit: Callable[[str], str] | None = None
) -> Report:
    """Make the report of a structured source (Open-i) whose Findings and Impression are fields of their own.

    No heading is looked for in them: a field is kept whole, whatever it reads.
    """
    fields = {name: text.strip() for name, text in (("findings", findings), ("impression", impression)) if text.strip()}
    return _assemble(list(fields.values()), list(fields), lexicon, edit)


def _assemble(
    bodies: Sequence[str], names: Sequence[str], lexicon: Lexicon, edit: Callable[[str], str] | None
) -> Report:
    if edit is not None:
        bodies = [edit(body) for body in bodies]
    text = " ".join(" ".join(bodies).split())
    return Report(
        text=text,
        sentences=tuple(sentence for body in bodies for sentence in split_sentences(body, lexicon)),
        tokens=count_tokens(text),
        has_sections=bool(names),
        sections=tuple(names),
    )


def count_tokens(text: str) -> int:
    """Count the tokens of a text; punctuation counts, white space does not."""
    return sum(1 for _ in _TOKEN.finditer(unicodedata.normalize("NFC", text)))


def words(text: str) -> list[str]:
    """The tokens of a text that hold a letter or a digit, in lower case: what captions are made of and compared by."""
    tokens = (match.group() for match in _TOKEN.finditer(unicodedata.normalize("NFC", text)))
    return [token.lower() for token in tokens if any(map(str.isalnum, token))]
