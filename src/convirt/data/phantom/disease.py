"""Findings of the frontal phantom: each changes a `Chest` and returns its box.

Shape suffix: _YX is [size, size]. A finding's form is drawn from its own generator, so that it is the same finding in
every image of a study. `extra` is lung air replaced by tissue: 1 makes the lung as dense as the soft tissue around it.
"""

from collections.abc import Callable

import numpy as np

from convirt.data.phantom.canvas import blob, smooth_noise, step
from convirt.data.phantom.frontal import Chest, heart_mask, rib_line
from convirt.data.phantom.study import Finding

Box = tuple[float, float, float, float]
ZONES = {"upper": -0.48, "mid": -0.10, "lower": 0.24}


def _signs(finding: Finding) -> list[int]:
    return {"left": [1], "right": [-1], "bilateral": [-1, 1], "none": []}[finding.side]


def _atelectasis(chest: Chest, finding: Finding, rng: np.random.Generator) -> Box:
    """Plate-like bands at the base, the hemidiaphragm drawn up."""
    y = chest.canvas.y_YX
    (sign,) = _signs(finding)
    raised = 0.03 + 0.03 * finding.severity
    chest.lung_YX = chest.lung_YX * np.where(chest.side_YX == sign, step(chest.diaphragm_YX - raised - y, 0.010), 1.0)
    strokes = []
    for _ in range(1 + finding.severity):
        cx, cy = sign * rng.uniform(0.26, 0.46), chest.body.diaphragm - raised - rng.uniform(0.06, 0.24)
        length, tilt = rng.uniform(0.22, 0.40), rng.uniform(-0.35, 0.35)
        t = np.linspace(-0.5, 0.5, 6)
        points = np.stack([cx + length * t, cy + length * tilt * t + 0.02 * np.cos(3 * t)], axis=1)
        strokes.append((points, rng.uniform(0.026, 0.042), 1.0))
    bands = chest.canvas.lines(strokes, 0.006)
    chest.extra_YX += (0.34 + 0.08 * finding.severity) * bands
    return chest.canvas.box((bands > 0.3) & (chest.lung_YX > 0.3))


def _cardiomegaly(chest: Chest, finding: Finding, rng: np.random.Generator) -> Box:
    """The heart wider than half the thorax."""
    chest.heart_ratio = 0.52 + 0.03 * finding.severity + rng.uniform(-0.01, 0.01)
    return chest.canvas.box(heart_mask(chest) > 0.5)


def _edema(chest: Chest, finding: Finding, rng: np.random.Generator) -> Box:
    """Perihilar haze, thickened vessels, septal (Kerley) lines."""
    x, y = chest.canvas.x_YX, chest.canvas.y_YX
    haze = sum(blob(x, y, sign * 0.27, 0.02, 0.26, 0.42) for sign in (-1, 1))
    chest.extra_YX += (0.04 + 0.03 * finding.severity) * haze
    chest.vessels = [(points, 1.3 * width, value) for points, width, value in chest.vessels]
    strokes = []
    for sign in (-1, 1):
        for _ in range(7 + 4 * finding.severity):
            px, py = sign * rng.uniform(0.30, 0.62) * chest.body.width / 0.68, rng.uniform(-0.35, 0.55)
            length, tilt = rng.uniform(0.05, 0.11), rng.uniform(-0.3, 0.3)
            points = np.array([[px - length / 2, py - tilt * length], [px + length / 2, py + tilt * length]])
            strokes.append((points, 0.012, 0.8))
    lines = chest.canvas.lines(strokes, 0.004)
    chest.extra_YX += 0.55 * lines
    return chest.canvas.box((haze > 0.35) & (chest.lung_YX > 0.5))


def _fracture(chest: Chest, finding: Finding, rng: np.random.Generator) -> Box:
    """Neighbouring ribs broken and displaced, with a haematoma along the wall."""
    x, y = chest.canvas.x_YX, chest.canvas.y_YX
    (sign,) = _signs(finding)
    first = {"upper": 2, "mid": 4, "lower": 6}[finding.zone]
    where = int(rng.integers(7, 10))
    broken, marks = [], np.zeros_like(x)
    for number in range(first, first + min(3, 1 + finding.severity)):
        line = rib_line(chest.body, sign, number)
        drop = rng.choice([-1, 1]) * rng.uniform(0.065, 0.095)
        outer = line[where + 1 :] + np.array([sign * 0.02, drop])
        broken.append((line, line[: where + 1], outer))
        marks = np.maximum(marks, blob(x, y, line[where, 0], line[where, 1], 0.07, 0.07))
    ribs: list[tuple[np.ndarray, float, float]] = []
    for points, width, value in chest.ribs:
        match = [b for b in broken if points.shape == b[0].shape and np.array_equal(points, b[0])]
        ribs += [(part, width, 1.0) for part in match[0][1:]] if match else [(points, width, value)]
    chest.ribs = ribs
    chest.extra_YX += 0.40 * marks
    return chest.canvas.box(marks > 0.4)


def _effusion(chest: Chest, finding: Finding, rng: np.random.Generator) -> Box:
    """Fluid in the costophrenic angle with a meniscus that climbs the wall."""
    x, y = chest.canvas.x_YX, chest.canvas.y_YX
    fluid = np.zeros_like(x)
    for sign in _signs(finding):
        level = chest.body.diaphragm + 0.18 - 0.11 * finding.severity + rng.uniform(-0.03, 0.03)
        lateral = np.clip((np.abs(x) - 0.25) / np.maximum(chest.wall_YX - 0.25, 0.1), -0.3, 1.2)
        surface = level + 0.10 - 0.24 * np.clip(lateral, 0, 1.2) ** 3
        fluid = np.maximum(fluid, step(y - surface, 0.018) * (chest.side_YX == sign))
    chest.extra_YX += 0.70 * fluid
    return chest.canvas.box((fluid > 0.5) & (chest.lung_YX > 0.3))


def _pneumonia(chest: Chest, finding: Finding, rng: np.random.Generator) -> Box:
    """A patchy consolidation with fuzzy borders and air bronchograms."""
    x, y = chest.canvas.x_YX, chest.canvas.y_YX
    (sign,) = _signs(finding)
    cx, cy = sign * rng.uniform(0.30, 0.42), ZONES[finding.zone] + rng.uniform(-0.06, 0.06)
    radius = 0.11 + 0.03 * finding.severity
    texture = smooth_noise(rng, chest.canvas.size, 26)
    patch = np.zeros_like(x)
    for _ in range(4):
        dx, dy = rng.uniform(-0.8, 0.8, 2) * radius
        patch = np.maximum(patch, blob(x, y, cx + dx, cy + dy, 0.75 * radius, 0.75 * radius))
    patch = step(patch - 0.45 + 0.22 * texture * np.sqrt(patch), 0.07)
    t = np.linspace(0, 1, 4)
    bronchi = [
        (np.stack([cx - sign * 0.12 + sign * 0.26 * t, cy - 0.05 + slope * t], axis=1), 0.016, 1.0)
        for slope in rng.uniform(-0.16, 0.2, 3)
    ]
    air = chest.canvas.lines(bronchi, 0.004)
    chest.extra_YX += 0.50 * patch * (1 - 0.7 * air)
    return chest.canvas.box((patch > 0.5) & (chest.lung_YX > 0.3))


def _pneumothorax(chest: Chest, finding: Finding, rng: np.random.Generator) -> Box:
    """A visceral pleural line, with no lung markings and darker air beyond it."""
    x, y = chest.canvas.x_YX, chest.canvas.y_YX
    (sign,) = _signs(finding)
    gap = 0.07 + 0.045 * finding.severity + rng.uniform(-0.01, 0.02)
    edge = chest.wall_YX - gap - 0.35 * gap * np.clip(-y - 0.1, -0.6, 0.8)
    apex = -0.80 + 0.9 * gap
    own = chest.side_YX == sign
    inside = step(edge - np.abs(x), 0.008) * step(y - apex, 0.012)
    beyond = (1 - inside) * own
    chest.vessel_gain_YX = chest.vessel_gain_YX * (1 - beyond)
    chest.extra_YX -= 0.08 * beyond
    line = 4 * inside * (1 - inside) * own
    chest.extra_YX += 0.24 * line
    return chest.canvas.box((beyond > 0.5) & (chest.lung_YX > 0.5))


ADD: dict[str, Callable[[Chest, Finding, np.random.Generator], Box]] = {
    "atelectasis": _atelectasis,
    "cardiomegaly": _cardiomegaly,
    "edema": _edema,
    "fracture": _fracture,
    "pleural effusion": _effusion,
    "pneumonia": _pneumonia,
    "pneumothorax": _pneumothorax,
}
"""How each category of `CATEGORIES`, save `no finding`, is put into a chest."""
