"""What is typed into the box: words, words that are not wanted, and filters.

    right effusion -pneumothorax modality:DX,CR sex:F date:2024.. -split:train view:"PA erect"

`-word` draws away from a word, softly; `key:value` and `-key:value` keep rows in or out, for certain. A value may list
several with commas, or be a range `low..high` whose ends may be left open; numbers compare as numbers.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from convirt.errors import InputError

COLUMNS = {"patient": "patient_id", "study": "pair_id", "split": "split", "view": "view"}
"""Keys that are no attributes, and their columns."""
_TOKEN = re.compile(r'(-?)(?:([A-Za-z_][\w.-]*):(?=\S))?(?:"([^"]*)"|(\S+))')


@dataclass(frozen=True, kw_only=True)
class Filter:
    """One condition on a row."""

    key: str
    values: tuple[str, ...] = ()
    low: str = ""
    high: str = ""
    out: bool = False
    """Whether rows that fit are kept out."""

    def fits(self, value: str) -> bool:
        """Whether a row's value fits, before `out` is looked at; a row without the attribute never does."""
        if not value:
            return False
        if self.values:
            return value.strip().casefold() in self.values
        return (not self.low or _compare(value, self.low) >= 0) and (not self.high or _compare(value, self.high) <= 0)


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query, taken apart."""

    words: str = ""
    unwanted: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()


def parse_query(text: str) -> Query:
    """Take a query apart.

    Raises:
        InputError: A filter has no value, or its range no end.
    """
    words: list[str] = []
    unwanted: list[str] = []
    filters: list[Filter] = []
    for minus, key, quoted, bare in _TOKEN.findall(text):
        value = quoted or bare
        if key:
            filters.append(_filter(key.casefold(), value, out=bool(minus)))
        elif minus and value:
            unwanted.append(value)
        elif value:
            words.append(value)
    return Query(words=" ".join(words), unwanted=tuple(unwanted), filters=tuple(filters))


def _filter(key: str, value: str, *, out: bool) -> Filter:
    low, dots, high = value.partition("..")
    if dots and not (low or high):
        raise InputError(f"filter {key}:{value} has no end; write {key}:LOW..HIGH, one of them may be left out")
    if dots:
        return Filter(key=key, low=low, high=high, out=out)
    values = tuple(part.strip().casefold() for part in value.split(",") if part.strip())
    if not values:
        raise InputError(f"filter {key}: has no value; write {key}:VALUE")
    return Filter(key=key, values=values, out=out)


def _compare(one: str, other: str) -> int:
    """-1, 0 or 1; a date `20240305` or `2024-03-05` is compared as far as the other goes: `..2024` holds all of it."""
    try:
        first, second = float(one), float(other)
        if len(one) == 8 and len(other) in (4, 6) and one.isdigit() and other.isdigit():
            first = float(one[: len(other)])
        return (first > second) - (first < second)
    except ValueError:
        cut = one[: len(other)]
        return (cut > other) - (cut < other)


def passing(rows: pa.Table, filters: tuple[Filter, ...]) -> np.ndarray:
    """Which rows of an index pass all filters, bool [N].

    Raises:
        InputError: No row has an attribute of that name.
    """
    passes_N = np.ones(len(rows), dtype=bool)
    if not filters:
        return passes_N
    attributes = [_lower(json.loads(text)) for text in rows.column("attributes").to_pylist()]
    known = sorted({name for row in attributes for name in row} | set(COLUMNS))
    for condition in filters:
        if condition.key not in known:
            raise InputError(f"no image of this index has {condition.key!r}; known are {', '.join(known)}")
        if column := COLUMNS.get(condition.key):
            values = rows.column(column).to_pylist()
        else:
            values = [row.get(condition.key, "") for row in attributes]
        passes_N &= np.fromiter(
            (condition.fits(value) != condition.out for value in values), dtype=bool, count=len(rows)
        )
    return passes_N


def _lower(attributes: Mapping[str, str]) -> dict[str, str]:
    """Attributes by the keys that are typed: `Pleural Effusion` is `pleural_effusion`."""
    return {"_".join(name.casefold().split()): value for name, value in attributes.items()}
