"""Thresholds and the rates that they achieve, against loops."""

import numpy as np
import pytest

from convirt.errors import InputError
from convirt.evaluation.calibration import choose_threshold, rates
from convirt.evaluation.protocol import Rule


def counted(positive, scores, threshold):
    """Sensitivity and specificity by counting."""
    hits = sum(1 for y, s in zip(positive, scores, strict=True) if y == 1 and s >= threshold)
    refused = sum(1 for y, s in zip(positive, scores, strict=True) if y == 0 and s < threshold)
    return hits / sum(y == 1 for y in positive), refused / sum(y == 0 for y in positive)


@pytest.mark.parametrize("text", ["youden", "sensitivity=0.9", "specificity=0.8", "sensitivity=1"])
def test_no_threshold_does_better(text):
    rng = np.random.default_rng(4)
    rule = Rule.parse(text)
    assert str(rule) == text
    for levels in (4, 10, 1000):
        positive = rng.integers(0, 2, 80).astype(float)
        scores = rng.integers(0, levels, 80) / levels + 0.3 * positive
        found = choose_threshold(positive, scores, rule)
        all_rates = [counted(positive, scores, t) for t in [*np.unique(scores), 99.0]]
        if rule.kind == "youden":
            best = max(sum(pair) for pair in all_rates)
            assert sum(counted(positive, scores, found)) == pytest.approx(best)
        else:
            held, other = (0, 1) if rule.kind == "sensitivity" else (1, 0)
            best = max(pair[other] for pair in all_rates if pair[held] >= rule.target - 1e-12)
            chosen = counted(positive, scores, found)
            assert chosen[held] >= rule.target - 1e-12
            assert chosen[other] == pytest.approx(best)


def test_rates_of_resamples_are_those_of_repeated_rows():
    rng = np.random.default_rng(5)
    positive = np.append(rng.integers(0, 2, 30).astype(float), np.nan)
    scores = rng.random(31)
    weights = rng.integers(0, 3, (31, 20)).astype(float)
    sensitivity, specificity = rates(positive, scores, 0.4, weights)
    for r in range(20):
        rows = [n for n in range(30) for _ in range(int(weights[n, r]))]
        expected = counted(positive[rows], scores[rows], 0.4)
        assert (sensitivity[r], specificity[r]) == pytest.approx(expected)
    assert np.isnan(rates(np.ones(3), np.zeros(3), 0.5, np.ones((3, 1)))[1]).all()


def test_bad_input_is_one_line():
    for text in ("yuden", "sensitivity", "sensitivity=2", "specificity=x", "youden=1", "sensitivity=0"):
        with pytest.raises(InputError, match="unknown operating point"):
            Rule.parse(text)
    with pytest.raises(InputError, match="with and without the finding"):
        choose_threshold(np.ones(4), np.arange(4.0), Rule(kind="youden"))
