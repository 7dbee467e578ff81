"""The drawing board: body coordinates, soft shapes, lines, and the way from attenuation to a film.

Shape suffix: _YX is [size, size], rows first. Body coordinates x (patient's left positive, on the right of a frontal
image) and y (down) span [-1, 1] over an untilted image.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Pose:
    """How the body lies on the detector."""

    angle: float
    """Radians."""
    zoom: float
    shift_x: float
    shift_y: float

    def to_image(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Body coordinates to image coordinates in [-1, 1]."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return self.zoom * (c * x - s * y) + self.shift_x, self.zoom * (s * x + c * y) + self.shift_y

    def to_body(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image coordinates in [-1, 1] to body coordinates."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        x, y = (x - self.shift_x) / self.zoom, (y - self.shift_y) / self.zoom
        return c * x + s * y, -s * x + c * y


class Canvas:
    """One image's grid in body coordinates, and lines drawn on it."""

    def __init__(self, pose: Pose, size: int) -> None:
        self.pose = pose
        self.size = size
        centres = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        image_y_YX, image_x_YX = np.meshgrid(centres, centres, indexing="ij")
        self.x_YX, self.y_YX = pose.to_body(image_x_YX, image_y_YX)

    def lines(self, strokes: list[tuple[np.ndarray, float, float]], blur: float) -> np.ndarray:
        """Draw polylines.

        Args:
            strokes: Points [n, 2] in body coordinates, width in body units, and value in [0, 1]; later strokes cover
                earlier ones.
            blur: Sigma in body units.

        Returns:
            float32 [size, size].
        """
        side = self.size * SUPERSAMPLING
        image = Image.new("L", (side, side))
        draw = ImageDraw.Draw(image)
        for points, width, value in strokes:
            x, y = self.pose.to_image(points[:, 0], points[:, 1])
            pixels = np.stack([(x + 1) / 2 * side, (y + 1) / 2 * side], axis=1)
            thickness = max(1, round(width * self.pose.zoom * side / 2))
            draw.line([tuple(p) for p in pixels.tolist()], fill=round(255 * value), width=thickness, joint="curve")
        drawn = np.asarray(image.resize((self.size, self.size), Image.Resampling.BOX), dtype=np.float32) / 255
        return ndimage.gaussian_filter(drawn, blur * self.size / 2)

    def box(self, mask_YX: np.ndarray) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of what is set, as shares of the image; zeros when nothing is."""
        rows, columns = np.flatnonzero(mask_YX.any(axis=1)), np.flatnonzero(mask_YX.any(axis=0))
        if not len(rows):
            return (0.0, 0.0, 0.0, 0.0)
        edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        left, top, right, bottom = (round(float(e) / self.size, 4) for e in edges)
        return (left, top, right, bottom)


def step(x: np.ndarray, softness: float) -> np.ndarray:
    """A soft step from 0 to 1 about x = 0."""
    return 1 / (1 + np.exp(-np.clip(x / softness, -30, 30)))


def blob(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    """A Gaussian bump."""
    return np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """A smooth random field of about unit variance, `cells` bumps across, float32 [size, size]."""
    coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32)


def expose(attenuation_YX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From attenuation to a film: scatter, veiling, quantum noise, exposure, contrast curve, collimation.

    Returns:
        uint8 [size, size].
    """
    size = len(attenuation_YX)
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    tilt = rng.uniform(-0.22, 0.22) * centres[None, :] + rng.uniform(-0.18, 0.18) * centres[:, None]
    film = attenuation_YX + tilt + rng.uniform(0.05, 0.15) * smooth_noise(rng, size, int(rng.integers(2, 6)))
    film = film + rng.uniform(0.1, 0.3) * ndimage.gaussian_filter(film, size / 10)
    film = ndimage.gaussian_filter(film, rng.uniform(0.2, 0.7) * size / 160)
    dose = rng.uniform(0.010, 0.035)
    grain = rng.standard_normal((size, size)).astype(np.float32)
    film = film + dose * np.exp(0.5 * np.clip(film, -1, 3)) * grain
    low, high = np.percentile(film[:: max(1, size // 64), :: max(1, size // 64)], [3, 97])
    low, high = low + rng.uniform(-0.15, 0.1), high + rng.uniform(-0.05, 0.3)
    film = np.clip((film - low) / (high - low), 0, 1) ** rng.uniform(0.65, 1.5)
    if rng.random() < 0.3:
        edges = (rng.uniform(0, 0.06, 4) * size).astype(int)
        film[: edges[0]] = film[size - edges[1] :] = film[:, : edges[2]] = film[:, size - edges[3] :] = 0
    return np.round(film * 255).astype(np.uint8)
