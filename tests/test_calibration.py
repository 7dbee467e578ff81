"""Calibration against its definition, by loops."""

import numpy as np
import pytest

from convirt.errors import InputError
from convirt.evaluation.calibration import (
    calibration_inputs,
    expected_calibration_error,
    label_calibration_errors,
    reliability,
    wilson,
)


def naive_ece(confidences, outcomes, bins):
    """Guo et al. 2017, equations 2 and 3: B_m holds the samples with confidence in ((m - 1) / M, m / M]."""
    total, n = 0.0, len(confidences)
    for m in range(1, bins + 1):
        inside = [
            i for i in range(n) if (m - 1) / bins < confidences[i] <= m / bins or (m == 1 and confidences[i] == 0)
        ]
        if inside:
            accuracy = sum(outcomes[i] for i in inside) / len(inside)
            confidence = sum(confidences[i] for i in inside) / len(inside)
            total += len(inside) / n * abs(accuracy - confidence)
    return total


def test_a_hand_made_case():
    # Bin (0, 0.5]: confidences 0.2 and 0.4, one of two right; bin (0.5, 1]: 0.6 and 1.0, both right.
    found = reliability(np.array([0.2, 0.4, 0.6, 1.0]), np.array([0, 1, 1, 1]), bins=2)
    assert found.count_M.tolist() == [2, 2]
    np.testing.assert_allclose(found.confidence_M, [0.3, 0.8])
    np.testing.assert_allclose(found.accuracy_M, [0.5, 1.0])
    assert found.ece == pytest.approx(0.5 * 0.2 + 0.5 * 0.2)


def test_it_equals_the_definition():
    rng = np.random.default_rng(0)
    for bins in (1, 4, 15):
        confidence = rng.random(300)
        confidence[:3] = 0.0, 1.0, 0.5
        outcome = (rng.random(300) < confidence**2).astype(float)
        assert reliability(confidence, outcome, bins).ece == pytest.approx(
            naive_ece(confidence, outcome, bins), abs=1e-12
        )


def test_single_label_takes_the_most_probable_class():
    rng = np.random.default_rng(1)
    scores = rng.dirichlet(np.ones(3), 200)
    codes = rng.integers(0, 3, 200)
    targets = (codes[:, None] == np.arange(3)).astype(float)
    confidences = [max(row) for row in scores]
    right = [float(list(row).index(max(row)) == code) for row, code in zip(scores, codes, strict=True)]
    found = expected_calibration_error(targets, scores, multi_label=False)
    assert found == pytest.approx(naive_ece(confidences, right, 15), abs=1e-12)


def test_several_labels_are_averaged_and_missing_ones_left_out():
    rng = np.random.default_rng(2)
    scores = rng.random((100, 2))
    targets = (rng.random((100, 2)) < scores).astype(float)
    targets[:30, 1] = np.nan
    each = [
        naive_ece(scores[:, 0], targets[:, 0], 15),
        naive_ece(scores[30:, 1], targets[30:, 1], 15),
    ]
    assert label_calibration_errors(targets, scores) == pytest.approx(each, abs=1e-12)
    assert expected_calibration_error(targets, scores, multi_label=True) == pytest.approx(np.mean(each), abs=1e-12)
    confidence, outcome = calibration_inputs(targets, scores, multi_label=True)
    assert reliability(confidence, outcome).count_M.sum() == 170


def test_perfect_probabilities_have_a_small_error_and_certain_wrong_ones_the_largest():
    rng = np.random.default_rng(3)
    confidence = rng.random(20000)
    assert reliability(confidence, (rng.random(20000) < confidence).astype(float)).ece < 0.02
    assert reliability(np.ones(10), np.zeros(10)).ece == 1.0
    assert np.isnan(reliability(np.array([0.5]), np.array([np.nan])).ece)


def test_what_is_no_probability_is_refused():
    for wrong in (1.5, -0.1, np.nan):
        with pytest.raises(InputError, match="probabilities"):
            reliability(np.array([0.5, wrong]), np.array([1, 0]))


def test_the_interval_of_a_bin_is_wilsons():
    low, high = wilson(np.array([0.0, 0.5, 1.0]), np.array([10, 10, 10]))
    np.testing.assert_allclose(low, [0.0, 0.2366, 0.7225], atol=1e-4)
    np.testing.assert_allclose(high, [0.2775, 0.7634, 1.0], atol=1e-4)
