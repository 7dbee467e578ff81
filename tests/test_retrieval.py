"""Rankings, their chance levels and their bootstrap."""

import numpy as np
import pytest

from convirt.errors import InputError
from convirt.evaluation.ranking import (
    cosine,
    evaluate_ranking,
    image_image,
    own_caption,
    text_image,
    top_images,
)
from fake_encoders import Oracle


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def gallery():
    """Labels, patients (two images each) and vectors of 90 images in classes of unequal size."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [50, 30, 10])
    patients = np.array([f"p{i // 2}" for i in range(90)])
    means = {label: rng.normal(size=16) for label in "abc"}
    vectors = unit(np.array([means[label] for label in labels]) + rng.normal(size=(90, 16)))
    return labels, patients, vectors.astype(np.float32)


def rank(ranking, similarity, ks=(5,), **options):
    rows, comparisons, scores = evaluate_ranking(ranking, similarity, ks=ks, resamples=200, **options)
    return rows, comparisons, scores


def test_image_image_equals_a_loop_over_queries(gallery):
    labels, patients, vectors = gallery
    everyone = np.arange(90)
    ranking = image_image(labels, patients, everyone, everyone)
    rows, _, scores = rank(ranking, {"m": cosine(vectors, vectors)}, ks=(5, 10))
    for row in rows:
        k = int(row["metric"].split("@")[1])
        precision, chance = [], []
        for q in everyone:
            others = [g for g in everyone if patients[g] != patients[q]]
            nearest = sorted(others, key=lambda g: -float(vectors[q].astype(float) @ vectors[g].astype(float)))[:k]
            precision.append(np.mean([labels[g] == labels[q] for g in nearest]))
            chance.append(np.mean([labels[g] == labels[q] for g in others]))
        assert row["mean"] == pytest.approx(np.mean(precision))
        assert row["chance"] == pytest.approx(np.mean(chance))
        np.testing.assert_allclose(scores[f"image-image|{row['metric']}|m"], precision, atol=1e-6)
        assert row["by_class"]["c"]["queries"] == 10
        assert row["by_class"]["c"]["mean"] == pytest.approx(np.mean(precision[80:]))
        assert (row["space"], row["n_test"], row["n_patients"], row["n_candidates"]) == ("features", 90, 45, 90)
        assert row["ci_low"] < row["mean"] < row["ci_high"]


def test_the_own_patient_is_never_retrieved(gallery):
    labels, patients, _ = gallery
    by_patient = np.eye(45)[np.repeat(np.arange(45), 2)]  # an encoder that knows the patient and nothing else
    ranking = image_image(labels, patients, np.arange(90), np.arange(90))
    rows, _, _ = rank(ranking, {"m": cosine(by_patient, by_patient)})
    assert rows[0]["mean"] == pytest.approx(rows[0]["chance"])


def test_queries_and_candidates_can_be_apart(gallery):
    labels, patients, vectors = gallery
    queries, candidates = np.arange(0, 90, 9), np.setdiff1d(np.arange(90), np.arange(0, 90, 9))
    ranking = image_image(labels, patients, queries, candidates)
    assert ranking.hits_QG.shape == (10, 80)
    assert ranking.excluded_QG.sum() == 10  # each query's patient has one other image
    similarity = cosine(vectors[queries], vectors[candidates])
    assert rank(ranking, {"m": similarity})[0][0]["mean"] > 0.6


def test_random_vectors_score_chance_and_equal_ones_exactly_so(gallery):
    labels, patients, _ = gallery
    everyone = np.arange(90)
    ranking = image_image(labels, patients, everyone, everyone)
    same = np.tile(unit(np.random.default_rng(1).normal(size=(1, 33))), (90, 1))
    (row,), _, _ = rank(ranking, {"m": cosine(same, same)})
    assert row["mean"] == pytest.approx(row["chance"], abs=1e-12)
    random = [unit(np.random.default_rng(seed).normal(size=(90, 8))) for seed in range(30)]
    means = [rank(ranking, {"m": cosine(v, v)})[0][0]["mean"] for v in random]
    assert np.mean(means) == pytest.approx(row["chance"], abs=0.02)


def test_text_image_and_its_chance():
    labels = np.repeat(["a", "b"], [30, 10])
    ranking = text_image(np.array(["a", "b", "b"]), labels)
    similarity = np.where(labels == "a", 0.9, 0.1)[None].repeat(3, axis=0)
    (row,), _, _ = rank(ranking, {"m": similarity})
    assert row["mean"] == pytest.approx(1 / 3)
    assert row["chance"] == pytest.approx((0.75 + 0.25 + 0.25) / 3)
    assert row["space"] == "shared"
    assert row["n_patients"] == 3
    with pytest.raises(InputError, match="class 'z', which no candidate"):
        text_image(np.array(["a", "z"]), labels)


def test_own_caption_with_and_without_duplicates():
    texts = ["normal", "normal", "edema", "fracture"]
    patients = np.array(["p", "q", "r", "s"])
    duplicates, one_to_one = own_caption(texts, patients, "image to text")
    vectors = np.eye(4)[[0, 0, 1, 2]]
    similarity = {"m": cosine(vectors, vectors)}
    rows = rank(duplicates, similarity, ks=(1, 2))[0]
    assert [row["metric"] for row in rows] == ["recall@1", "recall@2"]
    assert [row["mean"] for row in rows] == [1.0, 1.0]
    assert rows[0]["chance"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 4 + 1 / 4) / 4)
    assert rows[1]["chance"] == pytest.approx((2 * (1 - 1 / 6) + 2 * (2 / 4)) / 4)
    rows = rank(one_to_one, similarity, ks=(1,))[0]
    assert rows[0]["metric"] == "recall@1 one-to-one"
    assert rows[0]["mean"] == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)
    assert rows[0]["chance"] == pytest.approx(0.25)


def test_comparisons_are_paired_over_queries(gallery):
    labels, patients, vectors = gallery
    everyone = np.arange(90)
    ranking = image_image(labels, patients, everyone, everyone)
    blind = unit(np.random.default_rng(3).normal(size=(90, 8)))
    similarities = {"random": cosine(blind, blind), "run": cosine(vectors, vectors)}
    rows, comparisons, _ = rank(ranking, similarities, ks=(5, 10), baselines=("random",))
    assert len(rows) == 4
    assert [(c["a"], c["b"], c["metric"]) for c in comparisons] == [
        ("run", "random", "precision@5"),
        ("run", "random", "precision@10"),
    ]
    assert comparisons[0]["difference"] == pytest.approx(rows[1]["mean"] - rows[0]["mean"])
    assert all(c["excludes_zero"] for c in comparisons)


def test_lists_longer_than_the_candidates_are_left_out(gallery):
    labels, patients, vectors = gallery
    ranking = image_image(labels, patients, np.arange(90), np.arange(90))
    rows, _, _ = rank(ranking, {"m": cosine(vectors, vectors)}, ks=(5, 88, 89))
    assert [row["metric"] for row in rows] == ["precision@5", "precision@88"]
    with pytest.raises(InputError, match="only 88 candidates"):
        rank(ranking, {"m": cosine(vectors, vectors)}, ks=(89,))


def test_top_images_are_the_nearest_in_order():
    images = [np.full((4, 4), 80 * code, np.uint8) for code in (0, 1, 2, 1, 1)]
    order, scores = top_images(Oracle(noise=0.0), ["fracture left", "none"], images, 2)
    assert order.tolist() == [[1, 3], [2, 0]]  # of equal images the earlier first
    np.testing.assert_allclose(scores, [[1, 1], [1, 0]], atol=1e-6)
    known = Oracle(noise=0.0).encode_image(images, space="shared", batch_size=8, normalise=True)
    again, _ = top_images(Oracle(noise=0.0), ["fracture left", "none"], k=2, vectors_ND=known)
    assert (again == order).all()
