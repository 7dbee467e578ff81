"""What cannot be evaluated is said in one line, before any image is encoded where it can be."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from convirt.data.benchmarks.table import benchmark_table
from convirt.errors import InputError
from convirt.model import load
from fake_encoders import FINDINGS, Oracle, install, write_archive
from flat_verbs import classify, finetune, retrieve, tsne, zero_shot


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "images").mkdir()
    return {
        "table": write_archive(tmp_path / "images"),
        "images": tmp_path / "images",
        "patient_column": "patient",
        "out": tmp_path / "out",
        "resamples": 20,
        "baselines": (),
    }


def change(archive, edit):
    frame = pd.read_csv(archive["table"], dtype=str)
    edit(frame).to_csv(archive["table"], index=False)


def refused(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_one_class_only(archive, monkeypatch):
    oracle = Oracle()
    install(monkeypatch, oracle)
    change(archive, lambda frame: frame[frame["finding"] == "edema"])
    refused(lambda: classify(["oracle"], **archive, label_column="finding"), "one class only, 'edema'")
    refused(
        lambda: classify(["oracle"], **archive, label_columns=("edema",), settings=("finetuned",)),
        "class 'edema' has no negative training image",
    )
    assert oracle.images_seen == 0
    assert not archive["out"].exists()


@pytest.mark.parametrize("split", ["dev", "test"])
def test_one_class_in_a_split(archive, monkeypatch, split):
    install(monkeypatch, Oracle())
    change(archive, lambda frame: frame[(frame["split"] != split) | (frame["finding"] == "edema")])
    name = {"dev": "val"}.get(split, split)
    refused(lambda: classify(["oracle"], **archive, label_column="finding"), f"the {name} rows hold no class with both")


def test_a_fraction_that_would_leave_a_class_empty_is_mended_and_a_missing_class_is_said(archive, monkeypatch):
    install(monkeypatch, Oracle())
    asked = {**archive, "label_column": "finding", "seeds": 1, "heads": ("logistic",)}
    results = classify(["oracle"], **asked, fractions=(0.01,))
    assert results.rows[0]["n_train"] == len(FINDINGS)  # one of each class
    change(archive, lambda frame: frame[(frame["split"] != "train") | (frame["finding"] != "none")])
    refused(lambda: classify(["oracle"], **asked), "class 'none' has no positive training image")


def test_features_that_are_not_numbers(archive, monkeypatch):
    oracle = Oracle()
    install(monkeypatch, oracle)
    monkeypatch.setattr(oracle, "encode_image", lambda images, **_: np.full((len(images), 4), np.nan, np.float32))
    refused(lambda: classify(["oracle"], **archive, label_column="finding"), "a vector that is not finite")
    refused(
        lambda: retrieve(["oracle"], **archive, label_column="finding", split_column="split"),
        "a vector that is not finite",
    )


def test_a_query_category_without_candidates(archive, tmp_path, monkeypatch):
    oracle = Oracle()
    install(monkeypatch, oracle)
    (tmp_path / "queries.csv").write_text("text,finding\ncollapse,pneumothorax\n")
    asked = {**archive, "label_column": "finding", "split_column": "split", "queries": tmp_path / "queries.csv"}
    refused(lambda: retrieve(["oracle"], **asked), "class 'pneumothorax', which no candidate image has")
    assert oracle.images_seen == 0


@pytest.fixture
def text_only_run(tiny_run, tmp_path):
    """A checkpoint without an image tower, such as a masked language model leaves behind."""
    run = tmp_path / "words"
    shutil.copytree(tiny_run / "best", run)
    tensors = load_file(run / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if name.startswith("text_encoder.")}, run / "model.safetensors")
    return run


def test_a_checkpoint_without_the_tower_that_is_needed(archive, text_only_run):
    asked = {**archive, "label_column": "finding"}
    for call in (
        lambda: classify([text_only_run], **asked),
        lambda: classify([text_only_run], **asked, settings=("finetuned",)),
        lambda: retrieve([text_only_run], **asked, split_column="split"),
        lambda: finetune(
            text_only_run, archive["table"], archive["images"], out=archive["out"], label_column="finding"
        ),
    ):
        refused(call, "has no image tower")
    assert not archive["out"].exists()


def test_an_encoder_that_cannot_be_trained(archive, monkeypatch):
    install(monkeypatch, Oracle())
    asked = {**archive, "label_column": "finding", "settings": ("finetuned",)}
    refused(lambda: classify(["oracle"], **asked), "oracle has no image encoder that could be fine-tuned")


def test_mistaken_settings(archive, tmp_path, monkeypatch):
    install(monkeypatch, Oracle("metadata"))
    asked = {**archive, "label_column": "finding"}
    refused(lambda: classify(["metadata"], **asked), "may not be called 'metadata'")
    install(monkeypatch, Oracle())
    for options, message in (
        ({"settings": ()}, "settings must name at least one"),
        ({"settings": ("frozen",)}, "unknown setting 'frozen'; known are linear, finetuned"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"operating_points": ("best",)}, "unknown operating point 'best'"),
        ({"sex_column": "gender"}, "no column 'gender'"),
        ({"settings": ("finetuned",), "pool_column": "patient"}, "images of several classes; which one is it"),
    ):
        refused(lambda options=options: classify(["oracle"], **asked, **options), message)
    assert not archive["out"].exists()


def test_counts_below_one_and_tables_that_are_not_there(archive, monkeypatch):
    oracle = Oracle()
    install(monkeypatch, oracle)
    asked = {name: value for name, value in archive.items() if name != "baselines"} | {"label_column": "finding"}
    for verb in (classify, retrieve, zero_shot, tsne):
        refused(lambda verb=verb: verb(["oracle"], **asked, batch_size=0), "batch_size must be at least 1, got 0")
        refused(lambda verb=verb: verb(["oracle"], **{**asked, "resamples": 0}), "resamples must be at least 1, got 0")
    nowhere = {"table": archive["table"].with_name("none.csv"), "out": archive["out"]}
    for verb in (classify, retrieve, zero_shot, tsne):  # said before any column is asked for
        refused(lambda verb=verb: verb(["oracle"], **nowhere), "no such file or folder: .*none.csv")
    refused(lambda: finetune("oracle", **nowhere), "no such file or folder: .*none.csv")
    refused(lambda: retrieve(["oracle"], **asked, ks=(5, 0)), "ks must be at least 1, got 0")
    assert oracle.images_seen == 0
    assert not archive["out"].exists()


def test_an_unknown_role_is_said_plainly(archive, monkeypatch):
    install(monkeypatch, Oracle())
    asked = {**archive, "label_column": "finding", "role_column": "split"}
    refused(lambda: retrieve(["oracle"], **asked), "unknown role 'dev' in 'split'")


def test_devices_that_are_not_there(tiny_run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        refused(
            lambda device=device: load(tiny_run, device=device),
            f"device '{device}' was asked for, but PyTorch finds no GPU; take 'cpu' or 'auto'",
        )
    refused(lambda: load(tiny_run, device="tpu"), "device 'tpu' cannot be used; use auto, cpu or cuda")
    model = load(tiny_run, device="cpu")
    refused(lambda: model.encode_image(np.zeros((8, 8), np.uint8), batch_size=0), "batch_size must be at least 1")


def test_a_corpus_given_as_a_run(tiny_corpus):
    refused(lambda: load(tiny_corpus), "is a corpus, no run; give the --out folder of `convirt pretrain`")


def test_results_of_another_call_are_not_overwritten(archive, monkeypatch, capsys):
    install(monkeypatch, Oracle())
    asked = {**archive, "label_column": "finding", "fractions": (1.0,), "seeds": 1, "heads": ("logistic",)}
    classify(["oracle"], **asked)
    assert "--patient-column" not in capsys.readouterr().out
    held = (archive["out"] / "metrics.json").read_text()
    refused(
        lambda: classify(["oracle"], **{**asked, "seeds": 2, "resamples": 30}),
        r"results of another call \(other: --seeds, --resamples\); give another --out",
    )
    refused(lambda: retrieve(["oracle"], **archive, label_column="finding", split_column="split"), "other: the verb")
    assert (archive["out"] / "metrics.json").read_text() == held
    again = classify(["oracle"], **asked, batch_size=7)  # which changes no figure
    assert again.rows == json.loads(held)["rows"]
    change(archive, lambda frame: frame.iloc[::-1])
    refused(lambda: classify(["oracle"], **asked), "other: the content of the table")


def test_unknown_patients_are_noted(archive, monkeypatch, capsys):
    install(monkeypatch, Oracle())
    asked = {**archive, "patient_column": None, "label_column": "finding"}
    results = classify(["oracle"], **asked, fractions=(1.0,), seeds=1, heads=("logistic",))
    assert any("each image counts as a patient of its own" in note for note in results.notes)
    assert "note: without --patient-column" in capsys.readouterr().out


def test_a_class_for_each_image_makes_no_benchmark(archive, tmp_path):
    refused(
        lambda: benchmark_table(
            archive["images"], archive["table"], tmp_path / "benchmark", label_column="image", split="images"
        ),
        "images has a class of its own in 'image'; name the column with the class",
    )
