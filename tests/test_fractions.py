"""Label fractions: nested, stratified, seeded, complete."""

from itertools import pairwise

import numpy as np
import pytest

from convirt.data.benchmarks.fractions import nested_fraction
from convirt.errors import InputError
from convirt.evaluation.statistics.metrics import one_hot

CLASSES = ("a", "b", "c")


def single(counts, seed=0):
    codes = np.repeat(np.arange(len(counts)), counts)
    return one_hot(np.random.default_rng(seed).permutation(codes), len(counts))


@pytest.mark.parametrize("seed", range(5))
def test_fractions_are_nested_and_stratified(seed):
    targets = single([600, 300, 100])
    subsets = [nested_fraction(targets, CLASSES, f, seed=seed) for f in (0.01, 0.1, 0.5, 1.0)]
    for small, large in pairwise(subsets):
        assert set(small) < set(large)
    assert targets[subsets[0]].sum(axis=0).tolist() == [6, 3, 1]
    assert targets[subsets[1]].sum(axis=0).tolist() == [60, 30, 10]
    assert len(subsets[3]) == 1000


def test_the_seed_draws_the_subset():
    targets = single([600, 300, 100])
    first, again, other = (nested_fraction(targets, CLASSES, 0.1, seed=s) for s in (0, 0, 1))
    assert (first == again).all()
    assert len(set(first) & set(other)) < 40


def test_a_rare_class_is_kept_and_fractions_stay_nested():
    targets = single([995, 3, 2])
    for seed in range(10):
        subsets = [set(nested_fraction(targets, CLASSES, f, seed=seed)) for f in (0.001, 0.01, 0.1, 0.4, 1.0)]
        assert all(targets[list(subset)].any(axis=0).all() for subset in subsets)
        assert all(small <= large for small, large in pairwise(subsets))


@pytest.mark.parametrize("seed", range(10))
def test_multi_label_fractions_hold_both_kinds_of_every_label_and_nest(seed):
    rng = np.random.default_rng(seed)
    targets = (rng.random((400, 3)) < [0.5, 0.02, 0.98]).astype(float)
    targets[rng.random((400, 3)) < 0.1] = np.nan
    subsets = [nested_fraction(targets, CLASSES, f, seed=seed) for f in (0.005, 0.02, 0.1, 1.0)]
    for subset in subsets:
        assert (targets[subset] == 1).any(axis=0).all()
        assert (targets[subset] == 0).any(axis=0).all()
    for small, large in pairwise(subsets):
        assert set(small) <= set(large)
    assert abs(len(subsets[2]) - 40) <= 6


def test_what_cannot_be_mended_is_named():
    with pytest.raises(InputError, match="class 'c' has no positive"):
        nested_fraction(single([5, 5, 0]), CLASSES, 0.5, seed=0)
    with pytest.raises(InputError, match="class 'b' has no negative"):
        nested_fraction(np.array([[1.0, 1.0], [0.0, 1.0]]), ("a", "b"), 0.5, seed=0)
    for fraction in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"lie in \(0, 1\]"):
            nested_fraction(single([5, 5, 5]), CLASSES, fraction, seed=0)
