"""DeLong's variance and test against published figures and against the definition."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from convirt.errors import InputError
from convirt.evaluation.statistics.delong import delong_covariance, delong_test, independent_rows
from convirt.evaluation.statistics.metrics import auc

# DeLong, DeLong and Clarke-Pearson (1988), 49 patients with ovarian cancer: albumin, total protein, K-G score, and
# whether surgery helped; the figures below are those of the SAS/STAT user's guide, PROC LOGISTIC, "Comparing Receiver
# Operating Characteristic Curves"; the data were compared with its page, the figures are from its text, not re-read.
PATIENTS = """
3.0 5.8 10 0  3.2 6.3  5 1  3.9 6.8  3 1  2.8 4.8  6 0  3.2 5.8  3 1  0.9 4.0  5 0  2.5 5.7  8 0
1.6 5.6  5 1  3.8 5.7  5 1  3.7 6.7  6 1  3.2 5.4  4 1  3.8 6.6  6 1  4.1 6.6  5 1  3.6 5.7  5 1
4.3 7.0  4 1  3.6 6.7  4 0  2.3 4.4  6 1  4.2 7.6  4 0  4.0 6.6  6 0  3.5 5.8  6 1  3.8 6.8  7 1
3.0 4.7  8 0  4.5 7.4  5 1  3.7 7.4  5 1  3.1 6.6  6 1  4.1 8.2  6 1  4.3 7.0  5 1  4.3 6.5  4 1
3.2 5.1  5 1  2.6 4.7  6 1  3.3 6.8  6 0  1.7 4.0  7 0  3.7 6.1  5 1  3.3 6.3  7 1  4.2 7.7  6 1
3.5 6.2  5 1  2.9 5.7  9 0  2.1 4.8  7 1  2.8 6.2  8 0  4.0 7.0  7 1  3.3 5.7  6 1  3.7 6.9  5 1
3.6 6.6  5 1
"""


def published():
    """The 43 of the 49 patients that have all three tests."""
    values = np.array(PATIENTS.split(), dtype=float).reshape(-1, 4)
    return values[:, 3], np.stack([values[:, 0], values[:, 1], 10 - values[:, 2]])


def naive(positive, scores_KN):
    """Equations 3 to 6 by loops: every positive against every negative."""
    models = len(scores_KN)
    rows_p, rows_m = [np.flatnonzero(positive == value) for value in (1, 0)]
    wins = np.zeros((models, len(rows_p), len(rows_m)))
    for k in range(models):
        for i, p in enumerate(rows_p):
            for j, m in enumerate(rows_m):
                x, y = scores_KN[k][p], scores_KN[k][m]
                wins[k, i, j] = 1.0 if x > y else 0.5 if x == y else 0.0
    theta = [wins[k].sum() / (len(rows_p) * len(rows_m)) for k in range(models)]
    covariance = np.zeros((models, models))
    for r in range(models):
        for s in range(models):
            s10 = sum((wins[r, i].mean() - theta[r]) * (wins[s, i].mean() - theta[s]) for i in range(len(rows_p))) / (
                len(rows_p) - 1
            )
            s01 = sum(
                (wins[r, :, j].mean() - theta[r]) * (wins[s, :, j].mean() - theta[s]) for j in range(len(rows_m))
            ) / (len(rows_m) - 1)
            covariance[r, s] = s10 / len(rows_p) + s01 / len(rows_m)
    return np.array(theta), covariance


def test_the_published_example():
    positive, scores = published()
    areas, covariance = delong_covariance(positive, scores)
    assert ((positive == 1).sum(), (positive == 0).sum()) == (31, 12)
    np.testing.assert_allclose(areas, [0.7366, 0.6478, 0.7258], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [0.0927, 0.1000, 0.1028], atol=5e-5)
    contrast = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]])  # each against the K-G score
    difference = contrast @ areas
    chi_square = difference @ np.linalg.inv(contrast @ covariance @ contrast.T) @ difference
    assert chi_square == pytest.approx(2.5340, abs=5e-5)


def test_a_published_variance():
    """yandexdataschool/roc_comparison, `test.py`: the variance of a classifier's AUC on scikit-learn's iris data."""
    data, target = load_iris(return_X_y=True)
    fitted, tested, labels, positive = train_test_split(data, target == 1, test_size=0.8, random_state=42)
    scores = LogisticRegression(solver="lbfgs").fit(fitted, labels).predict_proba(tested)[:, 1]
    assert delong_covariance(positive, scores[None])[1].item() == pytest.approx(0.0015359814789736538, rel=1e-9)


def test_it_equals_the_definition_with_many_ties():
    rng = np.random.default_rng(0)
    for rows, levels in ((12, 3), (60, 5), (80, 1000)):
        positive = rng.integers(0, 2, rows).astype(float)
        positive[:4] = 0, 1, 0, 1
        scores = rng.integers(0, levels, (3, rows)) + positive * rng.integers(0, 2, (3, rows))
        areas, covariance = delong_covariance(positive, scores)
        expected_areas, expected = naive(positive, scores)
        np.testing.assert_allclose(areas, expected_areas, atol=1e-12)
        np.testing.assert_allclose(covariance, expected, atol=1e-12)
        np.testing.assert_allclose(areas, [auc(positive, row) for row in scores], atol=1e-12)
        found = delong_test(positive, scores[0], scores[1])
        error = np.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1])
        assert found.standard_error == pytest.approx(error, abs=1e-12)
        z = (expected_areas[0] - expected_areas[1]) / error
        assert found.p_value == pytest.approx(2 * norm.sf(abs(z)), abs=1e-12)
        low, high = found.interval()
        assert (low + high) / 2 == pytest.approx(found.difference)
        assert high - low == pytest.approx(2 * 1.959964 * error, rel=1e-6)


def test_rows_without_a_label_do_not_count():
    positive, scores = published()
    more = np.append(positive, [np.nan] * 3)
    padded = np.concatenate([scores, np.full((3, 3), 99.0)], axis=1)
    for found, expected in zip(delong_covariance(more, padded), delong_covariance(positive, scores), strict=True):
        np.testing.assert_allclose(found, expected)


def test_equal_rankings_have_no_difference():
    positive, scores = published()
    found = delong_test(positive, scores[0], 2 * scores[0] + 1)
    assert (found.difference, found.standard_error, found.p_value) == (0.0, 0.0, 1.0)


def test_under_no_difference_one_test_in_twenty_is_significant():
    rng = np.random.default_rng(1)
    significant = 0
    for _ in range(400):
        positive = np.repeat([0.0, 1.0], 40)
        shared = rng.normal(size=80) + positive
        significant += delong_test(positive, *(shared + rng.normal(size=(2, 80)))).p_value < 0.05
    assert 0.02 <= significant / 400 <= 0.09


def test_bad_input_is_one_line():
    with pytest.raises(InputError, match="2 positives and 2 negatives, got 1 and 3"):
        delong_test(np.array([1, 0, 0, 0]), np.arange(4.0), np.arange(4.0))
    with pytest.raises(InputError, match="finite"):
        delong_test(np.array([1, 1, 0, 0]), np.array([0, np.nan, 1, 2]), np.arange(4.0))
    assert independent_rows(["a", "b"])
    assert not independent_rows(np.array(["a", "b", "a"]))
