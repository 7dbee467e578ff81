"""One pass over a collection, after which every question of the audit is answered from small arrays.

Memory holds about 100 bytes a row and an image, 80 a distinct text and 16 a sentence; coarse measures of images go to a
temporary file. Hashes have 64 bits: that two of ten million items have one by chance is less likely than 1 in 100,000.

Shapes: R rows, I images, S sentences, T distinct texts.
"""

import hashlib
import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from convirt.data.identifiers.finding import GAP, KINDS, find_identifiers, outline
from convirt.data.records import ImageRecord, Pair
from convirt.data.reports import count_tokens
from convirt.data.splits import canonical_id
from convirt.inspection.appearance import COARSE, VIEWS, measure
from convirt.inspection.collections import Collection, Integrity
from convirt.inspection.near_texts import bands, hash_text

EXAMPLES = 5
"""Findings that are shown of each kind."""
_MOST_VALUES = 500  # distinct views and the like; the rest is counted together
_AGE_NAMES = ("age", "patient_age", "patientage")
_SEX_NAMES = ("sex", "gender", "patient_sex", "patientsex")
_SEXES = {"m": "male", "male": "male", "man": "male", "hombre": "male", "varón": "male", "v": "male"}
_SEXES |= {"f": "female", "female": "female", "woman": "female", "mujer": "female", "o": "other", "other": "other"}


@dataclass
class Identified:
    """Identifiers found in texts."""

    counts: Counter[str] = field(default_factory=Counter)
    """Findings of each kind."""
    texts: Counter[str] = field(default_factory=Counter)
    """Texts with a finding of each kind."""
    with_any: int = 0
    with_gaps: int = 0
    """Texts out of which somebody has taken something before."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """Masked, with the row they stand in."""

    def add(self, row: int, text: str) -> None:
        """Look through a text."""
        found = find_identifiers(text)
        self.counts.update(item.kind for item in found)
        self.texts.update({item.kind for item in found})
        self.with_any += bool(found)
        self.with_gaps += GAP.search(text) is not None
        for item in found:
            if len(self.examples[item.kind]) < EXAMPLES:
                self.examples[item.kind].append({"row": row, "text": outline(text, item)})


@dataclass
class Survey:
    """What one pass has gathered; arrays grow with rows, images and sentences, counters do not."""

    splits: list[str] = field(default_factory=list)
    """Names of the splits, in the order in which they came."""
    split_R: array = field(default_factory=lambda: array("B"))  # type: ignore[type-arg]
    patient_R: array = field(default_factory=lambda: array("Q"))  # type: ignore[type-arg]
    """Hash of the patient's id; 0 if there is none."""
    text_R: array = field(default_factory=lambda: array("Q"))  # type: ignore[type-arg]
    """Hash of the report's words; 0 if there are none."""
    words_R: array = field(default_factory=lambda: array("I"))  # type: ignore[type-arg]
    row_I: array = field(default_factory=lambda: array("Q"))  # type: ignore[type-arg]
    """The row of each image."""
    source_I: array = field(default_factory=lambda: array("Q"))  # type: ignore[type-arg]
    """First 64 bits of the source file's sha256; 0 if it is not known."""
    pixels_I: array = field(default_factory=lambda: array("Q"))  # type: ignore[type-arg]
    measures_I4: array = field(default_factory=lambda: array("f"))  # type: ignore[type-arg]
    """Mean, spread, share of black, share of saturated."""
    sentence_S: array = field(default_factory=lambda: array("Q"))  # type: ignore[type-arg]
    sentences_R: array = field(default_factory=lambda: array("I"))  # type: ignore[type-arg]
    images_R: array = field(default_factory=lambda: array("I"))  # type: ignore[type-arg]
    first_T: array = field(default_factory=lambda: array("Q"))  # type: ignore[type-arg]
    """First row of each distinct text that is long enough to compare."""
    bands_TB: array = field(default_factory=lambda: array("I"))  # type: ignore[type-arg]
    tokens: Counter[int] = field(default_factory=Counter)
    """Sentences by their number of tokens."""
    views: Counter[str] = field(default_factory=Counter)
    ages: Counter[str] = field(default_factory=Counter)
    sexes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Height and width of the sources."""
    depths: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    identified: Identified = field(default_factory=Identified)
    integrity: dict[str, Any] | None = None
    """Whether a corpus holds what it was written with, as `Integrity.judge` has it; None of a table."""
    coarse: Any = None
    """uint8 [2 * I, D], memory-mapped: the two views of each image, one after the other."""

    def column(self, name: str) -> np.ndarray:
        """One of the arrays as numpy has it, without a copy."""
        values = getattr(self, name)
        return np.frombuffer(values, dtype=np.dtype(values.typecode)) if len(values) else np.empty(0, values.typecode)


def hash_name(name: str) -> int:
    """A 64-bit hash of an id, never 0."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") or 1


def take_survey(
    collection: Collection,
    *,
    rename: Callable[[str], str] | None = None,
    integrity: Integrity | None = None,
    follow: Callable[[Iterable[Pair], int], Iterable[Pair]] = lambda rows, _: rows,
) -> Survey:
    """Read a collection once, from its first row to its last.

    Args:
        collection: What to read.
        rename: Applied to patient ids before they are hashed.
        integrity: Follows the pass.
        follow: Wraps the rows, for a progress bar.
    """
    survey = Survey()
    names: dict[str, int] = {}
    texts: set[int] = set()
    with tempfile.TemporaryFile(prefix="convirt-inspect-") as spool:
        for row, pair in enumerate(follow(collection.rows(), len(collection))):
            survey.split_R.append(names.setdefault(pair.split, len(names)))
            patient = rename(pair.patient_id) if rename and pair.patient_id else pair.patient_id
            survey.patient_R.append(hash_name(canonical_id(patient)) if patient else 0)
            survey.images_R.append(len(pair.images))
            _add_text(survey, row, pair, texts)
            _add_people(survey, pair)
            contents = [_add_image(survey, row, image, spool) for image in pair.images]
            if integrity:
                known = zip(pair.images, contents, strict=True)
                integrity.follow(replace(pair, images=tuple(replace(image, content=said) for image, said in known)))
        spool.flush()
        shape = (len(survey.row_I) * VIEWS, COARSE * COARSE)
        # The map outlives the file's name and handle.
        survey.coarse = np.memmap(spool, np.uint8, "r", shape=shape) if shape[0] else np.empty(shape, np.uint8)
    survey.splits = list(names)
    survey.integrity = integrity.judge() if integrity else None
    return survey


@lru_cache(maxsize=1 << 16)
def _know_sentence(sentence: str) -> tuple[int, int]:
    """Hash and number of tokens of a sentence; most that are frequent are met again soon."""
    return hash_text(sentence), count_tokens(sentence)


def _add_text(survey: Survey, row: int, pair: Pair, texts: set[int]) -> None:
    survey.sentences_R.append(len(pair.sentences))
    for sentence in pair.sentences:
        digest, tokens = _know_sentence(sentence)
        survey.sentence_S.append(digest)
        survey.tokens[tokens] += 1
    digest = hash_text(pair.text) if pair.text else 0
    survey.text_R.append(digest)
    survey.words_R.append(len(pair.text.split()))
    if not pair.text:
        return
    survey.identified.add(row, pair.text)
    if digest not in texts:
        texts.add(digest)
        if (values := bands(pair.text)) is not None:
            survey.first_T.append(row)
            survey.bands_TB.extend(values.tolist())


def _add_people(survey: Survey, pair: Pair) -> None:
    values = {name.lower(): value for name, value in pair.attributes.items()}
    age = next((values[name] for name in _AGE_NAMES if values.get(name)), None)
    if age is not None:
        survey.ages[age_band(age)] += 1
    sex = next((values[name] for name in _SEX_NAMES if values.get(name)), None)
    if sex is not None:
        survey.sexes[_SEXES.get(sex.strip().lower(), "other")] += 1
    for image in pair.images:
        view = image.view or values.get("view", "")
        if view:
            survey.views[view if view in survey.views or len(survey.views) < _MOST_VALUES else "others"] += 1


def age_band(text: str) -> str:
    """Name the ten years that an age belongs to: `54`, `54.0`, `054Y` and `006M` are understood."""
    digits = text.strip().upper()
    unit = digits[-1:] if digits[-1:] in ("Y", "M", "W", "D") else "Y"
    try:
        years = float(digits.rstrip("YMWD")) / {"Y": 1, "M": 12, "W": 52, "D": 365}[unit]
    except ValueError:
        return "other"
    if not 0 <= years < 130:
        return "other"
    low = int(years) // 10 * 10
    return f"{low}-{low + 9}" if low < 90 else "90+"


@lru_cache(maxsize=4096)
def _origin(recipe: str) -> tuple[tuple[int, int], str, str]:
    """Height and width, depth and format of a source, from the recipe of its image."""
    try:
        values = json.loads(recipe)
        return (int(values["height"]), int(values["width"])), str(values.get("bits", "?")), str(values["format"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return (0, 0), "?", "?"


def _add_image(survey: Survey, row: int, image: ImageRecord, spool: Any) -> str:
    """Add an image; return what `content_of` says of it."""
    size, depth, form = _origin(image.recipe)
    survey.sizes[size if size in survey.sizes or len(survey.sizes) < 100 * _MOST_VALUES else (0, 0)] += 1
    survey.depths[depth] += 1
    survey.formats[form] += 1
    seen = measure(image)
    survey.row_I.append(row)
    survey.source_I.append(int(image.sha256[:16], 16) if image.sha256 else 0)
    survey.pixels_I.append(seen.pixels)
    survey.measures_I4.extend((seen.mean, seen.spread, seen.black, seen.saturated))
    spool.write(seen.coarse.tobytes())
    return seen.content
