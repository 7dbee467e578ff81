"""From generated data sets to scores: each benchmark is built, read by `classify` or `retrieve`, and named."""

import json

import numpy as np
import pandas as pd
import pytest

import benchmark_trees as trees
from convirt import cli
from convirt.data.benchmarks.folder import open_benchmark
from convirt.errors import InputError
from convirt.evaluation.statistics.metrics import auc
from fake_encoders import Oracle, install
from flat_verbs import classify, retrieve

QUICK = {"seeds": 2, "heads": ("logistic",), "baselines": ("random",), "resamples": 50}


class GreyOracle(Oracle):
    """An oracle that also reads DICOM, whose greys come as shares of the range."""

    def encode_image(self, images, **options):
        greys = [np.rint(255 * image).astype(np.uint8) if image.dtype.kind == "f" else image for image in images]
        return super().encode_image(greys, **options)


@pytest.fixture
def oracle(monkeypatch):
    found = GreyOracle(noise=0.1)
    install(monkeypatch, found)
    return found


def build(name, root, out, *options):
    cli.main(["benchmark", name, "--root", str(root), "--out", str(out), *options])
    return open_benchmark(out)


def mean_of(results, method, metric="auc", fraction=1.0):
    (row,) = (
        row for row in results.rows if (row["method"], row["metric"], row["fraction"]) == (method, metric, fraction)
    )
    return row["mean"]


CASES = {
    "rsna": (trees.rsna, ("--split", "images"), "auc"),
    "chexpert": (trees.chexpert, ("--split", "patient", "--uncertain", "ignore"), "auc"),
    "covidx4": (trees.covidx4, ("--split", "images", "--val-images", "15"), "accuracy"),
    "mura": (trees.mura, ("--split", "patient", "--val-images", "12"), "auc"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_benchmark_is_scored_as_the_paper_says(name, tmp_path, oracle, capsys):
    make, options, metric = CASES[name]
    benchmark = build(name, make(tmp_path / name), tmp_path / "b", *options)
    results = classify(["oracle"], tmp_path / "b", out=tmp_path / "out", **QUICK)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {row["fraction"] for row in results.rows} == ({0.1, 1.0} if name == "covidx4" else {0.01, 0.1, 1.0})
    for row in written["rows"]:
        assert (row["task"], row["benchmark"], row["split"]) == (name, name, options[1])
        assert row["lists_sha256"] == dict(benchmark.lists)
        assert row["notes"] == list(benchmark.notes)
    head = written["config"]["protocol"]["schedule"]
    assert head["learning_rate"] == (1e-3 if name == "covidx4" else 1e-4)
    assert head["select_on"] == metric
    assert mean_of(results, "oracle", metric) > 0.9 > mean_of(results, "random", metric)
    printed = capsys.readouterr().out
    assert all(f"note: {note}" in printed.replace("\n", " ") for note in benchmark.notes)


def test_mura_scores_the_mean_of_a_patients_images_against_its_worst_study(tmp_path, oracle):
    root = trees.mura(tmp_path / "mura")
    for unit, column, tested in (("patient", "patient", 10), ("study", "study", 15)):
        folder, out = tmp_path / unit, tmp_path / f"{unit}-out"
        build("mura", root, folder, "--split", "patient", "--val-images", "12", "--unit", unit)
        results = classify(["oracle"], folder, out=out, **QUICK)
        row = results.rows[0]
        assert (row["n_test"], row["n_patients"], row["unit"]) == (tested, 10, unit)
        table = pd.read_csv(folder / "table.csv", dtype=str).query("split == 'test'")
        with np.load(out / "predictions.npz") as arrays:
            scores_SN = arrays["logistic|1|oracle"][:, :, 0]
            assert arrays["test_images"].tolist() == table["image"].tolist()
            assert arrays["test_units"].tolist() == table["unit"].tolist()
        expected = []
        for scores_N in scores_SN:
            by_unit = table.assign(score=scores_N, y=table["abnormal"].astype(float)).groupby(column)
            expected.append(auc(by_unit["y"].max().to_numpy(), by_unit["score"].mean().to_numpy()))
        assert mean_of(results, "oracle") == pytest.approx(np.mean(expected), abs=1e-6)


def test_the_saved_fractions_are_what_is_trained_on(tmp_path, oracle, monkeypatch):
    benchmark = build("mura", trees.mura(tmp_path / "mura"), tmp_path / "b", "--split", "images", "--val-images", "12")
    seen = []
    from convirt.evaluation import linear

    fit = linear.fit_logistic
    monkeypatch.setattr(
        linear, "fit_logistic", lambda train, *rest: seen.append(train.features_ND) or fit(train, *rest)
    )
    results = classify(["oracle"], tmp_path / "b", out=tmp_path / "out", **QUICK | {"baselines": ()}, fractions=(0.1,))
    assert [len(features) for features in seen] == [len(benchmark.subsets[0.1, seed]) for seed in range(2)]
    assert results.rows[0]["n_train"] == len(seen[0])
    # Where rows are filtered out, the same rule draws anew.
    filtered = classify(
        ["oracle"], tmp_path / "b", out=tmp_path / "o2", **QUICK | {"baselines": ()}, where=("bone=elbow,hand",)
    )
    assert filtered.rows[-1]["n_train"] < benchmark.counts["train"]["images"]


def test_chexpert8x200_end_to_end(tmp_path, oracle, capsys):
    root = tmp_path / "chexpert"
    lists, rows = trees.lists_8x200(tmp_path / "lists", root, candidates=12)
    trees.write_csv(root / "train.csv", rows, (*trees.COLUMNS, *trees.LABELS))
    build("chexpert8x200", root, tmp_path / "b", "--lists", str(lists))
    results = retrieve(["oracle"], tmp_path / "b", out=tmp_path / "out", baselines=("random",), resamples=50)
    found = {(row["task"], row["metric"], row["method"]): row for row in results.rows}
    assert {metric for _, metric, _ in found} == {"precision@5", "precision@10"}  # of 5, 10, 50, 100, what 36 allow
    image, text = (found[task, "precision@10", "oracle"] for task in ("image-image", "text-image"))
    assert (image["n_test"], image["n_candidates"], image["mean"]) == (6, 36, 1.0)
    assert (text["n_test"], text["mean"]) == (15, 1.0)
    assert [image["chance"], text["chance"]] == pytest.approx([1 / 3, 1 / 3])
    assert image["benchmark"] == "chexpert8x200"
    assert "5 text queries a category" in capsys.readouterr().out


def test_an_own_retrieval_set_end_to_end(tmp_path, oracle):
    root = tmp_path / "chexpert"
    _, rows = trees.lists_8x200(tmp_path / "lists", root, candidates=12)
    trees.write_csv(root / "train.csv", rows, (*trees.COLUMNS, *trees.LABELS))
    table = pd.read_csv(root / "train.csv", dtype=str)
    table["image"] = table["Path"].str.partition("/")[2]
    table["patient"] = table["image"].str.split("/").str[1]
    table.to_csv(root / "own.csv", index=False)
    arguments = ["--root", str(root), "--table", str(root / "own.csv"), "--out", str(tmp_path / "b")]
    arguments += ["--label-columns", *trees.LABELS, "--categories", *trees.CATEGORIES, "--patient-column", "patient"]
    cli.main(["make-retrieval-set", *arguments, "--candidates", "8", "--preselected", "4", "--queries", "2"])
    results = retrieve(["oracle"], tmp_path / "b", out=tmp_path / "out", baselines=("random",), resamples=50, ks=(5,))
    (row,) = (row for row in results.rows if row["method"] == "oracle")
    assert (row["n_test"], row["n_candidates"], row["mean"]) == (6, 24, 1.0)
    assert any("no expert" in note for note in row["notes"])


def test_a_real_encoder_and_the_command_line(tmp_path, tiny_run, capsys):
    build("mura", trees.mura(tmp_path / "mura"), tmp_path / "b", "--split", "images", "--val-images", "12")
    options = ["--fractions", "1", "--seeds", "1", "--heads", "logistic", "--baselines", "random", "--resamples", "20"]
    cli.main(["classify", str(tiny_run), "--table", str(tmp_path / "b"), "--out", str(tmp_path / "out"), *options])
    assert "10 patients" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"metadata", "random", "tiny"}


def test_mistakes_with_a_benchmark_are_one_line(tmp_path, oracle):
    root = trees.mura(tmp_path / "mura")
    build("mura", root, tmp_path / "b", "--split", "images", "--val-images", "12")
    cases = [
        ({"label_column": "abnormal"}, "columns of its own"),
        ({"images": tmp_path / "none"}, "no image folder"),
        ({"fractions": ()}, "fractions must name at least one"),
        ({"learning_rate": 0.0}, "learning rate must be positive"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            classify(["oracle"], tmp_path / "b", out=tmp_path / "out", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is no benchmark"):
        classify(["oracle"], root, out=tmp_path / "out")
    with pytest.raises(InputError, match="name a label column"):
        retrieve(["oracle"], tmp_path / "b", out=tmp_path / "out")
    with pytest.raises(InputError, match=r"name the folder .*--images"):
        classify(["oracle"], tmp_path / "b" / "table.csv", out=tmp_path / "out", label_columns=("abnormal",))
    bare = {"label_columns": ("abnormal",), "patient_column": "patient"}
    with pytest.raises(InputError, match=r"patient .* is in splits"):  # a bare table promises more than a named split
        classify(["oracle"], tmp_path / "b" / "table.csv", root, out=tmp_path / "out", **bare)
    next((root / "valid").rglob("*.png")).unlink()
    with pytest.raises(InputError, match=r"1 of \d+ images .* are missing"):
        classify(["oracle"], tmp_path / "b", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_that_points_out_of_its_image_folder_is_refused(tmp_path, oracle):
    trees.write_image(tmp_path / "secret.png", 1, 0)
    (tmp_path / "images").mkdir()
    table = trees.write_csv(
        tmp_path / "t.csv", [("../secret.png", "a", "train"), ("x.png", "b", "test")], ("image", "y", "split")
    )
    with pytest.raises(InputError, match="leads out of the image folder"):
        classify(["oracle"], table, tmp_path / "images", out=tmp_path / "out", label_column="y")
