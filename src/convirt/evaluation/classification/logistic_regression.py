"""Logistic regression on standardised features, the check beside the paper's head.

A head trained by a few steps of Adam on little data measures the scale of the features as much as their worth. Here
features are standardised (mean and spread of the training subset) and the head is fitted to convergence by L-BFGS; the
strength of its L2 penalty, 1 / C, is chosen by the log loss on validation. (Choosing by AUC would often take so small a
C that the ranking is fine and every row gets the commonest class: accuracy would suffer.)

Shape legend: N rows, D features, K dimensions after rotation, C classes.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from convirt.evaluation.inputs.features import LabelledFeatures
from convirt.evaluation.statistics.metrics import log_loss

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
"""Values of C that are tried."""

_MAX_ITERATIONS = 1000
_ONE_CORE_BELOW = 20_000_000  # numbers in the training features; less is not worth sharing between cores


@dataclass(frozen=True, kw_only=True)
class LogisticFit:
    """The fit whose C has the lowest log loss on validation."""

    c: float
    validation_loss: float
    converged: bool
    val_scores_NC: NDArray[np.float32]
    """Probabilities of the validation rows: softmax over classes, or one of each label."""
    test_scores_NC: NDArray[np.float32]


def fit_logistic(
    train: LabelledFeatures,
    val: LabelledFeatures,
    test_features_ND: NDArray[np.float32],
    grid: tuple[float, ...] = GRID,
) -> LogisticFit:
    """Fit on the training subset, choose C on validation, score the test rows.

    Of values of C with the same loss the smallest is taken. Every class must occur in the training subset.
    """
    with threadpool_limits(1 if train.features_ND.size < _ONE_CORE_BELOW else None):
        return _choose(train, val, test_features_ND, grid)


def _choose(
    train: LabelledFeatures, val: LabelledFeatures, test_features_ND: NDArray[np.float32], grid: tuple[float, ...]
) -> LogisticFit:
    train_NK, (val_NK, test_NK) = _standardise(train.features_ND, (val.features_ND, test_features_ND))
    fit = _fit_multi_label if train.multi_label else _fit_single_label
    best: LogisticFit | None = None
    for c, converged, (val_NC, test_NC) in fit(train_NK, train.targets_NC, (val_NK, test_NK), grid):
        loss = log_loss(val.targets_NC, val_NC, val.multi_label)
        if best is None or loss < best.validation_loss:
            scores = {"val_scores_NC": val_NC.astype(np.float32), "test_scores_NC": test_NC.astype(np.float32)}
            best = LogisticFit(c=c, validation_loss=loss, converged=converged, **scores)
    assert best is not None, "the grid is empty"
    return best


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


Fits = list[tuple[float, bool, list[NDArray[np.float64]]]]


def _fit_single_label(
    train_NK: NDArray, targets_NC: NDArray, others: tuple[NDArray, ...], grid: tuple[float, ...]
) -> Fits:
    """Multinomial regression for each C: (C, converged, probabilities [N, C] of the other rows)."""
    codes_N = targets_NC.argmax(axis=1)
    # From strong to weak penalty, each fit starts where the last one ended.
    model = LogisticRegression(solver="lbfgs", max_iter=_MAX_ITERATIONS, warm_start=True)
    fits: Fits = []
    for c in sorted(grid):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # recorded instead
            model.set_params(C=c).fit(train_NK, codes_N)
        converged = bool(np.max(model.n_iter_) < _MAX_ITERATIONS)
        fits.append((c, converged, [model.predict_proba(rows) for rows in others]))
    return fits


def _fit_multi_label(
    train_NK: NDArray, targets_NC: NDArray, others: tuple[NDArray, ...], grid: tuple[float, ...]
) -> Fits:
    """One binary regression for each label, on the rows that have it, with one C for all."""
    each = []
    for labels_N in targets_NC.T:
        given = np.isfinite(labels_N)
        binary_NC = np.stack([1 - labels_N[given], labels_N[given]], axis=1)
        each.append(_fit_single_label(train_NK[given], binary_NC, others, grid))
    return [
        (
            per_label[0][0],
            all(converged for _, converged, _ in per_label),
            [np.stack([fit[2][i][:, 1] for fit in per_label], axis=1) for i in range(len(others))],
        )
        for per_label in zip(*each, strict=True)
    ]
