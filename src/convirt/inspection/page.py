"""The audit as one self-contained page."""

from importlib.resources import files
from typing import Any

import jinja2

from convirt.inspection.printing import KINDS


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
