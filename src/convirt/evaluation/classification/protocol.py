"""What a classification evaluation trains and scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.classification.schedule import Schedule
from convirt.evaluation.classification.units import Units
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.statistics.operating_points import Rule

Setting = Literal["linear", "finetuned"]
Head = Literal["paper", "logistic"]


@dataclass(frozen=True, kw_only=True)
class ClassificationProtocol:
    """How encoders are evaluated on a labelled table; the defaults are the paper's."""

    settings: tuple[Setting, ...] = ("linear",)
    """`linear` trains a head on the frozen encoder, `finetuned` both."""
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    heads: tuple[Head, ...] = ("paper", "logistic")
    """Heads of linear evaluation; fine-tuning has the paper's."""
    schedule: Schedule = field(default_factory=Schedule)
    """Of the paper's head, and of fine-tuning after its warm-up."""
    warmup_steps: int = 200
    """Steps of fine-tuning in which the head alone trains (appendix B)."""
    warmup_rate: float = 1e-3
    """Learning rate of these steps (appendix B)."""
    max_steps: int | None = None
    """Fine-tuning ends after so many steps of the whole network at the latest; None leaves it to the schedule."""
    resamples: int = 1000
    """Bootstrap resamples."""
    operating_points: tuple[Rule, ...] = (Rule(kind="youden"),)
    """How thresholds are chosen on validation."""

    def __post_init__(self) -> None:
        for name in ("settings", "fractions", "seeds", "heads"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name} must name at least one value and none twice, got {values}")
        for name, known in (("heads", ("paper", "logistic")), ("settings", ("linear", "finetuned"))):
            if unknown := sorted(set(getattr(self, name)) - set(known)):
                raise InputError(f"unknown {name[:-1]} {unknown[0]!r}; known are {', '.join(known)}")
        if self.warmup_steps < 0 or not self.warmup_rate > 0:
            raise InputError("fine-tuning needs warmup_steps >= 0 and warmup_rate > 0")
        if self.max_steps is not None and self.max_steps < 1:
            raise InputError(f"max_steps must be at least 1, got {self.max_steps}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """One column of a results table: what trained, with which head, on which share of the labels."""

    setting: Setting
    head: Head
    fraction: float

    @property
    def key(self) -> str:
        """Name in `predictions.npz`."""
        return f"{self.head if self.setting == 'linear' else self.setting}|{self.fraction:g}"


def check_task(table: LabelledTable, protocol: ClassificationProtocol) -> None:
    """Find out what is wrong with the labels before any image is encoded.

    Raises:
        InputError: A split or a fraction lacks what training and scoring need.
    """
    for fraction in protocol.fractions:
        table.training_subset(fraction, protocol.seeds[0])
    for split in ("val", "test"):
        targets_NC = table.targets_NC[table.rows("val")] if split == "val" else Units.of(table).targets_UC
        if not ((targets_NC == 1).any(axis=0) & (targets_NC == 0).any(axis=0)).any():
            raise InputError(f"the {split} rows hold no class with both positives and negatives; add such rows")
    if table.multi_label and protocol.schedule.select_on == "accuracy":
        raise InputError("accuracy is not defined for several labels; select on auc")


def draw_subsets(table: LabelledTable, fraction: float, seeds: Sequence[int]) -> list[NDArray[np.int64]]:
    """Positions among the training rows, for each seed: the same for every setting, head and method."""
    return [table.training_subset(fraction, seed) for seed in seeds]
