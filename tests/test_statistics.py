"""The bootstrap against explicit resampling."""

import numpy as np
import pytest

from convirt.errors import InputError
from convirt.evaluation.rows import Figure, compare, correct_families, describe_family
from convirt.evaluation.statistics.bootstrap import (
    Resampling,
    bootstrap_p_value,
    cluster_bootstrap,
    holm,
    paired_bootstrap,
    percentile_interval,
    weighted_mean,
)
from convirt.evaluation.statistics.metrics import auc, weighted_auc


def test_weights_are_whole_patients_drawn_with_replacement():
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    plan = Resampling.draw(patients, seeds=3, resamples=200, seed=4)
    assert plan.weights_NR.shape == (6, 200)
    assert plan.seeds_RS.shape == (200, 3)
    assert set(plan.seeds_RS.ravel()) == {0, 1, 2}
    for name in "abc":
        rows = plan.weights_NR[patients == name]
        assert (rows == rows[0]).all()
    assert (plan.weights_NR[[1, 0, 3]].sum(axis=0) == 3).all()  # as many patients as there are
    again = Resampling.draw(patients, seeds=3, resamples=200, seed=4)
    assert (plan.weights_NR == again.weights_NR).all()
    assert (plan.seeds_RS == again.seeds_RS).all()


def test_the_bootstrap_equals_rebuilding_each_resample():
    rng = np.random.default_rng(0)
    patients = np.array([f"p{i // 3}" for i in range(60)])
    labels, scores_SN = rng.integers(0, 2, 60), rng.integers(0, 9, (2, 60))
    plan = Resampling.draw(patients, seeds=2, resamples=50)
    found = cluster_bootstrap(lambda weights, s: weighted_auc(labels, scores_SN[s], weights), plan)
    for r in range(50):
        rows = [n for n in range(60) for _ in range(int(plan.weights_NR[n, r]))]
        expected = np.mean([auc(labels[rows], scores_SN[s][rows]) for s in plan.seeds_RS[r]])
        assert found[r] == pytest.approx(expected, abs=1e-12)
        mean = weighted_mean(scores_SN[0], plan.weights_NR)[r]
        assert mean == pytest.approx(np.mean(scores_SN[0][rows]), abs=1e-12)


def test_the_interval_leaves_out_undefined_resamples():
    interval = percentile_interval(np.r_[np.arange(101.0), np.nan])
    assert (interval.low, interval.high) == pytest.approx((2.5, 97.5))
    assert np.isnan(percentile_interval(np.array([np.nan])).low)


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(40), 25).astype(str)
    values = np.repeat(rng.normal(size=40), 25)
    by_patient = percentile_interval(
        weighted_mean(values, Resampling.draw(patients, seeds=1, resamples=500).weights_NR)
    )
    by_image = percentile_interval(
        weighted_mean(values, Resampling.draw(np.arange(1000).astype(str), seeds=1, resamples=500).weights_NR)
    )
    assert by_patient.high - by_patient.low > 3 * (by_image.high - by_image.low)


def test_a_95_percent_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        values = np.repeat(rng.normal(size=60), 2) + rng.normal(size=120)
        plan = Resampling.draw(np.repeat(np.arange(60), 2).astype(str), seeds=1, resamples=300, seed=trial)
        interval = percentile_interval(weighted_mean(values, plan.weights_NR))
        covered += interval.low <= 0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_pairing_finds_a_small_consistent_difference():
    rng = np.random.default_rng(5)
    shared = rng.normal(size=200)
    a, b = shared + 0.1 + rng.normal(size=200) * 0.05, shared
    plan = Resampling.draw(np.arange(200).astype(str), seeds=1, resamples=500)
    values = {"run": weighted_mean(a, plan.weights_NR), "random": weighted_mean(b, plan.weights_NR)}
    means = {"run": a.mean(), "random": b.mean()}
    figures = {name: Figure(values_S=[means[name]], values_R=values[name]) for name in values}
    (found,) = compare(figures, ["random"])
    assert (found["a"], found["b"]) == ("run", "random")
    assert found["difference"] == pytest.approx(0.1, abs=0.02)
    assert found["excludes_zero"]
    assert 0.09 < found["ci_low"] < found["ci_high"] < 0.12
    assert not paired_bootstrap(values["run"], values["run"]).excludes_zero


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="at least 2"):
        Resampling.draw(["one", "one"], seeds=1, resamples=10)
    with pytest.raises(InputError, match="resamples"):
        Resampling.draw(["one", "two"], seeds=1, resamples=0)
    with pytest.raises(InputError, match="shape"):
        paired_bootstrap(np.zeros(3), np.zeros(4))


def test_resamples_are_scored_together(monkeypatch):
    """All resamples in one pass over the sorted scores: one sort, however many resamples there are."""
    rng = np.random.default_rng(6)
    labels, scores = rng.integers(0, 2, 1500), rng.random(1500)
    sorts = []
    argsort = np.argsort
    monkeypatch.setattr(np, "argsort", lambda *args, **options: sorts.append(1) or argsort(*args, **options))
    counts = []
    for resamples in (1, 1000):
        plan = Resampling.draw(rng.integers(0, 500, 1500).astype(str), seeds=1, resamples=resamples)
        sorts.clear()
        weighted_auc(labels, scores, plan.weights_NR)
        counts.append(len(sorts))
    assert counts[0] == counts[1] <= 2


def test_the_p_value_counts_resamples_on_the_rarer_side():
    assert bootstrap_p_value(np.r_[np.full(97, 0.2), -0.1, 0.0, np.nan]) == pytest.approx(2 * (2 + 1) / (99 + 1))
    assert bootstrap_p_value(np.full(999, 0.2)) == pytest.approx(2 / 1000)  # never 0
    assert bootstrap_p_value(np.zeros(50)) == 1.0
    assert bootstrap_p_value(np.array([-1.0, 1.0])) == 1.0
    assert np.isnan(bootstrap_p_value(np.array([np.nan])))


def test_the_p_value_and_the_interval_agree():
    rng = np.random.default_rng(8)
    for _ in range(200):
        differences = rng.normal(rng.normal(scale=2.5), 1.0, 2000)
        p = bootstrap_p_value(differences)
        if abs(p - 0.05) > 0.005:
            assert (p < 0.05) == percentile_interval(differences).excludes_zero


def test_under_no_difference_p_values_are_spread_evenly():
    rng = np.random.default_rng(9)
    found = []
    for trial in range(300):
        plan = Resampling.draw(np.arange(80).astype(str), seeds=1, resamples=200, seed=trial)
        found.append(bootstrap_p_value(weighted_mean(rng.normal(size=80), plan.weights_NR)))
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.1
    assert 0.4 <= np.mean(np.array(found) < 0.5) <= 0.6


def test_holm_by_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([0.02, np.nan, 0.04]).tolist() == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)
    assert holm([]).tolist() == []
    rng = np.random.default_rng(10)
    for _ in range(50):
        p = rng.random(7) ** 3
        for level in (0.01, 0.05, 0.3):  # reject in order until one is not below level / (hypotheses left)
            rejected = set()
            for left, i in zip(range(7, 0, -1), np.argsort(p), strict=True):
                if p[i] > level / left:
                    break
                rejected.add(int(i))
            assert set(np.flatnonzero(holm(p) <= level).tolist()) == rejected


def test_families_are_corrected_apart():
    common = {"task": "t", "setting": "linear", "space": "features"}
    comparisons = [
        {**common, "head": "paper", "fraction": f, "a": "run", "b": "random", "p_value": p}
        for f, p in ((0.1, 0.02), (1.0, 0.03))
    ]
    comparisons.append({**common, "head": "logistic", "fraction": 1.0, "a": "run", "b": "random", "p_value": 0.02})
    comparisons.append({**common, "head": "paper", "fraction": 1.0, "a": "run", "b": "metadata", "p_value": 0.04})
    found = correct_families(comparisons)
    assert [row["p_holm"] for row in found] == pytest.approx([0.04, 0.04, 0.02, 0.04])
    assert [row["family_size"] for row in found] == [2, 2, 1, 1]
    assert "p_holm" not in comparisons[0]


def test_the_caption_says_where_so_few_resamples_can_show_nothing() -> None:
    rows = [{"family_size": 156, "p_least": 2 / 1001}]
    said = describe_family(rows)
    assert said.endswith("of which so few resamples can show none below 0.31 (--resamples 13000 could)")
    assert 156 * 2 / 13001 < 0.05
    assert describe_family([{"family_size": 12, "p_least": 2 / 1001}]).endswith("over 12 comparisons")
    values_R = np.arange(999.0)
    figures = {"a": Figure(values_S=[1.0], values_R=values_R + 1), "b": Figure(values_S=[0.0], values_R=values_R)}
    (row,) = compare(figures, ())
    assert row["p_least"] == row["p_value"] == 2 / 1000
