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
