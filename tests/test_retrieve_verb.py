"""`retrieve` from table and images to metrics.json."""

import json

import numpy as np
import pytest

from convirt.errors import InputError
from fake_encoders import Oracle, install, write_archive
from flat_verbs import retrieve


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "images").mkdir()
    return {
        "table": write_archive(tmp_path / "images"),
        "images": tmp_path / "images",
        "patient_column": "patient",
        "out": tmp_path / "out",
        "resamples": 100,
        "baselines": ("random",),
    }


def queries(tmp_path, rows="edema of both lungs,edema\nfracture of a rib,fracture\nnone,none\n"):
    path = tmp_path / "queries.csv"
    path.write_text("text,finding\n" + rows)
    return path


def by(rows, **keys):
    return [row for row in rows if all(row[key] == value for key, value in keys.items())]


def test_every_kind_of_retrieval_at_once(archive, tmp_path, monkeypatch, capsys):
    oracle = Oracle()
    made = install(monkeypatch, oracle)
    results = retrieve(
        ["runs/oracle"],
        **archive,
        label_column="finding",
        text_column="caption",
        queries=queries(tmp_path),
        split_column="split",
        ks=(5, 10),
    )
    written = json.loads((archive["out"] / "metrics.json").read_text())
    assert written["rows"] == json.loads(json.dumps(results.rows))
    assert written["verb"] == "retrieve"
    assert written["data"]["images"] == 40  # of the test split alone
    assert made["random"].images_seen == 40
    image = by(results.rows, task="image-image", metric="precision@10")
    assert [row["method"] for row in image] == ["random", "oracle"]
    assert image[1]["mean"] == 1.0
    assert abs(image[0]["mean"] - image[0]["chance"]) < 0.1
    (text,) = by(results.rows, task="text-image", metric="precision@10")
    assert (text["method"], text["space"], text["mean"], text["n_test"]) == ("oracle", "shared", 1.0, 3)
    assert text["chance"] == pytest.approx(1 / 3, abs=0.02)
    for task in ("own caption, text to image", "own caption, image to text"):
        hits, alone = (by(results.rows, task=task, metric=f"recall@1{s}")[0] for s in ("", " one-to-one"))
        assert hits["mean"] > alone["mean"] > alone["chance"]
        assert hits["chance"] > alone["chance"] == pytest.approx(1 / 40)
    assert len(oracle.texts_seen) == 3 + len(set(oracle.texts_seen[3:]))  # each caption once
    assert {c["task"] for c in results.comparisons} == {"image-image"}
    assert "own caption" in capsys.readouterr().out


def test_equal_captions_tie_exactly(archive, monkeypatch):
    """An encoder that knows the class alone: one-to-one is a draw among the images of the class."""
    install(monkeypatch, Oracle(noise=0.0))
    results = retrieve(["oracle"], **archive, text_column="caption", split_column="split", recall_ks=(1,))
    for row in by(results.rows, metric="recall@1 one-to-one"):
        assert row["mean"] == pytest.approx(3 / 40)


def test_roles_name_queries_and_candidates(archive, monkeypatch):
    install(monkeypatch, Oracle())
    results = retrieve(["oracle"], **archive, label_column="finding", role_column="role", ks=(5,))
    row = by(results.rows, method="oracle")[0]
    assert (row["n_test"], row["n_candidates"], row["n_patients"]) == (24, 96, 12)
    with np.load(archive["out"] / "predictions.npz") as arrays:
        assert arrays["image-image|precision@5|oracle"].shape == (24,)


def test_mistakes_leave_nothing_behind(archive, tmp_path, monkeypatch):
    install(monkeypatch, Oracle())
    good = {**archive, "label_column": "finding", "split_column": "split"}
    cases = [
        ({"label_column": None}, None, "name a label column"),
        ({"split_column": None}, None, "name a split column"),
        ({"split": "holdout"}, None, "unknown split 'holdout'"),
        ({"label_column": None, "text_column": "caption"}, "edema,edema\n", "need the class"),
        ({"query_text_column": "sentence"}, "edema,edema\n", "no column 'sentence'"),
        ({}, "edema,edema\nfoo,pneumonia\n", "class 'pneumonia', which no candidate"),
        ({}, "edema,edema\n,edema\n", "1 queries have no text"),
        ({"ks": (500,)}, None, "fewer than any k"),
        ({"where": ["patient=p0"]}, None, "no test rows"),
        ({"where": ["patient=p50"]}, None, "only 0 candidates"),
        ({"where": ["patient=p50"], "label_column": None, "text_column": "caption"}, None, "at least 2"),
    ]
    for options, asked, message in cases:
        if asked:
            options = {**options, "queries": queries(tmp_path, asked)}
        with pytest.raises(InputError, match=message) as caught:
            retrieve(["oracle"], **{**good, **options})
        assert "\n" not in str(caught.value)
    assert not archive["out"].exists()


def test_a_run_without_a_shared_space_is_left_out_of_text_image_retrieval(archive, tmp_path, monkeypatch):
    images_alone = Oracle("images")
    images_alone.shared_dim = None
    install(monkeypatch, Oracle(), images_alone)
    asked = queries(tmp_path, "edema,edema\nnone,none\n")
    results = retrieve(
        ["oracle", "images"], **archive, label_column="finding", split_column="split", queries=asked, ks=(5,)
    )
    assert {row["method"] for row in by(results.rows, task="text-image")} == {"oracle"}
    assert {row["method"] for row in by(results.rows, task="image-image")} >= {"oracle", "images"}
    assert any("no text-image retrieval by images" in note for note in results.notes)
    with pytest.raises(InputError, match="no shared space of images and texts in images"):
        retrieve(["images"], **{**archive, "out": tmp_path / "other"}, text_column="caption", split_column="split")
