"""The images that a picture is made of: rows of one category each (ConVIRT, section 3.2: exclusively positive)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from convirt.data.splits import SPLITS
from convirt.errors import InputError
from convirt.evaluation.inputs.table import LabelledTable, TableColumns


def rows_of_one_category(
    table: LabelledTable, columns: TableColumns, categories: Sequence[str], split: str
) -> LabelledTable:
    """The rows of the chosen categories, as a single-label table.

    Of a table with roles the candidates, else the rows of a split if it has splits; of a multi-label table the rows
    that are positive in one label and in no other.

    Args:
        table: The labelled images.
        columns: Which columns it was read with.
        categories: Names of the categories, in the order of the picture; all if empty.
        split: The split to take.

    Raises:
        InputError: An unknown category or split, or a category without images.
    """
    if split.lower() not in SPLITS:
        raise InputError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    wanted = list(categories) or list(table.classes)
    if unknown := [name for name in wanted if name not in table.classes]:
        raise InputError(f"unknown category {unknown[0]!r}; the table has {', '.join(table.classes)}")
    if len(set(wanted)) < max(2, len(wanted)):
        raise InputError(f"name at least two categories and none twice, got {', '.join(wanted)}")
    if columns.role:
        table = table.take(np.flatnonzero(table.roles_N == "candidate"))
    elif columns.split:
        table = table.take(table.rows(SPLITS[split.lower()]))
    table = table.take(np.flatnonzero((table.targets_NC == 1).sum(axis=1) == 1))
    places = [table.classes.index(name) for name in wanted]
    rows = np.flatnonzero((table.targets_NC[:, places] == 1).any(axis=1))
    chosen = replace(
        table.take(rows),
        classes=tuple(wanted),
        targets_NC=(table.targets_NC[rows][:, places] == 1).astype(np.float64),
        multi_label=False,
    )
    if empty := [name for name, count in zip(wanted, chosen.targets_NC.sum(axis=0), strict=True) if not count]:
        raise InputError(f"category {empty[0]!r} has no image that is positive in it alone; leave it out")
    return chosen
