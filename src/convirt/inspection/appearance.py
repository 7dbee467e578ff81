"""How an image looks, in numbers: two measures of likeness that do not mind resizing, re-encoding or windowing.

The *coarse* one, 16 x 16 ranks of grey, is kept for every image and finds candidates. The *fine* one, 128 x 128 pixels
without slow shades, is computed for candidates alone and decides: bodies in the same pose share their shades, but not
their ribs, vessels and letters.

Shapes: H, W sides of an image; C = 16 side of the coarse measure; F = 128 side of the fine one, E = F * F; N images.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from convirt.data.corpora import decode
from convirt.data.records import ImageRecord, content_of

COARSE = 16
FINE = 128
VIEWS = 2
"""Each image is seen whole and without its black margins."""
_BLACK = 8 / 255  # padding that went through a JPEG is not quite 0
_LIT = 0.01  # share of a line above which it is no margin
_MARGIN = 0.97  # share of the whole above which there is no margin to speak of
_SHADES = 3.0  # sigma of what counts as a slow shade, fine pixels
_COMMON = 32  # directions at most
_TAKING_PART = 8  # images that a common direction is made of at least
_COPY = 0.7  # agreement from which on two images of the sample are taken for copies
_ENOUGH = 32  # images whose mean is not yet an image of one of them
_REACH = 6  # largest shift that is looked for, fine pixels


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """What the audit keeps of an image."""

    content: str
    """What `content_of` says of the pixels."""
    pixels: int
    """64-bit hash of size and pixels."""
    mean: float
    """Of grey in [0, 1]."""
    spread: float
    """Standard deviation of grey."""
    black: float
    """Share of pixels that are black."""
    saturated: float
    """Share of pixels that are white."""
    coarse: np.ndarray
    """uint8 [2, C * C]: of the image whole, and without its black margins; 0 where there is nothing to see."""


def measure(image: ImageRecord) -> Appearance:
    """Decode an image and measure it."""
    values_HW = decode(image).numpy()[0]
    content = hashlib.blake2b(repr(values_HW.shape).encode(), digest_size=8)
    content.update(np.ascontiguousarray(values_HW).tobytes())
    top = np.iinfo(values_HW.dtype).max
    return Appearance(
        content=content_of(values_HW),
        pixels=int.from_bytes(content.digest(), "little"),
        mean=float(values_HW.mean()) / top,
        spread=float(values_HW.std()) / top,
        black=float((values_HW == 0).mean()),
        saturated=float((values_HW == top).mean()),
        coarse=np.stack([_ranks(view_HW) for view_HW in _views(values_HW)]),
    )


def _views(values_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return an image whole, and without its black margins if it has any, float32 in [0, 1].

    Copies differ in their margins: one is padded, one is cut. But where a body ends in black depends on the window, so
    that the cut alone would miss copies too. Each is compared with each.
    """
    grey_HW = values_HW.astype(np.float32) / np.iinfo(values_HW.dtype).max
    lit_HW = grey_HW > _BLACK
    (top, bottom), (left, right) = (_extent(lit_HW.mean(axis) > _LIT) for axis in (1, 0))
    if (bottom - top) * (right - left) > _MARGIN * grey_HW.size or min(bottom - top, right - left) < COARSE:
        return grey_HW, None
    return grey_HW, grey_HW[top:bottom, left:right]


def _extent(lit: np.ndarray) -> tuple[int, int]:
    """First and last place that is lit, the last not included."""
    places = np.flatnonzero(lit)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def _squash(grey_HW: np.ndarray, side: int) -> np.ndarray:
    """Squash to a square, whatever the aspect: some data sets come squashed at their source."""
    return np.asarray(Image.fromarray(grey_HW).resize((side, side), Image.Resampling.BOX))


def _ranks(view_HW: np.ndarray | None) -> np.ndarray:
    """Replace greys by their ranks, which no window or gamma changes; alike greys share one, so that noise does not."""
    if view_HW is None:
        return np.zeros(COARSE * COARSE, np.uint8)
    greys = (_squash(view_HW, COARSE).ravel() * 64).astype(np.int16)
    levels, places, counts = np.unique(greys, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return (
        (middle[places] * (255 / places.size)).astype(np.uint8) if len(levels) > 1 else np.zeros_like(places, np.uint8)
    )


def detail(image: ImageRecord, view: int = 0) -> np.ndarray:
    """Return an image's detail, its shades taken away and its contrast evened out, float32 [F * F], of unit energy."""
    seen_HW = _views(decode(image).numpy()[0])[view]
    assert seen_HW is not None, "a view without a coarse measure"
    small_FF = _squash(seen_HW, FINE)
    detail_FF = small_FF - ndimage.gaussian_filter(small_FF, _SHADES)
    # What a window has flattened counts as much as what it has kept.
    detail_FF /= np.sqrt(ndimage.gaussian_filter(detail_FF**2, 2 * _SHADES)) + 0.01
    fade_F = np.sqrt(np.hanning(FINE + 2)[1:-1])
    detail_FF = (detail_FF - detail_FF.mean()) * np.outer(fade_F, fade_F)
    return (detail_FF / (np.linalg.norm(detail_FF) + 1e-6)).astype(np.float32).ravel()


class CommonDetail:
    """The detail that images of a collection share: a mean, and directions that many of them have a part in.

    Bodies in the same pose also share edges of ribs and spine; two images are the same if they agree beyond that.
    """

    def __init__(self, details_NE: np.ndarray) -> None:
        """Learn it from a sample, of which copies are left out: what only they share must not count as common."""
        kept: list[int] = []
        for number, agreement_N in enumerate(details_NE @ details_NE.T):
            if not kept or agreement_N[kept].max() < _COPY:
                kept.append(number)
        details_NE = details_NE[kept]
        self.mean_E = details_NE.mean(0) if len(kept) >= _ENOUGH else np.zeros_like(details_NE[0])
        rest_NE = details_NE - self.mean_E
        scales, loadings = np.linalg.eigh(rest_NE @ rest_NE.T)
        taking_part = 1 / (loadings**4).sum(0)
        most = min(_COMMON, len(kept) // 16)  # at most a sixteenth of what a picture has of its own is lost
        wide = np.flatnonzero((taking_part >= _TAKING_PART) & (scales > 1e-3))[::-1][:most]
        self.directions_KE = (loadings[:, wide] / np.sqrt(scales[wide])).T @ rest_NE

    def beyond(self, detail_E: np.ndarray) -> np.ndarray:
        """Return the spectrum of what an image's detail has beyond, complex64 [F, F // 2 + 1], of unit energy."""
        rest_E = detail_E - self.mean_E
        rest_E = rest_E - (self.directions_KE @ rest_E) @ self.directions_KE
        rest_FF = (rest_E / (np.linalg.norm(rest_E) + 1e-6)).reshape(FINE, FINE)
        return fft.rfft2(rest_FF).astype(np.complex64)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two spectra's images at the best shift of a few pixels, 1 for the same image."""
    correlation_FF = fft.irfft2(first.conj() * second, s=(FINE, FINE))
    near = np.r_[0 : _REACH + 1, -_REACH:0]
    return float(correlation_FF[np.ix_(near, near)].max())
