"""Tables laid out so that no figure and no name is ever cut."""

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table

_UNBOUNDED = 100_000


def show(table: Table, console: Console) -> None:
    """Print a table: on a terminal within its width where whole words allow it, elsewhere as wide as it is.

    A terminal that is narrower than the table's words gets a wider table; rich alone would cut figures short.
    """
    cells = [[column.header, *column.cells] for column in table.columns]
    measured = [[_measure(cell, console) for cell in column] for column in cells]
    widest = [max(cell.maximum for cell in column) for column in measured]
    least = [max(cell.minimum for cell in column) for column in measured]
    frame = 3 * len(cells) + 1  # a line and two spaces a column, and the last line
    widths = fitted(widest, least, console.width - frame) if console.is_terminal else widest
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    table.width = sum(widths) + frame
    console.print(table, crop=False)


def _measure(cell: RenderableType, console: Console) -> Measurement:
    return Measurement.get(console, console.options.update(width=_UNBOUNDED), cell)


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
