"""The lateral phantom radiograph: coarser than the frontal, with the findings that a lateral view shows.

Shape suffix: _YX is [size, size]. x runs from the back (negative) to the breastbone (positive).
"""

import numpy as np

from convirt.data.phantom.canvas import Canvas, Pose, blob, expose, smooth_noise, step
from convirt.data.phantom.study import Study

HEIGHT = {"upper": -0.45, "mid": -0.05, "lower": 0.25}


def render_lateral(study: Study, rng: np.random.Generator, size: int) -> np.ndarray:
    """Render a lateral image of a study, uint8 [size, size]."""
    body = study.body
    pose = Pose(rng.uniform(-0.08, 0.08), rng.uniform(0.88, 1.1), rng.uniform(-0.08, 0.08), rng.uniform(-0.1, 0.1))
    canvas = Canvas(pose, size)
    x, y = canvas.x_YX, canvas.y_YX
    present = {f.category: f for f in study.findings}
    wall = 0.52 * np.sqrt(np.clip(1 - ((y - 0.2) / 1.1) ** 2, 0.02, 1))
    base = body.diaphragm + 0.1 + 0.30 * np.clip((-x - 0.1) / 0.5, -0.2, 1) ** 2
    if "pleural effusion" in present:
        fluid = base - 0.07 - 0.06 * present["pleural effusion"].severity
        base = np.minimum(base, np.where(x < -0.1, fluid - 0.2 * np.clip(-x - 0.2, 0, 1) ** 2, base))
    lung = step(wall - np.abs(x), 0.015) * step(base - y, 0.012) * step(y + 0.82, 0.03)
    ratio = body.heart
    if "cardiomegaly" in present:
        ratio = 0.55 + 0.045 * present["cardiomegaly"].severity
    heart = step(1 - np.hypot((x - 0.22) / (0.55 * ratio), (y - body.diaphragm + 0.22) / (0.25 + 0.2 * ratio)), 0.05)
    total = 1.2 * body.depth * step(wall + 0.14 * body.depth - np.abs(x), 0.03) + 0.45 * step(y - base, 0.03)
    total -= 0.85 * lung * (1 - 0.8 * heart)
    spine = 0.75 + 0.25 * np.cos(y * 2 * np.pi / 0.19)
    total += 0.35 * step(0.08 - np.abs(x + 0.43 - 0.08 * np.cos(2 * y)), 0.015) * spine
    t = np.linspace(-1, 1, 10)
    ribs = [(np.stack([0.5 * t, -0.75 + 0.15 * n + 0.16 * t], axis=1), 0.03, 0.6) for n in range(9)]
    markings = [
        (np.array([[0, -0.05], rng.uniform(-0.25, 0.25, 2), rng.uniform(-0.45, 0.45, 2)]), 0.012, 0.5)
        for _ in range(16)
    ]
    if "edema" in present:
        total += lung * (0.1 + 0.05 * present["edema"].severity) * (1 + 0.5 * smooth_noise(rng, size, 30))
    if "pneumonia" in present:
        patch = blob(x, y, -0.1, HEIGHT[present["pneumonia"].zone], 0.16, 0.14)
        total += 0.6 * step(patch - 0.45 + 0.2 * smooth_noise(rng, size, 26), 0.07) * lung
    if "atelectasis" in present:
        band = np.array([[-0.35, body.diaphragm - 0.05], [0.0, body.diaphragm - 0.12]])
        ribs.append((band, 0.035, 1.0))
    total += 0.20 * canvas.lines(ribs, 0.008) + 0.4 * canvas.lines(markings, 0.006) * lung
    return expose(total, rng)
