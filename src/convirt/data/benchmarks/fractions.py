"""Nested, stratified label fractions (ConVIRT, section 4.1: 1 %, 10 % and all training labels).

Every training row gets one key in (0, 1), its place in a seeded order of its stratum; a fraction takes the rows whose
key does not exceed it. So for one seed a smaller fraction lies inside a larger one, and each stratum gives its share.

Shape legend: N training rows, C classes.
"""

import numpy as np
from numpy.typing import NDArray

from convirt.data.splits import derive_seed
from convirt.errors import InputError


def nested_fraction(targets_NC: NDArray, classes: tuple[str, ...], fraction: float, *, seed: int) -> NDArray[np.int64]:
    """Positions of the training rows in a fraction, ascending.

    Args:
        targets_NC: 1, 0 or NaN (no label); one-hot for single-label tasks.
        classes: Names of the columns, for messages.
        fraction: Share of the rows, in (0, 1].
        seed: The order within the strata.

    A row's stratum is the rarest class it is positive for. A fraction that leaves a class without a positive (or,
    where some row is negative, without a negative) is mended with the next row in order that supplies it; as that row
    is the first of its kind to enter any larger fraction, fractions stay nested.

    Raises:
        InputError: The fraction is out of range, or a class has no positive or no negative row at all.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"a label fraction must lie in (0, 1], got {fraction}")
    positive_NC, negative_NC = targets_NC == 1, targets_NC == 0
    for name, positives, negatives in zip(classes, positive_NC.sum(axis=0), negative_NC.sum(axis=0), strict=True):
        if not positives or not negatives:
            kind = "positive" if not positives else "negative"
            raise InputError(f"class {name!r} has no {kind} training image; label some or leave the class out")
    key_N = _keys(positive_NC, seed)
    taken_N = key_N <= fraction
    for has_NC in (positive_NC, negative_NC):
        for rows in has_NC.T:
            if not (taken_N & rows).any():
                taken_N[np.flatnonzero(rows)[np.argmin(key_N[rows])]] = True
    return np.flatnonzero(taken_N)


def _keys(positive_NC: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
    """(rank + 1/2) / size of the row within its stratum, so that a share f of n rows takes round(f * n) of them."""
    count_C = positive_NC.sum(axis=0)
    rarest_first = np.argsort(count_C, kind="stable")
    stratum_N = np.where(positive_NC.any(axis=1), positive_NC[:, rarest_first].argmax(axis=1), len(count_C))
    generator = np.random.default_rng(derive_seed("label-fraction", seed))
    key_N = np.empty(len(positive_NC))
    for stratum in np.unique(stratum_N):
        rows = generator.permutation(np.flatnonzero(stratum_N == stratum))
        key_N[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return key_N
