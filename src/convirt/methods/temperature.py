"""The learned temperature of CLIP (Radford et al. 2021, section 2.5)."""

import math

import torch
from torch import Tensor, nn

from convirt.config import LearnedTemperatureObjective


class LearnedTemperature(nn.Module):
    """1 / tau as a trained scalar, in logarithms so that it stays positive, and bounded from above."""

    def __init__(self, objective: LearnedTemperatureObjective) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(objective.initial_temperature)))
        self.largest = math.log(objective.largest_scale)

    def forward(self) -> Tensor:
        """The scale 1 / tau, at most the largest; in training what lies above is first brought back to it."""
        if not self.training:
            return self.log_scale.clamp(max=self.largest).exp()
        with torch.no_grad():
            self.log_scale.clamp_(max=self.largest)
        # Not clamped again: rounding may leave the bound itself without a gradient, and there would be no way back.
        return self.log_scale.exp()
