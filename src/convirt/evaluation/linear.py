"""Linear evaluation: heads on features of a frozen encoder (ConVIRT, section 4.1 and appendix B).

The encoder is frozen and in evaluation mode, so heads train on features that were computed once. There are two:

- The paper's head: dropout, a linear layer, Adam. The heads of all seeds train side by side as one batch of heads; each
  has its own subset, initialisation, order, dropout, learning rate and stopping, and ends where it would end alone.
- Logistic regression on standardised features, the check beside it. A head trained by a few steps of Adam on little
  data measures the scale of the features as much as their worth. Here features are standardised (mean and spread of
  the training subset) and the head is fitted to convergence by L-BFGS; the strength of its L2 penalty, 1 / C, is chosen
  by the log loss on validation. (Choosing by AUC would often take so small a C that the ranking is fine and every row
  gets the commonest class: accuracy would suffer.)

Shape legend: S seeds, N rows, B rows of a minibatch, D features, K dimensions after rotation, C classes.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from convirt.data.splits import derive_seed
from convirt.evaluation.inputs.images import LabelledFeatures
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.protocol import ClassificationProtocol, Outcome, Outcomes, Place, Plateau, Schedule, minibatches
from convirt.evaluation.statistics.metrics import log_loss

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
"""Values of C that are tried."""

_MAX_ITERATIONS = 1000
_ONE_CORE_BELOW = 20_000_000  # numbers in the training features; less is not worth sharing between cores


def train_linear(
    features: Mapping[str, NDArray[np.float32]], table: LabelledTable, protocol: ClassificationProtocol
) -> Outcomes:
    """Train the heads of every method, fraction and seed.

    Args:
        features: h_v [N, D] of every row of the table, by method.
        table: Labels, patients and splits.
        protocol: What to train.
    """
    places = [
        Place(setting="linear", head=head, fraction=fraction)
        for head in protocol.heads
        for fraction in protocol.fractions
    ]
    subsets = {fraction: protocol.subsets(table, fraction) for fraction in protocol.fractions}
    outcomes: Outcomes = {place: {} for place in places}
    # Heads that take one core each; a head's result does not depend on what runs beside it.
    with (
        Progress(transient=True) as progress,
        _torch_threads(),
        ThreadPoolExecutor(os.cpu_count()) as pool,
        ExitStack() as stack,
    ):
        stack.callback(pool.shutdown, cancel_futures=True)  # after an error those that wait are not begun
        bar = progress.add_task("training heads", total=len(places) * len(features))
        running: dict[tuple[Place, str], Future[Outcome]] = {
            (place, method): pool.submit(_train, place.head, vectors_ND, table, subsets[place.fraction], protocol)
            for place in places
            for method, vectors_ND in features.items()
            if place.head == "paper"  # scikit-learn's thread limits are of the whole process
        }
        for place in places:
            for method, vectors_ND in features.items():
                started = running.get((place, method))
                outcomes[place][method] = (
                    started.result()
                    if started
                    else _train(place.head, vectors_ND, table, subsets[place.fraction], protocol)
                )
                progress.advance(bar)
    return outcomes


@contextmanager
def _torch_threads(count: int | None = None) -> Iterator[None]:
    """Set the number of threads of PyTorch, and restore it at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    head: str,
    vectors_ND: NDArray[np.float32],
    table: LabelledTable,
    subsets: Sequence[NDArray[np.int64]],
    protocol: ClassificationProtocol,
) -> Outcome:
    everything = LabelledFeatures(features_ND=vectors_ND, targets_NC=table.targets_NC, multi_label=table.multi_label)
    train, val = everything.take(table.rows("train")), everything.take(table.rows("val"))
    test_ND = vectors_ND[table.rows("test")]
    if head == "paper":
        heads = train_heads(train, val, subsets, protocol.seeds, protocol.schedule)
        selected = [
            {"epoch": int(epoch), "validation_score": float(best)}
            for epoch, best in zip(heads.epoch_S, heads.best_S, strict=True)
        ]
        return Outcome(test_SNC=heads.scores(test_ND), val_SNC=heads.scores(val.features_ND), selected=selected)
    fits: dict[bytes, LogisticFit] = {}
    for subset in subsets:  # with all labels every seed has the same subset, and the fit draws nothing
        if subset.tobytes() not in fits:
            fits[subset.tobytes()] = fit_logistic(train.take(subset), val, test_ND)
    return Outcome.stack([fits[subset.tobytes()].outcome for subset in subsets])


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
        return _probabilities(self.weight_SCD, self.bias_SC, features_ND, self.multi_label)


def _probabilities(
    weight_SCD: Tensor, bias_SC: Tensor, features_ND: NDArray[np.float32], multi_label: bool
) -> NDArray[np.float32]:
    with torch.no_grad():
        seeds, classes, dim = weight_SCD.shape
        inputs_ND = torch.from_numpy(np.ascontiguousarray(features_ND, dtype=np.float32))
        logits_NSC = (inputs_ND @ weight_SCD.reshape(-1, dim).T).view(-1, seeds, classes) + bias_SC
        logits_SNC = logits_NSC.transpose(0, 1).contiguous()
        return (logits_SNC.sigmoid() if multi_label else logits_SNC.softmax(-1)).numpy()


@_torch_threads(1)
def train_heads(
    train: LabelledFeatures,
    val: LabelledFeatures,
    subsets: Sequence[NDArray[np.int64]],
    seeds: Sequence[int],
    schedule: Schedule,
) -> LinearHeads:
    """Train one of the paper's heads for each seed on its subset of the training rows.

    It takes one processor core: a step is too small to share, and cores that wait for each other slow it down. The
    gradient and Adam are written out for all seeds at once: with autograd and torch.optim the same heads take 2.0 to
    2.6 times as long (512 to 2048 features, 60 to 6400 rows, 5 seeds) and differ by up to 4e-6.

    Args:
        train: All training rows.
        val: Validation rows: they set the rate and choose the checkpoint.
        subsets: Training rows of each seed.
        seeds: Each draws its head's initialisation, order and dropout.
        schedule: The constants.

    Raises:
        InputError: The validation rows hold no class with both positives and negatives.
    """
    features_ND = torch.from_numpy(np.ascontiguousarray(train.features_ND, dtype=np.float32))
    targets_NC = torch.from_numpy(train.targets_NC.astype(np.float32))
    weight, bias = _initial(features_ND.shape[1], targets_NC.shape[1], seeds)
    adam = _Adam((weight, bias), schedule)
    plateau = Plateau(len(seeds), schedule)
    best_weight, best_bias = weight.clone(), bias.clone()
    for epoch in range(1, schedule.max_epochs + 1):
        rate_S, active_S = torch.from_numpy(plateau.rate_S), torch.from_numpy(plateau.active_S)
        for rows_SB, valid_SB, keep_SBD in _minibatches(subsets, seeds, epoch, features_ND.shape[1], schedule):
            inputs_SBD = keep_SBD.mul_(features_ND[rows_SB])
            logits_SBC = torch.baddbmm(
                bias[:, None], inputs_SBD, weight.transpose(1, 2), alpha=1 / (1 - schedule.dropout)
            )
            slope_SBC = _loss_slope(logits_SBC, targets_NC[rows_SB], valid_SB, train.multi_label)
            weight_slope = slope_SBC.transpose(1, 2) @ inputs_SBD / (1 - schedule.dropout)
            adam.step((weight_slope, slope_SBC.sum(dim=1)), rate_S, active_S & valid_SB.any(dim=1))
        val_SNC = _probabilities(weight, bias, val.features_ND, train.multi_label)
        better_S = torch.from_numpy(plateau.update(epoch, val_SNC, val.targets_NC))
        best_weight[better_S], best_bias[better_S] = weight[better_S], bias[better_S]
        if not plateau.active_S.any():
            break
    return LinearHeads(
        weight_SCD=best_weight,
        bias_SC=best_bias,
        best_S=plateau.best_S,
        epoch_S=plateau.epoch_S,
        multi_label=train.multi_label,
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
    subsets: Sequence[NDArray[np.int64]], seeds: Sequence[int], epoch: int, dim: int, schedule: Schedule
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One epoch of minibatches of all seeds: rows [S, B], which of them are real [S, B], what dropout keeps [S, B, D].

    Subsets may differ in size (a mended fraction); a seed that has run out of rows gets a minibatch without real ones.
    A seed's draws are a function of the seed and the epoch alone.
    """
    generators = [np.random.Generator(np.random.SFC64(derive_seed("head-epoch", seed, epoch))) for seed in seeds]
    queues = [minibatches(subset, generator, schedule) for generator, subset in zip(generators, subsets, strict=True)]
    # 16 random bits a feature decide on dropout: a resolution of 1/65536 at a quarter of the cost of floats.
    threshold = round(schedule.dropout * 2**16)
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

    def __init__(self, parameters: tuple[Tensor, ...], schedule: Schedule) -> None:
        self._parameters = parameters
        self._first = [torch.zeros_like(p) for p in parameters]
        self._second = [torch.zeros_like(p) for p in parameters]
        self._steps_S = torch.zeros(len(parameters[0]))
        self._decay = schedule.weight_decay

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


@dataclass(frozen=True, kw_only=True)
class LogisticFit:
    """A logistic regression with one C, and its probabilities: softmax over classes, or one of each label."""

    c: float
    converged: bool
    val_scores_NC: NDArray[np.floating]
    test_scores_NC: NDArray[np.floating]
    validation_loss: float = float("nan")

    @property
    def outcome(self) -> Outcome:
        """Its predictions, as those of one seed."""
        selected = {"C": self.c, "validation_loss": self.validation_loss, "converged": self.converged}
        scores = (self.test_scores_NC.astype(np.float32), self.val_scores_NC.astype(np.float32))
        return Outcome(test_SNC=scores[0][None], val_SNC=scores[1][None], selected=[selected])


def fit_logistic(
    train: LabelledFeatures,
    val: LabelledFeatures,
    test_features_ND: NDArray[np.float32],
    grid: tuple[float, ...] = GRID,
) -> LogisticFit:
    """Fit on the training subset, choose C by the log loss on validation, score the test rows.

    Of values of C with the same loss the smallest is taken. Every class must occur in the training subset.
    """
    with threadpool_limits(1 if train.features_ND.size < _ONE_CORE_BELOW else None):
        train_NK, (val_NK, test_NK) = _standardise(train.features_ND, (val.features_ND, test_features_ND))
        fits = _fits(train_NK, train.targets_NC, val_NK, test_NK, train.multi_label, grid)
    fits = [replace(fit, validation_loss=log_loss(val.targets_NC, fit.val_scores_NC, val.multi_label)) for fit in fits]
    return min(fits, key=lambda fit: fit.validation_loss)


def _standardise(
    train_ND: NDArray[np.float32], others: tuple[NDArray[np.float32], ...]
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Standardise by the training subset, then rotate into its row space when it has fewer rows than features.

    The L2 penalty does not see rotations, and what lies outside the row space never gets weight: the fit is the same
    with N instead of D columns, only faster. A constant feature becomes zero.
    """
    mean_D = train_ND.mean(axis=0, dtype=np.float64)
    spread_D = train_ND.std(axis=0, dtype=np.float64)
    scale_D = np.divide(1.0, spread_D, out=np.zeros_like(spread_D), where=spread_D > 1e-12)
    inputs = [(values - mean_D) * scale_D for values in (train_ND, *others)]
    if len(train_ND) < train_ND.shape[1]:
        rotation_DK = np.linalg.svd(inputs[0], full_matrices=False)[2].T
        inputs = [values @ rotation_DK for values in inputs]
    return inputs[0], inputs[1:]


def _fits(
    train_NK: NDArray, targets_NC: NDArray, val_NK: NDArray, test_NK: NDArray, multi_label: bool, grid: Sequence[float]
) -> list[LogisticFit]:
    """A regression for each C: multinomial, or one binary regression for each label on the rows that have it."""
    if multi_label:
        each = []
        for labels_N in targets_NC.T:
            given_N = np.isfinite(labels_N)
            binary_NC = np.stack([1 - labels_N[given_N], labels_N[given_N]], axis=1)
            each.append(_fits(train_NK[given_N], binary_NC, val_NK, test_NK, multi_label=False, grid=grid))
        return [
            LogisticFit(
                c=of_labels[0].c,
                converged=all(fit.converged for fit in of_labels),
                val_scores_NC=np.stack([fit.val_scores_NC[:, 1] for fit in of_labels], axis=1),
                test_scores_NC=np.stack([fit.test_scores_NC[:, 1] for fit in of_labels], axis=1),
            )
            for of_labels in zip(*each, strict=True)
        ]
    # From strong to weak penalty, each fit starts where the last one ended.
    model = LogisticRegression(solver="lbfgs", max_iter=_MAX_ITERATIONS, warm_start=True)
    fits = []
    for c in sorted(grid):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # recorded instead
            model.set_params(C=c).fit(train_NK, targets_NC.argmax(axis=1))
        scores = {"val_scores_NC": model.predict_proba(val_NK), "test_scores_NC": model.predict_proba(test_NK)}
        fits.append(LogisticFit(c=c, converged=bool(np.max(model.n_iter_) < _MAX_ITERATIONS), **scores))
    return fits
