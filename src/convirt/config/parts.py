"""The settings that pretraining methods share: encoders, projections, views, optimiser, validation.

A section reference after a field names the place in the ConVIRT paper that fixes its default; "silent" marks a
choice of ours, listed in docs/paper.md.
"""

import math
from dataclasses import dataclass
from typing import Literal

from convirt.config.checking import require


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """The image encoder f_v."""

    name: str = "resnet50.tv_in1k"
    """Architecture: any timm model name (2.3: ResNet-50)."""
    weights: str = "hub"
    """Where the initial weights come from: `hub` (timm's pretrained tag), `random`, `package:NAME` (a weight file
    inside an installed Python package), or the path of a local file or folder (A: ImageNet)."""


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """The text encoder f_u."""

    source: str = "emilyalsentzer/Bio_ClinicalBERT"
    """Hugging Face hub id, local folder, `package:NAME` (a model folder inside an installed package), or a run of ours
    whose text encoder to start from, such as that of a masked language model (2.3)."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """`random` keeps only the architecture and the tokenizer of the source."""
    pooling: Literal["max", "mean", "cls"] = "max"
    """How token vectors become one vector; padding never takes part (2.3: max)."""
    frozen_layers: int = 6
    """How many transformer layers, counted from the input, are not trained (2.3: the first 6)."""
    freeze_embeddings: bool = True
    """Whether the embedding tables stay as they are (2.3)."""
    max_tokens: int = 128
    """Longer sentences are cut to this many word pieces (silent)."""

    def __post_init__(self) -> None:
        require(self.frozen_layers >= 0, f"text_encoder.frozen_layers must be 0 or more, got {self.frozen_layers}")
        require(self.max_tokens >= 4, f"text_encoder.max_tokens must be 4 or more, got {self.max_tokens}")


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """The projections g_v and g_u into the shared space."""

    dim: int = 512
    """Size d of the shared space (A)."""
    hidden: int | None = None
    """Width of the single hidden layer; None means as wide as its input (silent)."""
    linear: bool = False
    """Replace the hidden layer by one linear map (F, table 5)."""
    bias: bool = True
    """Whether the linear maps have a bias (silent)."""

    def __post_init__(self) -> None:
        require(self.dim >= 1, f"projection.dim must be positive, got {self.dim}")
        require(self.hidden is None or self.hidden >= 1, f"projection.hidden must be positive, got {self.hidden}")


@dataclass(frozen=True, kw_only=True)
class TransformConfig:
    """The image transformation family T that t_v is drawn from (2.3, A)."""

    size: int = 224
    """Side of the square that the encoder sees, pixels (A)."""
    crop: tuple[float, float] = (0.6, 1.0)
    """Range of the ratio of crop area to image area (A; area is silent)."""
    aspect: tuple[float, float] = (1.0, 1.0)
    """Range of the crop's width to its height, log-uniform; (1, 1) is square (silent; SimCLR's is (3/4, 4/3))."""
    flip: float = 0.5
    """Probability of a horizontal flip (A). It destroys laterality: set 0 where reports name sides and that matters."""
    degrees: float = 20.0
    """Rotation is uniform in [-degrees, degrees] (A)."""
    translate: float = 0.1
    """Largest shift as a part of the side, in both directions (A)."""
    scale: tuple[float, float] = (0.95, 1.05)
    """Range of the affine scale (A)."""
    brightness: tuple[float, float] = (0.6, 1.4)
    """Range of the brightness ratio (A)."""
    contrast: tuple[float, float] = (0.6, 1.4)
    """Range of the contrast ratio (A)."""
    jitter_probability: float = 1.0
    """How often brightness and contrast are changed at all (silent; SimCLR's is 0.8)."""
    blur_sigma: tuple[float, float] = (0.1, 3.0)
    """Range of the Gaussian's sigma, pixels (A)."""
    blur_kernel: int = 23
    """Side of the blur kernel, odd, pixels (silent: about a tenth of 224, as SimCLR has it)."""
    blur_probability: float = 1.0
    """How often there is a blur at all (silent; SimCLR's is 0.5)."""

    def __post_init__(self) -> None:
        require(self.size >= 16, f"transform.size must be at least 16, got {self.size}")
        for name in ("flip", "jitter_probability", "blur_probability"):
            probability = getattr(self, name)
            require(0 <= probability <= 1, f"transform.{name} is a probability, got {probability}")
        require(self.degrees >= 0, f"transform.degrees must not be negative, got {self.degrees}")
        require(0 <= self.translate < 1, f"transform.translate must lie in [0, 1), got {self.translate}")
        require(
            self.blur_kernel % 2 == 1 and 0 < self.blur_kernel < 2 * self.size,
            f"transform.blur_kernel must be odd and positive, and below twice the size, got {self.blur_kernel}",
        )
        for name in ("crop", "aspect", "scale", "brightness", "contrast", "blur_sigma"):
            low, high = getattr(self, name)
            require(0 <= low <= high, f"transform.{name} must be a range 0 <= low <= high, got {low}, {high}")
        require(self.crop[0] > 0 and self.crop[1] <= 1, f"transform.crop must lie in (0, 1], got {self.crop}")
        require(
            self.aspect[0] > 0 and self.aspect[1] < math.inf, f"transform.aspect must be positive, got {self.aspect}"
        )


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """The optimiser and its schedule (A)."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """Rule of the steps (A: Adam; E: SGD for MoCo v2)."""
    momentum: float = 0.9
    """Of SGD (silent; the default of MoCo's code)."""
    learning_rate: float = 1e-4
    """Initial learning rate (A)."""
    text_learning_rate: float | None = None
    """Initial learning rate of the text encoder alone; None means the same (A: the same)."""
    weight_decay: float = 1e-6
    """L2 penalty; with adamw the decoupled one (A)."""
    batch_size: int = 32
    """Pairs per step (A)."""
    warmup_steps: int = 0
    """Steps of linear warm-up (not in the paper; used by the demo alone)."""
    cosine_steps: int | None = None
    """If set, the rate also falls along a half cosine to zero at this step (not in the paper; the demo's)."""
    cosine_from: int = 0
    """Step at which that cosine begins (not in the paper; the demo's)."""
    decay_epochs: tuple[float, ...] = ()
    """Epochs after which the rate is multiplied by `decay_factor` (E: 60 and 80 for MoCo v2)."""
    decay_factor: float = 0.1
    """What the rate is multiplied by then (E)."""
    clip_norm: float | None = None
    """Largest gradient norm, if any (not in the paper)."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"optimiser.learning_rate must be positive, got {self.learning_rate}")
        require(self.weight_decay >= 0, f"optimiser.weight_decay must not be negative, got {self.weight_decay}")
        require(0 <= self.momentum < 1, f"optimiser.momentum must lie in [0, 1), got {self.momentum}")
        require(
            all(0 < epoch < math.inf for epoch in self.decay_epochs)
            and list(self.decay_epochs) == sorted(set(self.decay_epochs)),
            f"optimiser.decay_epochs must be positive and rise, got {self.decay_epochs}",
        )
        require(0 < self.decay_factor <= 1, f"optimiser.decay_factor must lie in (0, 1], got {self.decay_factor}")
        require(self.warmup_steps >= 0, f"optimiser.warmup_steps must not be negative, got {self.warmup_steps}")
        require(
            self.cosine_steps is None or 0 <= self.cosine_from < self.cosine_steps,
            f"optimiser.cosine_steps must lie above cosine_from, got {self.cosine_steps} and {self.cosine_from}",
        )
        require(
            self.clip_norm is None or self.clip_norm > 0, f"optimiser.clip_norm must be positive, got {self.clip_norm}"
        )
        text_rate = self.text_learning_rate
        require(text_rate is None or text_rate > 0, f"optimiser.text_learning_rate must be positive, got {text_rate}")
        require(self.batch_size >= 2, f"optimiser.batch_size must be at least 2, got {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation, rate halving, stopping and the best checkpoint (A)."""

    every: int = 5000
    """Steps between evaluations (A)."""
    pairs: int = 5000
    """How many held-out pairs are scored (A)."""
    patience: int = 5
    """The rate is halved when the loss has not fallen for this many evaluations (A)."""
    factor: float = 0.5
    """What the rate is multiplied by then (A)."""
    max_evaluations: int = 200
    """Training stops after this many evaluations (A)."""

    def __post_init__(self) -> None:
        for name in ("every", "pairs", "patience", "max_evaluations"):
            require(getattr(self, name) >= 1, f"validation.{name} must be at least 1, got {getattr(self, name)}")
        require(0 < self.factor < 1, f"validation.factor must lie in (0, 1), got {self.factor}")
