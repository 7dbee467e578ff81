"""Reports: which text of a report is kept, its sentences, and its tokens (ConVIRT, sections 2.3 and appendix A).

The paper keeps Findings and Impression and tokenises with CoreNLP 4.0.0's default English tokenizer, which also
defines its rule "shorter than 3 tokens". Sections, sentences and tokens are found by rules of our own, in time linear
in the text; headings and abbreviations are data (`lexicons`).
"""

from convirt.data.reports.lexicons import ENGLISH, LANGUAGES, Lexicon, load_lexicon
from convirt.data.reports.parsing import MIN_TOKENS, Report, count_tokens, fields_report, parse_report
from convirt.data.reports.sections import Section, kept_sections, parse_sections
from convirt.data.reports.sentences import sentence_spans, split_sentences

__all__ = [
    "ENGLISH",
    "LANGUAGES",
    "MIN_TOKENS",
    "Lexicon",
    "Report",
    "Section",
    "count_tokens",
    "fields_report",
    "kept_sections",
    "load_lexicon",
    "parse_report",
    "parse_sections",
    "sentence_spans",
    "split_sentences",
]
