"""Tables as Markdown, CSV, LaTeX and HTML, the paper's figure in each cell's shadow, with the tests below them."""

import csv
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from convirt.atomic import write_text
from convirt.reproduce.filling import ALPHA, REFERENCE, Difference, Figure, Filled, in_figures
from convirt.reproduce.tables import title_of

CAPTION = (
    "Ours in percent, ± the standard deviation over the runs where there are several; in brackets the paper's figure. "
    '"-" where there is none: not measured here, or not in our sources of the paper. In table 2, Random is a guess.'
)
TESTS_TITLE = f"{title_of(REFERENCE)} minus each other method"
TESTS_CAPTION = (
    "Percentage points, with the 95 % interval of the paired hierarchical bootstrap over patients and seeds (over "
    "queries, of retrieval) and its p-value, Holm-corrected over the {count} differences of this table; bold where it "
    f"is below {ALPHA:g}."
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


def _tests(filled: Filled, show: Callable[[Difference | None], str]) -> list[list[str]]:
    """Lines of the table of differences, each with its title first; none where nothing was tested."""
    tested = [method for method in filled.methods if any(of == method for of, _ in filled.differences)]
    columns = [column.title for column in filled.table.columns]
    return [
        [title_of(method), *(show(filled.differences.get((method, column))) for column in columns)] for method in tested
    ]


def _tests_caption(filled: Filled) -> str:
    return TESTS_CAPTION.format(count=len(filled.differences))


def _difference(difference: Difference | None, mark: str = "{}") -> str:
    if difference is None:
        return "-"
    shown = (
        mark.format(f"{difference.difference:+.1f}") if difference.p_holm < ALPHA else f"{difference.difference:+.1f}"
    )
    return f"{shown} ({difference.low:+.1f} to {difference.high:+.1f}), {in_figures(difference.p_holm)}"


def markdown(filled: Filled, header: str | None, ordering: Sequence[str]) -> str:
    """For people, and for documentation."""
    columns = [column.title for column in filled.table.columns]
    head = [["", *columns], ["---", *["---:"] * len(columns)]]
    rows = list(head)
    for method in filled.methods:
        figures = [filled.figures[method, column] for column in columns]
        rows.append([title_of(method), *[f"{_ours(figure)} ({_paper(figure)})" for figure in figures]])
    lines = [f"# {filled.table.title}", ""]
    lines += [f"**{header}**", ""] if header else []
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", CAPTION, ""]
    if tests := _tests(filled, lambda difference: _difference(difference, "**{}**")):
        lines += [f"## {TESTS_TITLE}", ""]
        lines += ["| " + " | ".join(row) + " |" for row in (*head, *tests)]
        lines += ["", _tests_caption(filled), ""]
    return "\n".join([*lines, "## Order of the methods", "", *ordering]) + "\n"


def as_csv(filled: Filled) -> str:
    """For programs: one line a cell; differences are ConVIRT minus the method."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    tested = ["difference", "difference_low", "difference_high", "p", "p_holm"]
    writer.writerow(["table", "method", "column", "mean", "std", "ci_low", "ci_high", "paper", *tested])
    for (method, column), figure in filled.figures.items():
        values = [figure.mean, figure.spread, figure.low, figure.high, figure.paper]
        own = filled.differences.get((method, column))
        values += [None] * 5 if own is None else [own.difference, own.low, own.high, own.p, own.p_holm]
        shown = ["" if value is None else f"{value:.4g}" for value in values]
        writer.writerow([filled.table.name, method, column, *shown])
    return file.getvalue()


def latex(filled: Filled, header: str | None) -> str:
    """For a paper; needs the packages booktabs and xcolor."""
    titles = [column.title for column in filled.table.columns]
    rows = [
        [_escaped(title_of(method)), *(_latex_cell(filled.figures[method, title]) for title in titles)]
        for method in filled.methods
    ]
    lines = [f"% {header}"] if header else []
    lines += _tabular(titles, rows)
    if tests := _tests(filled, _latex_difference):
        lines += ["", f"% {TESTS_TITLE}. {_tests_caption(filled)}"]
        lines += _tabular(titles, [[_escaped(title), *cells] for title, *cells in tests])
    return "\n".join(lines) + "\n"


def _tabular(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [rf"\begin{{tabular}}{{l{'r' * len(titles)}}}", r"\toprule"]
    lines += [" & ".join(["", *map(_escaped, titles)]) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in rows]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _latex_difference(difference: Difference | None) -> str:
    shown = _difference(difference, r"\textbf{{{}}}").replace("<", "$<$").replace("+", "$+$")
    return shown.replace("-", "$-$") if difference else shown


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
    rows = [
        [title_of(method), *(_html_cell(filled.figures[method, column]) for column in columns)]
        for method in filled.methods
    ]
    table = _html_table(columns, rows, CAPTION.replace("in brackets", "in grey"))
    tests = _tests(filled, _html_difference)
    below = f"<h2>{TESTS_TITLE}</h2>\n{_html_table(columns, tests, _tests_caption(filled))}" if tests else ""
    warning = f'<p class="header">{html.escape(header)}</p>' if header else ""
    title = html.escape(filled.table.title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n{warning}\n"
        f"{table}{below}<h2>Order of the methods</h2>\n{_html_order(ordering)}</body></html>\n"
    )


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of a title and finished cells a line, and what is said below it."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "\n".join(f'<tr><th scope="row">{html.escape(title)}</th>{"".join(cells)}</tr>' for title, *cells in rows)
    return (
        f'<div class="wide"><table><thead><tr><td></td>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n'
        f"<p>{html.escape(caption)}</p>\n"
    )


def _html_order(ordering: Sequence[str]) -> str:
    """Lines of `in_words` as paragraphs and, below each column, the list of what differs in it."""
    parts, depth = [], 0
    for line in ordering:
        said = line.lstrip(" -")
        deeper = 0 if line == said else 1 if line.startswith("- ") else 2
        parts.append("<ul>" * (deeper - depth) + "</ul>" * (depth - deeper))
        parts.append(
            f"<li>{html.escape(said)}\n" if deeper else f"<p>{html.escape(said)}</p>\n"
        )  # </li> may be left out
        depth = deeper
    return "".join(parts) + "</ul>" * depth


def _html_difference(difference: Difference | None) -> str:
    if difference is None:
        return "<td>-</td>"
    sign = f"{difference.difference:+.1f}"
    shown = f"<b>{sign}</b>" if difference.p_holm < ALPHA else sign
    about = html.escape(f"({difference.low:+.1f} to {difference.high:+.1f}), {in_figures(difference.p_holm)}")
    return f'<td>{shown}<br><span class="paper">{about}</span></td>'


def _html_cell(figure: Figure) -> str:
    interval = "" if figure.low is None else f' title="95 % interval {figure.low:.1f} to {figure.high:.1f}"'
    return f'<td{interval}>{_ours(figure)} <span class="paper">{_paper(figure)}</span></td>'
