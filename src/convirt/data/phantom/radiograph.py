"""From a study to its radiographs."""

from dataclasses import replace

import numpy as np

from convirt.data.phantom.canvas import expose
from convirt.data.phantom.disease import ADD
from convirt.data.phantom.frontal import build_chest, compose
from convirt.data.phantom.lateral import render_lateral
from convirt.data.phantom.study import Finding, Study, study_generator


def render_frontal(
    study: Study, rng: np.random.Generator, size: int, *, projection: str
) -> tuple[np.ndarray, tuple[tuple[float, float, float, float], ...]]:
    """Render a frontal image of a study.

    Returns:
        The film, uint8 [size, size], and one box (left, top, right, bottom as shares of the image) for each finding.
    """
    chest = build_chest(study, rng, size, projection)
    boxes = tuple(ADD[f.category](chest, f, np.random.default_rng(f.shape_seed)) for f in study.findings)
    return expose(compose(chest, study, rng), rng), boxes


def render(study: Study, image: int, size: int) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """Render one image of a study.

    Args:
        study: What `draw_study` gave.
        image: Which of `study.views`.
        size: Height and width, pixels.

    Returns:
        The radiograph, uint8 [size, size], air dark and bone bright, and the findings with their boxes filled in.
    """
    rng = study_generator(study.seed, study.patient, 1 + study.number, 1 + image)
    if study.views[image] == "LATERAL":
        return render_lateral(study, rng, size), study.findings
    pixels, boxes = render_frontal(study, rng, size, projection=study.views[image])
    return pixels, tuple(replace(f, box=box) for f, box in zip(study.findings, boxes, strict=True))
