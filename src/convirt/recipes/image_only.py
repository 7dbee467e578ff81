"""Constants and recipes of the methods that learn from images alone (ConVIRT, appendix E).

The paper is silent on the initial weights: here they are ImageNet's, as of every other method (3.3); both codes that it
names, sthalles/SimCLR and facebookresearch/moco, start from random ones. An epoch visits each study once, with one of
its images at random; the paper's epochs visited each image. The checkpoint with the lowest validation loss is kept, as
of ConVIRT; the rate is not halved, as nothing says that it was.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from convirt.config import (
    Objective,
    OptimiserConfig,
    PretrainConfig,
    ProjectionConfig,
    TransformConfig,
    ValidationConfig,
)
from convirt.config.settings import Count, Positive, Within
from convirt.recipes.convirt import at_demo_scale


@dataclass(frozen=True, kw_only=True)
class TwoViewsObjective(Objective, method="simclr"):
    """SimCLR: NT-Xent between two views of each image (E)."""

    temperature: Positive = 0.1
    """tau (E)."""


@dataclass(frozen=True, kw_only=True)
class MoCoObjective(TwoViewsObjective, method="moco"):
    """MoCo v2: a query and its key against a queue of earlier keys (E)."""

    temperature: Positive = 0.07
    """tau (E)."""
    queue: Count = 4096
    """How many keys the queue holds (E)."""
    key_momentum: Annotated[float, Within("[0, 1)")] = 0.999
    """m, what the key encoder keeps of itself at each step (silent; He et al., 3.2: 0.999)."""
    norm_groups: Count = 2
    """Parts of a batch with a batch norm each, shuffled for the keys; on one device as on the paper's two GPUs (E)."""


SIMCLR_VIEWS = TransformConfig(
    crop=(0.08, 1.0),
    aspect=(3 / 4, 4 / 3),
    degrees=0.0,
    translate=0.0,
    scale=(1.0, 1.0),
    brightness=(0.2, 1.8),
    contrast=(0.2, 1.8),
    jitter_probability=0.8,
    blur_sigma=(0.1, 2.0),
    blur_probability=0.5,
)
"""SimCLR's crop, flip, colour and blur (Chen et al. 2020, appendix A; google-research/simclr, `data_util.py`, strength
1); saturation and hue are 0 (E), and dropping colour at random does nothing to grey images. The code that the paper ran
blurs always; its text says "in the paper", which blurs half of the views. Brightness always comes before contrast;
there, their order is random."""

MOCO_VIEWS = replace(SIMCLR_VIEWS, crop=(0.2, 1.0), brightness=(0.6, 1.4), contrast=(0.6, 1.4))
"""MoCo v2's: crops of a fifth at least, weaker colour (facebookresearch/moco, `main_moco.py`, `--aug-plus`); saturation
and hue are 0 (E)."""

UNHALVED = ValidationConfig(patience=ValidationConfig().max_evaluations)
"""ConVIRT's validation, without its rule that halves the rate."""


def paper_simclr() -> PretrainConfig:
    """SimCLR, from images alone: every constant of appendix E.

    `convirt pretrain paper_simclr --corpus CORPUS --out RUN`

    The code that appendix E names lowers the rate along a cosine over as many epochs as an
    epoch has batches, from the eleventh epoch on: after 100 epochs of MIMIC-CXR, 1 % less. Here the rate stays.
    """
    return PretrainConfig(
        recipe="paper_simclr",
        method="simclr",
        projection=ProjectionConfig(dim=128),
        transform=SIMCLR_VIEWS,
        objective=TwoViewsObjective(),
        optimiser=OptimiserConfig(learning_rate=3e-4, weight_decay=1e-4, batch_size=128),
        validation=UNHALVED,
        max_epochs=100,
    )


def paper_moco() -> PretrainConfig:
    """MoCo v2, from images alone: every constant of appendix E.

    `convirt pretrain paper_moco --corpus CORPUS --out RUN`

    The momenta are the defaults of the authors' code. Two GPUs are stood in
    for by two groups with a batch norm each, whose keys are shuffled (`objective.norm_groups`).
    """
    return PretrainConfig(
        recipe="paper_moco",
        method="moco",
        projection=ProjectionConfig(dim=128),
        transform=MOCO_VIEWS,
        objective=MoCoObjective(),
        optimiser=OptimiserConfig(
            kind="sgd", learning_rate=0.0075, weight_decay=1e-4, batch_size=64, decay_epochs=(60.0, 80.0)
        ),
        validation=UNHALVED,
        max_epochs=100,
    )


def demo_simclr() -> PretrainConfig:
    """SimCLR at the demo's scale.

    `convirt pretrain demo_simclr --corpus CORPUS --out RUN`

    Two views of each image are encoded, and no text.
    """
    return at_demo_scale(paper_simclr(), has_text=False, blur=0.86)


def demo_moco() -> PretrainConfig:
    """MoCo v2 at the demo's scale.

    `convirt pretrain demo_moco --corpus CORPUS --out RUN`

    In hundreds of steps the key encoder has to follow faster and the queue to turn over, and a cosine takes the place
    of the decay by epochs.
    """
    return at_demo_scale(
        paper_moco(),
        has_text=False,
        blur=0.86,
        objective={"queue": 1024, "key_momentum": 0.99},
        optimiser={"learning_rate": 0.03},
    )
