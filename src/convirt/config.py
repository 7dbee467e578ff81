"""Every setting of a run, as frozen dataclasses; the defaults are the paper's chest encoder.

A section reference after a field names the place in the ConVIRT paper that fixes its default; "silent" marks a
choice of ours, listed in docs/paper.md.
"""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tyro.conf import Suppress

from convirt.errors import InputError

T = TypeVar("T")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


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
    """Hugging Face hub id, local folder, or `package:NAME` (a model folder inside an installed package) (2.3)."""
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
        _require(self.frozen_layers >= 0, f"text_encoder.frozen_layers must be 0 or more, got {self.frozen_layers}")
        _require(self.max_tokens >= 4, f"text_encoder.max_tokens must be 4 or more, got {self.max_tokens}")


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
        _require(self.dim >= 1, f"projection.dim must be positive, got {self.dim}")
        _require(self.hidden is None or self.hidden >= 1, f"projection.hidden must be positive, got {self.hidden}")


@dataclass(frozen=True, kw_only=True)
class TransformConfig:
    """The image transformation family T that t_v is drawn from (2.3, A)."""

    size: int = 224
    """Side of the square that the encoder sees, pixels (A)."""
    crop: tuple[float, float] = (0.6, 1.0)
    """Range of the ratio of crop area to image area (A; area is silent)."""
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
    blur_sigma: tuple[float, float] = (0.1, 3.0)
    """Range of the Gaussian's sigma, pixels (A)."""
    blur_kernel: int = 23
    """Side of the blur kernel, odd, pixels (silent: about a tenth of 224, as SimCLR has it)."""

    def __post_init__(self) -> None:
        _require(self.size >= 16, f"transform.size must be at least 16, got {self.size}")
        _require(0 <= self.flip <= 1, f"transform.flip is a probability, got {self.flip}")
        _require(self.degrees >= 0, f"transform.degrees must not be negative, got {self.degrees}")
        _require(0 <= self.translate < 1, f"transform.translate must lie in [0, 1), got {self.translate}")
        _require(
            self.blur_kernel % 2 == 1 and 0 < self.blur_kernel < 2 * self.size,
            f"transform.blur_kernel must be odd and positive, and below twice the size, got {self.blur_kernel}",
        )
        for name in ("crop", "scale", "brightness", "contrast", "blur_sigma"):
            low, high = getattr(self, name)
            _require(0 <= low <= high, f"transform.{name} must be a range 0 <= low <= high, got {low}, {high}")
        _require(self.crop[0] > 0 and self.crop[1] <= 1, f"transform.crop must lie in (0, 1], got {self.crop}")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The bidirectional contrastive objective (2.2)."""

    temperature: float = 0.1
    """tau, fixed (A)."""
    weight: float = 0.75
    """lambda, the share of the image-to-text loss (A)."""

    def __post_init__(self) -> None:
        _require(0 < self.temperature < math.inf, f"objective.temperature must be positive, got {self.temperature}")
        _require(0 <= self.weight <= 1, f"objective.weight must lie in [0, 1], got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Adam and its schedule (A)."""

    learning_rate: float = 1e-4
    """Initial learning rate (A)."""
    text_learning_rate: float | None = None
    """Initial learning rate of the text encoder alone; None means the same (A: the same)."""
    weight_decay: float = 1e-6
    """L2 penalty (A)."""
    batch_size: int = 32
    """Pairs per step (A)."""
    warmup_steps: int = 0
    """Steps of linear warm-up (not in the paper; used by the demo alone)."""
    cosine_steps: int | None = None
    """If set, the rate also falls along a half cosine to zero at this step (not in the paper; the demo's)."""
    cosine_from: int = 0
    """Step at which that cosine begins (not in the paper; the demo's)."""
    clip_norm: float | None = None
    """Largest gradient norm, if any (not in the paper)."""

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, f"optimiser.learning_rate must be positive, got {self.learning_rate}")
        _require(self.weight_decay >= 0, f"optimiser.weight_decay must not be negative, got {self.weight_decay}")
        _require(self.warmup_steps >= 0, f"optimiser.warmup_steps must not be negative, got {self.warmup_steps}")
        _require(
            self.cosine_steps is None or 0 <= self.cosine_from < self.cosine_steps,
            f"optimiser.cosine_steps must lie above cosine_from, got {self.cosine_steps} and {self.cosine_from}",
        )
        _require(
            self.clip_norm is None or self.clip_norm > 0, f"optimiser.clip_norm must be positive, got {self.clip_norm}"
        )
        text_rate = self.text_learning_rate
        _require(text_rate is None or text_rate > 0, f"optimiser.text_learning_rate must be positive, got {text_rate}")
        _require(self.batch_size >= 2, f"optimiser.batch_size must be at least 2, got {self.batch_size}")


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
            _require(getattr(self, name) >= 1, f"validation.{name} must be at least 1, got {getattr(self, name)}")
        _require(0 < self.factor < 1, f"validation.factor must lie in (0, 1), got {self.factor}")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining run, whole: what `config.json` of a run holds."""

    recipe: Annotated[str, Suppress] = "paper_chest"
    """Name of the recipe that this configuration started from; no option, as it names and decides nothing."""
    method: str = "convirt"
    """Pretraining method, a key of `convirt.methods.METHODS`."""
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    seed: int = 0
    """Every draw is a function of this seed, the epoch and the step."""
    max_steps: int | None = None
    """Stop after this many steps, if before the validation rule does."""
    checkpoint_every: int = 1000
    """Steps between resumable checkpoints; one is also written at each evaluation and at a stop signal."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Number format; auto is bf16-mixed on a GPU or CPU that has it in hardware, else 16-mixed on a GPU and 32-true on
    a CPU (A: mixed). On a CPU the image encoder stays in float32: convolutions in bf16 are slower there."""
    workers: int = 0
    """Processes that read batches ahead; the batches do not depend on it."""

    def __post_init__(self) -> None:
        _require(self.max_steps is None or self.max_steps >= 1, f"max_steps must be at least 1, got {self.max_steps}")
        _require(self.checkpoint_every >= 1, f"checkpoint_every must be at least 1, got {self.checkpoint_every}")
        _require(self.workers >= 0, f"workers must be 0 or more, got {self.workers}")


def from_dict(cls: type[T], values: dict[str, Any], *, where: str = "config") -> T:
    """Rebuild a configuration dataclass from plain JSON values.

    Args:
        cls: A dataclass of this module.
        values: What `dataclasses.asdict` gave, perhaps through JSON; lists become tuples where a tuple is declared.
        where: How the error message names the place.

    Raises:
        InputError: An unknown key, or a value that the dataclass refuses.
    """
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise InputError(f"{where}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
    hints = get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(hints[name], type) and is_dataclass(hints[name]):
            value = from_dict(hints[name], value, where=f"{where}.{name}")
        elif isinstance(value, list):
            value = tuple(value)
        _require(_fits(value, hints[name]), f"{where}.{name}: {value!r} is no {_spelled(hints[name])}")
        arguments[name] = value
    return cls(**arguments)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a declared type, as far as this module's types go."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in options
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in options)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(options) and all(map(_fits, value, options))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
