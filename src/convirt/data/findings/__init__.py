"""Findings extracted from the text of reports, by rules that are data (what MedCLIP's soft targets are made of)."""

from convirt.data.findings.extraction import (
    FindingsLexicon,
    extract_findings,
    findings_vector,
    load_findings_lexicon,
    parse_findings_lexicon,
)

__all__ = [
    "FindingsLexicon",
    "extract_findings",
    "findings_vector",
    "load_findings_lexicon",
    "parse_findings_lexicon",
]
