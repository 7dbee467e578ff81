"""Zero-shot retrieval: rank candidates by cosine similarity, or by a head, and score the lists (ConVIRT, section 3.2).

Image-image retrieval compares the features h_v, text-image retrieval the vectors u and v of the shared space.

Shape legend: N images, T texts, D dimensions, Q queries, G candidates, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.rows import Figure, Plain, Row, build
from convirt.evaluation.statistics.bootstrap import Resampling, weighted_mean
from convirt.evaluation.statistics.metrics import Array, chance_recall, precision_at_k, recall_at_k

if TYPE_CHECKING:
    from convirt.evaluation.inputs.images import Encoder

Scorer = Literal["cosine", "head"]
_BLOCK = 512  # queries ranked at once


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """One retrieval task: what each query should find."""

    task: str
    space: Literal["features", "shared"]
    metric: Literal["precision", "recall"]
    hits_QG: NDArray[np.bool_]
    """Which candidates are right."""
    excluded_QG: NDArray[np.bool_] | None = None
    """Which candidates may not be retrieved: images of the query's own patient."""
    clusters_Q: NDArray[np.str_]
    """Patient of each query (or its number): what the bootstrap draws."""
    classes_Q: NDArray[np.str_] | None = None
    """Class of each query, for the figures of each class."""
    suffix: str = ""
    """Said after the metric's name, where the same task is scored in two ways."""
    scorer: Scorer = "cosine"
    """What compares a query with a candidate: their cosine similarity, or the head of Contrastive-Binary."""

    def by(self, scorer: Scorer) -> "Ranking":
        """The same task, with candidates compared in this way."""
        return replace(self, scorer=scorer, suffix=self.suffix + (" by the head" if scorer == "head" else ""))

    def allowed_QG(self) -> NDArray[np.bool_]:
        return np.ones_like(self.hits_QG) if self.excluded_QG is None else ~self.excluded_QG

    def chance_Q(self, k: int) -> Array:
        """The expected score of each query in a random order of its candidates."""
        allowed_QG = self.allowed_QG()
        right_Q, candidates_Q = (self.hits_QG & allowed_QG).sum(axis=1), allowed_QG.sum(axis=1)
        return right_Q / candidates_Q if self.metric == "precision" else chance_recall(right_Q, candidates_Q, k)

    def score_Q(self, similarity_QG: NDArray, k: int) -> Array:
        """The score of each query."""
        parts = []
        for start in range(0, len(similarity_QG), _BLOCK):
            block = slice(start, start + _BLOCK)
            excluded = None if self.excluded_QG is None else self.excluded_QG[block]
            score = precision_at_k if self.metric == "precision" else recall_at_k
            parts.append(score(similarity_QG[block], self.hits_QG[block], k, excluded))
        return np.concatenate(parts)


def cosine(queries_QD: NDArray, candidates_GD: NDArray) -> NDArray[np.float32]:
    """Cosine similarities [Q, G] of L2-normalised rows, rounded to six decimals.

    Equal vectors must tie exactly, wherever they stand in the matrix product; float32 does not promise that beyond
    the seventh digit.
    """
    return np.round(queries_QD.astype(np.float32) @ candidates_GD.astype(np.float32).T, 6)


def image_image(
    labels_N: NDArray[np.str_],
    patients_N: NDArray[np.str_],
    queries: NDArray[np.int64],
    candidates: NDArray[np.int64],
) -> Ranking:
    """Images of the query's class among the candidates of all other patients."""
    excluded_QG = patients_N[queries][:, None] == patients_N[candidates][None, :]
    excluded_QG |= queries[:, None] == candidates[None, :]
    return Ranking(
        task="image-image",
        space="features",
        metric="precision",
        hits_QG=labels_N[queries][:, None] == labels_N[candidates][None, :],
        excluded_QG=excluded_QG,
        clusters_Q=patients_N[queries],
        classes_Q=labels_N[queries],
    )


def text_image(query_labels_Q: NDArray[np.str_], candidate_labels_G: NDArray[np.str_]) -> Ranking:
    """Images of the class that a text query describes.

    Raises:
        InputError: A query's class has no candidate.
    """
    if unknown := sorted(set(query_labels_Q) - set(candidate_labels_G)):
        raise InputError(
            f"text queries ask for class {str(unknown[0])!r}, which no candidate image has; check its name"
        )
    return Ranking(
        task="text-image",
        space="shared",
        metric="precision",
        hits_QG=query_labels_Q[:, None] == candidate_labels_G[None, :],
        clusters_Q=np.arange(len(query_labels_Q)).astype(str),
        classes_Q=query_labels_Q,
    )


def own_caption(texts: Sequence[str], patients_N: NDArray[np.str_], direction: str) -> tuple[Ranking, Ranking]:
    """The image of its own caption, or the caption of its own image.

    Returns:
        Two ways to score the same lists: exact duplicates of the caption count as hits; one-to-one, where only the
        row itself does, so that N identical captions cannot be told apart.
    """
    captions_N = np.array(texts)
    same_NN = captions_N[:, None] == captions_N[None, :]
    common: dict[str, Any] = {"task": f"own caption, {direction}", "space": "shared", "metric": "recall"}
    return (
        Ranking(**common, hits_QG=same_NN, clusters_Q=patients_N),
        Ranking(**common, hits_QG=np.eye(len(texts), dtype=bool), clusters_Q=patients_N, suffix=" one-to-one"),
    )


def evaluate_ranking(
    ranking: Ranking,
    similarities: Mapping[str, NDArray],
    *,
    ks: Sequence[int],
    resamples: int = 1000,
    baselines: Sequence[str] = (),
) -> tuple[list[Row], list[Plain], dict[str, NDArray]]:
    """Score every method on one task.

    Args:
        ranking: The task.
        similarities: [Q, G] by method.
        ks: Lengths of the lists; those longer than the fewest candidates of a query are left out.
        resamples: Bootstrap resamples over the queries' patients.
        baselines: Methods that the others are compared with.

    Returns:
        Rows, comparisons, and the scores of each query behind them, with what the bootstrap drew (`TASK|of`).

    Raises:
        InputError: No k fits, or the queries are of fewer than two patients.
    """
    fewest = int(ranking.allowed_QG().sum(axis=1).min())
    fitting = [k for k in ks if 1 <= k <= fewest]
    if not fitting:
        raise InputError(f"{ranking.task}: a query has only {fewest} candidates, fewer than any k of {list(ks)}")
    plan = Resampling.draw(ranking.clusters_Q, seeds=1, resamples=resamples)
    counts = {
        "n_train": 0,
        "n_test": len(ranking.hits_QG),
        "n_patients": len(np.unique(ranking.clusters_Q)),
        "n_candidates": ranking.hits_QG.shape[1],
    }
    common = {
        "task": ranking.task,
        "space": ranking.space,
        "scorer": ranking.scorer,
        "head": None,
        "fraction": None,
    }
    rows: list[Row] = []
    comparisons: list[Plain] = []
    scores: dict[str, NDArray] = {f"{ranking.task}|of": ranking.clusters_Q}  # for a paired test with other results
    for k in fitting:
        metric = f"{ranking.metric}@{k}{ranking.suffix}"
        chance_Q = ranking.chance_Q(k)
        figures: dict[str, Figure] = {}
        for method, similarity_QG in similarities.items():
            score_Q = ranking.score_Q(similarity_QG, k)
            scores[f"{ranking.task}|{metric}|{method}"] = score_Q.astype(np.float32)
            figures[method] = Figure(
                values_S=[float(score_Q.mean())],
                values_R=weighted_mean(score_Q, plan.weights_NR),
                extra={"by_class": _by_class(score_Q, chance_Q, ranking.classes_Q)},
            )
        found, compared = build(
            figures,
            common,
            metric=metric,
            chance=float(chance_Q.mean()),
            chance_is="a random order of each query's candidates",
            baselines=baselines,
            counts=counts,
        )
        rows += found
        comparisons += compared
    return rows, comparisons, scores


def _by_class(score_Q: Array, chance_Q: Array, classes_Q: NDArray[np.str_] | None) -> dict[str, dict[str, float]]:
    if classes_Q is None:
        return {}
    return {
        str(name): {
            "queries": int((classes_Q == name).sum()),
            "mean": float(score_Q[classes_Q == name].mean()),
            "chance": float(chance_Q[classes_Q == name].mean()),
        }
        for name in np.unique(classes_Q)
    }


def top_images(
    model: "Encoder",
    texts: Sequence[str],
    images: Any = None,
    k: int = 5,
    *,
    vectors_ND: NDArray[np.float32] | None = None,
    batch_size: int = 64,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k images that are nearest to each text in the shared space.

    Args:
        model: Encoder of both images and texts.
        texts: Sentences [T].
        images: Anything that the model's `encode_image` takes; not needed with `vectors_ND`.
        k: How many images, at most as many as there are.
        vectors_ND: Vectors of the images in the shared space, if they are already known.
        batch_size: Images encoded at once.

    Returns:
        Positions [T, k], nearest first (of equal images the earlier first), and their cosine similarities [T, k].
    """
    if vectors_ND is None:
        vectors_ND = model.encode_image(images, space="shared", batch_size=batch_size, normalise=True)
    texts_TD = model.encode_text(list(texts), space="shared", batch_size=batch_size, normalise=True)
    similarity_TN = cosine(texts_TD, vectors_ND)
    order_TK = np.argsort(-similarity_TN, axis=1, kind="stable")[:, :k]
    return order_TK, np.take_along_axis(similarity_TN, order_TK, axis=1)
