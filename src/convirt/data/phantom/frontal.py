"""The frontal phantom radiograph: normal anatomy, with the findings added by `disease`.

Shape suffix: _YX is [size, size]. Values are relative attenuation: 0 air, about 2 the abdomen.
"""

from dataclasses import dataclass

import numpy as np

from convirt.data.phantom.canvas import Canvas, Pose, blob, smooth_noise, step
from convirt.data.phantom.study import Body, Study


@dataclass
class Chest:
    """The parts of a frontal chest, open to change by a finding before they are summed."""

    canvas: Canvas
    body: Body
    heart_ratio: float
    lung_YX: np.ndarray
    """Air in the lungs, 0 to 1."""
    side_YX: np.ndarray
    """-1 in the patient's right half (left in the image), +1 in the left half."""
    diaphragm_YX: np.ndarray
    """y of the lung base above each point."""
    wall_YX: np.ndarray
    """Half width of the rib cage at each point's height."""
    ribs: list[tuple[np.ndarray, float, float]]
    vessels: list[tuple[np.ndarray, float, float]]
    extra_YX: np.ndarray
    """Attenuation that findings add."""
    vessel_gain_YX: np.ndarray
    """How well lung markings are seen, 1 normally."""


def _pose(rng: np.random.Generator) -> Pose:
    return Pose(
        angle=rng.uniform(-0.13, 0.13),
        zoom=rng.uniform(0.80, 1.16),
        shift_x=rng.uniform(-0.14, 0.14),
        shift_y=rng.uniform(-0.15, 0.12),
    )


def rib_line(body: Body, sign: int, number: int) -> np.ndarray:
    """Centre line [n, 2] of a posterior rib and its anterior part, from the spine outwards."""
    t = np.linspace(0.0, 1.0, 14)
    top = -0.80 + 0.145 * number
    width = body.width * np.sqrt(np.clip(1 - ((top + 0.1 - 0.15) / 1.15) ** 2, 0.1, 1))
    x = 0.08 + (width - 0.05) * np.sin(t * np.pi / 2)
    y = top + body.rib_slope * t**1.6 + 0.28 * body.rib_slope * np.sin(np.pi * t) * -1.0
    return np.stack([sign * x, y], axis=1)


def _anterior_rib(body: Body, sign: int, number: int) -> np.ndarray:
    t = np.linspace(0.0, 1.0, 8)
    end = rib_line(body, sign, number)[-1]
    x = abs(end[0]) - (body.width * 0.55) * t
    y = end[1] + 0.02 + (0.16 + body.rib_slope) * t**1.2
    return np.stack([sign * x, y], axis=1)


def _vessels(rng: np.random.Generator, prominence: float) -> list[tuple[np.ndarray, float, float]]:
    strokes = []
    for sign in (-1, 1):
        for _ in range(int(rng.integers(13, 19))):
            angle = rng.uniform(-1.45, 1.35)
            length = rng.uniform(0.25, 0.52)
            x, y = 0.13 + rng.uniform(0, 0.04), -0.04 + rng.uniform(-0.07, 0.09)
            bend = rng.uniform(-0.5, 0.5)
            points = [(sign * x, y)]
            for _ in range(5):
                angle += bend / 5
                x, y = x + length / 5 * np.cos(angle), y + length / 5 * np.sin(angle) * 1.25
                points.append((sign * x, y))
            line = np.array(points)
            strokes.append((line[2:], 0.007, 0.35))
            strokes.append((line[:4], 0.016, 0.6))
            if rng.random() < 0.7:
                fork = line[3] + np.array(
                    [[0, 0], [sign * 0.07, rng.uniform(-0.1, 0.1)], [sign * 0.15, rng.uniform(-0.18, 0.18)]]
                )
                strokes.append((fork, 0.006, 0.3))
    return [(points, width, min(1.0, prominence * value)) for points, width, value in strokes]


def _normal_haze(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Uneven lung density of no meaning: overlying soft tissue, shallow breath, scatter."""
    x, y = canvas.x_YX, canvas.y_YX
    haze = rng.uniform(0.02, 0.12) * smooth_noise(rng, canvas.size, 4) + rng.uniform(-0.10, 0.20)
    for sign in (-1, 1):
        haze = haze + rng.uniform(-0.05, 0.25) * blob(x, y, sign * 0.28, rng.uniform(-0.1, 0.2), 0.28, 0.40)
        haze = haze + rng.uniform(-0.05, 0.30) * blob(x, y, sign * 0.42, rng.uniform(0.25, 0.5), 0.30, 0.18)
    return haze


def _bystanders(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Scapulae, skin folds, granulomas and nipples: shadows that mimic findings and mean nothing."""
    x, y = chest.canvas.x_YX, chest.canvas.y_YX
    shade = np.zeros_like(x)
    for sign in (-1, 1):
        border = rng.uniform(0.40, 0.75) + rng.uniform(-0.1, 0.25) * (y + 0.4)
        scapula = step(sign * x - border, 0.010) * step(0.10 - y, 0.05) * step(y + 0.85, 0.05)
        shade += rng.uniform(0.02, 0.14) * scapula
        if rng.random() < 0.3:
            nipple = np.hypot(x - sign * rng.uniform(0.3, 0.45), y - rng.uniform(0.15, 0.35))
            shade += 0.12 * step(0.030 - nipple, 0.008)
    strokes = []
    for _ in range(int(rng.integers(0, 3))):
        px, py, length = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.3), rng.uniform(0.3, 0.7)
        lean = rng.uniform(-0.3, 0.3)
        strokes.append((np.array([[px, py], [px + lean * length / 2, py + length / 2], [px, py + length]]), 0.014, 0.5))
    for _ in range(int(rng.integers(0, 4))):
        spot = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.4)])
        strokes.append((np.stack([spot, spot + np.array([0.016, 0.0])]), 0.020, 0.9))
    return shade + 0.22 * chest.canvas.lines(strokes, 0.006)


def build_chest(study: Study, rng: np.random.Generator, size: int, projection: str) -> Chest:
    """Lay out the normal chest of a study's patient on a fresh pose."""
    body, canvas = study.body, Canvas(_pose(rng), size)
    x, y = canvas.x_YX, canvas.y_YX
    turn = rng.uniform(-0.05, 0.05)
    inspiration = rng.uniform(-0.06, 0.04) - (0.05 if projection == "AP" else 0.0)
    side = np.where(x + turn > 0, 1.0, -1.0).astype(np.float32)
    across = np.abs(x + turn * (1 - np.abs(x)))
    wall = body.width * np.sqrt(np.clip(1 - ((y - 0.2) / 1.12) ** 2, 0.02, 1))
    base = body.diaphragm + inspiration + np.where(side > 0, rng.uniform(0.0, 0.08), rng.uniform(-0.04, 0.03))
    diaphragm = base + 0.42 * np.clip((across - 0.32) / 0.4, -0.35, 1) ** 2
    middle = 0.10 + 0.05 * blob(np.zeros_like(y), y, 0, -0.05, 1, 0.25) + np.where(side > 0, 0.02, 0.0)
    lung = step(wall - across, 0.012) * step(across - middle, 0.018) * step(diaphragm - y, 0.010)
    return Chest(
        canvas=canvas,
        body=body,
        heart_ratio=body.heart + (0.03 if projection == "AP" else 0.0),
        lung_YX=lung * step(y + 0.86, 0.02),
        side_YX=side,
        diaphragm_YX=diaphragm,
        wall_YX=wall,
        ribs=[
            (line, width, value)
            for sign in (-1, 1)
            for number in range(9)
            for line, width, value in (
                (rib_line(body, sign, number), 0.045, 0.85),
                (_anterior_rib(body, sign, number), 0.045, 0.45),
            )
        ],
        vessels=_vessels(rng, prominence=rng.uniform(0.6, 1.6)),
        extra_YX=_normal_haze(canvas, rng),
        vessel_gain_YX=np.ones_like(x),
    )


def heart_mask(chest: Chest) -> np.ndarray:
    """Soft outline of the heart [size, size], its width the cardiothoracic ratio times that of the thorax."""
    x, y = chest.canvas.x_YX, chest.canvas.y_YX
    half = chest.heart_ratio * chest.body.width
    cx, cy, ry = 0.26 * half, chest.body.diaphragm - 0.19, 0.20 + 0.25 * half
    u = (x - cx) * 0.94 + (y - cy) * 0.30
    v = -(x - cx) * 0.30 + (y - cy) * 0.94
    return step(1 - np.sqrt((u / half) ** 2 + (v / ry) ** 2), 0.05)


def _devices(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    strokes: list[tuple[np.ndarray, float, float]] = []
    kind = int(rng.integers(0, 4))
    if kind == 0:
        sign = rng.choice([-1.0, 1.0])
        box = np.array([[0.36, -0.66], [0.50, -0.66], [0.50, -0.52], [0.36, -0.52], [0.36, -0.66], [0.50, -0.52]])
        strokes.append((box * [sign, 1], 0.05, 0.9))
        strokes.append((np.array([[sign * 0.4, -0.6], [0.05, -0.5], [0.0, -0.1], [0.08, 0.3]]), 0.012, 0.9))
    elif kind == 1:
        strokes.append((np.array([[-0.42, -0.75], [-0.25, -0.6], [-0.06, -0.45], [-0.05, 0.0]]), 0.012, 0.7))
    elif kind == 2:
        strokes.append((np.array([[0.0, -1.0], [0.01, -0.6], [0.0, -0.32]]), 0.022, 0.55))
    for _ in range(int(rng.integers(1, 4))):
        start = rng.uniform(-0.8, 0.8, 2)
        way = np.cumsum(np.vstack([start, rng.uniform(-0.2, 0.2, (4, 2))]), axis=0)
        strokes.append((way, 0.010, 0.5))
    return chest.canvas.lines(strokes, 0.004)


def _marker(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    sign = int(rng.choice([-1, 1]))
    corner = np.array([sign * rng.uniform(0.72, 0.86), rng.uniform(-0.88, -0.6)])
    right = np.array([[0, 0.08], [0, 0], [0.04, 0.02], [0, 0.04], [0.04, 0.08]])
    letter = right if sign < 0 else np.array([[0, 0], [0, 0.08], [0.04, 0.08]])
    return chest.canvas.lines([(letter + corner, 0.014, 1.0)], 0.002)


def compose(chest: Chest, study: Study, rng: np.random.Generator) -> np.ndarray:
    """Sum a chest to relative attenuation, float32 [size, size]."""
    canvas, body = chest.canvas, chest.body
    x, y = canvas.x_YX, canvas.y_YX
    trunk = step(body.width + 0.13 * body.depth - np.abs(x) + 0.25 * step(-0.55 - y, 0.08), 0.03)
    neck = step(0.24 + 0.9 * step(y + 0.80, 0.06) - np.abs(x), 0.03)
    total = 1.15 * body.depth * trunk * neck
    total += 0.45 * step(y - chest.diaphragm_YX, 0.03)
    heart = heart_mask(chest)
    aeration = chest.lung_YX * (1 - 0.80 * heart)
    total -= (0.95 + 0.1 * body.depth) * aeration * np.clip(1 - chest.extra_YX, 0.0, 1.4)
    mediastinum = step(0.115 - np.abs(x), 0.02) + 0.6 * blob(x, y, 0.13, -0.38, 0.075, 0.085)
    total += (
        0.30 * mediastinum + 0.22 * blob(x, y, -0.15, -0.03, 0.06, 0.12) + 0.22 * blob(x, y, 0.16, -0.05, 0.06, 0.11)
    )
    vertebrae = 0.75 + 0.25 * np.cos((y + 0.02) * 2 * np.pi / 0.17)
    total += 0.22 * step(0.07 - np.abs(x), 0.012) * vertebrae
    total -= 0.25 * step(0.032 - np.abs(x), 0.008) * step(-0.30 - y, 0.04)
    for sign in (-1, 1):
        sag = 0.42 + rng.uniform(-0.04, 0.10)
        breast = np.hypot((x - sign * 0.40) / 0.30, (y - sag + 0.10) / 0.27)
        total += body.breast * step(1 - breast, 0.06)
        clavicle = np.array([[sign * 0.09, -0.60], [sign * 0.28, -0.70], [sign * 0.55, -0.78], [sign * 0.72, -0.80]])
        chest.ribs.append((clavicle, 0.055, 0.9))
    total += 0.24 * canvas.lines(chest.ribs, 0.008) * trunk
    markings = canvas.lines(chest.vessels, 0.005)
    total += 0.55 * markings * chest.lung_YX * chest.vessel_gain_YX
    total += _bystanders(chest, rng)
    if study.device:
        total += 0.9 * _devices(chest, rng)
    if rng.random() < 0.5:
        total += 1.2 * _marker(chest, rng)
    return total + 0.03 * smooth_noise(rng, canvas.size, 14) * trunk
