"""Near-duplicate reports: the same text with a few words changed, found by MinHash (Broder, 1997).

Texts are sets of three-word shingles; their likeness is the share of shingles that they have in common (Jaccard).
Bands of MinHash values give candidates, the texts themselves decide.

Shapes: N texts, S shingles of a text, H = 64 hashes, B = 16 bands.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from convirt.data.splits import derive_seed
from convirt.inspection.banding import Candidates, Shortlist

LEAST = 0.8
"""Least share of common shingles to call two texts near-duplicates."""
FEWEST_WORDS = 8
"""Shorter texts are alike by chance."""
_HASHES, _BANDS = 64, 16
_WORD = re.compile(r"\w+")
_generator = np.random.default_rng(derive_seed("inspection", "shingles"))
_FACTORS_H1 = _generator.integers(1, 1 << 63, (_HASHES, 1), dtype=np.uint64) | np.uint64(1)
_OFFSETS_H1 = _generator.integers(0, 1 << 63, (_HASHES, 1), dtype=np.uint64)


def words(text: str) -> list[str]:
    """The words of a text, without case and punctuation: what makes two texts the same."""
    return _WORD.findall(text.lower())


def hash_text(text: str) -> int:
    """A 64-bit hash of the words of a text."""
    return int.from_bytes(hashlib.blake2b(" ".join(words(text)).encode(), digest_size=8).digest(), "little")


@lru_cache(maxsize=1 << 16)
def _hash_word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _shingles(text: str) -> np.ndarray:
    """Hashes of the three-word shingles of a text, uint64 [S], sorted and distinct."""
    values = np.array([_hash_word(word) for word in words(text)], np.uint64)
    joined = values[:-2] * np.uint64(0x9E3779B97F4A7C15) + values[1:-1]
    return np.unique((joined ^ (joined >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) + values[2:])


def bands(text: str) -> np.ndarray | None:
    """The bands of a text's MinHash values, uint32 [B]; None if it is too short."""
    if len(words(text)) < FEWEST_WORDS:
        return None
    least_H = (_shingles(text) * _FACTORS_H1 + _OFFSETS_H1).min(axis=1)
    rows = least_H.reshape(_BANDS, -1)
    mixed_B = rows[:, 0]
    for column in rows.T[1:]:
        mixed_B = (mixed_B ^ (mixed_B >> np.uint64(31))) * np.uint64(0x94D049BB133111EB) + column
    return (mixed_B >> np.uint64(32)).astype(np.uint32)


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the shingles of two texts that they have in common."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / max(len(first) + len(second) - common, 1)


@dataclass(frozen=True, kw_only=True)
class NearTexts:
    """Pairs of different texts that are nearly the same."""

    pairs_P2: np.ndarray
    """Positions of texts, the smaller first, sorted."""
    alike_P: np.ndarray
    """Share of common shingles, at least `LEAST`."""
    checked: int
    """Candidates that were read."""
    unchecked: int
    """Candidates beyond `banding.MOST_CHECKED`: there may be more pairs."""


def find_near_texts(bands_BN: np.ndarray, read: Callable[[int], str], sides_N: np.ndarray | None = None) -> NearTexts:
    """Find near-duplicates among distinct texts.

    Args:
        bands_BN: What `bands` gave for each text.
        read: Gives a text by its position.
        sides_N: If given, only pairs of texts with different values are looked for.
    """
    shortlist = Shortlist()
    for pairs_P2 in Candidates(bands_BN) if bands_BN.shape[1] > 1 else ():
        if sides_N is not None:
            pairs_P2 = pairs_P2[sides_N[pairs_P2[:, 0]] != sides_N[pairs_P2[:, 1]]]
        agreement_P = (bands_BN[:, pairs_P2[:, 0]] == bands_BN[:, pairs_P2[:, 1]]).mean(axis=0)
        shortlist.add(pairs_P2, agreement_P)
    cached = lru_cache(maxsize=8192)(lambda place: _shingles(read(place)))
    likely = shortlist.pairs()
    shares = {pair: alike(cached(pair[0]), cached(pair[1])) for pair in likely}
    found = {pair: share for pair, share in shares.items() if share >= LEAST}
    return NearTexts(
        pairs_P2=np.array(list(found), np.int64).reshape(-1, 2),
        alike_P=np.array(list(found.values())),
        checked=len(likely),
        unchecked=shortlist.dropped,
    )
