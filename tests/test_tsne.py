"""t-SNE: rows of one category, the numbers beside the map by hand, and the files of the verb."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from convirt.analysis.categories import rows_of_one_category
from convirt.analysis.embedding.neighbours import measure_neighbourhoods
from convirt.analysis.embedding.tsne import draw_map
from convirt.errors import InputError
from convirt.evaluation.inputs.table import TableColumns
from fake_encoders import FINDINGS, Oracle, install, write_archive
from flat_verbs import read_table, tsne


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "images").mkdir()
    return write_archive(tmp_path / "images")


def read(path, **columns):
    return read_table(path, path.parent, patient_column="patient", **columns)


def test_exclusive_positives_of_a_multi_label_table(archive):
    frame = pd.read_csv(archive, dtype=str)
    frame.loc[119, list(FINDINGS)] = ["1", "1", "0"]
    frame.loc[118, list(FINDINGS)] = ["0", "0", "0"]
    frame.to_csv(archive, index=False)
    columns = TableColumns(labels=FINDINGS, split="split")
    table = rows_of_one_category(read(archive, label_columns=FINDINGS), columns, ("none", "edema"), "test")
    expected = frame[(frame["split"] == "test") & frame["finding"].isin(("none", "edema"))]
    expected = expected.drop([118, 119], errors="ignore")
    assert list(table.images) == list(expected["image"])
    assert list(table.labels_N) == list(expected["finding"])
    assert table.classes == ("none", "edema")
    assert not table.multi_label


def test_candidates_of_a_table_with_roles(archive):
    columns = TableColumns(label="finding", role="role")
    table = rows_of_one_category(read(archive, label_column="finding", role_column="role"), columns, (), "test")
    assert len(table) == (pd.read_csv(archive)["role"] == "candidate").sum()


@pytest.mark.parametrize(
    ("categories", "split", "message"),
    [
        (("edema", "gout"), "test", "unknown category 'gout'"),
        (("edema",), "test", "name at least two categories"),
        (("edema", "edema"), "test", "name at least two categories"),
        ((), "exam", "unknown split 'exam'"),
    ],
)
def test_bad_categories_are_refused(archive, categories, split, message):
    table = read(archive, label_column="finding")
    with pytest.raises(InputError, match=message):
        rows_of_one_category(table, TableColumns(label="finding", split="split"), categories, split)


def test_purity_and_silhouette_are_those_of_loops(archive):
    columns = TableColumns(label="finding", split="split")
    table = rows_of_one_category(read(archive, label_column="finding"), columns, (), "test")
    rng = np.random.default_rng(3)
    h_ND = rng.normal(size=(len(table), 4)).astype(np.float32)
    h_ND /= np.linalg.norm(h_ND, axis=1, keepdims=True)
    map_N2 = rng.normal(size=(len(table), 2))
    rows, _ = measure_neighbourhoods(table, {"m": h_ND}, {"m": map_N2}, resamples=20, baselines=())
    found = {(row["task"], row["metric"]): row["mean"] for row in rows}
    labels, patients = table.labels_N, table.patients_N
    purity, chance = {"features": [], "t-SNE map": []}, []
    silhouettes = []
    for i in range(len(table)):
        others = [j for j in range(len(table)) if patients[j] != patients[i]]
        chance.append(sum(labels[j] == labels[i] for j in others) / len(others))
        for place, distance in (
            ("features", lambda j, i=i: 1 - float(h_ND[i].astype(float) @ h_ND[j].astype(float))),
            ("t-SNE map", lambda j, i=i: math.dist(map_N2[i], map_N2[j])),
        ):
            nearest = sorted(others, key=distance)[:10]
            purity[place].append(sum(labels[j] == labels[i] for j in nearest) / 10)
        means = {
            name: np.mean([math.dist(map_N2[i], map_N2[j]) for j in range(len(table)) if j != i and labels[j] == name])
            for name in set(labels)
        }
        own = means.pop(labels[i])
        nearest_other = min(means.values())
        silhouettes.append((nearest_other - own) / max(own, nearest_other))
    for place, values in purity.items():
        assert found[f"neighbours in the {place}", "purity@10"] == pytest.approx(np.mean(values))
    assert found["separation in the t-SNE map", "silhouette"] == pytest.approx(np.mean(silhouettes))
    assert rows[0]["chance"] == pytest.approx(np.mean(chance))


def test_the_verb_leaves_pictures_coordinates_and_figures(archive, monkeypatch):
    install(monkeypatch, Oracle())
    out = archive.parent / "out"
    options = {"label_column": "finding", "patient_column": "patient", "split_column": "split", "perplexity": 8}
    results = tsne(["oracle"], archive, archive.parent, out=out, resamples=50, **options)
    points = pd.read_csv(out / "tsne.csv")
    assert list(points.columns) == ["image", "category", "patient", "method", "x", "y"]
    assert points.groupby("method").size().to_dict() == {"imagenet": 40, "oracle": 40}
    assert (out / "tsne.png").stat().st_size > 5000
    assert "</svg>" in (out / "tsne.svg").read_text()
    written = json.loads((out / "metrics.json").read_text())
    assert written["data"]["perplexity"] == 8
    purity = {row["method"]: row["mean"] for row in written["rows"] if row["task"] == "neighbours in the features"}
    assert purity["oracle"] > 0.95
    assert abs(purity["imagenet"] - results.rows[0]["chance"]) < 0.15
    again = tsne(["oracle"], archive, archive.parent, out=out, resamples=50, **options)
    assert again.rows == results.rows  # the seed fixes the map
    with pytest.raises(InputError, match=r"results of another call \(other: --perplexity\)"):
        tsne(["oracle"], archive, archive.parent, out=out, resamples=50, **{**options, "perplexity": 9})
    assert pd.read_csv(out / "tsne.csv").equals(points)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_the_same_arguments_give_the_same_map_and_another_perplexity_another():
    features_ND = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    first, same, other = (draw_map(features_ND, perplexity=perplexity, seed=0) for perplexity in (5, 5, 10))
    assert np.array_equal(first, same)
    assert not np.allclose(first, other)


def test_features_are_compared_by_their_direction(archive, monkeypatch):
    given = []

    class Long(Oracle):
        def encode_image(self, images, *, space, batch_size, normalise):
            given.append((space, normalise))
            return super().encode_image(images, space=space, batch_size=batch_size, normalise=normalise)

    install(monkeypatch, Long())
    options = {"label_column": "finding", "split_column": "split", "perplexity": 8, "baselines": (), "resamples": 10}
    tsne(["oracle"], archive, archive.parent, out=archive.parent / "o", **options)
    assert set(given) == {("features", True)}


def test_a_perplexity_that_does_not_fit_is_refused(archive, monkeypatch):
    install(monkeypatch, Oracle())
    with pytest.raises(InputError, match="perplexity 30 does not fit 40 images"):
        tsne(
            ["oracle"], archive, archive.parent, out=archive.parent / "o", label_column="finding", split_column="split"
        )
    with pytest.raises(InputError, match="name a label column"):
        tsne(["oracle"], archive, archive.parent, out=archive.parent / "o")
