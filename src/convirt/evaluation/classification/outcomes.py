"""What trained classifiers say about validation and test rows: all that scoring needs to know of them.

Shape legend: S seeds, N rows, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.classification.protocol import Place


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One method in one place of the table."""

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
