"""The audit on a terminal: tables of counts, and a verdict as the last line."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

KINDS = {"patients": "patients", "files": "files", "pixels": "pixels", "near": "near-duplicates", "texts": "reports"}
"""What is shared by split -> its column."""


def print_audit(audit: dict[str, Any], page: Path, console: Console | None = None) -> None:
    """Print what matters most of an audit, and where the rest is."""
    console = console or Console()
    console.print(_counts(audit))
    console.print(_repetitions(audit["within"]))
    if audit["identifiers"]["texts"]:
        console.print(_identifiers(audit["identifiers"]))
        console.print("rules do not find everything: the page lists what they miss", style="dim", highlight=False)
    if telling := audit["about"].get("sources_with_patient"):
        console.print(
            f"{telling:,} source paths hold the id of their patient, although ids are hashed: prepare with "
            "--sources hashed before the corpus leaves the house",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    if "against" in audit:
        console.print(_shared(audit["against"]))
        if len(audit["against"]["crossings"]) > 1:
            console.print(_crossings(audit["against"]["crossings"]))
        console.print(f"patients: {audit['against']['patients_note']}", markup=False, soft_wrap=True)
    for side in filter(None, (audit, audit.get("against"))):
        if side["unreadable"]:
            console.print(f"{side['unreadable']} images could not be read", style="yellow")
        if found := side["integrity"]:
            which = "" if side is audit else "the other: "
            style = "dim" if found["intact"] else "bold red"
            console.print(f"{which}{found['line']}", style=style, markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote {page} and {page.with_suffix('.json').name}", markup=False, soft_wrap=True)
    for verdict in [audit["verdict"], *([audit["against"]["verdict"]] if "against" in audit else [])]:
        style = "bold red" if verdict["leak"] else "bold yellow" if verdict["unchecked"] else "bold green"
        console.print(verdict["line"], style=style, markup=False, highlight=False, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return table


def _counts(audit: dict[str, Any]) -> Table:
    table = _table(audit["name"] or "Counts", "split", "pairs", "patients", "images", "sentences")
    for row in audit["splits"]:
        values = [f"{row[name]:,}" for name in ("pairs", "patients", "images", "sentences")]
        table.add_row(row["split"] or "-", *values)
    return table


def _repetitions(within: dict[str, Any]) -> Table:
    table = _table("Repetitions", "what", "groups", "beyond the first", "across splits", "across patients")
    for title, name in (("same source file", "files"), ("same pixels", "pixels"), ("same report", "reports")):
        found = within[name]
        table.add_row(title, *(f"{found[key]:,}" for key in ("groups", "surplus", "across_splits", "across_patients")))
    near, texts = within["near_images"], within["near_reports"]
    across = [f"{near[key]:,}" for key in ("across_splits", "across_patients")]
    table.add_row("pairs of near-duplicate images", f"{near['pairs']:,}", "", *across)
    alike = within["look_alikes"]
    table.add_row("pairs of look-alikes, no proof", f"{alike['pairs']:,}", "", f"{alike['across_splits']:,}", "")
    table.add_row(
        "pairs of near-duplicate reports",
        f"{texts['pairs']:,}{'+' if texts['unchecked'] else ''}",
        "",
        f"{texts['across_splits']:,}",
        "",
    )
    table.add_row("patients in several splits", f"{within['patients_across_splits']:,}", "", "", "")
    return table


def _identifiers(found: dict[str, Any]) -> Table:
    table = _table("Identifiers found", "kind", "findings", "reports")
    for row in found["kinds"]:
        if row["count"]:
            table.add_row(row["kind"], f"{row['count']:,}", f"{row['texts']:,}")
    table.add_row("any", "", f"{found['texts_with_any']:,} of {found['texts']:,}")
    return table


def _shared(against: dict[str, Any]) -> Table:
    table = _table(f"Shared with {against['name'] or 'the other'}", "what", "here", "there")
    for row in against["shared"].values():
        table.add_row(row["what"], f"{row['first']:,}", f"{row['second']:,}")
        if "telling" in row:
            table.add_row("  long, and of one patient on either side", "", f"{row['telling']:,}")
    return table


def _crossings(crossings: list[dict[str, Any]]) -> Table:
    kinds = [kind for kind in KINDS if kind in crossings[0]]
    named = [KINDS[kind].replace("-", "-\n") for kind in kinds]  # all of them fit into 80 characters
    table = _table("Shared, by split", "here", "there", *named, "counts as")
    table.columns[1].justify = "left"
    table.columns[-1].justify = "left"
    for row in crossings:
        found = any(row[kind] for kind in kinds if kind != "texts")
        meaning = ("LEAKAGE" if row["leak"] else "harmless") if found else ""
        table.add_row(row["first"] or "all", row["second"] or "all", *(f"{row[kind]:,}" for kind in kinds), meaning)
    return table
