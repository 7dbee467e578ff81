"""SigLIP (Zhai et al. 2023): the constants of its equation, and its recipes."""

from dataclasses import dataclass, replace
from typing import Annotated

from convirt.config import Objective, PretrainConfig
from convirt.config.settings import Positive, Within
from convirt.recipes.convirt import at_demo_scale
from convirt.recipes.image_and_text import paper_clip


@dataclass(frozen=True, kw_only=True)
class SigLIPObjective(Objective, method="siglip"):
    """SigLIP: each pair of the batch on its own is called real or not, by a sigmoid (section 3.2)."""

    initial_scale: Positive = 10.0
    """t at the first step; its logarithm is trained (3.2: t' = log 10)."""
    initial_bias: Annotated[float, Within("(-inf, inf)")] = -10.0
    """b at the first step: most pairs of a batch are not real (3.2)."""


def paper_siglip() -> PretrainConfig:
    """SigLIP with a ResNet-50: a sigmoid for each pair of the batch.

    `convirt pretrain paper_siglip --corpus CORPUS --out RUN`

    Zhai et al. 2023: t from 10 and b from -10 on (section 3.2). AdamW with a penalty of 0.01, gradients cut at norm 1,
    and 3 % of the run as warm-up before a cosine are those of the authors' example with pretrained towers
    (google-research/big_vision, `siglip_lit_coco.py`). Projections, views, pairs a step and epochs are those of
    `paper_clip`, so that the two can be compared. Departures: as there, both encoders start from ConVIRT's weights and
    so train at ConVIRT's rate.
    """
    clip = paper_clip()
    schedule = {"warmup_steps": 0.03, "cosine_from": 0.03, "cosine_steps": 1.0}
    return replace(
        clip,
        recipe="paper_siglip",
        method="siglip",
        objective=SigLIPObjective(),
        optimiser=replace(clip.optimiser, weight_decay=0.01, clip_norm=1.0, **schedule),  # type: ignore[arg-type]
    )


def demo_siglip() -> PretrainConfig:
    """SigLIP at the demo's scale.

    `convirt pretrain demo_siglip --corpus CORPUS --out RUN`
    """
    return at_demo_scale(paper_siglip(), projection={"dim": 512})
