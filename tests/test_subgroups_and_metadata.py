"""What stands beside a score: subgroups, the metadata baseline, fingerprints, and DeLong's test where it applies."""

import json

import numpy as np
import pandas as pd
import pytest

from convirt.evaluation.findings import evaluate
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.metadata import METHOD, metadata_features, metadata_outcome
from convirt.evaluation.protocol import ClassificationProtocol, Outcome, Place
from convirt.evaluation.scoring import age_band
from convirt.evaluation.statistics.delong import delong_test
from convirt.evaluation.statistics.metrics import auc, one_hot
from fake_encoders import Oracle, install, write_archive
from flat_verbs import classify

PLACE = Place(setting="linear", head="paper", fraction=1.0)


def table_of(codes, *, attributes=None, patients=None, units=None, classes=("absent", "present")):
    """A third of the rows each for training, validation and test."""
    n = len(codes)
    return LabelledTable(
        images=tuple(f"{i}.png" for i in range(n)),
        paths=(),
        patients_N=np.array([f"p{i}" for i in range(n)] if patients is None else patients),
        splits_N=np.array(["train", "val", "test"])[np.arange(n) * 3 // n],
        classes=classes,
        targets_NC=one_hot(np.array(codes), len(classes)),
        multi_label=False,
        roles_N=np.full(n, ""),
        sha256="",
        units_N=units,
        attributes={name: np.array(values) for name, values in (attributes or {}).items()},
    )


def outcome_of(table, positive_N, seeds=2, noise=0.1):
    """Probabilities that follow a column, with noise of its own for each seed."""
    rng = np.random.default_rng(3)
    scores = {}
    for split in ("val", "test"):
        p_SN = np.clip(positive_N[table.rows(split)] + noise * rng.normal(size=(seeds, len(table.rows(split)))), 0, 1)
        scores[f"{split}_SNC"] = np.stack([1 - p_SN, p_SN], axis=2).astype(np.float32)
    return Outcome(**scores, selected=[{}] * seeds)


def find(rows, **wanted):
    (row,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return row


PROTOCOL = ClassificationProtocol(fractions=(1.0,), seeds=(0, 1), heads=("paper",), resamples=200)


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("0", "under 18"), ("17.9", "under 18"), ("18", "18 to 39"), ("063Y", "60 to 79"), ("80", "80 and over"),
        ("007M", "under 18"), ("102", "80 and over"), ("", "unknown"), ("old", "unknown"), ("-3", "unknown"),
        ("nan", "unknown"), ("999", "unknown"),
    ],
)  # fmt: skip
def test_age_bands(text, band):
    assert age_band(text) == band


def test_a_subgroup_is_scored_as_its_rows_alone():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 360)
    sex = rng.choice(["F", "M", ""], 360, p=[0.5, 0.4, 0.1])
    age = rng.choice(["25", "67.0", "081Y"], 360)
    table = table_of(codes, attributes={"sex": sex, "age": age})
    helped = np.where(sex == "F", codes, 0.5)  # the method sees the finding in women alone
    found = evaluate({PLACE: {"m": outcome_of(table, helped)}}, table, PROTOCOL, task="t")
    test = table.rows("test")
    for group, name in (("F", "F"), ("M", "M"), ("", "unknown")):
        row = find(found.beside["subgroups"], by="sex", group=name)
        inside = sex[test] == group
        scores_SN = found.predictions["paper|1|m"][:, inside, 1]
        expected = [auc(codes[test][inside], scores_N) for scores_N in scores_SN]
        assert row["seeds"] == pytest.approx(expected, abs=1e-6)
        assert row["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
        assert row["ci_low"] <= row["mean"] <= row["ci_high"]
        assert (row["n"], row["n_patients"]) == (inside.sum(), inside.sum())
        assert row["positives"]["present"] == codes[test][inside].sum()
        least = min(codes[test][inside].sum(), (1 - codes[test][inside]).sum())
        assert row["small"] == (least < 10)
    assert find(found.beside["subgroups"], by="sex", group="F")["mean"] > 0.95
    assert abs(find(found.beside["subgroups"], by="sex", group="M")["mean"] - 0.5) < 0.25
    assert [row["group"] for row in found.beside["subgroups"] if row["by"] == "age"] == [
        "18 to 39",
        "60 to 79",
        "80 and over",
    ]


def test_a_group_of_one_class_has_counts_alone():
    codes = np.tile([0, 1], 90)
    view = np.where(codes == 1, "AP", "PA")
    table = table_of(codes, attributes={"view": view})
    found = evaluate({PLACE: {"m": outcome_of(table, codes.astype(float))}}, table, PROTOCOL, task="t")
    row = find(found.beside["subgroups"], group="AP")
    assert (row["n"], row["mean"], row["ci_low"], row["small"]) == (30, None, None, True)


def test_a_unit_of_several_views_is_mixed():
    codes = np.repeat(np.arange(90) % 2, 2)
    units = np.repeat([f"u{i}" for i in range(90)], 2)
    view = np.tile(["PA", "LL"], 90)
    sex = np.repeat(np.where(np.arange(90) % 3, "F", "M"), 2)
    table = table_of(codes, attributes={"view": view, "sex": sex}, patients=units, units=units)
    found = evaluate({PLACE: {"m": outcome_of(table, codes.astype(float))}}, table, PROTOCOL, task="t")
    assert [(row["group"], row["n"]) for row in found.beside["subgroups"] if row["by"] == "view"] == [("mixed", 30)]
    assert [(row["group"], row["n"]) for row in found.beside["subgroups"] if row["by"] == "sex"] == [
        ("F", 20),
        ("M", 10),
    ]


def test_metadata_that_explains_the_score_is_said(capsys):
    """As in COVIDx: each class comes from a source of its own."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 2, 300)
    source = np.where(codes == 1, "clinic", "archive")
    table = table_of(codes, attributes={"source": source})
    sides = np.full((300, 2), 512)
    good = outcome_of(table, codes.astype(float), noise=0.2)
    found = evaluate({PLACE: {"m": good}}, table, PROTOCOL, task="t", sides_N2=sides)
    assert find(found.rows, method=METHOD, metric="auc")["mean"] == 1.0
    assert [row["b"] for row in found.comparisons] == [METHOD, METHOD]
    assert any("source, image size alone, without the image, reach auc 100.0 %" in note for note in found.notes)
    assert all("m" in note.rsplit(": ", 1)[1].split(", ") for note in found.notes)


def test_metadata_that_explains_nothing_is_silent():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 2, 300)
    table = table_of(
        codes, attributes={"sex": rng.choice(["F", "M"], 300), "age": rng.integers(20, 90, 300).astype(str)}
    )
    found = evaluate(
        {PLACE: {"m": outcome_of(table, codes.astype(float))}}, table, PROTOCOL, task="t",
        sides_N2=rng.integers(300, 600, (300, 2)),
    )  # fmt: skip
    assert abs(find(found.rows, method=METHOD, metric="auc")["mean"] - 0.5) < 0.15
    assert found.notes == []


def test_trees_see_what_a_line_cannot():
    rng = np.random.default_rng(4)
    age = rng.integers(0, 100, 600)
    codes = ((age > 30) & (age < 60)).astype(int)
    table = table_of(codes, attributes={"age": age.astype(str)})
    features, known = metadata_features(table, np.full((600, 2), 100))
    assert known == ("age", "image size")
    outcome = metadata_outcome(features, table, [np.arange(200)])
    assert outcome.selected[0]["model"] == "gradient boosting"
    assert auc(codes[400:], outcome.test_SNC[0, :, 1]) > 0.97
    straight = table_of((age > 50).astype(int), attributes={"age": age.astype(str)})
    features, _ = metadata_features(straight, np.full((600, 2), 100))
    assert (
        auc((age > 50)[400:].astype(int), metadata_outcome(features, straight, [np.arange(200)]).test_SNC[0, :, 1])
        > 0.97
    )


def test_metadata_never_sees_test_rows_values():
    """A value that only test rows have is no column; it must not change what is said of others."""
    table = table_of(np.tile([0, 1], 30), attributes={"source": ["a", "b"] * 20 + ["c", "d"] * 10})
    features, _ = metadata_features(table, np.full((60, 2), 64))
    assert features.shape == (60, 2 + 3)
    assert (features[40:, :2] == 0).all()


@pytest.mark.parametrize("one_row_a_patient", [True, False])
def test_delong_stands_beside_the_bootstrap_where_it_applies(one_row_a_patient):
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 2, 300)
    patients = None if one_row_a_patient else np.repeat([f"p{i}" for i in range(150)], 2)
    table = table_of(codes, patients=patients)
    methods = {"random": outcome_of(table, rng.random(300)), "run": outcome_of(table, codes.astype(float), noise=0.6)}
    found = evaluate({PLACE: methods}, table, PROTOCOL, task="t", baselines=("random",))
    row = find(found.comparisons, metric="auc")
    assert ("delong" in row) == one_row_a_patient
    assert "delong" not in find(found.comparisons, metric="accuracy")
    if one_row_a_patient:
        for seed in range(2):
            a, b = (found.predictions[f"paper|1|{name}"][seed, :, 1] for name in ("run", "random"))
            expected = delong_test(codes[200:], a, b)
            assert row["delong"]["p_values"][seed] == pytest.approx(expected.p_value)
            assert row["delong"]["differences"][seed] == pytest.approx(expected.difference)
        assert row["p_value"] < 0.05


def test_thresholds_come_from_validation():
    """Other test labels change the rates, never a threshold."""
    rng = np.random.default_rng(6)
    codes = rng.integers(0, 2, 300)
    outcome = outcome_of(table_of(codes), codes.astype(float), noise=0.8)
    changed = codes.copy()
    changed[200:] = rng.permutation(changed[200:])
    points = [
        evaluate({PLACE: {"m": outcome}}, table_of(values), PROTOCOL, task="t").beside["operating_points"]
        for values in (codes, changed)
    ]
    assert points[0][0]["label"] == "present"
    assert points[0][0]["thresholds"] == points[1][0]["thresholds"]
    assert points[0][0]["sensitivity"]["mean"] != points[1][0]["sensitivity"]["mean"]
    for name in ("sensitivity", "specificity"):
        part = points[0][0][name]
        assert part["ci_low"] <= part["mean"] <= part["ci_high"]


def test_the_verb_writes_and_prints_all_of_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "images").mkdir()
    path = write_archive(tmp_path / "images")
    frame = pd.read_csv(path, dtype=str)
    frame = frame[frame["finding"] != "none"]
    frame["sex"] = np.where(frame["patient"].str[1:].astype(int) % 2, "F", "M")
    frame["scanner"] = frame["finding"]
    frame.to_csv(path, index=False)
    install(monkeypatch, Oracle())
    results = classify(
        ["oracle"], path, tmp_path / "images", out=tmp_path / "out", label_column="finding", patient_column="patient",
        sex_column="sex", source_column="scanner", fractions=(1.0,), seeds=2, resamples=50, baselines=("random",),
        heads=("logistic",), operating_points=("youden", "sensitivity=0.9"), details=True,
    )  # fmt: skip
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {row["rule"] for row in written["operating_points"]} == {"youden", "sensitivity=0.9"}
    assert {row["group"] for row in written["subgroups"] if row["by"] == "sex"} == {"F", "M"}
    assert {row["method"] for row in written["calibration"]} == {"metadata", "random", "oracle"}
    assert written["notes"]
    for row in written["rows"]:
        assert row["seed_numbers"] == [0, 1]
        assert row["table_sha256"] == results.data["table_sha256"]
        assert row["images_sha256"] == results.data["images_sha256"]
    for row in written["comparisons"]:
        assert row["p_value"] <= row["p_holm"] <= 1
    printed = capsys.readouterr().out
    for said in (
        "Holm",
        "calibration",
        "operating points",
        "subgroups",
        "small",
        "note: sex, source, image size alone",
    ):
        assert said in printed
    with np.load(tmp_path / "out" / "predictions.npz") as arrays:
        assert arrays["val|logistic|1|oracle"].shape == (2, len(arrays["val_targets"]), 2)
