"""Near-duplicate images: the same picture resized, re-encoded, windowed or padded anew.

Radiographs of one kind look alike, and a perceptual hash made for photographs takes them for each other. So what they
share, the mean picture, is taken away first, and the bits are of what is left: directions in which these images differ
from each other, turned at random. Bands of bits give candidates, the coarse measure sifts them, the fine one decides.

Shapes: N images, M = 2 * N views of them, D = 256 numbers of the coarse measure, K directions, P pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from convirt.data.records import ImageRecord
from convirt.data.splits import derive_seed
from convirt.inspection.appearance import VIEWS, CommonDetail, detail, likeness
from convirt.inspection.banding import Candidates, Shortlist

COARSE_LEAST = 0.7
"""Least cosine of what two images have beyond the mean picture."""
FINE_LEAST = 0.65
"""Least likeness of what two images' detail has beyond the common one, to call them near-duplicates."""
DOUBTFUL_LEAST = 0.5
"""From here on two images are named as look-alikes, but prove nothing: some are another slice or exposure of one
body, some are chance."""
_SAMPLE = 4096
_DIRECTIONS = 64
_ENOUGH = 32
_BITS = 256
_PIECE = 1 << 15
_CACHED = 2048
_DETAILED = 512  # images from which the common detail is learned


@dataclass(frozen=True, kw_only=True)
class NearImages:
    """Pairs of images that are near-duplicates."""

    pairs_P2: np.ndarray
    """Positions of images, the smaller first, sorted."""
    likeness_P: np.ndarray
    """Of their detail, at least `FINE_LEAST`."""
    doubtful_P2: np.ndarray
    """Look-alikes, their likeness between `DOUBTFUL_LEAST` and `FINE_LEAST`."""
    checked: int
    """Candidates that the fine measure judged."""
    unchecked: int
    """Candidates beyond `banding.MOST_CHECKED`."""
    cut: int
    """Buckets too large to compare all of their images."""


class Measures(Protocol):
    """Coarse measures of views, read by their places: an array, a file, or two of them one after the other."""

    def __len__(self) -> int: ...
    def __getitem__(self, places: np.ndarray, /) -> np.ndarray: ...


class MeanPicture:
    """What images have in common, and the directions in which they differ; fitted to a sample of them."""

    def __init__(self, coarse_MD: Measures, items_N: np.ndarray) -> None:
        chosen = np.unique(np.linspace(0, len(items_N) - 1, _SAMPLE).astype(np.int64))
        sample_ND = coarse_MD[items_N[chosen]].astype(np.float32)
        # The mean of few would be half of each of them.
        self.mean_D = sample_ND.mean(0) if len(chosen) >= _ENOUGH else np.full(sample_ND.shape[1], 127.5, np.float32)
        _, scales, directions = np.linalg.svd(sample_ND - self.mean_D, full_matrices=False)
        directions, scales = directions[:_DIRECTIONS], scales[:_DIRECTIONS]
        # Flattened, not whitened: the least directions are mostly noise.
        self.directions_KD = directions / np.sqrt(scales + scales[0] * 0.01 + 1e-6)[:, None]

    def beyond(self, coarse_ND: np.ndarray) -> np.ndarray:
        """Return what images have beyond the mean picture, float32 [N, D], of unit length."""
        rest_ND = coarse_ND.astype(np.float32) - self.mean_D
        return rest_ND / (np.linalg.norm(rest_ND, axis=1, keepdims=True) + 1e-6)

    def bits(self, coarse_ND: np.ndarray) -> np.ndarray:
        """Return the signature of each image, bool [N, bits]."""
        generator = np.random.default_rng(derive_seed("inspection", "directions"))
        turn_KB = generator.standard_normal((len(self.directions_KD), _BITS)).astype(np.float32)
        return self.beyond(coarse_ND) @ self.directions_KD.T @ turn_KB > 0


def _bands(coarse_MD: Measures, items_N: np.ndarray, picture: MeanPicture) -> np.ndarray:
    """Return the bands of some views' signatures, uint32 [bands, N]; the more views, the more bits in a band."""
    width = int(np.clip(np.ceil(np.log2(len(items_N))) - 2, 6, 18))  # some four views in a bucket
    number = _BITS // width
    weights = (1 << np.arange(width)).astype(np.uint32)
    bands_BN = np.empty((number, len(items_N)), np.uint32)
    for start in range(0, len(items_N), _PIECE):
        bits = picture.bits(coarse_MD[items_N[start : start + _PIECE]])
        bands_BN[:, start : start + _PIECE] = (bits[:, : number * width].reshape(-1, number, width) @ weights).T
    return bands_BN


def find_near_images(
    coarse_MD: Measures,
    groups_N: np.ndarray,
    read: Callable[[int], ImageRecord],
    sides_N: np.ndarray | None = None,
) -> NearImages:
    """Find near-duplicates among images.

    Args:
        coarse_MD: Coarse measures of the two views of each image, uint8; may be memory-mapped.
        groups_N: Images of the same group, those with the same pixels, are represented by their first.
        read: Gives an image by its position.
        sides_N: If given, only pairs of images with different values are looked for.

    Returns:
        The pairs, none of two images of one group.
    """
    items_N = _shown(coarse_MD, _representatives(groups_N, sides_N))
    if len(items_N) < 2:
        none = np.empty((0, 2), np.int64)
        return NearImages(pairs_P2=none, likeness_P=np.empty(0), doubtful_P2=none, checked=0, unchecked=0, cut=0)
    picture = MeanPicture(coarse_MD, items_N)
    search = Candidates(_bands(coarse_MD, items_N, picture))
    shortlist = Shortlist()
    for pairs_P2 in search:
        for start in range(0, len(pairs_P2), _PIECE):
            first, second = items_N[pairs_P2[start : start + _PIECE]].T
            wanted = groups_N[first // VIEWS] != groups_N[second // VIEWS]
            if sides_N is not None:
                wanted &= sides_N[first // VIEWS] != sides_N[second // VIEWS]
            first, second = first[wanted], second[wanted]
            cosines = np.einsum("pd,pd->p", picture.beyond(coarse_MD[first]), picture.beyond(coarse_MD[second]))
            kept = cosines >= COARSE_LEAST
            shortlist.add(np.stack([first[kept], second[kept]], axis=1), cosines[kept])
    likely = shortlist.pairs()
    scores = _check(likely, items_N, read) if likely else {}
    pairs = sorted(pair for pair in scores if scores[pair] >= FINE_LEAST)
    doubtful = sorted(pair for pair in scores if DOUBTFUL_LEAST <= scores[pair] < FINE_LEAST)
    return NearImages(
        pairs_P2=np.array(pairs, np.int64).reshape(-1, 2),
        likeness_P=np.array([scores[pair] for pair in pairs]),
        doubtful_P2=np.array(doubtful, np.int64).reshape(-1, 2),
        checked=len(likely),
        unchecked=shortlist.dropped,
        cut=search.cut,
    )


def _representatives(groups_N: np.ndarray, sides_N: np.ndarray | None) -> np.ndarray:
    """Return the place of the first image of each group, or of each group on each side, sorted."""
    _, firsts, inverse = np.unique(groups_N, return_index=True, return_inverse=True)
    if sides_N is not None:
        firsts = np.unique(np.stack([inverse, sides_N]), axis=1, return_index=True)[1]
    return np.sort(firsts)


def _shown(coarse_MD: Measures, places_N: np.ndarray) -> np.ndarray:
    """Return the views of images that show something: a picture of nothing is like every other."""
    items = (places_N[:, None] * VIEWS + np.arange(VIEWS)).ravel()
    pieces = [items[start : start + _PIECE] for start in range(0, len(items), _PIECE)]
    return np.concatenate([piece[coarse_MD[piece].max(axis=1) > 0] for piece in pieces]) if pieces else items


def _check(
    pairs: list[tuple[int, int]], items_N: np.ndarray, read: Callable[[int], ImageRecord]
) -> dict[tuple[int, int], float]:
    """Return the likeness of the images of candidates, whose pairs come sorted, so that few are read twice."""

    def see(item: int) -> np.ndarray:
        return detail(read(item // VIEWS), item % VIEWS)

    chosen = np.unique(np.linspace(0, len(items_N) - 1, _DETAILED).astype(np.int64))
    common = CommonDetail(np.stack([see(int(item)) for item in items_N[chosen]]))
    look = lru_cache(maxsize=_CACHED)(lambda item: common.beyond(see(item)))
    scores: dict[tuple[int, int], float] = {}
    for first, second in pairs:
        images = min(first, second) // VIEWS, max(first, second) // VIEWS
        scores[images] = max(likeness(look(first), look(second)), scores.get(images, -1.0))
    return scores
