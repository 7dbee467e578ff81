"""Tokens of a text: how the rule "shorter than 3 tokens" counts (ConVIRT, appendix A).

The paper counts with CoreNLP 4.0.0's English tokenizer. Ours is one expression of the same kind: punctuation counts,
hyphens and slashes part words, contractions are two tokens, numbers and dotted letters are one.
"""

import re
import unicodedata

_TOKEN = re.compile(
    r"(?:[^\W\d_]\.){2,}+"  # e.g., p.m.
    r"|\d++(?:[.,:/]\d++)*+"  # 2.5, 3/4, 3:45
    r"|[^\W\d_]+?(?=n['’]t\b)|n['’]t\b"  # does + n't
    r"|['’](?:s|re|ve|ll|d|m)\b"
    r"|[^\W\d_][^\W_]*+"
    r"|_++|\.{2,}+|-{2,}+"
    r"|\S"
)


def count_tokens(text: str) -> int:
    """Count the tokens of a text; punctuation counts, white space does not."""
    return sum(1 for _ in _TOKEN.finditer(unicodedata.normalize("NFC", text)))


def words(text: str) -> list[str]:
    """The tokens of a text that hold a letter or a digit, in lower case: what captions are made of and compared by."""
    tokens = (match.group() for match in _TOKEN.finditer(unicodedata.normalize("NFC", text)))
    return [token.lower() for token in tokens if any(map(str.isalnum, token))]
