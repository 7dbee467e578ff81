"""Near-duplicate images: the same picture resized, re-encoded, windowed or padded anew.

Radiographs of one kind look alike, and a perceptual hash made for photographs takes them for each other. So what they
share, the mean picture, is taken away first, and the bits are of what is left: directions in which these images differ
from each other, turned at random. Bands of bits give candidates, the coarse measure sifts them, the fine one decides.

Shapes: N images, D = 256 numbers of the coarse measure, K directions, P pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from convirt.data.loader import derive_seed
from convirt.data.records import ImageRecord
from convirt.inspection.appearance import CommonDetail, detail, likeness
from convirt.inspection.banding import Candidates, Shortlist

COARSE_LEAST = 0.7
"""Least cosine of what two images have beyond the mean picture."""
FINE_LEAST = 0.62
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
    """Coarse measures of images, read by their places: an array, a file, or two of them one after the other."""

    def __len__(self) -> int: ...
    def __getitem__(self, places: np.ndarray, /) -> np.ndarray: ...


class MeanPicture:
    """What images have in common, and the directions in which they differ; fitted to a sample of them."""

    def __init__(self, coarse_ND: Measures, places_N: np.ndarray) -> None:
        chosen = np.unique(np.linspace(0, len(places_N) - 1, _SAMPLE).astype(np.int64))
        sample_ND = coarse_ND[places_N[chosen]].astype(np.float32)
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


def _bands(coarse_ND: Measures, places_N: np.ndarray, picture: MeanPicture) -> np.ndarray:
    """Return the bands of some images' signatures, uint32 [bands, N]; the more images, the more bits in a band."""
    width = int(np.clip(np.ceil(np.log2(len(places_N))) - 2, 6, 18))  # some four images in a bucket
    number = _BITS // width
    weights = (1 << np.arange(width)).astype(np.uint32)
    bands_BN = np.empty((number, len(places_N)), np.uint32)
    for start in range(0, len(places_N), _PIECE):
        bits = picture.bits(coarse_ND[places_N[start : start + _PIECE]])
        bands_BN[:, start : start + _PIECE] = (bits[:, : number * width].reshape(-1, number, width) @ weights).T
    return bands_BN


def find_near_images(
    coarse_ND: Measures,
    groups_N: np.ndarray,
    read: Callable[[int], ImageRecord],
    sides_N: np.ndarray | None = None,
) -> NearImages:
    """Find near-duplicates among images.

    Args:
        coarse_ND: Coarse measures, uint8; may be memory-mapped.
        groups_N: Images of the same group, those with the same pixels, are represented by their first.
        read: Gives an image by its position.
        sides_N: If given, only pairs of images with different values are looked for.

    Returns:
        The pairs, none of two images of one group.
    """
    _, firsts, inverse = np.unique(groups_N, return_index=True, return_inverse=True)
    if sides_N is not None:  # one of each side
        firsts = np.unique(np.stack([inverse, sides_N]), axis=1, return_index=True)[1]
    places_N = np.sort(firsts)
    pieces = range(0, len(places_N), _PIECE)
    # A picture of nothing is like every other.
    shown = [coarse_ND[places_N[start : start + _PIECE]].max(axis=1) > 0 for start in pieces]
    places_N = places_N[np.concatenate(shown)] if shown else places_N
    if len(places_N) < 2:
        none = np.empty((0, 2), np.int64)
        return NearImages(pairs_P2=none, likeness_P=np.empty(0), doubtful_P2=none, checked=0, unchecked=0, cut=0)
    picture = MeanPicture(coarse_ND, places_N)
    search = Candidates(_bands(coarse_ND, places_N, picture))
    shortlist = Shortlist()
    _sift(search, coarse_ND, places_N, groups_N, picture, sides_N, shortlist)
    likely = shortlist.pairs()
    scores = _check(likely, places_N, read) if likely else {}
    pairs = sorted(pair for pair in scores if scores[pair] >= FINE_LEAST)
    doubtful = sorted(set(scores) - set(pairs))
    return NearImages(
        pairs_P2=np.array(pairs, np.int64).reshape(-1, 2),
        likeness_P=np.array([scores[pair] for pair in pairs]),
        doubtful_P2=np.array(doubtful, np.int64).reshape(-1, 2),
        checked=len(likely),
        unchecked=shortlist.dropped,
        cut=search.cut,
    )


def _sift(
    search: Candidates,
    coarse_ND: Measures,
    places_N: np.ndarray,
    groups_N: np.ndarray,
    picture: MeanPicture,
    sides_N: np.ndarray | None,
    shortlist: Shortlist,
) -> None:
    """Enter the candidates that are alike by the coarse measure, as pairs of positions."""
    for pairs_P2 in search:
        for start in range(0, len(pairs_P2), _PIECE):
            first, second = places_N[pairs_P2[start : start + _PIECE]].T
            wanted = groups_N[first] != groups_N[second]
            if sides_N is not None:
                wanted &= sides_N[first] != sides_N[second]
            first, second = first[wanted], second[wanted]
            cosines = np.einsum("pd,pd->p", picture.beyond(coarse_ND[first]), picture.beyond(coarse_ND[second]))
            kept = cosines >= COARSE_LEAST
            shortlist.add(np.stack([first[kept], second[kept]], axis=1), cosines[kept])


def _check(
    pairs: list[tuple[int, int]], places_N: np.ndarray, read: Callable[[int], ImageRecord]
) -> dict[tuple[int, int], float]:
    """Judge candidates by their detail; pairs come sorted, so that few images are read twice."""
    chosen = np.unique(np.linspace(0, len(places_N) - 1, _DETAILED).astype(np.int64))
    common = CommonDetail(np.stack([detail(read(int(place))) for place in places_N[chosen]]))

    @lru_cache(maxsize=_CACHED)
    def look(place: int) -> np.ndarray:
        return common.beyond(detail(read(place)))

    scores = {pair: likeness(look(pair[0]), look(pair[1])) for pair in pairs}
    return {pair: score for pair, score in scores.items() if score >= DOUBTFUL_LEAST}
