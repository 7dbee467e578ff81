"""Ways in which hospitals write the same report: headings of a dozen kinds around given fields."""

from collections.abc import Callable, Iterable
from textwrap import TextWrapper

from open_i import OpenIReport

_WRAP = TextWrapper(78, initial_indent=" ", subsequent_indent=" ", break_on_hyphens=False)
Fields = list[tuple[str, str]]
"""Name of a section in small letters, and its text; empty ones are left out."""


def _fields(report: OpenIReport, *, before: bool = False, after: bool = False) -> Fields:
    fields = [("indication", report.indication), ("comparison", report.comparison)] if before else []
    fields += [("findings", report.findings), ("impression", report.impression)]
    fields += [("recommendation", "Follow up in 6 months, e.g. by CT."), ("dictated by", "Dr. XXXX")] if after else []
    return [(name, text) for name, text in fields if text]


def _lines(fields: Iterable[tuple[str, str]], form: str) -> str:
    return "\n".join(
        form.format(name=name, NAME=name.upper(), Name=name.capitalize(), text=text) for name, text in fields
    )


def mimic(report: OpenIReport) -> str:
    """The layout of MIMIC-CXR: indented, wrapped, other sections before and after."""
    blocks = [_WRAP.fill(f"{name.upper()}:  {text}") for name, text in _fields(report, before=True, after=True)]
    return "                                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n\n" + "\n\n".join(blocks)


def merged(report: OpenIReport) -> str:
    """One heading for both."""
    body = "\n\n".join(text for _, text in _fields(report))
    return f"INDICATION: {report.indication}\n\nFINDINGS AND IMPRESSION:\n{body}\n" if body else ""


STYLES: dict[str, Callable[[OpenIReport], str]] = {
    "capitals": lambda r: _lines(_fields(r), "{NAME}: {text}\n"),
    "title case": lambda r: _lines(_fields(r, before=True), "{Name}: {text}"),
    "small letters": lambda r: _lines(_fields(r, before=True), "{name}: {text}\n"),
    "colon alone on its line": lambda r: _lines(_fields(r, after=True), "{Name}:\n{text}\n"),
    "alone on its line": lambda r: _lines(_fields(r, before=True, after=True), "{NAME}\n{text}"),
    "underlined": lambda r: _lines(_fields(r, before=True), "{Name}\n--------\n\n{text}\n"),
    "dash": lambda r: _lines(_fields(r, before=True), "{Name} - {text}"),
    "numbered": lambda r: "\n".join(f"{i}. {n.upper()}: {t}" for i, (n, t) in enumerate(_fields(r, before=True), 1)),
    "markdown bold": lambda r: _lines(_fields(r, before=True), "**{Name}:** {text}\n"),
    "markdown heading, CRLF": lambda r: _lines(_fields(r, after=True), "## {Name}\n\n{text}\n").replace("\n", "\r\n"),
    "one line": lambda r: " ".join(f"{n.upper()}: {t}" for n, t in _fields(r, before=True, after=True)),
    "one paragraph, title case": lambda r: _WRAP.fill(
        " ".join(f"{n.capitalize()}: {t}" for n, t in _fields(r, before=True))
    ),
    "bare capitals, indented": lambda r: _lines(_fields(r), "    {NAME}  {text}\n"),
    "MIMIC-CXR": mimic,
    "merged": merged,
}
"""Fourteen styles that keep Findings and Impression apart, and one that merges them."""
