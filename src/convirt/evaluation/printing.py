"""Results as tables for a terminal: figures in per cent, and no figure or name ever cut."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table

from convirt.evaluation.rows import AnyRow, describe_family

NAMES: dict[tuple[Any, Any], str] = {
    ("linear", "paper"): "linear, the paper's head",
    ("linear", "logistic"): "linear, logistic regression",
    ("finetuned", "paper"): "fine-tuning",
}
TITLES = {"retrieve": "retrieval"}
"""Of figures without a head, where it is not the verb."""
NOT_SHARES = ("silhouette", "Spearman's rho")
"""Metrics that lie between -1 and 1, so they are not printed in per cent."""
WIDTH = 100
"""Columns of a table that is not printed on a terminal, where its words allow it."""

Sizes = Mapping[Any, int | None]
"""Training images by share of the labels."""


def show(table: Table, console: Console) -> None:
    """Print a table within the terminal's width, elsewhere within `WIDTH`, as far as whole words allow it.

    A terminal that is narrower than the table's words gets a wider table; rich alone would cut figures short.
    """

    def measure(cell: RenderableType) -> Measurement:
        return Measurement.get(console, console.options.update(width=100_000), cell)

    measured = [[measure(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    widest = [max(cell.maximum for cell in column) for column in measured]
    least = [max(cell.minimum for cell in column) for column in measured]
    frame = 3 * len(measured) + 1  # a line and two spaces a column, and the last line
    widths = fitted(widest, least, (console.width if console.is_terminal else WIDTH) - frame)
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    table.width = sum(widths) + frame
    console.print(table, crop=False, width=max(table.width, console.width))


def fitted(widest: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of columns: their widest, the widest of all narrowed first, but none below its longest word.

    Args:
        widest: Characters that each column takes without a break.
        least: Characters of each column's longest word.
        room: Characters that there are for all.
    """
    widths = list(widest)
    while sum(widths) > room:
        spare = [place for place, width in enumerate(widths) if width > least[place]]
        if not spare:
            break
        widths[max(spare, key=widths.__getitem__)] -= 1
    return widths


def tables(
    verb: str, rows: Sequence[AnyRow], comparisons: Sequence[AnyRow], beside: Mapping[str, Sequence[AnyRow]]
) -> tuple[list[Table], list[Table]]:
    """The tables of one call: figures by setting and head with their differences; and the details beside them."""
    places = dict.fromkeys((row.get("setting"), row["head"]) for row in rows)
    main = [
        figures([row for row in rows if (row.get("setting"), row["head"]) == place], NAMES.get(place, place[1]), verb)
        for place in places
    ]
    sizes = {row.get("fraction"): row.get("n_train") for row in rows}
    if comparisons:
        main.append(differences(comparisons, sizes))
    details: list[Table] = []
    if calibration := beside.get("calibration"):
        details.append(_calibration(calibration, sizes))
    for kind, draw in (("operating_points", _operating_points), ("subgroups", _subgroups), ("classes", _classes)):
        if opening := _opening(beside.get(kind, ())):
            details.append(draw(opening))
    details += [_confusion(row) for row in _opening(beside.get("classes", ())) if "confusion" in row]
    return main, details


def percent_of_labels(fraction: float) -> str:
    """A label fraction as text: `1 %`, `all`."""
    return "all" if fraction == 1 else f"{100 * fraction:g} %"


def _share_of(fraction: float, sizes: Sizes) -> str:
    """A label fraction with how many training images it is: `1 % (2)`; a class is never left without any."""
    number = sizes.get(fraction)
    return percent_of_labels(fraction) if number is None else f"{percent_of_labels(fraction)} ({number})"


def place_name(row: AnyRow) -> str:
    """Setting and head of a row, as readers know them."""
    return NAMES.get((row.get("setting"), row["head"]), str(row["head"]))


def _number(value: float | None, metric: str = "", sign: str = "") -> str:
    """A figure in per cent with one decimal, or what is not a share with three."""
    if value is None:
        return "-"
    return f"{value:{sign}.3f}" if metric in NOT_SHARES else f"{100 * value:{sign}.1f}"


def _titled(title: str, caption: str) -> Table:
    return Table(title=title, title_justify="left", caption=caption, caption_justify="left")


def figures(rows: Sequence[AnyRow], name: str | None, verb: str) -> Table:
    """Methods as columns, as in the paper; tasks, metrics and label fractions as rows; chance in the last column."""
    named = [
        {
            **row,
            "labels": _share_of(row["fraction"], {row["fraction"]: row.get("n_train")}) if row["head"] else "",
            "place": f"{row['task']}\n[dim]({row['space']})[/dim]",
        }
        for row in rows
    ]
    trained = bool(rows[0]["head"])
    columns = {"metric": "metric", "labels": "labels (n)"} if trained else {"place": "task (space)", "metric": "metric"}
    title = f"{rows[0]['task']}, {name}" if trained else TITLES.get(verb, verb)
    return _by_method(title, _caption(rows), named, columns, _figure, chance=True)


def _grouped(rows: Sequence[AnyRow], *keys: str) -> dict[tuple[Any, ...], list[AnyRow]]:
    """Rows by these keys, equal leading keys together, otherwise in the order of their first row."""
    places: list[dict[Any, int]] = [{} for _ in keys]
    groups: dict[tuple[Any, ...], list[AnyRow]] = {}
    for row in rows:
        for place, key in zip(places, keys, strict=True):
            place.setdefault(row[key], len(place))
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    order = sorted(groups, key=lambda group: [place[value] for place, value in zip(places, group, strict=True)])
    return {group: groups[group] for group in order}


def _interval(row: AnyRow, metric: str = "", sign: str = "") -> str:
    return f"[dim]{_number(row['ci_low'], metric, sign)} to {_number(row['ci_high'], metric, sign)}[/dim]"


def _figure(row: AnyRow) -> str:
    if row["mean"] is None:
        return "-"
    metric = row.get("metric", "")
    spread = f" ±{_number(row['std'], metric)}" if row["std"] is not None else ""
    return f"[bold]{_number(row['mean'], metric)}[/bold]{spread}\n{_interval(row, metric)}"


def _caption(rows: Sequence[AnyRow]) -> str:
    first = rows[0]
    shares = [row["metric"] for row in rows if row["metric"] not in NOT_SHARES]
    unit = "in per cent; " if shares else ""
    interval = f"{unit}below each figure its 95 % {first.get('interval_is', 'bootstrap interval over patients')}"
    not_scored = first.get("labels_not_scored")
    if not_scored:
        scored = first["labels_scored"]
        interval += f"; mean over {scored} of {scored + len(not_scored)} labels, without {', '.join(not_scored)}"
    if first["head"] is None:
        return interval
    spread = "; ± is the spread over seeds" if first["std"] is not None else ""
    what = first.get("unit", "image")
    tested = f"{first['n_test']} test {'studies' if what == 'study' else f'{what}s'} of {first['n_patients']} patients"
    return f"space: {first['space']}; n: training images; {tested}{spread}; {interval}"


def differences(comparisons: Sequence[AnyRow], sizes: Sizes) -> Table:
    """One row for each pair of methods and metric (or task), one column for each label fraction (or metric)."""
    by_fraction = comparisons[0]["fraction"] is not None
    column, keys = ("fraction", ("place", "metric")) if by_fraction else ("metric", ("task",))
    comparisons = [{**row, "place": place_name(row)} for row in comparisons]
    settings = list(dict.fromkeys(row[column] for row in comparisons))
    delong = "; DeLong: its median p over seeds, not corrected" if any(row.get("delong") for row in comparisons) else ""
    points = any(row["metric"] not in NOT_SHARES for row in comparisons)
    unit = "in percentage points; " if points else ""
    caption = f"{unit}95 % interval of the paired bootstrap; {describe_family(comparisons)}, * (and bold) below 0.05"
    table = _titled("differences, paired over patients", caption + delong)
    for name in ("difference", *("setting" if key == "place" else key for key in keys)):
        table.add_column(name)
    for setting in settings:
        table.add_column(_share_of(setting, sizes) if by_fraction else setting, justify="right")
    last = None
    for (a, b, *names), cells in _grouped(comparisons, "a", "b", *keys).items():
        if last not in (None, (a, b)):
            table.add_section()
        pair = f"{a} − {b}" if (a, b) != last else ""
        last = (a, b)
        by_setting = {row[column]: row for row in cells}
        table.add_row(pair, *names, *(_difference(by_setting.get(setting)) for setting in settings))
    return table


def _difference(row: AnyRow | None) -> str:
    if row is None:
        return "-"
    text = _number(row["difference"], row["metric"], "+")
    text = f"[bold]{text}*[/bold]" if row["p_holm"] < 0.05 else text
    lines = [text, _interval(row, row["metric"], "+"), f"[dim]p {_p(row['p_holm'])}[/dim]"]
    if delong := row.get("delong"):
        ordered = sorted(delong["p_values"])
        lines.append(f"[dim]DeLong {_p(ordered[len(ordered) // 2])}[/dim]")
    return "\n".join(lines)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _opening(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """Of each setting the first head and the largest share of labels: as much as can be read in a terminal."""
    first: dict[str, tuple[str, float]] = {}
    for row in rows:
        head, fraction = first.get(row["setting"], (row["head"], 0.0))
        first[row["setting"]] = (head, max(fraction, row["fraction"]))
    return [row for row in rows if (row["head"], row["fraction"]) == first[row["setting"]]]


_MORE = "largest share of labels, first head of each setting; the others are in metrics.json"


def _by_method(
    title: str,
    caption: str,
    rows: Sequence[AnyRow],
    columns: Mapping[str, str],
    cell: Callable[[AnyRow], str],
    *,
    right: str = "",
    chance: bool = False,
) -> Table:
    """A table with methods as columns and one line for each value of the keys in `columns` (key -> heading)."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    table = _titled(title, caption)
    for name, heading in columns.items():
        table.add_column(heading, justify="right" if name == right else "left", no_wrap=name == "metric")
    for method in [*methods, "chance"] if chance else methods:
        table.add_column(method, justify="right")
    last: Any = None
    for key, cells in _grouped(rows, *columns).items():
        if last not in (None, key[0]):
            table.add_section()
        by_method = {row["method"]: row for row in cells}
        names = [str(value) if place or key[0] != last else "" for place, value in enumerate(key)]
        figures_of = [cell(by_method[method]) if method in by_method else "-" for method in methods]
        table.add_row(*names, *figures_of, *([_number(cells[0]["chance"], cells[0]["metric"])] if chance else []))
        last = key[0]
    return table


def _calibration(rows: Sequence[AnyRow], sizes: Sizes) -> Table:
    rows = [{**row, "place": place_name(row), "labels": _share_of(row["fraction"], sizes)} for row in rows]
    bins, of = rows[0]["bins"], rows[0]["of"]
    caption = f"expected calibration error in per cent, {bins} bins of equal width, of {of}; lower is better"

    def cell(row: AnyRow) -> str:
        return _number(row["mean"]) + (f" ±{_number(row['std'])}" if row["std"] is not None else "")

    return _by_method("calibration", caption, rows, {"place": "setting", "labels": "labels (n)"}, cell)


def _operating_points(rows: Sequence[AnyRow]) -> Table:
    rows = [{**row, "place": place_name(row), "test": f"{row['n_positive']} / {row['n_negative']}"} for row in rows]

    def cell(row: AnyRow) -> str:
        parts = (("sens", row["sensitivity"]), ("spec", row["specificity"]))
        return "\n".join(f"{name} {_number(part['mean'])}\n{_interval(part)}" for name, part in parts)

    columns = {"place": "setting", "label": "label", "rule": "rule", "test": "test + / −"}
    caption = f"in per cent; thresholds are of validation scores, figures of test rows; {_MORE}"
    return _by_method("operating points", caption, rows, columns, cell, right="test")


def _subgroups(rows: Sequence[AnyRow]) -> Table:
    named = []
    for row in rows:
        flag = " [yellow](small)[/yellow]" if row["small"] else ""
        counts = f"{row['n']} / {row['n_patients']}"
        named.append({**row, "place": place_name(row), "name": f"{row['group']}{flag}", "counts": counts})
    columns = {"place": "setting", "by": "by", "name": "group", "counts": "n / patients"}
    small = "small: < 10 positives or negatives of a class"
    caption = f"{rows[0]['metric']} in per cent of parts of the test rows; {small}; {_MORE}"
    return _by_method("subgroups", caption, named, columns, _figure, right="counts")


def _classes(rows: Sequence[AnyRow]) -> Table:
    """AUC of each class or label."""
    flat = [
        {"method": row["method"], "place": place_name(row), "class": name, "counts": _counts(found), **found}
        for row in rows
        for name, found in row["by_class"].items()
    ]
    columns = {"place": "setting", "class": "class", "counts": "test + / −"}
    caption = f"AUC in per cent of each class against the rest; {_MORE}"
    return _by_method("AUC by class", caption, flat, columns, lambda row: _number(row["mean"]), right="counts")


def _counts(found: AnyRow) -> str:
    return f"{found['n_positive']} / {found['n_negative']}"


def _confusion(row: AnyRow) -> Table:
    """Test rows by true class (lines) and by the class that they were given (columns)."""
    table = _titled(
        f"confusion, {row['method']}, {place_name(row)}",
        "test rows of each true class by the class that they were given, mean over seeds",
    )
    table.add_column("true class")
    for name in row["classes"]:
        table.add_column(name, justify="right")
    for name, counts in zip(row["classes"], row["confusion"], strict=True):
        table.add_row(name, *(f"{count:g}" if float(count).is_integer() else f"{count:.1f}" for count in counts))
    return table
