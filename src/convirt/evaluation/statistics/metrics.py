"""Metrics as pure array functions (ConVIRT, sections 3.1 and 4).

Shape legend: N rows, P positives, M negatives, C classes, R resamples (columns of weights), Q queries, G candidates.

A weight says how often a row counts; a bootstrap resample is a column of weights, so that one pass over the sorted
scores gives the metric of every resample. What a resample leaves undefined (a class without positives) is NaN.
"""

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError

Array = NDArray[np.floating]

_CHUNK = 256  # columns of weights handled at once: keeps a chunk inside the processor's cache


def auc(positive_N: NDArray, scores_N: NDArray, weights_N: NDArray | None = None) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting one half.

    Args:
        positive_N: True (or 1) for positives, False for negatives, NaN for rows without a label, which are ignored.
        scores_N: Any real scores; higher means more positive.
        weights_N: How often each row counts; once if not given.

    Returns:
        The area, or NaN when positives or negatives are missing.
    """
    weights = np.ones(len(scores_N)) if weights_N is None else np.asarray(weights_N, dtype=np.float64)
    return float(weighted_auc(positive_N, scores_N, weights[:, None])[0])


def weighted_auc(positive_N: NDArray, scores_N: NDArray, weights_NR: NDArray) -> Array:
    """`auc` for R columns of weights at once.

    Each positive adds its weight times the weight of the negatives below it, plus half of those equal to it; both are
    differences of one cumulative sum over the sorted negatives.

    Returns:
        float64 [R].
    """
    label_N = np.asarray(positive_N, dtype=np.float64)
    positives, negatives = np.flatnonzero(label_N == 1), np.flatnonzero(label_N == 0)
    result_R = np.full(weights_NR.shape[1], np.nan)
    if not len(positives) or not len(negatives):
        return result_R
    negatives = negatives[np.argsort(scores_N[negatives], kind="stable")]
    below_P = np.searchsorted(scores_N[negatives], scores_N[positives], side="left")
    not_above_P = np.searchsorted(scores_N[negatives], scores_N[positives], side="right")
    for start in range(0, weights_NR.shape[1], _CHUNK):
        columns = slice(start, start + _CHUNK)
        cumulated = np.zeros((len(negatives) + 1, weights_NR[:, columns].shape[1]), dtype=weights_NR.dtype)
        np.cumsum(weights_NR[negatives, columns], axis=0, out=cumulated[1:])
        positive_weights = weights_NR[positives, columns]
        beaten = cumulated[below_P]
        beaten += cumulated[not_above_P]
        beaten *= positive_weights
        wins = beaten.sum(axis=0, dtype=np.float64) / 2
        pairs = positive_weights.sum(axis=0, dtype=np.float64) * cumulated[-1].astype(np.float64)
        np.divide(wins, pairs, out=result_R[columns], where=pairs > 0)
    return result_R


def one_hot(codes_N: NDArray, classes: int) -> NDArray[np.float64]:
    """Class codes as targets [N, C] of zeros and ones: one-vs-rest is then the multi-label case."""
    return (np.asarray(codes_N)[:, None] == np.arange(classes)).astype(np.float64)


def mean_auc(targets_NC: NDArray, scores_NC: NDArray) -> float:
    """Mean over classes of `auc`: macro one-vs-rest for one-hot targets, mean AUC for multi-label ones.

    Classes without positives or without negatives are left out; NaN when none remains.
    """
    return float(weighted_mean_auc(targets_NC, scores_NC, np.ones((len(targets_NC), 1)))[0])


def weighted_mean_auc(targets_NC: NDArray, scores_NC: NDArray, weights_NR: NDArray) -> Array:
    """`mean_auc` for R columns of weights at once, float64 [R].

    NaN in a resample that holds no positive or no negative of a class that the rows do hold: a mean over fewer classes
    would be another quantity.
    """
    if not (held := scorable(targets_NC)):
        return np.full(weights_NR.shape[1], np.nan)
    return np.mean([weighted_auc(targets_NC[:, c], scores_NC[:, c], weights_NR) for c in held], axis=0)


def scorable(targets_NC: NDArray) -> list[int]:
    """The columns that hold both positives and negatives: an AUC is defined for them alone."""
    both_C = (targets_NC == 1).any(axis=0) & (targets_NC == 0).any(axis=0)
    return [int(c) for c in np.flatnonzero(both_C)]


def accuracy(codes_N: NDArray, scores_NC: NDArray) -> float:
    """Share of rows whose highest score is their class; of equal scores the first class answers."""
    return float(np.mean(np.argmax(scores_NC, axis=1) == codes_N))


def selection_score(metric: str, targets_NC: NDArray, scores_NC: NDArray) -> float:
    """The validation score that settings and checkpoints are chosen by: `auc` (`mean_auc`) or `accuracy`."""
    if metric == "accuracy":
        return accuracy(targets_NC.argmax(axis=1), scores_NC)
    return mean_auc(targets_NC, scores_NC)


def log_loss(targets_NC: NDArray, scores_NC: NDArray, multi_label: bool) -> float:
    """Mean negative log-likelihood of probabilities: over rows, or over the given labels of a multi-label task."""
    scores = np.clip(scores_NC.astype(np.float64), 1e-12, 1 - 1e-12)
    if not multi_label:
        return float(-np.log(scores[targets_NC == 1]).mean())
    given = np.isfinite(targets_NC)
    return float(-np.log(np.where(targets_NC == 1, scores, 1 - scores)[given]).mean())


def precision_at_k(similarity_QG: NDArray, hits_QG: NDArray, k: int, exclude_QG: NDArray | None = None) -> Array:
    """Precision@k of each query (ConVIRT, section 3.2): the share of its k most similar candidates that are right.

    Args:
        similarity_QG: Cosine similarities.
        hits_QG: Which candidates are right for which query.
        k: Length of the list.
        exclude_QG: True where a candidate must not be retrieved for a query, for example its own patient.

    Returns:
        float64 [Q]; among equal similarities the expected value over all their orders.

    Raises:
        InputError: A query has fewer than k candidates.
    """
    return _list_statistics(similarity_QG, hits_QG, k, exclude_QG)[0]


def recall_at_k(similarity_QG: NDArray, hits_QG: NDArray, k: int, exclude_QG: NDArray | None = None) -> Array:
    """Recall@k of each query: 1 if any of its k most similar candidates is a hit.

    The field's recall of retrieval; `hits_QG` may mark several candidates of a query (duplicates of its own caption).

    Returns:
        float64 [Q]; among equal similarities the expected value over all their orders.

    Raises:
        InputError: A query has fewer than k candidates.
    """
    return _list_statistics(similarity_QG, hits_QG, k, exclude_QG)[1]


def _list_statistics(
    similarity_QG: NDArray, hits_QG: NDArray, k: int, exclude_QG: NDArray | None
) -> tuple[Array, Array]:
    """Expected precision and expected recall at k under random order of ties, each float64 [Q].

    Let t candidates, h of them hits, tie with the k-th place, of which `room` places are left by those strictly
    above. The expected number of hits among them is room * h / t, and the chance that there is none is
    C(t - h, room) / C(t, room).
    """
    hits_QG = np.asarray(hits_QG, dtype=bool)
    allowed_QG = np.ones_like(hits_QG) if exclude_QG is None else ~np.asarray(exclude_QG, dtype=bool)
    fewest = int(allowed_QG.sum(axis=1).min(initial=similarity_QG.shape[1]))
    if not 1 <= k <= fewest:
        raise InputError(f"k = {k} does not fit: a query has only {fewest} candidates; choose 1 <= k <= {fewest}")
    score_QG = np.where(allowed_QG, similarity_QG, -np.inf)
    kth_Q1 = -np.partition(-score_QG, k - 1, axis=1)[:, k - 1 : k]
    above_QG, tied_QG = score_QG > kth_Q1, (score_QG == kth_Q1) & allowed_QG
    room_Q = k - above_QG.sum(axis=1)
    sure_Q = (above_QG & hits_QG).sum(axis=1)
    t_Q, h_Q = tied_QG.sum(axis=1), (tied_QG & hits_QG).sum(axis=1)
    precision_Q = (sure_Q + room_Q * h_Q / t_Q) / k
    recall_Q = np.where(sure_Q > 0, 1.0, chance_recall(h_Q, t_Q, room_Q))
    return precision_Q, recall_Q


def chance_recall(hits: NDArray, candidates: NDArray, k: NDArray | int) -> Array:
    """Recall@k of a random order: 1 - C(n - m, k) / C(n, k) with m hits among n candidates, elementwise."""
    from scipy.special import gammaln

    m, n, k = np.broadcast_arrays(np.asarray(hits, float), np.asarray(candidates, float), np.asarray(k, float))
    possible = n - m >= k  # otherwise every list of k holds a hit
    misses = np.where(possible, n - m, k)
    log_none = gammaln(misses + 1) - gammaln(misses - k + 1) - gammaln(n + 1) + gammaln(n - k + 1)
    # m = 0 is exactly no chance; the logarithms would leave a rounding error.
    return np.where(m == 0, 0.0, np.where(possible, -np.expm1(np.minimum(log_none, 0.0)), 1.0))
