"""How a classifier trains, whatever of it trains (ConVIRT, section 4.1 and appendix B).

Linear evaluation and fine-tuning share these constants, the order of rows, and the rules that validation steers.

Shape legend: S seeds, N rows, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convirt.errors import InputError
from convirt.evaluation.statistics.metrics import selection_score


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The constants of appendix B."""

    learning_rate: float = 1e-4
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
        self.rate_S = torch.full((seeds,), schedule.learning_rate)
        self.active_S = torch.ones(seeds, dtype=torch.bool)
        self.best_S = np.full(seeds, -np.inf)
        self.epoch_S = np.zeros(seeds, dtype=np.int64)
        self._since_halving_S = np.zeros(seeds, dtype=np.int64)

    def update(self, epoch: int, scores_SNC: NDArray[np.float32], targets_NC: NDArray[np.float64]) -> Tensor:
        """Score the epoch on validation; returns which seeds have a new best [S].

        Raises:
            InputError: The validation rows hold no class with both positives and negatives.
        """
        score_S = np.array([selection_score(self._schedule.select_on, targets_NC, scores) for scores in scores_SNC])
        if not np.isfinite(score_S).all():
            raise InputError("the validation rows hold no class with both positives and negatives; add such rows")
        better_S = (score_S > self.best_S) & self.active_S.numpy()
        self.best_S = np.where(better_S, score_S, self.best_S)
        self.epoch_S = np.where(better_S, epoch, self.epoch_S)
        self._since_halving_S = np.where(better_S, 0, self._since_halving_S + 1)
        halve_S = self._since_halving_S >= self._schedule.patience
        self._since_halving_S[halve_S] = 0
        self.rate_S = torch.where(torch.from_numpy(halve_S), self.rate_S / 2, self.rate_S)
        self.active_S &= torch.from_numpy(epoch - self.epoch_S < self._schedule.stop_after)
        return torch.from_numpy(better_S)

    def state(self) -> dict[str, NDArray]:
        """Everything that `restore` needs to go on."""
        return {
            "rate": self.rate_S.numpy().copy(),
            "active": self.active_S.numpy().copy(),
            "best": self.best_S.copy(),
            "epoch": self.epoch_S.copy(),
            "since_halving": self._since_halving_S.copy(),
        }

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Go back to a state."""
        self.rate_S = torch.from_numpy(state["rate"].astype(np.float32))
        self.active_S = torch.from_numpy(state["active"].astype(bool))
        self.best_S = state["best"].astype(np.float64)
        self.epoch_S = state["epoch"].astype(np.int64)
        self._since_halving_S = state["since_halving"].astype(np.int64)
