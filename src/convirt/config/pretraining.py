"""One pretraining run, whole."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Suppress

from convirt.config.checking import require
from convirt.config.objectives import OBJECTIVES, ContrastiveObjective, Objective
from convirt.config.parts import (
    ImageEncoderConfig,
    OptimiserConfig,
    ProjectionConfig,
    TextEncoderConfig,
    TransformConfig,
    ValidationConfig,
)


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
    objective: Objective = field(default_factory=ContrastiveObjective)
    """Constants of the method's equations, of the class that `OBJECTIVES` names for the method."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    seed: int = 0
    """Every draw is a function of this seed, the epoch and the step."""
    max_steps: int | None = None
    """Stop after this many steps, if before the validation rule does."""
    max_epochs: int | None = None
    """Stop after this many visits of each training pair, if before the other rules do."""
    checkpoint_every: int = 1000
    """Steps between resumable checkpoints; one is also written at each evaluation and at a stop signal."""
    keep_every: int | None = None
    """Keep the checkpoint of each so many evaluations, in checkpoints/, to set downstream scores against the validation
    loss (figure 5: 40 points of 200 evaluations, so 5); None keeps the best and the last alone."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Number format; auto is bf16-mixed on a GPU or CPU that has it in hardware, else 16-mixed on a GPU and 32-true on
    a CPU (A: mixed). On a CPU the image encoder stays in float32: convolutions in bf16 are slower there."""
    workers: int = 0
    """Processes that read batches ahead; the batches do not depend on it."""

    def __post_init__(self) -> None:
        expected = OBJECTIVES.get(self.method)
        require(expected is not None, f"method {self.method!r} is unknown; known are {', '.join(OBJECTIVES)}")
        require(
            type(self.objective) is expected,
            f"method {self.method!r} has another objective than {type(self.objective).__name__}; start from a recipe "
            "of that method",
        )
        require(self.max_steps is None or self.max_steps >= 1, f"max_steps must be at least 1, got {self.max_steps}")
        require(
            self.max_epochs is None or self.max_epochs >= 1, f"max_epochs must be at least 1, got {self.max_epochs}"
        )
        require(self.checkpoint_every >= 1, f"checkpoint_every must be at least 1, got {self.checkpoint_every}")
        require(
            self.keep_every is None or self.keep_every >= 1, f"keep_every must be at least 1, got {self.keep_every}"
        )
        require(self.workers >= 0, f"workers must be 0 or more, got {self.workers}")
