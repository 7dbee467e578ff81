"""What is asked: words, words that are not wanted, filters; and what is shown of the answer.

    right effusion -pneumothorax modality:DX,CR sex:F date:2024.. -split:train view:"PA erect"

`-word` draws away from a word, softly; `key:value` and `-key:value` keep rows in or out, for certain. A value may list
several with commas, or be a range `low..high` of numbers, dates or
ages whose ends may be left open.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from convirt.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {"patient": "patient_id", "study": "pair_id", "split": "split", "view": "view"}
"""Keys that are no attributes, and their columns."""
_DATE = re.compile(r"(?:19|20)\d\d-?\d\d-?\d\d")
_DATE_PART = re.compile(r"(?:19|20)\d\d(?:-?\d\d){0,2}")
_AGE = re.compile(r"(\d{3})([DWMY])")
_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}
_TOKEN = re.compile(r'(-?)(?:([A-Za-z_][\w.-]*):(?=\S))?(?:"([^"]*)"|(\S+))')


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What is shown of what is found."""

    k: int = 10
    """How many results at most."""
    by: Literal["both", "vectors", "words"] = "both"
    """What ranks: `vectors`, the `words` of the reports (BM25), or `both`, fused by reciprocal rank."""
    group: Literal["study", "patient", "none"] = "study"
    """What is shown once, by its best image: each study, each patient; `none` also shows near-duplicates."""
    own_patient: bool = False
    """Show the image's own patient too."""
    everything: bool = False
    """Show results that are no better than chance too."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"k must be at least 1, got {self.k}")


DEFAULTS = SearchOptions()
SharedOptions = Annotated[SearchOptions, tyro.conf.arg(name="")]


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
        low, high = _compare(value, self.low), _compare(value, self.high)
        return low is not None and high is not None and (not self.low or low >= 0) and (not self.high or high <= 0)


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


def _compare(value: str, end: str) -> int | None:
    """-1, 0 or 1 for a value below, at or above the end of a range; None if the two cannot be compared.

    A date (`20240305`, `2024-03-05`) is compared as far as the end goes, so that `..2024` holds all of 2024; an age may
    be DICOM's (`041Y`), in years; else both are numbers.
    """
    if not end:
        return 0
    if _DATE.fullmatch(value) and _DATE_PART.fullmatch(end):
        digits, part = value.replace("-", ""), end.replace("-", "")
        return (digits[: len(part)] > part) - (digits[: len(part)] < part)
    try:
        age = _AGE.fullmatch(value)
        number = int(age[1]) / _A_YEAR[age[2]] if age else float(value)
        return (number > float(end)) - (number < float(end))
    except ValueError:
        return None


def passing(rows: "pa.Table", filters: tuple[Filter, ...]) -> np.ndarray:
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
