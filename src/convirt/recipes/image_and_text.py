"""Contrastive-Binary (ConVIRT, section 3.3), CLIP, MedCLIP, the in-domain text encoder: constants and recipes.

Encoders, corpus and image size are ConVIRT's throughout, so that a comparison is one of methods; what else a method's
own paper fixes is taken from there. Rates that end in a cosine need the length of the run in steps: it is reckoned
for the 217,000 pairs of MIMIC-CXR (ConVIRT, appendix A); for another corpus give `--optimiser.cosine-steps`. With a
cosine the rate is not halved as well.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from convirt.config import (
    Objective,
    OptimiserConfig,
    PretrainConfig,
    ProjectionConfig,
    TextEncoderConfig,
    TransformConfig,
    ValidationConfig,
)
from convirt.config.settings import Count, Positive, Share, Within, require
from convirt.recipes.convirt import at_demo_scale


@dataclass(frozen=True, kw_only=True)
class BinaryObjective(Objective, method="contrastive_binary"):
    """Contrastive-Binary: real or fake pair, by a head over both projections (3.3)."""

    hidden: Count = 512
    """Width of the head's single hidden layer (silent: as wide as a projection)."""


@dataclass(frozen=True, kw_only=True)
class LearnedTemperatureObjective(Objective, method="clip"):
    """CLIP: a symmetric contrastive objective with a learned temperature (Radford et al. 2021, section 2.5)."""

    initial_temperature: Positive = 0.07
    """tau at the first step (2.5)."""
    largest_scale: float = 100.0
    """1 / tau is kept from exceeding this (2.5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        tau, most = self.initial_temperature, self.largest_scale
        require(1 / tau <= most < float("inf"), f"objective.largest_scale must be 1 / {tau} or more, got {most}")


@dataclass(frozen=True, kw_only=True)
class SemanticMatchingObjective(LearnedTemperatureObjective, method="medclip"):
    """MedCLIP: texts and images that are not pairs, matched by their findings (Wang et al. 2022, section 3.4)."""

    lexicon: str = "en"
    """How findings are worded: `en`, or the path of a TOML file (`data/findings/en.toml` tells the form)."""
    uncertain: Share = 1.0
    """What an uncertain finding counts in the vector of findings: 1 as present, 0 as absent (silent)."""
    target_temperature: Positive = 1.0
    """Divides the similarities of findings that the soft targets are made of; the paper's equation has none, which is
    1. Lower is sharper: at 1 the target of a finding is at most e times that of none."""


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageObjective(Objective, method="masked_language_model"):
    """Masked language modelling: naming hidden word pieces (Devlin et al. 2019, section 3.1)."""

    share: Annotated[float, Within("(0, 1]")] = 0.15
    """Part of a text's word pieces that have to be named (3.1)."""


MIMIC_PAIRS = 217_000
NEVER = 10**6
"""A patience that no run has: the rate is not halved."""
CROP = (224 / 256) ** 2
"""Area of a crop of 224 x 224 from an image of 256 x 256."""
CROP_ALONE = TransformConfig(
    crop=(CROP, CROP),
    flip=0.0,
    degrees=0.0,
    translate=0.0,
    scale=(1.0, 1.0),
    jitter_probability=0.0,
    blur_probability=0.0,
)
"""Views that are random square crops and nothing else (Radford et al. 2021, section 2.3)."""


def paper_contrastive_binary() -> PretrainConfig:
    """Contrastive-Binary: a head tells real pairs from fake ones.

    `convirt pretrain paper_contrastive_binary --corpus CORPUS --out RUN`

    Every constant is ConVIRT's, but for linear projections (section 3.3).
    """
    return PretrainConfig(
        recipe="paper_contrastive_binary",
        method="contrastive_binary",
        projection=ProjectionConfig(linear=True),
        objective=BinaryObjective(),
    )


def paper_clip() -> PretrainConfig:
    """CLIP with a ResNet-50, at 256 pairs a step.

    `convirt pretrain paper_clip --corpus CORPUS --out RUN`

    Radford et al. 2021: a learned temperature from 0.07 on, linear projections without bias
    to 1,024 numbers, a random crop as the only augmentation, AdamW with a penalty of 0.2, 2,000 steps of warm-up, a
    cosine, 32 epochs (sections 2.3 to 2.5, tables 18 and 19: from the paper's text, not re-read; the temperature and
    the sizes also from the authors' code). Departures: both encoders start from ConVIRT's weights
    and so at ConVIRT's rate (CLIP starts from nothing, at 5e-4, with 400 million pairs); 256 pairs a step and not
    32,768, which one GPU cannot hold and which would leave seven steps an epoch.
    """
    batch, epochs = 256, 32
    return PretrainConfig(
        recipe="paper_clip",
        method="clip",
        projection=ProjectionConfig(dim=1024, linear=True, bias=False),
        transform=CROP_ALONE,
        objective=LearnedTemperatureObjective(),
        optimiser=OptimiserConfig(
            kind="adamw",
            weight_decay=0.2,
            batch_size=batch,
            warmup_steps=2000,
            cosine_steps=epochs * (MIMIC_PAIRS // batch),
        ),
        # As many pairs between evaluations as ConVIRT sees.
        validation=ValidationConfig(every=625, patience=NEVER),
        max_epochs=epochs,
    )


def paper_medclip() -> PretrainConfig:
    """MedCLIP with a ResNet-50: images and texts matched by their findings.

    `convirt pretrain paper_medclip --corpus CORPUS --out RUN`

    Wang et al. 2022, RyanWangZf/MedCLIP: linear projections without bias to 512 numbers, a
    learned temperature from 0.07 on, its own augmentation, penalty 1e-4, 100 pairs a step, 10 epochs, a tenth of them
    warm-up and then a cosine, AdamW, gradients cut at norm 1, sentences at 77 word pieces: all as in its authors'
    code. The rate 5e-5 is from the paper's text, not re-read; the code's script has 2e-5, for a Swin encoder. The
    whole text encoder trains. Departures: findings come from this package's lexicon and not from MetaMap; texts are
    max-pooled, as ConVIRT's.
    """
    batch, epochs = 100, 10
    steps = epochs * (MIMIC_PAIRS // batch)
    return PretrainConfig(
        recipe="paper_medclip",
        method="medclip",
        text_encoder=TextEncoderConfig(frozen_layers=0, freeze_embeddings=False, max_tokens=77),
        projection=ProjectionConfig(linear=True, bias=False),
        transform=TransformConfig(
            crop=(CROP, CROP),
            degrees=10.0,
            translate=0.0625,
            scale=(0.8, 1.1),
            brightness=(0.8, 1.2),
            contrast=(0.8, 1.2),
            blur_probability=0.0,
        ),
        objective=SemanticMatchingObjective(),
        optimiser=OptimiserConfig(
            kind="adamw",
            learning_rate=5e-5,
            weight_decay=1e-4,
            batch_size=batch,
            warmup_steps=steps // 10,
            cosine_from=steps // 10,
            cosine_steps=steps,
            clip_norm=1.0,
        ),
        validation=ValidationConfig(every=1600, patience=NEVER),
        max_epochs=epochs,
    )


def paper_masked_language_model() -> PretrainConfig:
    """The in-domain text encoder: ClinicalBERT trained further on reports.

    `convirt pretrain paper_masked_language_model --corpus CORPUS --out RUN`

    ConVIRT, appendix A, which tells no constants: ClinicalBERT trained further on the
    corpus' reports as it was itself trained further on clinical notes (Alsentzer et al. 2019: 150,000 steps, from the
    paper's text, not re-read, where the authors' script has 100,000; 32 texts of 128 word pieces at 5e-5, with 10,000
    steps of warm-up: their script), with the AdamW of BERT's code (google-research/bert: penalty 0.01, not on biases
    and gains, gradients cut at norm 1). Departures: the rate falls along a cosine, not a line; there is no
    next-sentence task, as reports are too short to be cut in two.
    """
    steps = 150_000
    return PretrainConfig(
        recipe="paper_masked_language_model",
        method="masked_language_model",
        text_encoder=TextEncoderConfig(frozen_layers=0, freeze_embeddings=False),
        objective=MaskedLanguageObjective(),
        optimiser=OptimiserConfig(
            kind="adamw",
            learning_rate=5e-5,
            weight_decay=0.01,
            warmup_steps=10_000,
            cosine_steps=steps,
            clip_norm=1.0,
        ),
        validation=ValidationConfig(patience=NEVER),
        max_steps=steps,
    )


def demo_contrastive_binary() -> PretrainConfig:
    """Contrastive-Binary at the demo's scale.

    `convirt pretrain demo_contrastive_binary --corpus CORPUS --out RUN`
    """
    return at_demo_scale(paper_contrastive_binary())


def demo_clip() -> PretrainConfig:
    """CLIP at the demo's scale.

    `convirt pretrain demo_clip --corpus CORPUS --out RUN`

    Its loss, views and penalty, and its projections to the demo's 512 numbers.
    """
    return at_demo_scale(paper_clip(), projection={"dim": 512})


def demo_medclip() -> PretrainConfig:
    """MedCLIP at the demo's scale.

    `convirt pretrain demo_medclip --corpus CORPUS --out RUN`

    Its loss, sampling and penalty; views, frozen layers and the bias of the projections are the demo's. The soft
    targets are sharper: as the paper has them their entropy among 32 texts is 3.41 of at most 3.47 nats, and in
    hundreds of steps nothing is learnt from what is left (docs/results.md).
    """
    return at_demo_scale(
        replace(paper_medclip(), transform=TransformConfig()),
        projection={"bias": True},
        objective={"target_temperature": 0.1},
    )


def demo_masked_language_model() -> PretrainConfig:
    """The demo's text encoder trained further on the demo's reports.

    `convirt pretrain demo_masked_language_model --corpus CORPUS --out RUN`

    As many steps as the demo; eight whole reports have as many word pieces as its 32 sentences.
    """
    return at_demo_scale(
        paper_masked_language_model(),
        text_encoder={"frozen_layers": 0, "freeze_embeddings": False},
        optimiser={"batch_size": 8},
    )
