"""Zero-shot classification: prompts, scores by hand, operating points from validation alone, and the verb."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from convirt.errors import InputError
from convirt.evaluation.prompts import BUILT_IN, class_scores, pair_scores, prompt_vectors, read_prompts
from fake_encoders import FINDINGS, Blind, Oracle, install, write_archive
from flat_verbs import zero_shot


class Words:
    """Texts to vectors by hand: two numbers in the text are its direction."""

    name = "words"

    def encode_text(self, texts, *, space, batch_size, normalise):
        assert (space, normalise) == ("shared", True)
        vectors = np.array([[float(word) for word in text.split()[:2]] for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


PAIRS = """
[pairs.edema]
positive = ["3 4 a", "1 0 b"]
negative = "0 1 c"
[pairs.fracture]
positive = ["-1 0 d"]
negative = ["1 1 e", "2 -1 f"]
[classes]
none = ["-1 -1 g"]
"""


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "prompts.toml").write_text(PAIRS)
    return read_prompts(tmp_path / "prompts.toml")


def by_hand(v, *sides):
    """The softmax over sides, of the cosine to the mean of the unit vectors of each side's prompts."""
    similarities = []
    for side in sides:
        unit = [(x / math.hypot(x, y), y / math.hypot(x, y)) for x, y in side]
        mean = (sum(x for x, _ in unit) / len(unit), sum(y for _, y in unit) / len(unit))
        similarities.append((v[0] * mean[0] + v[1] * mean[1]) / math.hypot(*mean))
    powers = [math.exp(s / 0.1) for s in similarities]
    return [power / sum(powers) for power in powers]


def test_scores_are_those_of_the_formula(prompts):
    v_ND = np.array([[0.6, 0.8], [-1.0, 0.0]], dtype=np.float32)
    pairs_NC = pair_scores(Words(), v_ND, ("Edema", "FRACTURE"), prompts, 64)
    classes_NC = class_scores(Words(), v_ND, ("edema", "none"), prompts, 64)
    for n, v in enumerate(v_ND.tolist()):
        assert pairs_NC[n, 0] == pytest.approx(by_hand(v, [(3, 4), (1, 0)], [(0, 1)])[0], abs=1e-6)
        assert pairs_NC[n, 1] == pytest.approx(by_hand(v, [(-1, 0)], [(1, 1), (2, -1)])[0], abs=1e-6)
        assert classes_NC[n].tolist() == pytest.approx(by_hand(v, [(3, 4), (1, 0)], [(-1, -1)]), abs=1e-6)


def test_a_mean_of_prompts_has_length_one():
    vectors = prompt_vectors(Words(), [("1 0", "0 1", "1 1"), ("2 0",)], 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_prompts_have_two_sides_and_repeat_nothing_across_them(name):
    prompts = read_prompts(name)
    assert len(prompts.pairs) == {"chexpert": 14, "phantom": 8}[name]
    for positive, negative in prompts.pairs.values():
        assert len(positive) >= 2
        assert negative
        assert not set(positive) & set(negative)


def test_phantom_prompts_share_no_sentence_with_the_reports():
    from convirt.data.phantom import CATEGORIES, wording

    groups = (wording.FINDINGS, wording.IMPRESSIONS, wording.NEGATIONS)
    said = {template for group in groups for templates in group.values() for template in templates}
    said |= {*wording.NORMAL_FINDINGS, *wording.NORMAL_IMPRESSIONS}
    prompts = read_prompts("phantom")
    assert set(prompts.pairs) == set(CATEGORIES)
    texts = {text for sides in prompts.pairs.values() for side in sides for text in side}
    assert not texts & said


def test_a_table_says_the_same_as_toml(tmp_path, prompts):
    rows = [("edema", "positive", "3 4 a"), ("edema", "Positive", "1 0 b"), ("edema", "negative", "0 1 c")]
    rows += [("fracture", "positive", "-1 0 d"), ("fracture", "negative", "1 1 e"), ("fracture", "negative", "2 -1 f")]
    rows += [("none", "class", "-1 -1 g")]
    pd.DataFrame(rows, columns=["label", "role", "text"]).to_csv(tmp_path / "prompts.csv", index=False)
    table = read_prompts(tmp_path / "prompts.csv")
    assert (table.pairs, table.classes) == (prompts.pairs, prompts.classes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no prompts"),
        ("x = [", "is not TOML"),
        ("[pair.edema]\npositive = 'a'", "unknown table 'pair'"),
        ("[pairs.edema]\npositive = 'a'", "'edema' needs both positive and negative"),
        ("[pairs.edema]\npositive = []\nnegative = 'b'", "prompts of 'edema' must be texts"),
        ("[classes]\nedema = ['a', ' ']", "prompts of 'edema' must be texts"),
    ],
)
def test_bad_prompts_are_refused(tmp_path, content, message):
    (tmp_path / "prompts.toml").write_text(content)
    with pytest.raises(InputError, match=message):
        read_prompts(tmp_path / "prompts.toml")


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "images").mkdir()
    lines = [f"[pairs.{name}]\npositive = '{name} seen'\nnegative = '{other} seen'" for name, other in OTHERS.items()]
    (tmp_path / "prompts.toml").write_text("\n".join(lines))
    return {
        "table": write_archive(tmp_path / "images"),
        "images": tmp_path / "images",
        "patient_column": "patient",
        "prompts": str(tmp_path / "prompts.toml"),
        "resamples": 100,
        "out": tmp_path / "out",
    }


OTHERS = {"edema": "none", "fracture": "none", "none": "edema"}


def test_labels_with_operating_points_from_validation(archive, monkeypatch):
    oracle = Oracle()
    install(monkeypatch, oracle)
    results = zero_shot(["oracle"], **archive, label_columns=FINDINGS, split_column="split")
    assert oracle.images_seen == 80  # no training row takes part
    rows = {(row["label"], row["metric"]): row for row in results.rows}
    assert {label for label, _ in rows} == {"mean over labels", *FINDINGS}
    assert rows["edema", "auc"]["mean"] > 0.95
    assert rows["edema", "auc"]["n_test"] == 40  # test rows alone
    assert rows["edema", "sensitivity"]["threshold_from"] == "validation"
    with np.load(archive["out"] / "predictions.npz") as arrays:
        scores, targets = arrays["scores|oracle"][:, 0], arrays["test_targets"][:, 0]
    called = scores >= rows["edema", "sensitivity"]["threshold"]
    assert rows["edema", "sensitivity"]["mean"] == pytest.approx(called[targets == 1].mean())
    assert rows["edema", "specificity"]["mean"] == pytest.approx((~called)[targets == 0].mean())
    assert rows["edema", "accuracy"]["mean"] == pytest.approx((called == (targets == 1)).mean())
    assert all(row["ci_low"] <= row["mean"] <= row["ci_high"] for row in results.rows)
    assert all(row["space"] == "shared" for row in results.rows)
    written = json.loads((archive["out"] / "metrics.json").read_text())
    assert len(written["data"]["prompts_sha256"]) == 64
    with pytest.raises(InputError, match=r"results of another call \(other: --split-column\)"):
        zero_shot(["oracle"], **archive, label_columns=FINDINGS)


def test_test_rows_do_not_move_the_operating_point(archive, monkeypatch):
    install(monkeypatch, Oracle())
    options = {"label_columns": FINDINGS, "split_column": "split"}
    before = zero_shot(["oracle"], **archive, **options)
    frame = pd.read_csv(archive["table"], dtype=str)
    test = frame["split"] == "test"
    frame.loc[test, "edema"] = frame.loc[test, "edema"].map({"0": "1", "1": "0"})
    frame.to_csv(archive["table"], index=False)
    after = zero_shot(["oracle"], **{**archive, "out": archive["out"].with_name("again")}, **options)

    def points(results):
        return [row["threshold"] for row in results.rows if row["metric"] == "sensitivity"]

    assert points(before) == points(after)
    assert before.rows[1]["mean"] > 0.95 > 0.05 > after.rows[1]["mean"]


def test_classes_and_no_split(archive, monkeypatch):
    install(monkeypatch, Oracle())
    results = zero_shot(["oracle"], **archive, label_column="finding")
    rows = {(row["label"], row["metric"]): row for row in results.rows}
    assert rows["all classes", "accuracy"]["mean"] > 0.95
    assert rows["all classes", "accuracy"]["chance"] == pytest.approx(1 / 3)
    assert rows["all classes", "accuracy"]["n_test"] == 120
    assert "threshold" not in rows["edema", "auc"]


def test_views_pooled_before_they_are_compared(archive, monkeypatch):
    frame = pd.read_csv(archive["table"], dtype=str)
    frame["study"] = [f"{row.split}-{row.finding}-{i // 6}" for i, row in enumerate(frame.itertuples())]
    frame["patient"] = frame["study"]
    frame.to_csv(archive["table"], index=False)
    install(monkeypatch, Oracle())
    results = zero_shot(["oracle"], **archive, label_column="finding", pool_column="study")
    assert results.rows[0]["n_test"] == frame["study"].nunique()
    assert results.rows[0]["pooled_by"] == "study"


def test_bad_input_is_refused(archive, monkeypatch):
    class OneTower(Blind):
        shared_dim = None

    install(monkeypatch, Oracle(), OneTower("simclr"))
    with pytest.raises(InputError, match=r"'simclr' .* has no shared space"):
        zero_shot(["simclr"], **archive, label_column="finding")
    with pytest.raises(InputError, match="name a label column"):
        zero_shot(["oracle"], **archive)
    few = archive["out"].parent / "few.toml"
    few.write_text("[pairs.'No Finding']\npositive = 'a'\nnegative = 'b'")
    with pytest.raises(InputError, match=r"no positive and negative prompts for label 'edema'; it has No Finding"):
        zero_shot(["oracle"], **{**archive, "prompts": str(few)}, label_columns=FINDINGS)
    with pytest.raises(InputError, match=r"there are no prompts at nowhere\.toml"):
        zero_shot(["oracle"], **{**archive, "prompts": "nowhere.toml"}, label_columns=FINDINGS)
