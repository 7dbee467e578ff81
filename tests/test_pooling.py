"""Views of a study pooled at inference: means by hand, mixed studies refused, and both verbs on it."""

import json

import numpy as np
import pandas as pd
import pytest

from convirt.errors import InputError
from convirt.evaluation.inputs.units import pool_views
from fake_encoders import FINDINGS, Oracle, install, write_archive
from flat_verbs import classify, read_table, retrieve


@pytest.fixture
def archive(tmp_path):
    """Two images a patient, each of its own class; the study is patient and class, so that two images share one."""
    (tmp_path / "images").mkdir()
    path = write_archive(tmp_path / "images")
    frame = pd.read_csv(path, dtype=str)
    frame["study"] = [f"{row.split}-{row.finding}-{i // 6}" for i, row in enumerate(frame.itertuples())]
    frame["patient"] = frame["study"]
    frame.to_csv(path, index=False)
    return path


def read(path, **columns):
    options = {"label_column": "finding", "patient_column": "patient", **columns}
    return read_table(path, path.parent, pool_column="study", **options)


def test_means_are_those_of_a_loop_over_studies(archive):
    table = read(archive)
    pooled = pool_views(table, "study")
    rng = np.random.default_rng(0)
    vectors_ND = rng.normal(size=(len(table), 5)).astype(np.float32)
    names = list(dict.fromkeys(table.pools_N))  # in the order of their first image
    expected = [
        np.mean([v for v, of in zip(vectors_ND, table.pools_N, strict=True) if of == name], 0) for name in names
    ]
    assert list(pooled.table.images) == names
    assert len(pooled.table) < len(table)
    np.testing.assert_allclose(pooled.mean(vectors_ND, normalise=False), expected, rtol=1e-5)
    unit = pooled.mean(vectors_ND, normalise=True)
    np.testing.assert_allclose(unit, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5)
    first = [list(table.pools_N).index(name) for name in names]
    assert (pooled.table.labels_N == table.labels_N[first]).all()
    assert (pooled.table.splits_N == table.splits_N[first]).all()


def test_without_a_column_nothing_changes(archive):
    table = read(archive)
    pooled = pool_views(table, None)
    vectors_ND = np.ones((len(table), 3), dtype=np.float32)
    assert pooled.table is table
    assert pooled.mean(vectors_ND, normalise=True) is vectors_ND
    assert pooled.described() == {}


def test_a_label_of_a_study_is_positive_where_any_image_is(archive):
    frame = pd.read_csv(archive, dtype=str, keep_default_na=False)
    frame["study"] = frame["split"] + "-" + (frame.index // 4).astype(str)
    frame["patient"] = frame["study"]
    frame.loc[0, "edema"], frame.loc[1, "edema"] = "0", "1"
    frame.loc[2:3, "edema"] = "0"
    frame.loc[0:3, "fracture"] = ""
    frame.to_csv(archive, index=False)
    pooled = pool_views(read(archive, label_column=None, label_columns=FINDINGS), "study")
    assert pooled.table.targets_NC[0, 0] == 1
    assert np.isnan(pooled.table.targets_NC[0, 1])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("study", "", "no value in the column 'study'"),
        ("patient", "somebody", "images of different patients"),
        ("finding", "none", "images of several classes"),
    ],
)
def test_mixed_studies_are_refused(archive, column, value, message):
    frame = pd.read_csv(archive, dtype=str)
    row = next(
        i for i in frame.index if (frame["study"] == frame["study"][i]).sum() > 1 and frame["finding"][i] != "none"
    )
    frame.loc[row, column] = value
    frame.to_csv(archive, index=False)
    with pytest.raises(InputError, match=message):
        pool_views(read(archive), "study")


def test_both_verbs_score_studies(archive, monkeypatch):
    install(monkeypatch, Oracle())
    options = {"label_column": "finding", "patient_column": "patient", "pool_column": "study", "resamples": 50}
    out = archive.parent / "out"
    results = classify(
        ["oracle"], archive, archive.parent, out=out / "c", fractions=(1.0,), seeds=1, heads=("logistic",), **options
    )
    studies = pd.read_csv(archive)
    assert results.rows[0]["n_test"] == studies[studies["split"] == "test"]["study"].nunique() < 40
    assert all(row["pooled_by"] == "study" and row["pooled_images"] == 120 for row in results.rows)
    results = retrieve(["oracle"], archive, archive.parent, out=out / "r", split_column="split", ks=(2,), **options)
    assert results.rows[0]["n_test"] == studies[studies["split"] == "test"]["study"].nunique()
    assert json.loads((out / "r" / "metrics.json").read_text())["data"]["pooled_by"] == "study"
