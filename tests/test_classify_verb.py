"""`classify` from table and images to metrics.json."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from convirt.config import ImageEncoderConfig, PretrainConfig, TransformConfig
from convirt.errors import InputError
from convirt.evaluation.inputs import images
from convirt.evaluation.statistics.metrics import auc, mean_auc
from convirt.model import baseline
from fake_encoders import FINDINGS, Oracle, install, write_archive
from flat_verbs import classify

VERSION = Path(__file__).parent / "data" / "version-0.1"
QUICK = {"fractions": (0.2, 1.0), "seeds": 2, "learning_rate": 0.02, "max_epochs": 40, "resamples": 100}


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "images").mkdir()
    return {
        "table": write_archive(tmp_path / "images"),
        "images": tmp_path / "images",
        "patient_column": "patient",
        "out": tmp_path / "out",
    }


def test_an_oracle_beside_a_blind_baseline(archive, monkeypatch, capsys):
    oracle = Oracle()
    made = install(monkeypatch, oracle)
    results = classify(["runs/oracle"], **archive, **QUICK, label_column="finding", baselines=("random",))
    written = json.loads((archive["out"] / "metrics.json").read_text())
    assert written["rows"] == json.loads(json.dumps(results.rows))
    assert set(written) >= {"format", "verb", "config", "seeds", "versions", "data", "rows", "comparisons"}
    assert (written["format"], written["verb"], written["seeds"]) == (2, "classify", [0, 1])
    assert written["data"]["splits"] == {"test": 40, "train": 40, "val": 40}
    assert len(written["data"]["images_sha256"]) == 64
    assert oracle.images_seen == made["random"].images_seen == 120  # once each
    assert len(written["rows"]) == 2 * 2 * 2 * 2  # heads, fractions, methods, metrics
    for row in written["rows"]:
        assert set(row) >= {
            *("task", "method", "space", "metric", "head", "fraction", "n_train", "n_test", "n_patients", "mean"),
            *("std", "seeds", "ci_low", "ci_high", "chance", "higher_is_better"),
        }
        assert row["n_train"] == (40 if row["fraction"] == 1 else 9)  # a fifth of 13 or 14 images of each class
        if row["method"] == "oracle" and (row["metric"] == "auc" or row["head"] == "logistic"):
            assert row["mean"] > 0.95
        elif row["method"] == "oracle":  # the paper's head stops when the ranking is perfect
            assert row["mean"] > 0.6
        elif row["metric"] == "auc":
            assert abs(row["mean"] - 0.5) < 0.2
    assert len(written["comparisons"]) == 2 * 2 * 2
    assert all(c["excludes_zero"] and c["b"] == "random" for c in written["comparisons"] if c["metric"] == "auc")
    with np.load(archive["out"] / "predictions.npz") as arrays:
        recomputed = np.mean([mean_auc(arrays["test_targets"], s) for s in arrays["paper|0.2|random"]])
        assert list(arrays["classes"]) == list(FINDINGS)
    keys = {"head": "paper", "fraction": 0.2, "method": "random", "metric": "auc"}
    (row,) = [row for row in written["rows"] if all(row[k] == v for k, v in keys.items())]
    assert row["mean"] == pytest.approx(recomputed)
    printed = capsys.readouterr().out
    assert "chance" in printed
    assert "logistic regression" in printed
    assert not [name for name in os.listdir(archive["out"]) if name.startswith(".")]


def test_the_same_call_gives_the_same_figures(archive, monkeypatch):
    install(monkeypatch, Oracle())
    first, second = (
        classify(["oracle"], **archive, **QUICK, label_column="finding", baselines=("random",)) for _ in range(2)
    )
    assert first.rows == second.rows
    assert first.comparisons == second.comparisons


def test_several_labels_and_several_runs(archive, monkeypatch):
    install(monkeypatch, Oracle("a"), Oracle("b", noise=0.6))
    results = classify(
        ["a", "b"], **archive, **QUICK, label_columns=("edema,fracture", "none"), baselines=("imagenet",)
    )
    assert {row["method"] for row in results.rows} == {"imagenet", "a", "b"}
    assert {row["metric"] for row in results.rows} == {"auc"}
    assert results.data["classes"] == list(FINDINGS)
    assert {(c["a"], c["b"]) for c in results.comparisons} == {("a", "b"), ("a", "imagenet"), ("b", "imagenet")}
    assert all(row["mean"] > 0.97 for row in results.rows if row["method"] == "a" and row["fraction"] == 1)


def test_a_real_encoder_goes_through(archive, monkeypatch):
    config = PretrainConfig(
        image_encoder=ImageEncoderConfig(name="test_resnet.r160_in1k", weights="random"),
        transform=TransformConfig(size=32),
    )
    model = baseline("random", config, seed=3)
    model.name = "run"
    monkeypatch.setattr(images, "load", lambda run, part, device: model)
    results = classify(["run"], **archive, **QUICK, label_column="finding", baselines=("random",))
    # The class is the grey level of the whole image: even random features show it.
    assert all(r["mean"] > 0.9 for r in results.rows if r["fraction"] == 1 and r["head"] == "logistic")


def test_mistakes_leave_nothing_behind(archive, monkeypatch):
    install(monkeypatch, Oracle())
    table = archive["table"]
    first_line, *lines = table.read_text().splitlines()
    cases = [
        ({"label_column": "diagnosis"}, "no column 'diagnosis'"),
        ({}, "name a label column"),
        ({"label_column": "finding", "fractions": (2.0,)}, r"lie in \(0, 1\]"),
        ({"label_column": "finding", "seeds": 0}, "seeds must be"),
        ({"label_column": "finding", "where": ["split=train"]}, "no val rows"),
        ({"label_column": "finding", "baselines": ("clip",)}, "unknown baseline 'clip'"),
        ({"label_column": "finding", "images": table.parent / "none"}, "no image folder"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            classify(["oracle"], **{**archive, **QUICK, **options})
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="name at least one run"):
        classify([], **archive, label_column="finding")
    table.write_text("\n".join([first_line, *(line for line in lines if ",train,edema" not in line)]) + "\n")
    with pytest.raises(InputError, match="class 'edema' has no positive training image"):
        classify(["oracle"], **archive, label_column="finding")
    assert not archive["out"].exists()


def test_a_truncated_image_is_named(archive, monkeypatch):
    install(monkeypatch, Oracle())
    image = archive["images"] / "7-0.png"
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(InputError, match=r"7-0\.png cannot be used"):
        classify(["oracle"], **archive, label_column="finding")
    assert not archive["out"].exists()


def test_vectors_that_are_not_finite_are_refused(archive, monkeypatch):
    oracle = Oracle()
    install(monkeypatch, oracle)
    monkeypatch.setattr(oracle, "encode_image", lambda images, **_: np.full((len(images), 4), np.nan, np.float32))
    with pytest.raises(InputError, match=r"oracle gives .*0-0\.png a vector that is not finite"):
        classify(["oracle"], **archive, label_column="finding", baselines=())


def test_a_full_disk_leaves_the_old_file(archive, monkeypatch):
    install(monkeypatch, Oracle())
    archive["out"].mkdir()
    (archive["out"] / "metrics.json").write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("convirt.atomic.os.fsync", full)
    with pytest.raises(InputError, match="no space left on device; make room"):
        classify(["oracle"], **archive, **QUICK, label_column="finding", baselines=("random",))
    assert [path.name for path in archive["out"].iterdir()] == ["metrics.json"]
    assert (archive["out"] / "metrics.json").read_text() == "old"


def same(held, found, place="metrics.json"):
    """Every name and value that was held is found again; new names may stand beside them."""
    if isinstance(held, dict):
        for name, value in held.items():
            assert name in found, f"{place}: {name} is gone"
            same(value, found[name], f"{place}.{name}")
    elif isinstance(held, list):
        assert len(held) == len(found), place
        for number, (before, now) in enumerate(zip(held, found, strict=True)):
            same(before, now, f"{place}[{number}]")
    elif isinstance(held, float):
        assert found == pytest.approx(held, abs=1e-5), place
    else:
        assert held == found, place


def test_figures_are_those_that_version_0_1_wrote(tmp_path, monkeypatch):
    """The same call goes on in a folder of that version and leaves the same, name for name and value for value."""
    for name in ("run", "benchmark", "images", "classified"):
        shutil.copytree(VERSION / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    held = json.loads(Path("classified/metrics.json").read_text())
    others = ("out", "protocol", "runs")
    asked = {name: value for name, value in held["config"].items() if name not in others}
    with pytest.raises(InputError, match="other: --seeds"):
        classify(["run"], **{**asked, "seeds": 1}, out="classified")
    classify(["run"], **asked, out="classified")
    found = json.loads(Path("classified/metrics.json").read_text())
    for name in ("versions", "wall_seconds", "notes"):
        held.pop(name)
    same(held, found)


def test_classes_are_reported_and_what_was_written_is_said(archive, monkeypatch, capsys):
    install(monkeypatch, Oracle())
    asked = {**archive, **QUICK, "label_column": "finding", "baselines": ("random",)}
    results = classify(["oracle"], **asked, details=True)
    row = next(
        row
        for row in results.beside["classes"]
        if (row["head"], row["fraction"], row["method"]) == ("logistic", 1.0, "oracle")
    )
    assert row["classes"] == list(FINDINGS)
    assert np.sum(row["confusion"]) == pytest.approx(40)
    assert np.trace(row["confusion"]) > 38
    with np.load(archive["out"] / "predictions.npz") as arrays:
        targets, scores = arrays["test_targets"], arrays["logistic|1|oracle"]
    for c, name in enumerate(FINDINGS):
        found = row["by_class"][name]
        assert found["seeds"] == pytest.approx([auc(targets[:, c], seed[:, c]) for seed in scores])
        assert (found["n_positive"], found["n_negative"]) == (targets[:, c].sum(), (1 - targets[:, c]).sum())
    printed = capsys.readouterr().out
    assert "AUC by class" in printed
    assert "confusion, oracle" in printed
    assert "wrote metrics.json, predictions.npz, reliability.png to" in printed.replace("\n", " ")
    assert f"open {archive['out'] / 'reliability.png'}" in printed
    classify(["oracle"], **asked)
    printed = capsys.readouterr().out
    assert "calibration, operating points, classes" in printed
    assert "AUC by class" not in printed


def test_a_label_that_cannot_be_scored_is_named(archive, monkeypatch, capsys):
    install(monkeypatch, Oracle())
    frame = pd.read_csv(archive["table"], dtype=str)
    frame.loc[frame["split"] == "test", "fracture"] = "0"
    frame.to_csv(archive["table"], index=False)
    results = classify(["oracle"], **archive, **QUICK, label_columns=FINDINGS, baselines=())
    assert all((row["labels_scored"], row["labels_not_scored"]) == (2, ["fracture"]) for row in results.rows)
    assert any(
        "want of a positive or a negative test row: fracture; AUC is the mean over 2 of 3" in n for n in results.notes
    )
    assert "mean over 2 of 3 labels, without fracture" in " ".join(capsys.readouterr().out.split())
