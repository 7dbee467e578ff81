"""The optimiser, its rate, and the rule that lowers the rate and picks the best checkpoint (ConVIRT, appendix A)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convirt.config import OptimiserConfig, ValidationConfig
from convirt.methods import Method


def build_optimiser(method: Method, config: OptimiserConfig, *, fused: bool = True) -> torch.optim.Optimizer:
    """The optimiser over the trainable parameters; weight decay is the L2 penalty, but AdamW's for `adamw`.

    The groups are the method's; each holds its share of the learning rate as `rate_share`.

    Args:
        method: What to train; its frozen part is left alone.
        config: Kind, learning rates, weight decay and momentum.
        fused: One kernel for all parameters; about three times as fast on a CPU.
    """
    groups = [
        {
            "params": list(group.parameters.values()),
            "rate_share": group.rate_share,
            "weight_decay": config.weight_decay if group.decays else 0.0,
        }
        for group in method.parameter_groups()
    ]
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": fused}
    if config.kind == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **shared)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.kind]
    return kind(groups, **shared)


def learning_rate(
    step: int, config: OptimiserConfig, factor: float = 1.0, *, steps_per_epoch: int | None = None
) -> float:
    """The rate that step number `step`, counted from 0, is taken with.

    Args:
        step: Which step.
        config: The initial rate, the epochs of its decay (E), and the warm-up and cosine that are not in the paper.
        factor: What the plateau rule has made of the rate so far.
        steps_per_epoch: Steps in which each training pair is visited once; needed where the rate decays by epochs.
    """
    rate = config.learning_rate * factor
    if config.decay_epochs:
        assert steps_per_epoch is not None
        rate *= config.decay_factor ** sum(step >= epoch * steps_per_epoch for epoch in config.decay_epochs)
    if step < config.warmup_steps:
        rate *= (step + 1) / config.warmup_steps
    if config.cosine_steps is not None and step > config.cosine_from:
        part = (step - config.cosine_from) / (config.cosine_steps - config.cosine_from)
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, part)))
    return rate


@dataclass
class PlateauRule:
    """What the validations so far say: the best one, and how far the rate has been lowered.

    The rate is multiplied by `ValidationConfig.factor` when the figure (of most methods the loss) has not become
    better than its best value for `patience` straight evaluations; the count then starts anew.
    """

    higher_is_better: bool = False
    """Whether the figure is a score and not a loss."""
    best: float | None = None
    """Best figure so far; None before the first evaluation."""
    best_step: int = 0
    """Steps taken when it was measured."""
    evaluations: int = 0
    """Evaluations so far."""
    waited: int = 0
    """Straight evaluations without a new best since the last one or the last lowering of the rate."""
    factor: float = 1.0
    """The rate's factor."""

    def update(self, figure: float, step: int, config: ValidationConfig) -> bool:
        """Take in the figure of the validation after `step` steps; says whether it is the best so far."""
        self.evaluations += 1
        if self.best is None or (figure > self.best if self.higher_is_better else figure < self.best):
            self.best, self.best_step, self.waited = figure, step, 0
            return True
        self.waited += 1
        if self.waited == config.patience:
            self.factor *= config.factor
            self.waited = 0
        return False


def optimiser_tensors(method: Method, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors, `parameter name/state name`."""
    return {
        f"{name}/{key}": value
        for name, parameter in method.parameters_to_train().items()
        for key, value in optimiser.state[parameter].items()
        if value is not None  # as SGD without momentum has it
    }


def restore_optimiser(method: Method, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave.

    Moments get the memory layout of their parameter: a kernel may round differently over another layout.

    Raises:
        KeyError: A tensor belongs to no trainable parameter.
    """
    parameters = method.parameters_to_train()
    state: dict[str, dict[str, Any]] = {name: {} for name in parameters}
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        like = parameters[name]
        if entry == "step":  # which only the fused kernel wants on the device
            state[name][entry] = tensor.to(like.device) if optimiser.defaults["fused"] else tensor
        else:
            state[name][entry] = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
    for name, entries in state.items():
        optimiser.state[parameters[name]] = entries
