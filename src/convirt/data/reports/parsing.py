"""From a report to what a pair keeps of it: text, sentences, tokens (ConVIRT, sections 2.3 and appendix A).

The paper counts tokens with CoreNLP 4.0.0's English tokenizer. Ours is one expression of the same kind: punctuation
counts, hyphens and slashes part words, contractions are two tokens, numbers and dotted letters are one.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convirt.data.reports.lexicons import ENGLISH, Lexicon
from convirt.data.reports.sections import parse_sections, read_line_ends
from convirt.data.reports.sentences import split_sentences

MIN_TOKENS = 3
"""Pairs whose text is shorter are removed (A)."""

REPAIR_LINE_ENDS = "line ends of another system in the report"

_MISSING = frozenset({"nan", "none", "null", "n/a", "<na>", "na", "nat", "#n/a"})
"""How tables write that there is no text."""

_CODE = re.compile(
    r"(?=\S*\d{3})[A-Z0-9][A-Z0-9./:#-]*"  # a number of an accession
    r"|\d{1,2} ?[-–] ?(?:(?:AB)?NORMAL|MINOR|MAJOR|POSSIBLE|CRITICAL|INCOMPLETE|UNSATISFACTORY)\b[A-Z ,/.-]*"
)
"""A text that is a code alone: `2-ABNORMAL, PREVIOUSLY REPORTED`."""

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
    repairs: tuple[str, ...] = ()
    """What had to be put right, phrases under which the audit counts."""


def parse_report(report: str, lexicon: Lexicon = ENGLISH, *, edit: Callable[[str], str] | None = None) -> Report:
    """Keep Findings and Impression where they exist, else the whole text, and part it into sentences.

    Args:
        report: The report as written.
        lexicon: Headings and abbreviations of its language.
        edit: Changes each kept text before it is parted into sentences, such as a mask of identifiers.
    """
    flat = read_line_ends(report)
    kept = [section for section in parse_sections(flat, lexicon) if section.kept]
    bodies = [flat[section.start : section.end] for section in kept] if kept else [flat]
    return _assemble(bodies, [section.name for section in kept], lexicon, edit, repaired=flat != report)


def fields_report(
    findings: str, impression: str, lexicon: Lexicon = ENGLISH, *, edit: Callable[[str], str] | None = None
) -> Report:
    """Make the report of a structured source (Open-i) whose Findings and Impression are fields of their own.

    No heading is looked for in them: a field is kept whole, whatever it reads.
    """
    given = {name: text.strip() for name, text in (("findings", findings), ("impression", impression)) if text.strip()}
    fields = {name: read_line_ends(text) for name, text in given.items()}
    return _assemble(list(fields.values()), list(fields), lexicon, edit, repaired=fields != given)


def _assemble(
    bodies: Sequence[str],
    names: Sequence[str],
    lexicon: Lexicon,
    edit: Callable[[str], str] | None,
    *,
    repaired: bool,
) -> Report:
    bodies = ["" if _is_empty(body) else body for body in bodies]
    if edit is not None:
        bodies = [edit(body) for body in bodies]
    text = " ".join(" ".join(bodies).split())
    return Report(
        text=text,
        sentences=tuple(sentence for body in bodies for sentence in split_sentences(body, lexicon)),
        tokens=count_tokens(text),
        has_sections=bool(names),
        sections=tuple(names),
        repairs=(REPAIR_LINE_ENDS,) if repaired else (),
    )


def _is_empty(body: str) -> bool:
    """Whether a text says that there is none, or is a code alone."""
    text = body.strip()
    return text.casefold() in _MISSING or _CODE.fullmatch(text) is not None


def count_tokens(text: str) -> int:
    """Count the tokens of a text; punctuation counts, white space does not."""
    return sum(1 for _ in _TOKEN.finditer(unicodedata.normalize("NFC", text)))


def words(text: str) -> list[str]:
    """The tokens of a text that hold a letter or a digit, in lower case: what captions are made of and compared by."""
    tokens = (match.group() for match in _TOKEN.finditer(unicodedata.normalize("NFC", text)))
    return [token.lower() for token in tokens if any(map(str.isalnum, token))]
