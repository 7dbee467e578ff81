"""From a report to what a pair keeps of it: text, sentences, tokens (ConVIRT, sections 2.3 and appendix A).

The paper counts tokens with CoreNLP 4.0.0's English tokenizer. Ours is one expression of the same kind: punctuation
counts, hyphens and slashes part words, contractions are two tokens, numbers and dotted letters are one.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from convirt.data.reports.lexicons import ENGLISH, Lexicon
from convirt.data.reports.sections import Section, parse_sections, read_line_ends
from convirt.data.reports.sentences import split_sentences
from convirt.wording import says_nothing

MIN_TOKENS = 3
"""Pairs whose text is shorter are removed (A)."""

REPAIR_LINE_ENDS = "line ends of another system in the report"
RULE_EMPTY = "a missing value or a code is not text"

_CODE = re.compile(
    r"(?=\S*\d{3})[A-Z0-9][A-Z0-9./:#-]*"  # a number of an accession
    r"|\d{1,2} ?[-–] ?(?:(?:AB)?NORMAL|MINOR|MAJOR|POSSIBLE|CRITICAL|INCOMPLETE|UNSATISFACTORY)\b[A-Z ,/.-]*"
)
"""A text that is a code alone: `2-ABNORMAL, PREVIOUSLY REPORTED`."""

HEADINGS = "headings"
_RUN = re.compile(r"[^\W_]+")
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
    rules: tuple[str, ...] = ()
    """Rules beyond plain headings that decided what is kept, phrases under which the audit counts."""
    words_kept: Mapping[str, int] = field(default_factory=dict)
    """Words (runs of letters and digits) by kept section, before any mask; `` where the whole text is kept."""
    words_cut: Mapping[str, int] = field(default_factory=dict)
    """Words of the other sections, `` before the first heading, and `headings`; with those kept, all of the report."""

    @property
    def account(self) -> tuple[int, int]:
        """Kept words, and all words but those of headings."""
        kept = sum(self.words_kept.values())
        return kept, kept + sum(number for name, number in self.words_cut.items() if name != HEADINGS)


def parse_report(report: str, lexicon: Lexicon = ENGLISH, *, edit: Callable[[str], str] | None = None) -> Report:
    """Keep Findings and Impression where they exist, else the whole text, and part it into sentences.

    Args:
        report: The report as written.
        lexicon: Headings and abbreviations of its language.
        edit: Changes each kept text before it is parted into sentences, such as a mask of identifiers.
    """
    flat = read_line_ends(report)
    sections = parse_sections(flat, lexicon)
    if not any(section.kept for section in sections):
        sections = [Section(name="", heading="", start=0, end=len(flat), kept=True)]
    bodies = [(section.name, flat[section.start : section.end], section.kept) for section in sections]
    headings = count_words(flat) - sum(count_words(body) for _, body, _ in bodies)
    rules = [rule for section in sections for rule in section.rules]
    return _assemble(bodies, rules, headings, lexicon, edit, repaired=flat != report)


def fields_report(
    findings: str, impression: str, lexicon: Lexicon = ENGLISH, *, edit: Callable[[str], str] | None = None
) -> Report:
    """Make the report of a structured source (Open-i) whose Findings and Impression are fields of their own.

    No heading is looked for in them: a field is kept whole, whatever it reads.
    """
    given = {name: text.strip() for name, text in (("findings", findings), ("impression", impression)) if text.strip()}
    fields = {name: read_line_ends(text) for name, text in given.items()}
    bodies = [(name, text, True) for name, text in fields.items()]
    return _assemble(bodies, [], 0, lexicon, edit, repaired=fields != given)


def _assemble(
    bodies: Sequence[tuple[str, str, bool]],
    rules: Sequence[str],
    headings: int,
    lexicon: Lexicon,
    edit: Callable[[str], str] | None,
    *,
    repaired: bool,
) -> Report:
    """Make a report of its sections (name, text, whether kept), of the rules that acted and its words of headings."""
    kept: Counter[str] = Counter()
    cut: Counter[str] = Counter({HEADINGS: headings})
    texts: list[str] = []
    acted = dict.fromkeys(rules)
    for name, body, keep in bodies:
        empty = keep and _is_empty(body)
        (kept if keep and not empty else cut)[name] += count_words(body)
        if keep:
            texts.append("" if empty else edit(body) if edit else body)
        if empty:
            acted[RULE_EMPTY] = None
    text = " ".join(" ".join(texts).split())
    names = tuple(name for name, _, keep in bodies if keep and name)
    return Report(
        text=text,
        sentences=tuple(sentence for body in texts for sentence in split_sentences(body, lexicon)),
        tokens=count_tokens(text),
        has_sections=bool(names),
        sections=names,
        repairs=(REPAIR_LINE_ENDS,) if repaired else (),
        rules=tuple(acted),
        words_kept=+kept,
        words_cut=+cut,
    )


def _is_empty(body: str) -> bool:
    """Whether a text says that there is none, or is a code alone."""
    text = body.strip()
    return says_nothing(text) or _CODE.fullmatch(text) is not None


def count_words(text: str) -> int:
    """Count the runs of letters and digits of a text."""
    return sum(1 for _ in _RUN.finditer(text))


def count_tokens(text: str) -> int:
    """Count the tokens of a text; punctuation counts, white space does not."""
    return sum(1 for _ in _TOKEN.finditer(unicodedata.normalize("NFC", text)))


def words(text: str) -> list[str]:
    """The tokens of a text that hold a letter or a digit, in lower case: what captions are made of and compared by."""
    tokens = (match.group() for match in _TOKEN.finditer(unicodedata.normalize("NFC", text)))
    return [token.lower() for token in tokens if any(map(str.isalnum, token))]
