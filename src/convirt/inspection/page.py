"""The audit as one self-contained page."""

import base64
import hashlib
import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from convirt.data.corpora import decode
from convirt.data.records import ImageRecord
from convirt.inspection.collections import Collection


def bars(counts: dict[str, int]) -> list[dict[str, Any]]:
    """Counts as bars: a label, a count, its share of all, and a width in percent of the largest."""
    most, total = max(counts.values(), default=0), sum(counts.values())
    return [
        {
            "label": label,
            "count": count,
            "share": count / total if total else 0,
            "width": 100 * count / most if most else 0,
        }
        for label, count in counts.items()
    ]


def columns(histogram: list[int]) -> list[dict[str, Any]]:
    """A histogram as columns: heights in percent of the largest."""
    most = max(histogram, default=0)
    return [{"count": count, "height": 100 * count / most if most else 0} for count in histogram]


def render(audit: dict[str, Any], gallery: dict[str, Any]) -> str:
    """Return the page.

    Args:
        audit: What `inspect.json` holds.
        gallery: Pictures by place: `sample`, `within`, `between`; empty lists where none are to be shown.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    template = environment.from_string(files("convirt.inspection").joinpath("templates/inspect.html").read_text())
    return template.render(a=audit, gallery=gallery, bars=bars, columns=columns, kinds=KINDS)


SAMPLE = 12
SHOWN = 12
"""Pairs of alike images."""
_SIDE = 168
_TEXT = 420


def thumbnail(image: ImageRecord, side: int = _SIDE) -> str:
    """A small image as a data address."""
    values_HW = decode(image).numpy()[0]
    if values_HW.dtype == np.uint16:
        values_HW = (values_HW >> 8).astype(np.uint8)
    small = Image.fromarray(values_HW)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def sample_rows(collection: Collection, count: int = SAMPLE) -> list[dict[str, Any]]:
    """Rows drawn by a hash of their place, the same in every report of a collection."""
    places = range(len(collection))
    if len(places) > 10_000:  # spread evenly, then drawn: millions of hashes would take longer than the page
        places = range(0, len(places), len(places) // 10_000)
    ranked = sorted(places, key=lambda place: hashlib.sha256(f"sample {place}".encode()).digest())
    shown: list[dict[str, Any]] = []
    for place in ranked[: 3 * count]:
        pair = collection.row(place)
        if pair.images and len(shown) < count:
            shown.append(
                {
                    "row": place,
                    "split": pair.split,
                    "views": [image.view for image in pair.images],
                    "images": [thumbnail(image) for image in pair.images[:3]],
                    "text": pair.text if len(pair.text) <= _TEXT else f"{pair.text[:_TEXT]} ...",
                }
            )
    return shown


def alike_images(
    pairs_P2: np.ndarray,
    readers: tuple[Callable[[int], ImageRecord], Callable[[int], ImageRecord]],
    captions: list[str],
) -> list[dict[str, Any]]:
    """Show two images beside each other.

    Args:
        pairs_P2: Places of the images, one column for each reader.
        readers: What reads an image by its place.
        captions: What stands below each pair.
    """
    return [
        {"images": [thumbnail(read(int(place))) for read, place in zip(readers, pair, strict=True)], "caption": caption}
        for pair, caption in zip(pairs_P2[:SHOWN], captions, strict=False)
    ]


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
