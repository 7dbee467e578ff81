"""Fine-tuning: what trains, when, and what is kept of it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from convirt.config import ImageEncoderConfig, PretrainConfig, TransformConfig
from convirt.encoders import build_image_encoder
from convirt.errors import InputError
from convirt.evaluation import linear, protocol, saved_tuning
from convirt.evaluation.finetuning import Examples, FineTuning, Tower, classification_loss, whole_minibatches
from convirt.evaluation.inputs.images import read_canvases
from convirt.evaluation.inputs.units import pool_views
from convirt.evaluation.protocol import ClassificationProtocol, Schedule
from convirt.model import baseline, load
from fake_encoders import FINDINGS, install, write_archive
from flat_verbs import classify, finetune, read_table, retrieve

SIZE = 32
CPU = torch.device("cpu")
QUICK = {"fractions": (1.0,), "seeds": 1, "learning_rate": 0.003, "max_epochs": 3, "resamples": 50, "baselines": ()}


def model_of(seed=3, name="run"):
    config = PretrainConfig(
        image_encoder=ImageEncoderConfig(name="test_resnet.r160_in1k", weights="random"),
        transform=TransformConfig(size=SIZE),
    )
    model = baseline("random", config, seed=seed, device="cpu")
    model.name = name
    return model


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "images").mkdir()
    write_archive(tmp_path / "images")
    return {"table": tmp_path / "images" / "table.csv", "images": tmp_path / "images", "patient_column": "patient"}


def tower_of():
    encoder = build_image_encoder(ImageEncoderConfig(name="test_resnet.r160_in1k", weights="random"), seed=3)
    return Tower(encoder=encoder.eval(), size=SIZE, device=CPU)


@pytest.fixture
def task(archive, tmp_path):
    table = read_table(archive["table"], archive["images"], label_column="finding", patient_column="patient")
    with read_canvases(table.paths, {SIZE}, tmp_path / "room") as canvases:
        yield table, Examples(tower=tower_of(), canvases=canvases, pooled=pool_views(table, None))


def tuning_of(task, *, seed=0, **changes):
    table, examples = task
    settings = {"max_epochs": 3, "learning_rate": 0.003, **changes.pop("schedule", {})}
    rules = ClassificationProtocol(
        **{"settings": ("finetuned",), "warmup_steps": 5, **changes}, schedule=Schedule(**settings)
    )
    return FineTuning(examples, np.arange(len(table.rows("train"))), seed, rules)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_loss_has_the_slope_of_the_linear_heads(multi_label):
    """Both settings minimise one objective: autograd here, the derivative by hand there."""
    rng = np.random.default_rng(0)
    targets = torch.from_numpy(np.eye(3)[rng.integers(0, 3, 6)] if not multi_label else rng.random((6, 3)).round())
    if multi_label:
        targets[0, 1] = targets[3, 2] = np.nan
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    classification_loss(logits, targets, multi_label).backward()
    valid = torch.ones(1, 6, dtype=torch.bool)
    slope = linear._loss_slope(logits.detach()[None], targets[None], valid, multi_label)[0]
    torch.testing.assert_close(logits.grad, slope, atol=1e-12, rtol=0)
    everything_missing = torch.full((6, 3), np.nan)
    assert classification_loss(logits, everything_missing, True).item() == 0.0


def test_the_warm_up_trains_the_head_alone_and_then_everything_trains(task):
    tuning = tuning_of(task)
    before = {name: tensor.clone() for name, tensor in tuning.classifier.state_dict().items()}
    tuning.warm_up()
    after = tuning.classifier.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}  # no weight of the encoder, no statistics of its batch norm
    tuning.adam = tuning.optimiser()
    tuning.run_epoch()
    after = tuning.classifier.state_dict()
    trained = {name for name, _ in tuning.classifier.named_parameters()}
    assert all(not torch.equal(before[name], after[name]) for name in trained)
    assert any("running_mean" in name and not torch.equal(before[name], after[name]) for name in before)


def test_the_warm_up_is_so_many_steps_at_its_own_rate(task, monkeypatch):
    seen = []
    adam = torch.optim.Adam

    class Watched(adam):
        def step(self, closure=None):
            group = self.param_groups[0]
            seen.append((len([p for g in self.param_groups for p in g["params"]]), group["lr"], group["weight_decay"]))
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    tuning = tuning_of(task, warmup_steps=7, warmup_rate=1e-3, schedule={"max_epochs": 2, "learning_rate": 1e-4})
    tuning.run()
    everything = len(list(tuning.classifier.parameters()))
    assert seen[:7] == [(2, 1e-3, 1e-6)] * 7
    assert (
        seen[7:] == [(everything, pytest.approx(1e-4), 1e-6)] * 8
    )  # 40 rows, at least four steps an epoch, two epochs
    defaults = ClassificationProtocol()
    assert (defaults.warmup_steps, defaults.warmup_rate) == (200, 1e-3)
    assert (defaults.schedule.patience, defaults.schedule.stop_after, defaults.schedule.batch_size) == (3, 10, 64)


def test_validation_halves_stops_and_chooses_as_for_linear_heads(task, monkeypatch):
    scores = iter([0.5, 0.6] + [0.6] * 30)
    monkeypatch.setattr(protocol, "selection_score", lambda *_: next(scores))
    tuning = tuning_of(task, warmup_steps=0, schedule={"max_epochs": 50, "least_steps": 1, "learning_rate": 0.01})
    rates, states = [], []
    tuning.run(
        lambda now: (
            rates.append(now.adam.param_groups[0]["lr"]),
            states.append(now.classifier.head.weight.detach().clone()),
        )
    )
    assert tuning.epoch == 12  # ten epochs without gain after the best, the second
    assert rates == pytest.approx([0.01] * 5 + [0.005] * 3 + [0.0025] * 3 + [0.00125])
    assert torch.equal(tuning.classifier.head.weight, states[1])
    assert tuning.outcome().selected == [{"epoch": 2, "validation_score": 0.6, "steps": 12}]


def test_it_learns_what_the_images_show(task):
    table, _ = task
    tuning = tuning_of(task, schedule={"max_epochs": 12, "learning_rate": 0.01, "select_on": "accuracy"})
    tuning.run()
    outcome = tuning.outcome()
    codes = table.targets_NC[table.rows("test")].argmax(axis=1)
    assert (outcome.test_SNC[0].argmax(axis=1) == codes).mean() > 0.9
    assert outcome.val_SNC.shape == (1, 40, 3)


def test_the_seed_alone_decides(task):
    def scores(seed, noise):
        torch.manual_seed(noise)
        tuning = tuning_of(task, seed=seed)
        before = torch.get_rng_state()
        tuning.run()
        assert torch.equal(before, torch.get_rng_state())
        return tuning.outcome().test_SNC

    first = scores(0, 1)
    np.testing.assert_array_equal(first, scores(0, 2))
    assert not np.array_equal(first, scores(1, 1))


def test_the_limit_of_steps_ends_training_with_a_validation(task):
    tuning = tuning_of(task, max_steps=6, schedule={"max_epochs": 50})
    tuning.run()
    assert (tuning.step, tuning.epoch) == (6, 2)
    assert tuning.best


def test_a_single_image_is_no_minibatch():
    rows = [np.arange(4), np.array([4])]
    assert [part.tolist() for part in whole_minibatches(rows)] == [[0, 1, 2, 3, 4]]
    assert [len(part) for part in whole_minibatches([np.arange(4), np.arange(2)])] == [4, 2]


def test_a_loss_that_is_not_finite_is_said(task):
    tuning = tuning_of(task, schedule={"learning_rate": 1e30})
    with pytest.raises(InputError, match=r"lower --learning-rate") as caught:
        tuning.run()
    assert "\n" not in str(caught.value)


def test_canvases_are_what_encode_image_sees(archive, tmp_path):
    wide = archive["images"] / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 50), dtype=np.uint8)).save(wide)
    paths = [archive["images"] / "0-0.png", wide]
    model = model_of()
    seen = []
    model.image_encoder.forward = lambda views: seen.append(views) or views.flatten(1)[:, :8]
    model.encode_image([np.array(Image.open(path)) for path in paths], space="features", normalise=False)
    for in_memory in (2**30, 0):
        with read_canvases(paths, {SIZE, 16}, tmp_path / "room", in_memory=in_memory) as canvases:
            views = canvases.views(SIZE, np.array([0, 1]), CPU)
            torch.testing.assert_close(views, seen[0], atol=0.5 / 255 + 1e-6, rtol=0)
            assert canvases.by_size[16].shape == (2, 16, 16)
            assert canvases.sides_N2.tolist() == [[12, 12], [20, 50]]
            assert bool(list((tmp_path / "room").glob(".canvases-*"))) == (in_memory == 0)
        assert not list(tmp_path.glob("room/.canvases-*"))


def test_classify_in_both_settings_and_again(archive, tmp_path, monkeypatch, capsys):
    install(monkeypatch, model_of())
    asked = {**archive, **QUICK, "label_column": "finding", "out": tmp_path / "out", "seeds": 2}
    first = classify(["run"], **asked, settings=("linear", "finetuned"))
    assert {(row["setting"], row["head"]) for row in first.rows} == {
        ("linear", "paper"),
        ("linear", "logistic"),
        ("finetuned", "paper"),
    }
    printed = capsys.readouterr().out
    assert "fine-tuning" in printed
    assert "not shown, with --details or in metrics.json: calibration" in printed
    assert (tmp_path / "out" / "reliability.png").stat().st_size > 5000
    kept = sorted(path for path in (tmp_path / "out" / "cells").iterdir() if path.is_dir())
    assert [path.name[:8] for path in kept] == ["run-1-0-", "run-1-1-"]
    # Done cells are not trained again; a damaged one, and one of other settings, are.
    trained = []
    real = saved_tuning.fine_tune
    monkeypatch.setattr(saved_tuning, "fine_tune", lambda *given: trained.append(given[2]) or real(*given))
    again = classify(["run"], **asked, settings=("linear", "finetuned"))
    assert trained == []
    assert [row["mean"] for row in again.rows] == [row["mean"] for row in first.rows]
    outcome = kept[0] / "outcome.npz"
    outcome.write_bytes(outcome.read_bytes()[:100])
    once_more = classify(["run"], **asked, settings=("linear", "finetuned"))
    assert trained == [0]
    assert [row["mean"] for row in once_more.rows] == [row["mean"] for row in again.rows]
    # A cell as an earlier version kept it, a file, is taken over.
    (kept[1] / "outcome.npz").rename(kept[1].with_suffix(".saved"))
    shutil.rmtree(kept[1])
    kept[1].with_suffix(".saved").rename(kept[1].with_name(f"{kept[1].name}.npz"))
    assert [row["mean"] for row in classify(["run"], **asked, settings=("linear", "finetuned")).rows] == [
        row["mean"] for row in first.rows
    ]
    assert trained == [0]
    (tmp_path / "out" / "metrics.json").unlink()  # else another call would be refused
    classify(["run"], **{**asked, "learning_rate": 0.001}, settings=("finetuned",))
    assert trained == [0, 0, 1]


def test_a_stop_in_the_middle_loses_one_cell_at_most(archive, tmp_path, monkeypatch):
    install(monkeypatch, model_of())
    asked = {**archive, **QUICK, "label_column": "finding", "seeds": 3, "settings": ("finetuned",)}
    whole = classify(["run"], **asked, out=tmp_path / "whole")
    real, trained = saved_tuning.fine_tune, []

    def stopped(*given):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(given[2])
        return real(*given)

    monkeypatch.setattr(saved_tuning, "fine_tune", stopped)
    with pytest.raises(KeyboardInterrupt):
        classify(["run"], **asked, out=tmp_path / "parts")
    monkeypatch.setattr(saved_tuning, "fine_tune", real)
    assert not (tmp_path / "parts" / "metrics.json").exists()
    parts = classify(["run"], **asked, out=tmp_path / "parts")
    assert [row["seeds"] for row in parts.rows] == [row["seeds"] for row in whole.rows]
    assert parts.comparisons == whole.comparisons


def test_finetune_leaves_an_encoder_that_other_verbs_take(archive, tmp_path, tiny_run):
    asked = {"label_column": "finding", "max_epochs": 2, "resamples": 20, "device": "cpu"}
    results = finetune(tiny_run, **archive, **asked, out=tmp_path / "tuned")
    assert {row["method"] for row in results.rows} == {"tiny + supervised"}
    assert json.loads((tmp_path / "tuned" / "metrics.json").read_text())["verb"] == "finetune"
    before, after = load(tiny_run, device="cpu"), load(tmp_path / "tuned", device="cpu")
    assert after.shared_dim is None
    image = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
    vectors = [model.encode_image(image, space="features") for model in (before, after)]
    assert vectors[0].shape == vectors[1].shape
    assert not np.allclose(*vectors)
    with pytest.raises(InputError, match="no shared space"):
        after.encode_image(image)
    shown = retrieve(
        [tmp_path / "tuned"], archive["table"], archive["images"], out=tmp_path / "r", label_column="finding",
        patient_column="patient", split_column="split", baselines=(), resamples=20, device="cpu",
    )  # fmt: skip
    assert shown.rows[0]["method"] == "tuned"
    classify([tmp_path / "tuned"], **archive, **QUICK, label_column="finding", heads=("logistic",), out=tmp_path / "c")


def test_finetune_stopped_and_gone_on_with_ends_where_it_would_have(archive, tmp_path, tiny_run, monkeypatch):
    asked = {**archive, "label_column": "finding", "max_epochs": 4, "resamples": 20, "device": "cpu"}
    finetune(tiny_run, **asked, out=tmp_path / "whole")
    real, epochs = FineTuning.run_epoch, []

    def stopped(self):
        if len(epochs) == 2:
            raise KeyboardInterrupt
        epochs.append(self.epoch)
        real(self)

    monkeypatch.setattr(FineTuning, "run_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_run, **asked, out=tmp_path / "parts")
    monkeypatch.setattr(FineTuning, "run_epoch", real)
    assert not (tmp_path / "parts" / "best").exists()
    with pytest.raises(InputError, match="other settings"):
        finetune(tiny_run, **{**asked, "seed": 1}, out=tmp_path / "parts")
    finetune(tiny_run, **asked, out=tmp_path / "parts")
    tensors = [load(tmp_path / name, device="cpu").image_encoder.state_dict() for name in ("whole", "parts")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_listed_images_and_their_patients_are_left_out(archive, tmp_path, tiny_run):
    asked = {**archive, "label_column": "finding", "max_epochs": 1, "resamples": 20, "device": "cpu"}
    (tmp_path / "list.txt").write_text("CheXpert-v1.0-small/0-0.png\n./21-1.png\n59-0.png\n")
    results = finetune(tiny_run, **asked, out=tmp_path / "a", exclude=[tmp_path / "list.txt"])
    assert results.data["rows_excluded"] == 2  # the third is a test image, which nothing learns from
    assert results.data["splits"] == {"test": 40, "train": 39, "val": 39}
    (tmp_path / "list.csv").write_text("label,image\nedema,0-0.png\n")
    results = finetune(tiny_run, **asked, out=tmp_path / "b", exclude=[tmp_path / "list.csv"], exclude_patients=True)
    assert results.data["rows_excluded"] == 2
    (tmp_path / "other.txt").write_text("somewhere/else.png\n")
    with pytest.raises(InputError, match="none of its 1 images is in the table"):
        finetune(tiny_run, **asked, out=tmp_path / "c", exclude=[tmp_path / "other.txt"])


def test_several_labels(archive, tmp_path, monkeypatch):
    install(monkeypatch, model_of())
    results = classify(
        ["run"], **archive, **QUICK, label_columns=FINDINGS, settings=("finetuned",), max_steps=5, out=tmp_path / "out"
    )
    assert {row["metric"] for row in results.rows} == {"auc"}
    assert set(results.beside["calibration"][0]["by_label"]) == set(FINDINGS)
    assert {row["label"] for row in results.beside["operating_points"]} == set(FINDINGS)


@pytest.fixture
def studies(archive):
    """The archive, its images of one split and class put together in studies of one to three."""
    frame = pd.read_csv(archive["table"], dtype=str)
    frame["study"] = [f"{row.split}-{row.finding}-{i // 9}" for i, row in enumerate(frame.itertuples())]
    frame["patient"] = frame["study"]
    frame.to_csv(archive["table"], index=False)
    return archive


def test_the_views_of_a_study_are_one_row_with_the_mean_of_their_features(studies, tmp_path):
    columns = {"label_column": "finding", "patient_column": "patient", "pool_column": "study"}
    table = read_table(studies["table"], studies["images"], **columns)
    pooled = pool_views(table, "study")
    targets = pooled.table.targets_NC
    with read_canvases(table.paths, {SIZE}, tmp_path / "room") as canvases:
        examples = Examples(tower=tower_of(), canvases=canvases, pooled=pooled)
        tuning = tuning_of((pooled.table, examples))
        rows = np.array([5, 0, 5, 7])  # in any order, and one twice
        views, targets_BC = examples.batch(rows, CPU)
        classifier = tuning.classifier.eval()
        with torch.inference_mode():
            found, logits = classifier.features(views), classifier(views)
            for row, features, own in zip(rows, found, logits, strict=True):
                images = canvases.views(SIZE, np.flatnonzero(pooled.index_N == row), CPU)
                each = classifier.encoder(images)
                torch.testing.assert_close(features, each.mean(dim=0))
                torch.testing.assert_close(own, classifier.head(each).mean(dim=0))  # the mean of the logits as well
        np.testing.assert_array_equal(targets_BC.numpy(), targets[rows])
        tuning.run()
        assert tuning.outcome().test_SNC.shape == (1, len(pooled.table.rows("test")), 3)


def test_both_verbs_fine_tune_on_studies(studies, tmp_path, monkeypatch, tiny_run):
    install(monkeypatch, model_of())
    asked = {**studies, "label_column": "finding", "pool_column": "study"}
    results = classify(["run"], **asked, out=tmp_path / "c", settings=("linear", "finetuned"), **QUICK)
    count = pd.read_csv(studies["table"]).query("split == 'test'")["study"].nunique()
    assert {(row["setting"], row["n_test"]) for row in results.rows} == {("linear", count), ("finetuned", count)}
    assert all(row["pooled_by"] == "study" and row["pooled_images"] == 120 for row in results.rows)
    alone = {name: value for name, value in QUICK.items() if name in ("learning_rate", "max_epochs", "resamples")}
    found = finetune(tiny_run, **asked, out=tmp_path / "f", **alone)
    assert {(row["n_test"], row["pooled_by"]) for row in found.rows} == {(count, "study")}
