"""Tables as Markdown, CSV, LaTeX and HTML, the paper's figure in each cell's shadow."""

import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path

from convirt.analysis.pictures import write_text
from convirt.reproduce.collecting import Figure, Filled
from convirt.reproduce.tables import METHODS

CAPTION = (
    "Ours in percent, ± the standard deviation over the runs where there are several; in brackets the paper's figure. "
    '"-" where there is none: not measured here, or not in our sources of the paper. In table 2, Random is a guess.'
)
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1a1a1a}"
    ".wide{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.3rem .7rem;text-align:right;"
    "border-bottom:1px solid #ddd;white-space:nowrap}th:first-child,td:first-child{text-align:left}"
    ".paper{color:#767676;font-size:.8em}.header{background:#fff3cd;padding:.5rem .8rem}"
)


def write_table(filled: Filled, out: Path, *, header: str | None, ordering: Sequence[str]) -> None:
    """Write OUT/TABLE.md, .csv, .tex and .html, each in one move.

    Args:
        filled: The table.
        out: Folder.
        header: What has to be said above it, such as that the scale is reduced.
        ordering: Lines about the order of the methods, below it.
    """
    name = filled.table.name
    write_text(out / f"{name}.md", markdown(filled, header, ordering))
    write_text(out / f"{name}.csv", as_csv(filled))
    write_text(out / f"{name}.tex", latex(filled, header))
    write_text(out / f"{name}.html", as_html(filled, header, ordering))


def _ours(figure: Figure) -> str:
    if figure.mean is None:
        return "-"
    return f"{figure.mean:.1f}" + ("" if figure.spread is None else f" ± {figure.spread:.1f}")


def _paper(figure: Figure) -> str:
    return "-" if figure.paper is None else f"{figure.paper:.1f}"


def markdown(filled: Filled, header: str | None, ordering: Sequence[str]) -> str:
    """For people, and for documentation."""
    columns = [column.title for column in filled.table.columns]
    rows = [["", *columns], ["---", *["---:"] * len(columns)]]
    for method in filled.methods:
        figures = [filled.figures[method, column] for column in columns]
        rows.append([METHODS[method], *[f"{_ours(figure)} ({_paper(figure)})" for figure in figures]])
    lines = [f"# {filled.table.title}", ""]
    lines += [f"**{header}**", ""] if header else []
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", CAPTION, "", *ordering]) + "\n"


def as_csv(filled: Filled) -> str:
    """For programs: one line a cell."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["table", "method", "column", "mean", "std", "ci_low", "ci_high", "paper"])
    for (method, column), figure in filled.figures.items():
        values = (figure.mean, figure.spread, figure.low, figure.high, figure.paper)
        shown = ["" if value is None else f"{value:.4g}" for value in values]
        writer.writerow([filled.table.name, method, column, *shown])
    return file.getvalue()


def latex(filled: Filled, header: str | None) -> str:
    """For a paper; needs the packages booktabs and xcolor."""
    columns = [column.title for column in filled.table.columns]
    lines = [f"% {line}" for line in ([header] if header else [])]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule"]
    lines.append(" & ".join(["", *map(_escaped, columns)]) + r" \\")
    lines.append(r"\midrule")
    for method in filled.methods:
        cells = [_latex_cell(filled.figures[method, column]) for column in columns]
        lines.append(" & ".join([_escaped(METHODS[method]), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_cell(figure: Figure) -> str:
    ours = _ours(figure).replace(" ± ", r" $\pm$ ")
    return rf"{ours} {{\scriptsize\textcolor{{gray}}{{{_paper(figure)}}}}}"


def _escaped(text: str) -> str:
    for character in "&%$#_":
        text = text.replace(character, "\\" + character)
    return text


def as_html(filled: Filled, header: str | None, ordering: Sequence[str]) -> str:
    """For a browser; nothing is loaded from elsewhere."""
    columns = [column.title for column in filled.table.columns]
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(METHODS[method])}</th>'
        + "".join(_html_cell(filled.figures[method, column]) for column in columns)
        + "</tr>"
        for method in filled.methods
    )
    warning = f'<p class="header">{html.escape(header)}</p>' if header else ""
    below = "".join(f"<p>{html.escape(line)}</p>\n" for line in ordering)
    title = html.escape(filled.table.title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n{warning}\n"
        f'<div class="wide"><table><thead><tr><td></td>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n'
        f"<p>{html.escape(CAPTION)}</p>\n{below}</body></html>\n"
    )


def _html_cell(figure: Figure) -> str:
    interval = "" if figure.low is None else f' title="95 % interval {figure.low:.1f} to {figure.high:.1f}"'
    return f'<td{interval}>{_ours(figure)} <span class="paper">{_paper(figure)}</span></td>'
