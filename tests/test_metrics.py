"""Metrics against naive loops and hand-made matrices."""

from itertools import permutations
from math import comb

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from convirt.errors import InputError
from convirt.evaluation.statistics.metrics import (
    accuracy,
    auc,
    chance_recall,
    mean_auc,
    one_hot,
    precision_at_k,
    recall_at_k,
    weighted_auc,
    weighted_mean_auc,
)


def naive_auc(labels, scores, weights):
    """Every pair of a positive and a negative, one by one."""
    wins = pairs = 0.0
    for i, positive in enumerate(labels):
        for j, negative in enumerate(labels):
            if positive == 1 and negative == 0:
                pairs += weights[i] * weights[j]
                wins += weights[i] * weights[j] * (1.0 if scores[i] > scores[j] else 0.5 * (scores[i] == scores[j]))
    return wins / pairs


@pytest.mark.parametrize("levels", [3, 1000])
def test_auc_counts_pairs_with_ties_and_weights(levels):
    rng = np.random.default_rng(levels)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, levels, 60) / levels
    weights = rng.integers(0, 4, (60, 7)).astype(float)
    found = weighted_auc(labels, scores, weights)
    for column, value in zip(weights.T, found, strict=True):
        assert value == pytest.approx(naive_auc(labels, scores, column), abs=1e-12)
        assert value == pytest.approx(roc_auc_score(labels, scores, sample_weight=column), abs=1e-12)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_float32_counts_lose_nothing():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 3000), rng.normal(size=3000).astype(np.float32)
    weights = rng.poisson(1.0, (3000, 300))  # more columns than one chunk
    exact = weighted_auc(labels, scores, weights.astype(np.float64))
    np.testing.assert_allclose(weighted_auc(labels, scores, weights.astype(np.float32)), exact, atol=1e-6)


def test_auc_is_undefined_without_both_kinds():
    assert np.isnan(auc(np.ones(3), np.arange(3.0)))
    weights = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert np.isnan(weighted_auc(np.array([1, 0, 0]), np.arange(3.0), weights)).tolist() == [False, True]


def test_mean_auc_is_macro_one_vs_rest():
    rng = np.random.default_rng(1)
    codes, scores = rng.integers(0, 4, 90), rng.dirichlet(np.ones(4), 90)
    expected = roc_auc_score(codes, scores, multi_class="ovr", average="macro")
    assert mean_auc(one_hot(codes, 4), scores) == pytest.approx(expected, abs=1e-12)
    # A fifth class that no row has is left out.
    assert mean_auc(one_hot(codes, 5), np.c_[scores, np.zeros(90)]) == pytest.approx(expected, abs=1e-12)


def test_mean_auc_ignores_missing_labels():
    targets = np.array([[1, 0], [0, np.nan], [1, 1], [0, 0], [np.nan, 1]], dtype=float)
    scores = np.array([[0.9, 0.1], [0.8, 5.0], [0.7, 0.3], [0.1, 0.2], [-3.0, 0.15]])
    assert mean_auc(targets, scores) == pytest.approx((3 / 4 + 3 / 4) / 2)


def test_a_resample_that_loses_a_class_is_undefined():
    targets = one_hot(np.array([0, 0, 1, 2]), 3)
    weights = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 2.0], [1.0, 0.0]])
    found = weighted_mean_auc(targets, np.random.default_rng(0).random((4, 3)), weights)
    assert np.isfinite(found).tolist() == [True, False]


def test_accuracy():
    assert accuracy(np.array([0, 1, 2, 0]), np.array([[3, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]])) == 0.75


def naive_lists(similarity, hits, k, allowed):
    """Precision and recall at k as the mean over every order of the candidates that respects the similarities."""
    candidates = [g for g in range(len(similarity)) if allowed[g]]
    precision, recall = [], []
    for order in permutations(candidates):
        values = [similarity[g] for g in order]
        if values == sorted(values, reverse=True):
            found = [hits[g] for g in order[:k]]
            precision.append(sum(found) / k)
            recall.append(float(any(found)))
    return np.mean(precision), np.mean(recall)


@pytest.mark.parametrize("seed", range(6))
def test_lists_with_ties_are_the_mean_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    similarity, hits = rng.integers(0, 3, (5, 7)) / 3, rng.random((5, 7)) < 0.4
    exclude = rng.random((5, 7)) < 0.2
    for k in (1, 2, 4):
        if (~exclude).sum(axis=1).min() < k:
            continue
        precision, recall = (
            precision_at_k(similarity, hits, k, exclude),
            recall_at_k(similarity, hits, k, exclude),
        )
        for q in range(5):
            expected = naive_lists(similarity[q], hits[q], k, ~exclude[q])
            assert (precision[q], recall[q]) == pytest.approx(expected, abs=1e-12)


def test_precision_at_k_without_ties():
    similarity = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]])
    hits = np.array([[True, False, True, True], [False, True, False, False]])
    found = precision_at_k(similarity, hits, 2)
    assert found.tolist() == [0.5, 0.0]
    exclude = np.array([[False, True, False, False], [False, False, True, True]])
    found = precision_at_k(similarity, hits, 2, exclude)
    assert found.tolist() == [1.0, 0.5]


def test_equal_embeddings_score_chance():
    labels = np.repeat(["a", "b", "c"], [10, 30, 60])  # in blocks, where a stable sort would be an oracle
    found = precision_at_k(np.ones((100, 100)), labels[:, None] == labels[None], 5, np.eye(100, dtype=bool))
    expected = [(np.sum(labels == label) - 1) / 99 for label in labels]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    recall = recall_at_k(np.ones((100, 100)), labels[:, None] == labels[None], 5)
    np.testing.assert_allclose(
        recall, [1 - comb(100 - m, 5) / comb(100, 5) for m in np.repeat([10, 30, 60], [10, 30, 60])]
    )


def test_a_duplicate_caption_is_a_hit():
    similarity = np.array([[0.1, 0.9, 0.5], [0.2, 0.8, 0.3], [0.9, 0.1, 0.2]])
    captions = np.array(["same", "same", "other"])
    duplicates = captions[:, None] == captions[None]
    assert recall_at_k(similarity, duplicates, 1).tolist() == [1.0, 1.0, 0.0]
    assert recall_at_k(similarity, np.eye(3, dtype=bool), 1).tolist() == [0.0, 1.0, 0.0]


def test_chance_recall_is_the_urn():
    for n in (1, 5, 40):
        for m in range(n + 1):
            for k in range(1, n + 1):
                assert chance_recall(m, n, k) == pytest.approx(1 - comb(n - m, k) / comb(n, k), abs=1e-10)


def test_k_beyond_the_candidates_is_refused():
    with pytest.raises(InputError, match="only 2 candidates"):
        precision_at_k(np.ones((1, 3)), np.ones((1, 3), bool), 3, np.array([[True, False, False]]))
