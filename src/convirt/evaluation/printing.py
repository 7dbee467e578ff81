"""Results as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from convirt.evaluation.statistics.multiplicity import describe_family

Row = dict[str, Any]

NAMES: dict[tuple[Any, Any], str] = {
    ("linear", "paper"): "linear, the paper's head",
    ("linear", "logistic"): "linear, logistic regression",
    ("finetuned", "paper"): "fine-tuning",
}
TITLES = {"retrieve": "retrieval"}
"""Of figures without a head, where it is not the verb."""


def tables(
    verb: str, rows: Sequence[Row], comparisons: Sequence[Row], beside: Mapping[str, Sequence[Row]]
) -> list[Table]:
    """Every table of one call: figures by setting and head, differences, calibration, operating points, subgroups."""
    places = dict.fromkeys((row.get("setting"), row["head"]) for row in rows)
    found = [
        figures([row for row in rows if (row.get("setting"), row["head"]) == place], NAMES.get(place, place[1]), verb)
        for place in places
    ]
    sizes = {row.get("fraction"): row.get("n_train") for row in rows}
    if comparisons:
        found.append(differences(comparisons, sizes))
    if calibration := beside.get("calibration"):
        found.append(_calibration(calibration, sizes))
    if operating := _opening(beside.get("operating_points", ())):
        found.append(_operating_points(operating))
    if groups := _opening(beside.get("subgroups", ())):
        found.append(_subgroups(groups))
    return found


def share(fraction: float) -> str:
    """A label fraction as text: `1 %`, `all`."""
    return "all" if fraction == 1 else f"{100 * fraction:g} %"


def _share_of(fraction: float, sizes: Mapping[Any, int | None]) -> str:
    """A label fraction with how many training images it is: `1 % (2)`; a class is never left without any."""
    number = sizes.get(fraction)
    return share(fraction) if number is None else f"{share(fraction)} ({number})"


def place_name(row: Row) -> str:
    """Setting and head of a row, as readers know them."""
    return NAMES.get((row.get("setting"), row["head"]), str(row["head"]))


def _titled(title: str, caption: str) -> Table:
    return Table(title=title, title_justify="left", caption=caption, caption_justify="left")


def figures(rows: Sequence[Row], name: str | None, verb: str) -> Table:
    """Methods as columns, as in the paper; tasks, metrics and label fractions as rows; chance in the last column."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    head = rows[0]["head"]
    table = _titled(f"{rows[0]['task']}, {name}" if head else TITLES.get(verb, verb), _caption(rows))
    for column in ("metric", "labels (n)") if head else ("task (space)", "metric"):
        table.add_column(column, no_wrap=column == "metric")
    for method in methods:
        table.add_column(method, justify="right")
    table.add_column("chance", justify="right")
    last = None
    for key, cells in _grouped(rows, "task", "space", "metric", "fraction").items():
        task, space, metric, fraction = key
        section = (task, metric) if head else (task,)
        if last not in (None, section):
            table.add_section()
        opening = section != last
        last = section
        if head:
            names = [metric if opening else "", _share_of(fraction, {fraction: cells[0].get("n_train")})]
        else:
            names = [f"{task}\n[dim]({space})[/dim]" if opening else "", metric]
        by_method = {row["method"]: row for row in cells}
        cells_of = [_figure(by_method.get(method)) for method in methods]
        table.add_row(*names, *cells_of, f"{cells[0]['chance']:.3f}")
    return table


def _grouped(rows: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by these keys, equal leading keys together, otherwise in the order of their first row."""
    places: list[dict[Any, int]] = [{} for _ in keys]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        for place, key in zip(places, keys, strict=True):
            place.setdefault(row[key], len(place))
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    order = sorted(groups, key=lambda group: [place[value] for place, value in zip(places, group, strict=True)])
    return {group: groups[group] for group in order}


def _interval(row: Row) -> str:
    return f"[dim]{row['ci_low']:.3f} to {row['ci_high']:.3f}[/dim]"


def _figure(row: Row | None) -> str:
    if row is None or row["mean"] is None:
        return "-"
    spread = f" ±{row['std']:.3f}" if row["std"] is not None else ""
    return f"[bold]{row['mean']:.3f}[/bold]{spread}\n{_interval(row)}"


def _caption(rows: Sequence[Row]) -> str:
    first = rows[0]
    interval = f"below each figure its 95 % {first.get('interval_is', 'bootstrap interval over patients')}"
    if first["head"] is None:
        return interval
    spread = "; ± is the spread over seeds" if first["std"] is not None else ""
    unit = first.get("unit", "image")
    tested = f"{first['n_test']} test {'studies' if unit == 'study' else f'{unit}s'} of {first['n_patients']} patients"
    return f"space: {first['space']}; n: training images; {tested}{spread}; {interval}"


def differences(comparisons: Sequence[Row], sizes: Mapping[Any, int | None]) -> Table:
    """One row for each pair of methods and metric (or task), one column for each label fraction (or metric)."""
    by_fraction = comparisons[0]["fraction"] is not None
    column, keys = ("fraction", ("place", "metric")) if by_fraction else ("metric", ("task",))
    comparisons = [{**row, "place": place_name(row)} for row in comparisons]
    settings = list(dict.fromkeys(row[column] for row in comparisons))
    delong = "; DeLong: its median p over seeds, not corrected" if any(row.get("delong") for row in comparisons) else ""
    caption = f"95 % interval of the paired bootstrap; {describe_family(comparisons)}, * (and bold) below 0.05{delong}"
    table = _titled("differences, paired over patients", caption)
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


def _difference(row: Row | None) -> str:
    if row is None:
        return "-"
    text = f"{row['difference']:+.3f}"
    text = f"[bold]{text}*[/bold]" if row["p_holm"] < 0.05 else text
    lines = [text, f"[dim]{row['ci_low']:+.3f} to {row['ci_high']:+.3f}[/dim]", f"[dim]p {_p(row['p_holm'])}[/dim]"]
    if delong := row.get("delong"):
        ordered = sorted(delong["p_values"])
        lines.append(f"[dim]DeLong {_p(ordered[len(ordered) // 2])}[/dim]")
    return "\n".join(lines)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _opening(rows: Sequence[Row]) -> list[Row]:
    """Of each setting the first head and the largest share of labels: as much as can be read in a terminal."""
    first: dict[str, tuple[str, float]] = {}
    for row in rows:
        head, fraction = first.get(row["setting"], (row["head"], 0.0))
        first[row["setting"]] = (head, max(fraction, row["fraction"]))
    return [row for row in rows if (row["head"], row["fraction"]) == first[row["setting"]]]


_MORE = "largest share of labels, first head of each setting; the others are in metrics.json"


def _by_method(
    title: str, caption: str, rows: Sequence[Row], columns: Mapping[str, str], cell: Any, first: Sequence[str] = ()
) -> Table:
    """A table with methods as columns and one line for each value of the keys in `columns` (key -> heading)."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    table = _titled(title, caption)
    for name, heading in columns.items():
        table.add_column(heading, justify="right" if name in first else "left")
    for method in methods:
        table.add_column(method, justify="right")
    last: Any = None
    for key, cells in _grouped(rows, *columns).items():
        if last not in (None, key[0]):
            table.add_section()
        by_method = {row["method"]: row for row in cells}
        names = [str(value) if place or key[0] != last else "" for place, value in enumerate(key)]
        table.add_row(*names, *(cell(by_method[method]) if method in by_method else "-" for method in methods))
        last = key[0]
    return table


def _calibration(rows: Sequence[Row], sizes: Mapping[Any, int | None]) -> Table:
    rows = [{**row, "place": place_name(row), "labels": _share_of(row["fraction"], sizes)} for row in rows]
    caption = f"expected calibration error, {rows[0]['bins']} bins of equal width, of {rows[0]['of']}; lower is better"

    def cell(row: Row) -> str:
        return f"{row['mean']:.3f}" + (f" ±{row['std']:.3f}" if row["std"] is not None else "")

    return _by_method("calibration", caption, rows, {"place": "setting", "labels": "labels (n)"}, cell)


def _operating_points(rows: Sequence[Row]) -> Table:
    rows = [{**row, "place": place_name(row), "test": f"{row['n_positive']} / {row['n_negative']}"} for row in rows]

    def cell(row: Row) -> str:
        parts = (("sens", row["sensitivity"]), ("spec", row["specificity"]))
        return "\n".join(f"{name} {part['mean']:.2f} {_short(part)}" for name, part in parts)

    columns = {"place": "setting", "label": "label", "rule": "rule", "test": "test + / −"}
    caption = f"thresholds are of validation scores, figures of test rows; {_MORE}"
    return _by_method("operating points", caption, rows, columns, cell, ("test",))


def _short(part: Row) -> str:
    return f"[dim]{part['ci_low']:.2f} to {part['ci_high']:.2f}[/dim]"


def _subgroups(rows: Sequence[Row]) -> Table:
    named = []
    for row in rows:
        flag = " [yellow](small)[/yellow]" if row["small"] else ""
        counts = f"{row['n']} / {row['n_patients']}"
        named.append({**row, "place": place_name(row), "name": f"{row['group']}{flag}", "counts": counts})
    columns = {"place": "setting", "by": "by", "name": "group", "counts": "n / patients"}
    caption = f"{rows[0]['metric']} of parts of the test rows; small: < 10 positives or negatives of a class; {_MORE}"
    return _by_method("subgroups", caption, named, columns, _figure, ("counts",))
