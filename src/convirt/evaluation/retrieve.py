"""`convirt retrieve`: zero-shot retrieval of images and captions (ConVIRT, section 3.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.inputs.options import Baseline, Device, SharedTableOptions, flat
from convirt.evaluation.ranking import (
    Ranking,
    Scorer,
    cosine,
    evaluate_ranking,
    image_image,
    own_caption,
    text_image,
)
from convirt.evaluation.results import Call, Results

if TYPE_CHECKING:
    from convirt.evaluation.inputs.images import Encoder, Space
    from convirt.evaluation.inputs.table import LabelledTable
    from convirt.evaluation.inputs.units import Pooled

KS = (5, 10, 50)  # ConVIRT, table 2


def retrieve(
    runs: Sequence[Path],
    options: SharedTableOptions,
    *,
    out: Path,
    text_column: str | None = None,
    queries: Path | None = None,
    query_text_column: str = "text",
    query_label_column: str | None = None,
    role_column: str | None = None,
    split: str = "test",
    pool_column: str | None = None,
    ks: Sequence[int] | None = None,
    recall_ks: Sequence[int] = (1, 5, 10),
    baselines: Sequence[Baseline] = ("random", "imagenet"),
    resamples: int = 1000,
    batch_size: int = 64,
    device: Device = "auto",
) -> Results:
    """Zero-shot retrieval by pretraining runs, beside chance and untrained encoders.

    With a label column: image-image retrieval on the features h_v, Precision@k by class, never among images of the
    query's own patient. With text queries as well: text-image retrieval in the shared space. With a text column: the
    own caption of each image and the own image of each caption, recall@k, exact duplicates counted as hits.

    Args:
        runs: Folders of pretraining runs (or of checkpoints); the first is compared with every other.
        options: The table and its columns.
        out: Folder for metrics.json and predictions.npz.
        text_column: Column with the caption of the image.
        queries: CSV or Parquet of text queries, one a row.
        query_text_column: Column of the queries with the text.
        query_label_column: Column of the queries with the class; by default named as the label column.
        role_column: Column that says query or candidate; without it each image queries all others.
        split: The split to retrieve in.
        pool_column: Column whose equal values name one study: the vectors of its images are averaged, and it is
            evaluated as one.
        ks: Lengths of the lists for Precision@k; 5 10 50 by default.
        recall_ks: Lengths of the lists for recall@k of the own caption.
        baselines: Encoders to compare the runs with in image-image retrieval, with the architecture of the first run.
        resamples: Bootstrap resamples.
        batch_size: Images encoded at once.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: Unusable table, images, queries, runs or settings.
    """
    call = Call.begin("retrieve", flat(locals()), "batch_size", "resamples")
    for name, lengths in (("ks", ks or ()), ("recall_ks", recall_ks)):
        if wrong := [length for length in lengths if length < 1]:
            raise InputError(f"{name} must be at least 1, got {wrong[0]}")
    opened = options.open(pool_column=pool_column, role_column=role_column, text_column=text_column)
    label = opened.columns.label
    queries = queries or (opened.benchmark.queries if opened.benchmark else None)
    if queries and not label:
        raise InputError("text queries need the class of the images; name a label column (--label-column)")
    if not label and not text_column:
        raise InputError("name a label column (--label-column), a text column (--text-column), or both")
    if not opened.columns.role and not opened.columns.split:
        raise InputError("name a split column (--split-column) or a role column (--role-column)")

    from convirt.evaluation.inputs.images import load_encoders
    from convirt.evaluation.inputs.units import pool_views

    shown = _chosen(opened.table, opened.columns.split, split)
    pooled = pool_views(shown, pool_column)
    chosen = pooled.table
    asked = _read_queries(queries, query_text_column, query_label_column or label) if queries else None
    if asked:  # a class without candidates should be found before any image is encoded
        text_image(asked.labels_Q, chosen.labels_N[_queries_and_candidates(chosen)[1]])
    call.check_same(opened)
    part = "both" if asked or text_column else "image"
    encoders = load_encoders(runs, baselines if label else (), part=part, device=device)  # type: ignore[arg-type]
    trained = {name: encoder for name, encoder in encoders.items() if name not in baselines}
    trained, notes = _with_shared_space(trained, texts_alone=not label) if part == "both" else ({}, [])
    vectors = _encode(encoders if label else {}, trained, shown.paths, batch_size).pooled(pooled)
    own_patient = opened.protocol.own_patient
    tasks = _image_image(chosen, vectors, own_patient=own_patient) if label else []
    texts = _text_image(chosen, vectors, asked) if asked else []
    texts += _own_caption(chosen, vectors) if text_column else []
    tasks += sorted(texts, key=lambda task: task[0].scorer)  # all by cosine, then all by the head
    lengths_of = {"precision": ks if ks is not None else opened.protocol.ks or KS, "recall": recall_ks}
    found = [
        evaluate_ranking(ranking, similarities, ks=lengths_of[ranking.metric], resamples=resamples, baselines=baselines)
        for ranking, similarities in tasks
    ]
    predictions: dict[str, NDArray] = {"images": np.array(chosen.images)}
    for _, _, scores in found:
        predictions |= scores
    return call.finish(
        opened,
        data={
            "table_sha256": opened.table.sha256,
            "images_sha256": vectors.sha256,
            "queries_sha256": asked.sha256 if asked else None,
            "images": len(chosen),
            "rows_without_label": opened.table.rows_without_label,
        },
        rows=[row for rows, _, _ in found for row in rows],
        row_values=pooled.described(),
        comparisons=[row for _, compared, _ in found for row in compared],
        predictions=predictions,
        notes=notes,
    )


def _with_shared_space(
    encoders: "Mapping[str, Encoder]", *, texts_alone: bool
) -> "tuple[dict[str, Encoder], list[str]]":
    """The runs whose images and texts can be compared, and a note on the others.

    Raises:
        InputError: Nothing else is asked for, and no run has a shared space.
    """
    able = {name: encoder for name, encoder in encoders.items() if getattr(encoder, "shared_dim", True) is not None}
    unable = ", ".join(name for name in encoders if name not in able)
    if texts_alone and not able:
        raise InputError(
            f"no shared space of images and texts in {unable}; name a label column for image-image retrieval"
        )
    return able, [f"no text-image retrieval by {unable}: no shared space of images and texts"] if unable else []


RankedTask = tuple[Ranking, dict[str, NDArray]]
"""What each query should find, and the similarities [Q, G] by method."""


@dataclass(frozen=True, kw_only=True)
class _Vectors:
    """Vectors [N, D] of the chosen images, by method, in both spaces."""

    features: dict[str, NDArray[np.float32]]
    shared: dict[str, NDArray[np.float32]]
    projected: dict[str, NDArray[np.float32]]
    """In the shared space, not normalised; of the methods with a head that matches pairs."""
    sha256: str
    encoders: "Mapping[str, Encoder]"
    """The methods with a shared space."""
    batch_size: int

    def pooled(self, pooled: "Pooled") -> "_Vectors":
        features, shared = (pooled.mean_of_each(part, normalise=True) for part in (self.features, self.shared))
        projected = pooled.mean_of_each(self.projected, normalise=False)
        return replace(self, features=features, shared=shared, projected=projected)

    def compare(self, texts: Sequence[str]) -> dict[Scorer, dict[str, NDArray[np.float32]]]:
        """Similarities [T, N] of texts and images, by method: the cosine, and that of a head where methods have one.

        The paper ranks by the cosine of Contrastive-Binary's projected vectors, although no loss aligns them (section
        4.2); ranking by its head is ours.
        """

        def encode(name: str, *, normalise: bool) -> NDArray[np.float32]:
            return self.encoders[name].encode_text(
                list(texts), space="shared", batch_size=self.batch_size, normalise=normalise
            )

        found: dict[Scorer, dict[str, NDArray[np.float32]]] = {
            "cosine": {name: cosine(encode(name, normalise=True), v_ND) for name, v_ND in self.shared.items()}
        }
        for name, v_ND in self.projected.items():
            model: Any = self.encoders[name]
            scores_NT = model.match_vectors(v_ND, encode(name, normalise=False), batch_size=self.batch_size)
            # Equal texts must tie exactly; a logit has some digits more before its point than a cosine.
            found.setdefault("head", {})[name] = np.round(scores_NT.T, 4)
        return found


@dataclass(frozen=True, kw_only=True)
class _Queries:
    """Text queries and the class that each asks for."""

    texts: tuple[str, ...]
    labels_Q: NDArray[np.str_]
    sha256: str


def _chosen(table: "LabelledTable", split_column: str | None, split: str) -> "LabelledTable":
    """The rows that take part: of one split where there are splits."""
    from convirt.data.splits import SPLITS

    if split_column is None:
        return table
    if split.lower() not in SPLITS:
        raise InputError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    return table.take(table.rows(SPLITS[split.lower()]))


def _read_queries(path: Path, text_column: str, label_column: str | None) -> _Queries:
    """Texts and classes of the text queries."""
    from convirt.data.tables import read_frame

    assert label_column is not None, "checked by the caller"
    named = [("--query-text-column", text_column), ("--query-label-column", label_column)]
    frame, digest = read_frame(path, named)
    if empty := int((frame[text_column] == "").sum()):
        raise InputError(f"{path}: {empty} queries have no text in column {text_column!r}; fill them in")
    return _Queries(texts=tuple(frame[text_column]), labels_Q=frame[label_column].to_numpy(dtype=str), sha256=digest)


def _encode(
    for_features: "Mapping[str, Encoder]",
    for_shared: "Mapping[str, Encoder]",
    paths: Sequence[Path],
    batch_size: int,
) -> _Vectors:
    from convirt.evaluation.inputs.images import encode_images

    requests: list[tuple[Encoder, Space]] = [(encoder, "features") for encoder in for_features.values()]
    requests += [(encoder, "shared") for encoder in for_shared.values()]
    matching = {
        name: encoder for name, encoder in for_shared.items() if getattr(encoder, "pair_head", None) is not None
    }
    requests += [(_Unnormalised(encoder), "shared") for encoder in matching.values()]
    encoded = encode_images(requests, paths, normalise=True, batch_size=batch_size)
    vectors = iter(encoded.vectors)
    return _Vectors(
        features={name: next(vectors) for name in for_features},
        shared={name: next(vectors) for name in for_shared},
        projected={name: next(vectors) for name in matching},
        sha256=encoded.sha256,
        encoders=for_shared,
        batch_size=batch_size,
    )


class _Unnormalised:
    """An encoder whose image vectors keep their length: the head that matches pairs was trained on such."""

    def __init__(self, encoder: "Encoder") -> None:
        self.encoder = encoder
        self.name = encoder.name
        self.encode_text = encoder.encode_text

    def encode_image(self, images: Any, *, space: "Space", batch_size: int, normalise: bool) -> NDArray[np.float32]:
        """The vectors [N, D], never normalised."""
        return self.encoder.encode_image(images, space=space, batch_size=batch_size, normalise=False)


def _queries_and_candidates(table: "LabelledTable") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by role; without roles every row is both."""
    if not (table.roles_N != "").any():
        return np.arange(len(table)), np.arange(len(table))
    queries, candidates = np.flatnonzero(table.roles_N == "query"), np.flatnonzero(table.roles_N == "candidate")
    if not len(queries) or not len(candidates):
        raise InputError("the role column must name at least one query and one candidate")
    return queries, candidates


def _image_image(table: "LabelledTable", vectors: _Vectors, *, own_patient: bool) -> list[RankedTask]:
    queries, candidates = _queries_and_candidates(table)
    ranking = image_image(table.labels_N, table.patients_N, queries, candidates)
    if own_patient:  # the paper's own set: every candidate is ranked
        ranking = replace(ranking, excluded_QG=queries[:, None] == candidates[None, :])
    return [(ranking, {name: cosine(v_ND[queries], v_ND[candidates]) for name, v_ND in vectors.features.items()})]


def _text_image(table: "LabelledTable", vectors: _Vectors, queries: _Queries) -> list[RankedTask]:
    _, candidates = _queries_and_candidates(table)
    ranking = text_image(queries.labels_Q, table.labels_N[candidates])
    return [
        (ranking.by(scorer), {name: scores_TN[:, candidates] for name, scores_TN in by_method.items()})
        for scorer, by_method in vectors.compare(queries.texts).items()
    ]


def _own_caption(table: "LabelledTable", vectors: _Vectors) -> list[RankedTask]:
    rows = np.flatnonzero(np.array(table.texts) != "")
    if not len(rows):
        raise InputError("no chosen row has a caption in the text column")
    texts = [table.texts[row] for row in rows]
    to_image = own_caption(texts, table.patients_N[rows], "text to image")
    to_text = own_caption(texts, table.patients_N[rows], "image to text")
    # Each caption is encoded once, so that its duplicates tie exactly.
    unique, which_N = np.unique(texts, return_inverse=True)
    tasks: list[RankedTask] = []
    for scorer, by_method in vectors.compare(unique.tolist()).items():
        similarity = {name: scores_TN[:, rows][which_N] for name, scores_TN in by_method.items()}
        transposed = {name: text_image_NN.T for name, text_image_NN in similarity.items()}
        tasks += [(ranking.by(scorer), similarity) for ranking in to_image]
        tasks += [(ranking.by(scorer), transposed) for ranking in to_text]
    return tasks
