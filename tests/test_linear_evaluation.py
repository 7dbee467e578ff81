"""The heads, alone and through the whole protocol."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from convirt.errors import InputError
from convirt.evaluation import linear, protocol
from convirt.evaluation.findings import evaluate
from convirt.evaluation.inputs.images import LabelledFeatures
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.linear import fit_logistic, train_heads, train_linear
from convirt.evaluation.protocol import ClassificationProtocol, Plateau, Schedule
from convirt.evaluation.statistics.metrics import mean_auc, one_hot


def features(rows, *, dim=12, classes=3, signal=1.5, seed=0, multi_label=False):
    """Class (or label) means plus noise."""
    means = np.random.default_rng(99).normal(size=(classes, dim))
    rng = np.random.default_rng(seed)
    if multi_label:
        targets = (rng.random((rows, classes)) < 0.4).astype(float)
    else:
        targets = one_hot(rng.integers(0, classes, rows), classes)
    values = (signal * targets @ means + rng.normal(size=(rows, dim))).astype(np.float32)
    if multi_label:
        targets[rng.random(targets.shape) < 0.1] = np.nan
    return LabelledFeatures(features_ND=values, targets_NC=targets, multi_label=multi_label)


def evaluate_features(methods, table, protocol, *, task, baselines=()):
    found = evaluate(train_linear(methods, table, protocol), table, protocol, task=task, baselines=baselines)
    return found.rows, found.comparisons, found.predictions


def table_of(data, patients_of=2):
    n = len(data.targets_NC)
    third = np.arange(n) * 3 // n
    return LabelledTable(
        images=tuple(f"{i}.png" for i in range(n)),
        paths=(),
        patients_N=np.array([f"{third[i]}-{i // patients_of}" for i in range(n)]),
        splits_N=np.array(["train", "val", "test"])[third],
        classes=tuple("abcdefgh"[: data.targets_NC.shape[1]]),
        targets_NC=data.targets_NC,
        multi_label=data.multi_label,
        roles_N=np.full(n, ""),
        sha256="",
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_slope_is_that_of_torchs_loss(multi_label):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    data = features(10, multi_label=multi_label)
    targets = torch.from_numpy(data.targets_NC).view(2, 5, 3)
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = linear._loss_slope(logits.detach(), targets, valid, multi_label)
    loss = torch.zeros((), dtype=torch.float64)
    for s in range(2):
        z, t = logits[s][valid[s]], targets[s][valid[s]]
        if multi_label:
            given = ~t.isnan()
            loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(z[given], t[given])
        else:
            loss = loss + torch.nn.functional.cross_entropy(z, t.argmax(dim=1))
    (expected,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("multi_label", [False, True])
def test_one_head_is_torchs_linear_layer_under_torchs_adam(multi_label):
    """Without dropout and with one minibatch a step, the head is a few lines of torch."""
    train, val = features(20, multi_label=multi_label), features(40, seed=1, multi_label=multi_label)
    config = Schedule(dropout=0.0, max_epochs=7, patience=100, stop_after=100, learning_rate=0.05)
    heads = train_heads(train, val, [np.arange(20)], [3], config)
    weight, bias = linear._initial(12, 3, [3])
    layer = torch.nn.Linear(12, 3)
    layer.weight.data, layer.bias.data = weight[0].clone(), bias[0].clone()
    adam = torch.optim.Adam(layer.parameters(), lr=0.05, weight_decay=1e-6)
    targets = torch.from_numpy(train.targets_NC).float()
    for _ in range(int(heads.epoch_S[0]) * config.least_steps):
        logits = layer(torch.from_numpy(train.features_ND))
        if multi_label:
            given = ~targets.isnan()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[given], targets[given])
        else:
            loss = torch.nn.functional.cross_entropy(logits, targets.argmax(dim=1))
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(heads.weight_SCD[0], layer.weight.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(heads.bias_SC[0], layer.bias.detach(), atol=1e-5, rtol=1e-4)


def test_heads_trained_together_end_as_alone():
    """Subsets of different sizes too: a seed that has run out of rows must not step."""
    train, val, test = features(300), features(150, seed=1), features(100, seed=2)
    subsets = [np.arange(0, 300, 2), np.arange(50, 250), np.arange(10)]
    config = Schedule(learning_rate=3e-3, max_epochs=25, batch_size=32)
    together = train_heads(train, val, subsets, [0, 1, 2], config)
    for s, subset in enumerate(subsets):
        alone = train_heads(train, val, [subset], [s], config)
        assert alone.epoch_S[0] == together.epoch_S[s]
        np.testing.assert_allclose(alone.scores(test.features_ND)[0], together.scores(test.features_ND)[s], atol=1e-5)
    again = train_heads(train, val, subsets, [0, 1, 2], config)
    assert torch.equal(again.weight_SCD, together.weight_SCD)


def test_every_epoch_visits_each_row_once_and_drops_a_fifth():
    subsets = [np.arange(100, 200), np.arange(7)]  # four steps, and four passes of one step
    seen: list[list[int]] = [[], []]
    kept = []
    for rows, valid, keep in linear._minibatches(subsets, [0, 1], 1, 50, Schedule(batch_size=32)):
        for s in range(2):
            seen[s] += rows[s][valid[s]].tolist()
            kept.append(keep[s][valid[s]].flatten())
            assert not keep[s][~valid[s]].any()
    assert sorted(seen[0]) == list(range(100, 200))
    assert sorted(seen[1]) == sorted(list(range(7)) * 4)
    assert torch.cat(kept).mean().item() == pytest.approx(0.8, abs=0.02)


def test_the_rate_halves_after_three_epochs_and_training_stops_after_ten(monkeypatch):
    scores = iter([0.5, 0.6] + [0.6] * 30)
    monkeypatch.setattr(protocol, "selection_score", lambda *_: next(scores))
    plateau = Plateau(1, Schedule())
    rates, active = [], []
    for epoch in range(1, 14):
        plateau.update(epoch, np.zeros((1, 2, 2), np.float32), np.zeros((2, 2)))
        rates.append(plateau.rate_S.item())
        active.append(plateau.active_S.item())
    halvings = [epoch for epoch in range(2, 14) if rates[epoch - 1] < rates[epoch - 2]]
    assert halvings == [5, 8, 11]  # the best is epoch 2; equal is no gain
    assert active.index(False) + 1 == 12
    assert plateau.epoch_S.tolist() == [2]


def test_logistic_regression_is_sklearns_on_standardised_features():
    for rows in (60, 8):  # more rows than features, and fewer: the rotation changes nothing
        train, val, test = (
            features(rows, signal=0.7),
            features(90, seed=1, signal=0.7),
            features(50, seed=2, signal=0.7),
        )
        scaler = StandardScaler().fit(train.features_ND.astype(float))
        x_train, x_val, x_test = (scaler.transform(x.features_ND.astype(float)) for x in (train, val, test))
        best = None
        for c in (1e-3, 1e-1, 10.0):
            model = LogisticRegression(C=c, max_iter=5000, tol=1e-8).fit(x_train, train.targets_NC.argmax(axis=1))
            loss = log_loss(val.targets_NC.argmax(axis=1), model.predict_proba(x_val))
            if best is None or loss < best[0]:
                best = (loss, c, model.predict_proba(x_test))
        fit = fit_logistic(train, val, test.features_ND, grid=(10.0, 1e-3, 1e-1))
        assert fit.c == best[1]
        np.testing.assert_allclose(fit.test_scores_NC, best[2], atol=2e-3)
        assert fit.converged


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
def test_a_fit_that_does_not_converge_is_recorded_not_printed(monkeypatch):
    assert issubclass(ConvergenceWarning, Warning)
    monkeypatch.setattr("convirt.evaluation.linear._MAX_ITERATIONS", 1)
    assert not fit_logistic(features(60), features(60, seed=1), features(9).features_ND, grid=(10.0,)).converged


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("head", ["paper", "logistic"])
def test_an_oracle_scores_one_and_noise_scores_chance(multi_label, head):
    data = features(600, multi_label=multi_label, classes=4)
    table = table_of(data)
    rng = np.random.default_rng(7)
    oracle = np.c_[np.nan_to_num(data.targets_NC) * 4, rng.normal(size=(600, 8))].astype(np.float32)
    if multi_label:  # what a gap hides must not be in the oracle either way
        oracle = (features(600, multi_label=True, classes=4, signal=8.0)).features_ND
    methods = {"random": rng.normal(size=(600, 12)).astype(np.float32), "oracle": oracle}
    protocol = ClassificationProtocol(
        fractions=(0.1, 1.0),
        seeds=(0, 1, 2),
        heads=(head,),
        resamples=300,
        schedule=Schedule(learning_rate=0.05),
    )
    rows, comparisons, predictions = evaluate_features(methods, table, protocol, task="t", baselines=("random",))
    for row in rows:
        assert row["space"] == "features"
        assert (row["n_test"], row["n_patients"]) == (200, len(np.unique(table.patients_N[400:])))
        assert len(row["seeds"]) == 3
        assert row["ci_low"] <= row["mean"] <= row["ci_high"]
        if row["method"] == "oracle" and row["fraction"] == 1.0:
            assert row["mean"] > 0.97
        if row["method"] == "random" and row["metric"] == "auc":
            assert row["chance"] == 0.5
            assert abs(row["mean"] - 0.5) < 0.08
    assert {row["metric"] for row in rows} == ({"auc"} if multi_label else {"auc", "accuracy"})
    assert len(comparisons) == (2 if multi_label else 4)
    for row in comparisons:
        assert (row["a"], row["b"]) == ("oracle", "random")
        assert row["excludes_zero"]
    scores = predictions[f"{head}|1|oracle"]
    assert scores.shape == (3, 200, 4)
    (row,) = [r for r in rows if r["method"] == "oracle" and r["fraction"] == 1 and r["metric"] == "auc"]
    assert row["mean"] == pytest.approx(np.mean([mean_auc(predictions["test_targets"], s) for s in scores]))


def test_nothing_is_chosen_on_test():
    """Other test labels and features change figures, but no choice and no score of an untouched row."""
    data = features(300, signal=0.5)
    other = LabelledFeatures(features_ND=data.features_ND.copy(), targets_NC=data.targets_NC.copy(), multi_label=False)
    other.features_ND[250:] *= 3
    other.targets_NC[200:] = np.roll(other.targets_NC[200:], 1, axis=1)
    protocol = ClassificationProtocol(fractions=(0.2, 1.0), seeds=(0, 1), resamples=20)
    found = [evaluate_features({"m": x.features_ND}, table_of(x), protocol, task="t") for x in (data, other)]
    assert [r["selected"] for r in found[0][0]] == [r["selected"] for r in found[1][0]]
    for key in ("paper|0.2|m", "paper|1|m", "logistic|0.2|m", "logistic|1|m"):
        np.testing.assert_allclose(found[0][2][key][:, :50], found[1][2][key][:, :50], atol=1e-6)
    assert [r["mean"] for r in found[0][0]] != [r["mean"] for r in found[1][0]]


def test_chance_of_accuracy_is_the_commonest_class_of_training():
    data = features(300)
    codes = np.r_[np.tile([0, 0, 1, 2], 25), np.tile([0, 1, 2, 2], 50)]
    data = LabelledFeatures(features_ND=data.features_ND, targets_NC=one_hot(codes, 3), multi_label=False)
    protocol = ClassificationProtocol(fractions=(1.0,), seeds=(0,), heads=("logistic",), resamples=20)
    rows, _, _ = evaluate_features({"m": data.features_ND}, table_of(data), protocol, task="t")
    row = next(row for row in rows if row["metric"] == "accuracy")
    assert row["chance"] == 0.25
    assert row["chance_guessing"] == pytest.approx(0.25**2 * 2 + 0.5**2)
    assert row["std"] is None


def test_unusable_tasks_are_refused_before_any_work():
    data = features(300)
    for changed, message in (("train", "no negative training image"), ("val", "val rows hold no class")):
        table = table_of(data)
        rows = table.rows(changed)
        table.targets_NC[rows] = one_hot(np.zeros(len(rows), int), 3)
        with pytest.raises(InputError, match=message):
            ClassificationProtocol().check(table)
        data = features(300)
    with pytest.raises(InputError, match="not defined for several labels"):
        ClassificationProtocol(schedule=Schedule(select_on="accuracy")).check(table_of(features(300, multi_label=True)))
    for options in ({"heads": ("mlp",)}, {"fractions": ()}, {"seeds": (0, 0)}):
        with pytest.raises(InputError):
            ClassificationProtocol(**options)
    with pytest.raises(InputError, match="learning rate"):
        Schedule(learning_rate=0.0)
