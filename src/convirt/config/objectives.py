"""What each pretraining method minimises: the constants of its equations, one dataclass a method.

A new method adds its dataclass here, and a line to `OBJECTIVES`.
"""

import math
from dataclasses import dataclass

from convirt.config.checking import require


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The constants of one method's equations."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveObjective(Objective):
    """ConVIRT: the bidirectional contrastive objective (2.2)."""

    temperature: float = 0.1
    """tau, fixed (A)."""
    weight: float = 0.75
    """lambda, the share of the image-to-text loss (A)."""

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, f"objective.temperature must be positive, got {self.temperature}")
        require(0 <= self.weight <= 1, f"objective.weight must lie in [0, 1], got {self.weight}")


OBJECTIVES: dict[str, type[Objective]] = {
    "convirt": ContrastiveObjective,
}
"""The objective of each method, a key of `convirt.methods.METHODS`."""
