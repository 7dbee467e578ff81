"""What mutants of the metrics and objectives have shown to be untested: weights, many columns, classes of one kind."""

import numpy as np
import pytest
import torch

from convirt.errors import InputError
from convirt.evaluation.statistics.metrics import (
    accuracy,
    auc,
    log_loss,
    mean_auc,
    precision_at_k,
    recall_at_k,
    selection_score,
    weighted_auc,
    weighted_mean_auc,
)
from convirt.objectives import draw_fakes


def test_a_weight_says_how_often_a_row_counts():
    rng = np.random.default_rng(0)
    positive, scores, weights = rng.integers(0, 2, 40), rng.integers(0, 9, 40) / 9, rng.integers(0, 4, 40)
    repeated = np.repeat(np.arange(40), weights)
    assert auc(positive, scores, weights) == pytest.approx(auc(positive[repeated], scores[repeated]))
    assert auc(positive, scores, weights) != pytest.approx(auc(positive, scores))
    assert auc(list(positive), scores, list(weights)) == auc(positive, scores, weights)


def test_any_number_of_resamples_is_the_same_as_each_alone():
    rng = np.random.default_rng(1)
    positive, scores = rng.integers(0, 2, 30), rng.random(30)
    weights = rng.integers(0, 3, (30, 1100)).astype(np.float32)
    together = weighted_auc(positive, scores, weights)
    alone = [weighted_auc(positive, scores, weights[:, [r]])[0] for r in range(1100)]
    np.testing.assert_array_equal(together, alone)


def test_a_class_with_one_kind_of_rows_is_left_out():
    rng = np.random.default_rng(2)
    scores, once = rng.random((20, 4)), np.ones((20, 3))
    targets = np.stack([np.arange(20) % 2, np.ones(20), np.zeros(20), np.ones(20)], axis=1).astype(float)
    targets[4:, 3] = np.nan  # positive or not known, and nowhere negative
    expected = auc(targets[:, 0], scores[:, 0])
    assert mean_auc(targets, scores) == pytest.approx(expected)
    np.testing.assert_allclose(weighted_mean_auc(targets, scores, once), [expected] * 3)
    assert np.isnan(mean_auc(targets[:, 1:], scores[:, 1:]))
    nothing = weighted_mean_auc(targets[:, 1:], scores[:, 1:], once)
    assert nothing.shape == (3,)
    assert np.isnan(nothing).all()


def test_the_log_loss_is_its_definition():
    rng = np.random.default_rng(5)
    scores = rng.dirichlet(np.ones(3), 12)
    targets = np.eye(3)[rng.integers(0, 3, 12)]
    of_rows = [-np.log(scores[n, int(targets[n].argmax())]) for n in range(12)]
    assert log_loss(targets, scores, False) == pytest.approx(np.mean(of_rows))
    targets[2, 1] = targets[7, 0] = np.nan
    of_labels = [
        -np.log(p if y == 1 else 1 - p) for y, p in zip(targets.ravel(), scores.ravel(), strict=True) if not np.isnan(y)
    ]
    assert log_loss(targets, scores, True) == pytest.approx(np.mean(of_labels))


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_certain_mistake_has_a_finite_loss(multi_label):
    targets, scores = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]], dtype=np.float32)
    assert log_loss(targets, scores, multi_label) == pytest.approx(-np.log(1e-12), rel=1e-4)
    assert log_loss(targets, 1 - scores, multi_label) == pytest.approx(1e-12, rel=1e-2)


def test_the_selection_score_is_the_metric_that_is_named():
    rng = np.random.default_rng(6)
    codes = rng.integers(0, 3, 30)
    targets, scores = np.eye(3)[codes], rng.random((30, 3))
    assert selection_score("accuracy", targets, scores) == accuracy(codes, scores) == (scores.argmax(1) == codes).mean()
    assert selection_score("auc", targets, scores) == mean_auc(targets, scores)
    assert selection_score("auc", targets, scores) != pytest.approx(selection_score("accuracy", targets, scores))


@pytest.mark.parametrize("k", [1, 2, 7, 150, 299, 300])
def test_long_lists_without_ties_are_the_sorted_candidates(k):
    rng = np.random.default_rng(3)
    similarity = rng.permuted(np.tile(np.arange(300.0), (20, 1)), axis=1)
    hits = rng.random((20, 300)) < 0.02
    best = np.take_along_axis(hits, np.argsort(-similarity, axis=1)[:, :k], axis=1)
    np.testing.assert_allclose(precision_at_k(similarity, hits, k), best.mean(axis=1))
    np.testing.assert_allclose(recall_at_k(similarity, hits, k), best.any(axis=1))


def test_one_query_with_too_few_candidates_is_enough_to_refuse():
    excluded = np.zeros((3, 6), dtype=bool)
    excluded[1, :3] = True
    similarity, hits = np.random.default_rng(4).random((3, 6)), np.ones((3, 6), dtype=bool)
    assert precision_at_k(similarity, hits, 3, excluded).tolist() == [1, 1, 1]
    with pytest.raises(InputError, match="k = 4 does not fit: a query has only 3 candidates"):
        precision_at_k(similarity, hits, 4, excluded)


def test_fakes_are_a_function_of_the_generator():
    sentences = [str(number) for number in range(50)]
    state = torch.random.get_rng_state()
    first, again, other = (draw_fakes(sentences, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(state, torch.random.get_rng_state())
    assert draw_fakes(["a", "a"], torch.Generator()).tolist() == [1, 0]  # another pair, even if it says the same
