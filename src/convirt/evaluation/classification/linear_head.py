"""The linear head on frozen features (ConVIRT, section 4.1 and appendix B).

The encoder is frozen and in evaluation mode, so the head trains on features that were computed once. The heads of all
seeds train side by side as one batch of heads; each has its own subset, initialisation, order, dropout, learning rate
and stopping, and ends where it would end alone.

Shape legend: S seeds, N rows, B rows of a minibatch, D features, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convirt.data.loading.loader import derive_seed
from convirt.evaluation.classification.schedule import Plateau, Schedule, minibatches
from convirt.evaluation.inputs.features import LabelledFeatures


@dataclass(frozen=True, kw_only=True)
class LinearHeads:
    """The best checkpoint of each seed's head."""

    weight_SCD: Tensor
    bias_SC: Tensor
    best_S: NDArray[np.float64]
    """Validation score of the checkpoint."""
    epoch_S: NDArray[np.int64]
    """Epoch of the checkpoint, counted from 1."""
    multi_label: bool

    def scores(self, features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities [S, N, C]: softmax over classes, or a sigmoid for each label."""
        with torch.no_grad():
            seeds, classes, dim = self.weight_SCD.shape
            inputs_ND = torch.from_numpy(np.ascontiguousarray(features_ND, dtype=np.float32))
            logits_NSC = (inputs_ND @ self.weight_SCD.reshape(-1, dim).T).view(-1, seeds, classes) + self.bias_SC
            logits_SNC = logits_NSC.transpose(0, 1).contiguous()
            return (logits_SNC.sigmoid() if self.multi_label else logits_SNC.softmax(-1)).numpy()


def train_heads(
    train: LabelledFeatures,
    val: LabelledFeatures,
    subsets: Sequence[NDArray[np.int64]],
    seeds: Sequence[int],
    config: Schedule,
) -> LinearHeads:
    """Train one head for each seed on its subset of the training rows.

    It takes one processor core: a step is too small to share, and cores that wait for each other slow it down.

    Args:
        train: All training rows.
        val: Validation rows: they set the rate and choose the checkpoint.
        subsets: Training rows of each seed.
        seeds: Each draws its head's initialisation, order and dropout.
        config: The constants.

    Raises:
        InputError: The validation rows hold no class with both positives and negatives.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train(train, val, subsets, seeds, config)
    finally:
        torch.set_num_threads(threads)


def _train(
    train: LabelledFeatures,
    val: LabelledFeatures,
    subsets: Sequence[NDArray[np.int64]],
    seeds: Sequence[int],
    config: Schedule,
) -> LinearHeads:
    features_ND = torch.from_numpy(np.ascontiguousarray(train.features_ND, dtype=np.float32))
    targets_NC = torch.from_numpy(train.targets_NC.astype(np.float32))
    weight, bias = _initial(features_ND.shape[1], targets_NC.shape[1], seeds)
    adam = _Adam((weight, bias), config)
    plateau = Plateau(len(seeds), config)
    best_weight, best_bias = weight.clone(), bias.clone()
    for epoch in range(1, config.max_epochs + 1):
        for rows_SB, valid_SB, keep_SBD in _minibatches(subsets, seeds, epoch, features_ND.shape[1], config):
            inputs_SBD = keep_SBD.mul_(features_ND[rows_SB])
            logits_SBC = torch.baddbmm(
                bias[:, None], inputs_SBD, weight.transpose(1, 2), alpha=1 / (1 - config.dropout)
            )
            slope_SBC = _loss_slope(logits_SBC, targets_NC[rows_SB], valid_SB, train.multi_label)
            weight_slope = slope_SBC.transpose(1, 2) @ inputs_SBD / (1 - config.dropout)
            adam.step((weight_slope, slope_SBC.sum(dim=1)), plateau.rate_S, plateau.active_S & valid_SB.any(dim=1))
        heads = _heads(weight, bias, plateau, train.multi_label)
        better_S = plateau.update(epoch, heads.scores(val.features_ND), val.targets_NC)
        best_weight[better_S], best_bias[better_S] = weight[better_S], bias[better_S]
        if not plateau.active_S.any():
            break
    return _heads(best_weight, best_bias, plateau, train.multi_label)


def _heads(weight: Tensor, bias: Tensor, plateau: Plateau, multi_label: bool) -> LinearHeads:
    return LinearHeads(
        weight_SCD=weight,
        bias_SC=bias,
        best_S=plateau.best_S,
        epoch_S=plateau.epoch_S,
        multi_label=multi_label,
    )


def _initial(dim: int, classes: int, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """torch.nn.Linear's default initialisation, uniform within 1 / sqrt(D), for each seed."""
    weights, biases = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(derive_seed("head-initialisation", seed))
        weights.append((torch.rand(classes, dim, generator=generator) * 2 - 1) / dim**0.5)
        biases.append((torch.rand(classes, generator=generator) * 2 - 1) / dim**0.5)
    return torch.stack(weights), torch.stack(biases)


def _minibatches(
    subsets: Sequence[NDArray[np.int64]], seeds: Sequence[int], epoch: int, dim: int, config: Schedule
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One epoch of minibatches of all seeds: rows [S, B], which of them are real [S, B], what dropout keeps [S, B, D].

    Subsets may differ in size (a mended fraction); a seed that has run out of rows gets a minibatch without real ones.
    A seed's draws are a function of the seed and the epoch alone.
    """
    generators = [np.random.Generator(np.random.SFC64(derive_seed("head-epoch", seed, epoch))) for seed in seeds]
    queues = [minibatches(subset, generator, config) for generator, subset in zip(generators, subsets, strict=True)]
    # 16 random bits a feature decide on dropout: a resolution of 1/65536 at a quarter of the cost of floats.
    threshold = round(config.dropout * 2**16)
    for step in range(max(map(len, queues))):
        chunks = [queue[step] if step < len(queue) else queue[0][:0] for queue in queues]
        width = max(map(len, chunks))
        rows_SB = np.zeros((len(seeds), width), dtype=np.int64)
        valid_SB = np.zeros((len(seeds), width), dtype=bool)
        keep_SBD = np.zeros((len(seeds), width, dim), dtype=np.float32)
        for s, (chunk, generator) in enumerate(zip(chunks, generators, strict=True)):
            rows_SB[s, : len(chunk)], valid_SB[s, : len(chunk)] = chunk, True
            bits = generator.bit_generator.random_raw(-(-len(chunk) * dim // 4)).view(np.uint16)[: len(chunk) * dim]
            np.greater_equal(bits.reshape(-1, dim), threshold, out=keep_SBD[s, : len(chunk)], casting="unsafe")
        yield torch.from_numpy(rows_SB), torch.from_numpy(valid_SB), torch.from_numpy(keep_SBD)


def _loss_slope(logits_SBC: Tensor, targets_SBC: Tensor, valid_SB: Tensor, multi_label: bool) -> Tensor:
    """Derivative by the logits of each seed's mean loss over its minibatch [S, B, C].

    Softmax cross-entropy, or sigmoid cross-entropy over the labels that are given; both have the derivative
    (probability - target) / count.
    """
    if multi_label:
        given_SBC = valid_SB[..., None] & ~targets_SBC.isnan()
        error_SBC = logits_SBC.sigmoid() - targets_SBC.nan_to_num()
        return error_SBC * given_SBC / given_SBC.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    error_SBC = logits_SBC.softmax(dim=-1) - targets_SBC
    return error_SBC * valid_SB[..., None] / valid_SB.sum(dim=1).clamp(min=1)[:, None, None]


class _Adam:
    """Adam (Kingma and Ba) with a learning rate and a step count for each seed, as torch.optim.Adam computes it."""

    def __init__(self, parameters: tuple[Tensor, ...], config: Schedule) -> None:
        self._parameters = parameters
        self._first = [torch.zeros_like(p) for p in parameters]
        self._second = [torch.zeros_like(p) for p in parameters]
        self._steps_S = torch.zeros(len(parameters[0]))
        self._decay = config.weight_decay

    def step(self, gradients: Sequence[Tensor], rate_S: Tensor, active_S: Tensor) -> None:
        """Step the active seeds; the others keep their parameters and moments."""
        self._steps_S += active_S
        steps_S = self._steps_S.clamp(min=1)
        size_S, root_S = rate_S / (1 - 0.9**steps_S), (1 - 0.999**steps_S).sqrt()
        for parameter, gradient, first, second in zip(
            self._parameters, gradients, self._first, self._second, strict=True
        ):
            shape = (-1,) + (1,) * (parameter.dim() - 1)
            active = active_S.view(shape)
            gradient = gradient + self._decay * parameter
            first.add_((gradient - first) * (0.1 * active))
            second.add_((gradient.square() - second) * (0.001 * active))
            step = first / (second.sqrt() / root_S.view(shape) + 1e-8)
            parameter.sub_(step * (size_S.view(shape) * active))
