"""One pretraining run, whole: encoders, projections, views, objective, optimiser, validation.

A section reference after a field names the place in the ConVIRT paper that fixes its default; "silent" marks a
choice of ours, listed in docs/paper.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Suppress

from convirt.config.settings import (
    Count,
    CountOrNone,
    Positive,
    PositiveOrNone,
    Range,
    Settings,
    Share,
    StepsWithin,
    Within,
    require,
)

AtLeast0 = Annotated[int, Within("[0, inf)")]
Steps = int | float
"""A number of steps, or as a decimal number a share of the run's, so that a shorter run has the same schedule."""
OBJECTIVES: "dict[str, type[Objective]]" = {}
"""The objective of each method, by its name, entered where it is defined; `convirt.recipes` imports them all."""


@dataclass(frozen=True, kw_only=True)
class Objective(Settings):
    """The constants of one method's equations: `class ContrastiveObjective(Objective, method="convirt")`.

    The method's name, a key of `convirt.methods.METHODS`, enters the class in `OBJECTIVES`. A method keeps its own
    beside its recipes (`convirt/recipes/siglip.py`); that of ConVIRT is here, as it is the default.
    """

    section: ClassVar[str] = "objective."

    def __init_subclass__(cls, *, method: str | None = None) -> None:
        if method is not None:
            OBJECTIVES[method] = cls


@dataclass(frozen=True, kw_only=True)
class ContrastiveObjective(Objective, method="convirt"):
    """ConVIRT: the bidirectional contrastive objective (2.2)."""

    temperature: Positive = 0.1
    """tau, fixed (A)."""
    weight: Share = 0.75
    """lambda, the share of the image-to-text loss (A)."""


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig(Settings):
    """The image encoder f_v."""

    section: ClassVar[str] = "image_encoder."

    name: str = "resnet50.tv_in1k"
    """Architecture: any timm model name (2.3: ResNet-50)."""
    weights: str = "hub"
    """Where the initial weights come from: `hub` (timm's pretrained tag), `random`, `package:NAME` (a weight file
    inside an installed Python package), or the path of a local file or folder (A: ImageNet)."""


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig(Settings):
    """The text encoder f_u."""

    section: ClassVar[str] = "text_encoder."

    source: str = "emilyalsentzer/Bio_ClinicalBERT"
    """Hugging Face hub id, local folder, `package:NAME` (a model folder inside an installed package), or a run of ours
    whose text encoder to start from, such as that of a masked language model (2.3)."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """`random` keeps only the architecture and the tokenizer of the source."""
    pooling: Literal["max", "mean", "cls"] = "max"
    """How token vectors become one vector; padding never takes part (2.3: max)."""
    frozen_layers: AtLeast0 = 6
    """How many transformer layers, counted from the input, are not trained (2.3: the first 6)."""
    freeze_embeddings: bool = True
    """Whether the embedding tables stay as they are (2.3)."""
    max_tokens: Annotated[int, Within("[4, inf)")] = 128
    """Longer sentences are cut to this many word pieces (silent)."""


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig(Settings):
    """The projections g_v and g_u into the shared space."""

    section: ClassVar[str] = "projection."

    dim: Count = 512
    """Size d of the shared space (A)."""
    hidden: CountOrNone = None
    """Width of the single hidden layer; None means as wide as its input (silent)."""
    linear: bool = False
    """Replace the hidden layer by one linear map (F, table 5)."""
    bias: bool = True
    """Whether the linear maps have a bias (silent)."""


@dataclass(frozen=True, kw_only=True)
class TransformConfig(Settings):
    """The image transformation family T that t_v is drawn from (2.3, A)."""

    section: ClassVar[str] = "transform."

    size: Annotated[int, Within("[16, inf)")] = 224
    """Side of the square that the encoder sees, pixels (A)."""
    crop: Annotated[Range, Within("(0, 1]")] = (0.6, 1.0)
    """Range of the ratio of crop area to image area (A; area is silent)."""
    aspect: Annotated[Range, Within("(0, inf)")] = (1.0, 1.0)
    """Range of the crop's width to its height, log-uniform; (1, 1) is square (silent; SimCLR's is (3/4, 4/3))."""
    flip: Share = 0.5
    """Probability of a horizontal flip (A). It destroys laterality: set 0 where reports name sides and that matters."""
    degrees: Annotated[float, Within("[0, inf)")] = 20.0
    """Rotation is uniform in [-degrees, degrees] (A)."""
    translate: Annotated[float, Within("[0, 1)")] = 0.1
    """Largest shift as a part of the side, in both directions (A)."""
    scale: Annotated[Range, Within("[0, inf)")] = (0.95, 1.05)
    """Range of the affine scale (A)."""
    brightness: Annotated[Range, Within("[0, inf)")] = (0.6, 1.4)
    """Range of the brightness ratio (A)."""
    contrast: Annotated[Range, Within("[0, inf)")] = (0.6, 1.4)
    """Range of the contrast ratio (A)."""
    jitter_probability: Share = 1.0
    """How often brightness and contrast are changed at all (silent; SimCLR's is 0.8)."""
    blur_sigma: Annotated[Range, Within("[0, inf)")] = (0.1, 3.0)
    """Range of the Gaussian's sigma, pixels (A)."""
    blur_kernel: int = 23
    """Side of the blur kernel, odd, pixels (silent: about a tenth of 224, as SimCLR has it)."""
    blur_probability: Share = 1.0
    """How often there is a blur at all (silent; SimCLR's is 0.5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.blur_kernel % 2 == 1 and 0 < self.blur_kernel < 2 * self.size,
            f"transform.blur_kernel must be odd and positive, and below twice the size, got {self.blur_kernel}",
        )


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig(Settings):
    """The optimiser and its schedule (A)."""

    section: ClassVar[str] = "optimiser."

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """Rule of the steps (A: Adam; E: SGD for MoCo v2)."""
    momentum: Annotated[float, Within("[0, 1)")] = 0.9
    """Of SGD (silent; the default of MoCo's code)."""
    learning_rate: Positive = 1e-4
    """Initial learning rate (A)."""
    text_learning_rate: PositiveOrNone = None
    """Initial learning rate of the text encoder alone; None means the same (A: the same)."""
    weight_decay: Annotated[float, Within("[0, inf)")] = 1e-6
    """L2 penalty; with adamw the decoupled one (A)."""
    batch_size: Annotated[int, Within("[2, inf)")] = 32
    """Pairs per step (A)."""
    warmup_steps: Annotated[Steps, StepsWithin("[0, inf)")] = 0
    """Steps of linear warm-up, or a share of the run such as 0.02 (not in the paper; used by the demo alone)."""
    cosine_steps: Annotated[Steps | None, StepsWithin("[1, inf)")] = None
    """If set, the rate also falls along a half cosine to zero at this step, or share of the run: 1.0 is its end (not in
    the paper; the demo's)."""
    cosine_from: Annotated[Steps, StepsWithin("[0, inf)")] = 0
    """Step, or share of the run, at which that cosine begins (not in the paper; the demo's)."""
    decay_epochs: Annotated[tuple[float, ...], Within("(0, inf)")] = ()
    """Epochs after which the rate is multiplied by `decay_factor` (E: 60 and 80 for MoCo v2)."""
    decay_factor: Annotated[float, Within("(0, 1]")] = 0.1
    """What the rate is multiplied by then (E)."""
    clip_norm: PositiveOrNone = None
    """Largest gradient norm, if any (not in the paper)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(set(self.decay_epochs)) == len(self.decay_epochs),
            f"optimiser.decay_epochs must rise, got {self.decay_epochs}",
        )
        require(
            self.cosine_steps is None
            or type(self.cosine_from) is not type(self.cosine_steps)
            or self.cosine_from < self.cosine_steps,
            f"optimiser.cosine_steps must lie above cosine_from, got {self.cosine_steps} and {self.cosine_from}",
        )


@dataclass(frozen=True, kw_only=True)
class ValidationConfig(Settings):
    """Validation, rate halving, stopping and the best checkpoint (A)."""

    section: ClassVar[str] = "validation."

    every: Annotated[Steps, StepsWithin("[1, inf)")] = 5000
    """Steps between evaluations, or a share of the run such as 0.25 (A)."""
    pairs: Count = 5000
    """How many held-out pairs are scored (A)."""
    patience: Count = 5
    """The rate is halved when the loss has not fallen for this many evaluations (A)."""
    factor: Annotated[float, Within("(0, 1)")] = 0.5
    """What the rate is multiplied by then (A)."""
    max_evaluations: Count = 200
    """Training stops after this many evaluations (A)."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Settings):
    """One pretraining run, whole: what `config.json` of a run holds."""

    recipe: Annotated[str, Suppress] = "paper_chest"
    """Name of the recipe that this configuration started from; no option, as it names and decides nothing."""
    method: str = "convirt"
    """Pretraining method, a key of `convirt.methods.METHODS`."""
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    objective: Objective = field(default_factory=ContrastiveObjective)
    """Constants of the method's equations, of the class that `OBJECTIVES` names for the method."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    seed: int = 0
    """Every draw is a function of this seed, the epoch and the step."""
    max_steps: CountOrNone = None
    """Stop after this many steps, if before the validation rule does."""
    max_epochs: CountOrNone = None
    """Stop after this many visits of each training pair, if before the other rules do."""
    checkpoint_every: Annotated[Steps, StepsWithin("[1, inf)")] = 1000
    """Steps between resumable checkpoints, or a share of the run; one is also written at each evaluation and at a stop
    signal."""
    keep_every: CountOrNone = None
    """Keep the checkpoint of each so many evaluations, in checkpoints/, to set downstream scores against the validation
    loss (figure 5: 40 points of 200 evaluations, so 5); None keeps the best and the last alone."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Number format; auto is bf16-mixed on a GPU or CPU that has it in hardware, else 16-mixed on a GPU and 32-true on
    a CPU (A: mixed). On a CPU the image encoder stays in float32: convolutions in bf16 are slower there."""
    workers: AtLeast0 = 0
    """Processes that read batches ahead; the batches do not depend on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ", ".join(OBJECTIVES)
        require(self.method in OBJECTIVES, f"method {self.method!r} is unknown; known are {known}")
        require(
            type(self.objective) is OBJECTIVES[self.method],
            f"method {self.method!r} has another objective than {type(self.objective).__name__}; start from a recipe "
            "of that method",
        )

    @classmethod
    def types(cls, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The type of each setting; that of the objective is the method's."""
        method = values.get("method", cls.method)
        require(method in OBJECTIVES, f"{where}: method {method!r} is unknown; known are {', '.join(OBJECTIVES)}")
        return super().types(values, where) | {"objective": OBJECTIVES[method]}

    def in_steps(self, total: int) -> "PretrainConfig":
        """The configuration of a run of `total` steps, with steps in the place of shares of it."""

        def steps(value: Any) -> Any:
            return max(1, round(value * total)) if isinstance(value, float) and value else value

        optimiser, names = self.optimiser, ("warmup_steps", "cosine_from", "cosine_steps")
        return replace(
            self,
            optimiser=replace(optimiser, **{name: steps(getattr(optimiser, name)) for name in names}),
            validation=replace(self.validation, every=steps(self.validation.every)),
            checkpoint_every=steps(self.checkpoint_every),
        )
