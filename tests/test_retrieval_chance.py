"""Chance and an oracle on the paper's own retrieval lists: 12.5 % and 100 %, with a hit as the lists' README has it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from convirt.data.benchmarks.chexpert import KS, benchmark_chexpert8x200, read_lists
from convirt.evaluation import retrieve
from convirt.evaluation.inputs.options import TableOptions
from convirt.evaluation.ranking import cosine, text_image

LISTS = Path(__file__).parents[1].parent / "shared" / "data" / "chexpert8x200"
SEEDS, DIMENSIONS = 200, 128
pytestmark = pytest.mark.skipif(not LISTS.is_dir(), reason=f"there is no {LISTS}")


@pytest.fixture(scope="module")
def rankings(tmp_path_factory):
    """Both tasks as `retrieve` ranks them, with the class of each query."""
    folder = tmp_path_factory.mktemp("lists")
    benchmark_chexpert8x200(folder, folder / "benchmark", lists=LISTS, images=False)
    for name in read_lists(LISTS).images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()  # rankings need no pixels
    opened = TableOptions(table=folder / "benchmark").open()
    columns, benchmark, table = opened.columns, opened.benchmark, opened.table
    queries, candidates = retrieve._queries_and_candidates(table)
    nothing = retrieve._Vectors(features={}, shared={}, projected={}, sha256="", encoders={}, batch_size=1)
    ((images, _),) = retrieve._image_image(table, nothing, own_patient=benchmark.protocol.own_patient)
    texts = retrieve._read_queries(benchmark.queries, "text", columns.label)
    return {
        "image": (images, table.labels_N[queries]),
        "text": (text_image(texts.labels_Q, table.labels_N[candidates]), texts.labels_Q),
    }


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_hit_is_a_candidate_whose_label_of_the_querys_category_is_one(rankings, kind):
    """The lists' README: a query from Atelectasis is met where the candidate's label for Atelectasis is 1."""
    ranking, _ = rankings[kind]
    candidates = pd.read_csv(LISTS / f"{kind}-retrieval" / "candidate.csv")
    asked = pd.read_csv(LISTS / f"{kind}-retrieval" / "query.csv")["Variable"]
    hits_QG = (candidates[list(asked)] == 1).to_numpy().T
    assert ranking.hits_QG.shape == ({"image": 80, "text": 40}[kind], 1600)
    np.testing.assert_array_equal(ranking.hits_QG, hits_QG)
    assert ranking.allowed_QG().all()  # the paper ranks every candidate


@pytest.mark.parametrize("kind", ["image", "text"])
def test_random_embeddings_score_one_in_eight(rankings, kind):
    ranking, labels_Q = rankings[kind]
    total = dict.fromkeys(KS, 0.0)
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        queries_QD, candidates_GD = (unit(rng.normal(size=(n, DIMENSIONS))) for n in (len(labels_Q), 1600))
        similarity_QG = cosine(queries_QD, candidates_GD)
        for k in KS:
            total[k] += 100 * ranking.score_Q(similarity_QG, k).mean() / SEEDS
    assert total == {k: pytest.approx(12.5, abs=0.3) for k in KS}
    assert all(ranking.chance_Q(k).mean() == 0.125 for k in KS)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_an_oracle_finds_its_class_alone(rankings, kind):
    ranking, labels_Q = rankings[kind]
    classes, codes_Q = np.unique(labels_Q, return_inverse=True)
    listed = pd.read_csv(LISTS / f"{kind}-retrieval" / "candidate.csv")[list(classes)].to_numpy()
    similarity_QG = cosine(np.eye(8)[codes_Q], unit(listed))
    for k in (*KS, 200):
        assert (ranking.score_Q(similarity_QG, k) == 1).all()
    assert (ranking.score_Q(-similarity_QG, 1400) == 0).all()
