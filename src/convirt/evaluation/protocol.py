"""What a classification evaluation trains and scores, and how a classifier trains.

Linear evaluation and fine-tuning share the constants (ConVIRT, section 4.1 and appendix B), the order of rows, and the
rules that validation steers.

Shape legend: S seeds, N rows, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.inputs.options import Head, Setting
from convirt.evaluation.statistics.metrics import selection_score

if TYPE_CHECKING:
    from convirt.evaluation.inputs.table import LabelledTable

LEARNING_RATE = 1e-4  # appendix B; COVIDx, whose benchmark says so, has another


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The constants of appendix B."""

    learning_rate: float = LEARNING_RATE
    """Initial rate of Adam; the paper takes 1e-3 for COVIDx."""
    weight_decay: float = 1e-6
    """L2 penalty."""
    dropout: float = 0.2
    """Share of the features set to zero at each visit."""
    batch_size: int = 64
    """Rows per step; the last, smaller minibatch of an epoch also counts (silent)."""
    patience: int = 3
    """The rate is halved after this many epochs without a better validation score."""
    stop_after: int = 10
    """Training stops after this many epochs without a better validation score."""
    least_steps: int = 4
    """Where a pass over the subset takes fewer steps than this, an epoch is as many passes as make them: ours. The
    paper's smallest epoch, 1 % of RSNA, has 4 steps; at one step an epoch the rules would stop a head after ten steps,
    next to its random start."""
    max_epochs: int = 200
    """Training stops here at the latest (silent: the paper names no limit)."""
    select_on: Literal["auc", "accuracy"] = "auc"
    """The validation score."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise InputError(f"the head's learning rate must be positive, got {self.learning_rate}")
        if self.max_epochs < 1:
            raise InputError(f"max_epochs must be at least 1, got {self.max_epochs}")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the threshold of an operating point is chosen on validation rows."""

    kind: str
    """`youden` (the largest sensitivity + specificity), `sensitivity` or `specificity` (at least the target)."""
    target: float | None = None
    """The least sensitivity or specificity on validation; of the thresholds that reach it, the best other one."""

    def __str__(self) -> str:
        return self.kind if self.target is None else f"{self.kind}={self.target:g}"

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Read `youden`, `sensitivity=0.9` or `specificity=0.9`.

        Raises:
            InputError: It is none of them.
        """
        kind, equals, value = text.strip().partition("=")
        if kind == "youden" and not equals:
            return cls(kind=kind)
        try:
            target = float(value)
        except ValueError:
            target = float("nan")
        if kind not in ("sensitivity", "specificity") or not 0 < target <= 1:
            raise InputError(
                f"unknown operating point {text!r}; use youden, sensitivity=0.9 or specificity=0.9 (in (0, 1])"
            )
        return cls(kind=kind, target=target)


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

    def subsets(self, table: "LabelledTable", fraction: float) -> list[NDArray[np.int64]]:
        """Positions among the training rows, for each seed: the same for every setting, head and method."""
        return [table.training_subset(fraction, seed) for seed in self.seeds]

    def check(self, table: "LabelledTable") -> None:
        """Check the labels before any image is encoded.

        Raises:
            InputError: A split or a fraction lacks what training and scoring need.
        """
        from convirt.evaluation.inputs.units import Units

        for fraction in self.fractions:
            table.training_subset(fraction, self.seeds[0])
        for split in ("val", "test"):
            targets_NC = table.targets_NC[table.rows("val")] if split == "val" else Units.of(table).targets_UC
            if not ((targets_NC == 1).any(axis=0) & (targets_NC == 0).any(axis=0)).any():
                raise InputError(f"the {split} rows hold no class with both positives and negatives; add such rows")
        if table.multi_label and self.schedule.select_on == "accuracy":
            raise InputError("accuracy is not defined for several labels; select on auc")


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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Predictions of the trained classifiers of one method in one place: all that scoring needs."""

    test_SNC: NDArray[np.float32]
    """Probabilities of the test rows."""
    val_SNC: NDArray[np.float32]
    """Probabilities of the validation rows, which thresholds are chosen on."""
    selected: list[dict[str, Any]]
    """What validation chose, for each seed."""

    @classmethod
    def stack(cls, each: Sequence["Outcome"]) -> "Outcome":
        """The seeds of several outcomes as one."""
        return cls(
            test_SNC=np.concatenate([outcome.test_SNC for outcome in each]),
            val_SNC=np.concatenate([outcome.val_SNC for outcome in each]),
            selected=[chosen for outcome in each for chosen in outcome.selected],
        )


Outcomes = dict[Place, dict[str, Outcome]]
"""Outcomes by place, then by method."""


def minibatches(
    subset: NDArray[np.int64], generator: np.random.Generator, schedule: Schedule
) -> list[NDArray[np.int64]]:
    """The rows of each minibatch of one epoch, in an order drawn from the generator."""
    starts = range(schedule.batch_size, len(subset), schedule.batch_size)
    queue: list[NDArray[np.int64]] = []
    while not queue or len(queue) < schedule.least_steps:
        queue += np.split(generator.permutation(subset), starts)
    return queue


class Plateau:
    """The validation rules of appendix B, for each seed: halve the rate, stop, remember the best."""

    def __init__(self, seeds: int, schedule: Schedule) -> None:
        self._schedule = schedule
        self.rate_S = np.full(seeds, schedule.learning_rate, dtype=np.float32)
        self.active_S = np.ones(seeds, dtype=bool)
        self.best_S = np.full(seeds, -np.inf)
        self.epoch_S = np.zeros(seeds, dtype=np.int64)
        self._since_halving_S = np.zeros(seeds, dtype=np.int64)

    def update(self, epoch: int, scores_SNC: NDArray[np.float32], targets_NC: NDArray) -> NDArray[np.bool_]:
        """Score the epoch on validation; returns which seeds have a new best [S].

        Raises:
            InputError: The validation rows hold no class with both positives and negatives.
        """
        score_S = np.array([selection_score(self._schedule.select_on, targets_NC, scores) for scores in scores_SNC])
        if not np.isfinite(score_S).all():
            raise InputError("the validation rows hold no class with both positives and negatives; add such rows")
        better_S = (score_S > self.best_S) & self.active_S
        self.best_S = np.where(better_S, score_S, self.best_S)
        self.epoch_S = np.where(better_S, epoch, self.epoch_S)
        self._since_halving_S = np.where(better_S, 0, self._since_halving_S + 1)
        halve_S = self._since_halving_S >= self._schedule.patience
        self._since_halving_S[halve_S] = 0
        self.rate_S = np.where(halve_S, self.rate_S / 2, self.rate_S).astype(np.float32)
        self.active_S = self.active_S & (epoch - self.epoch_S < self._schedule.stop_after)
        return better_S

    def state(self) -> dict[str, list[Any]]:
        """Everything that `restore` needs to go on, as JSON values."""
        return {
            "rate": self.rate_S.tolist(),
            "active": self.active_S.tolist(),
            "best": self.best_S.tolist(),
            "epoch": self.epoch_S.tolist(),
            "since_halving": self._since_halving_S.tolist(),
        }

    def restore(self, state: Mapping[str, Sequence[Any]]) -> None:
        """Go back to a state."""
        self.rate_S = np.array(state["rate"], dtype=np.float32)
        self.active_S = np.array(state["active"], dtype=bool)
        self.best_S = np.array(state["best"], dtype=np.float64)
        self.epoch_S = np.array(state["epoch"], dtype=np.int64)
        self._since_halving_S = np.array(state["since_halving"], dtype=np.int64)
