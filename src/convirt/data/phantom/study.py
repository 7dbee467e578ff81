"""What a phantom study is: the patient's body, the findings, the images, and how all are drawn from a seed."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

CATEGORIES = (
    "atelectasis",
    "cardiomegaly",
    "edema",
    "fracture",
    "pleural effusion",
    "pneumonia",
    "pneumothorax",
    "no finding",
)
"""The eight categories of CheXpert 8x200 (ConVIRT, appendix C)."""

# Findings that occur together more often than chance, as in practice.
COMPANIONS = {
    "cardiomegaly": ("edema", "pleural effusion"),
    "edema": ("cardiomegaly", "pleural effusion"),
    "pleural effusion": ("atelectasis", "cardiomegaly"),
    "atelectasis": ("pleural effusion", "pneumonia"),
    "pneumonia": ("pleural effusion", "atelectasis"),
    "fracture": ("pneumothorax", "atelectasis"),
    "pneumothorax": ("fracture", "atelectasis"),
}

Side = Literal["left", "right", "bilateral", "none"]


@dataclass(frozen=True, kw_only=True)
class Body:
    """A patient's anatomy, in body coordinates: the thorax spans about [-1, 1] in x (patient's left positive) and y."""

    sex: Literal["female", "male"]
    age: int
    width: float
    """Half width of the rib cage."""
    depth: float
    """Thickness of soft tissue, relative."""
    heart: float
    """Cardiothoracic ratio without disease."""
    diaphragm: float
    """Height of the lungs' lower border."""
    rib_slope: float
    breast: float
    """Density of breast shadows."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding of a study."""

    category: str
    side: Side
    severity: int
    """1 mild, 2 moderate, 3 severe."""
    zone: Literal["upper", "mid", "lower"] = "lower"
    shape_seed: int = 0
    """Fixes the finding's form in every image of the study."""
    box: tuple[float, float, float, float] = field(default=(0.0, 0.0, 0.0, 0.0))
    """Left, top, right, bottom as shares of the frontal image; filled by `render`."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One examination of a phantom patient."""

    patient: int
    number: int
    seed: int
    body: Body
    findings: tuple[Finding, ...]
    views: tuple[str, ...]
    """`PA`, `AP` or `LATERAL` for each image."""
    device: bool

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the findings; `no finding` alone when there are none."""
        return tuple(f.category for f in self.findings) or ("no finding",)


def study_generator(seed: int, patient: int, *rest: int) -> np.random.Generator:
    """The random numbers of one patient, study or image: a function of these integers alone."""
    return np.random.default_rng([seed, patient, *rest])


def draw_body(seed: int, patient: int) -> Body:
    """Draw a patient's anatomy."""
    rng = study_generator(seed, patient)
    female = rng.random() < 0.5
    return Body(
        sex="female" if female else "male",
        age=int(rng.integers(20, 92)),
        width=rng.uniform(0.56, 0.78),
        depth=rng.uniform(0.75, 1.35),
        heart=rng.uniform(0.37, 0.48),
        diaphragm=rng.uniform(0.36, 0.56),
        rib_slope=rng.uniform(0.10, 0.26),
        breast=rng.uniform(0.05, 0.28) if female else rng.uniform(0.0, 0.06),
    )


def _draw_finding(category: str, rng: np.random.Generator) -> Finding:
    severity = int(rng.integers(1, 4))
    side: Side = "left" if rng.random() < 0.5 else "right"
    zone: Literal["upper", "mid", "lower"] = "lower"
    if category == "cardiomegaly":
        side = "none"
    elif category == "edema":
        side = "bilateral"
    elif category == "pleural effusion":
        side = "bilateral" if rng.random() < 0.2 else side
    elif category in ("pneumonia", "fracture"):
        zone = ("upper", "mid", "lower")[int(rng.integers(0, 3))]
    return Finding(category=category, side=side, severity=severity, zone=zone, shape_seed=int(rng.integers(0, 2**31)))


def draw_study(seed: int, patient: int, number: int) -> Study:
    """Draw one study.

    Args:
        seed: Seed of the whole archive.
        patient: Patient number, from 0.
        number: Study number of that patient, from 0.
    """
    rng = study_generator(seed, patient, 1 + number)
    names: list[str] = []
    if rng.random() > 0.2:
        names.append(CATEGORIES[int(rng.integers(0, 7))])
        if rng.random() < 0.2:
            companions = COMPANIONS[names[0]]
            names.append(companions[int(rng.integers(0, len(companions)))])
    frontal = "PA" if rng.random() < 0.65 else "AP"
    views: tuple[str, ...] = (frontal,)
    extra = rng.random()
    if extra < 0.25:
        views = (frontal, "LATERAL")
    if extra < 0.05:
        views = (frontal, "LATERAL", frontal)
    return Study(
        patient=patient,
        number=number,
        seed=seed,
        body=draw_body(seed, patient),
        findings=tuple(_draw_finding(name, rng) for name in names),
        views=views,
        device=bool(rng.random() < 0.15),
    )
