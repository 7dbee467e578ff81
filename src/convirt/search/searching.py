"""Searching an index: vectors by exact inner product, words by BM25, the two fused by reciprocal rank.

Shapes: N images of the index, P pairs, D size of a vector.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convirt.data.identifiers.finding import redact
from convirt.data.reports.parsing import words
from convirt.errors import InputError
from convirt.model import Model
from convirt.search.index import Index, import_engines, pairs_of, read_words
from convirt.search.query import DEFAULTS, Query, SearchOptions, passing

RANK_CONSTANT = 60
"""k of reciprocal rank fusion, 1 / (k + rank) (Cormack et al. 2009)."""
UNWANTED = 0.5
"""How much of the vector of unwanted words is taken off the query's."""
CANDIDATES = 1000
LIKELY = 95
"""Percentile, among scores by chance, below which a result is no answer."""
_SHOWN = ["pair_id", "patient_id", "source", "view", "split"]
ALIKE = 3
"""Of 128 signs of a picture's look: near-duplicates differ in at most so many."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One result: a pair by its best image, or an image."""

    rank: int
    study: str
    patient: str
    source: str
    view: str
    split: str
    score: float | None
    """Cosine of the image with the query; None where words alone ranked."""
    percentile: int | None
    """Share of scores by chance (images and queries of other patients) below this one, per cent; None where it was not
    measured: for words alone, an image together with words, and unwanted words."""
    sentence: str = ""
    """The sentence of its report that is closest to the query."""
    by: str = ""
    """Where it ranked: `vectors 3, words 1`."""
    folded: int = 0
    """Near-duplicates of it that were left out."""

    def to_json(self) -> dict[str, Any]:
        """Its values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answer to a query."""

    hits: list[Hit]
    left_out: dict[str, int]
    """Studies that are not shown, by reason."""


class Searcher:
    """An index with the engines that search it.

    Attributes:
        index: The index.
        model: The model that it was made with.
    """

    def __init__(self, index: Index, model: Model) -> None:
        faiss, _ = import_engines()
        self.index, self.model = index, model
        dim = index.vectors_ND.shape[1]
        self._flat = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        for start in range(0, len(index.rows), 65536):
            self._flat.add(index.vectors_ND[start : start + 65536].astype(np.float32))
        self._first_P, self._pair_N = pairs_of(index)
        self._words = read_words(index)
        self._patients_N = index.rows.column("patient_id").to_numpy(zero_copy_only=False).astype(str)

    def search(self, query: Query, image: Path | None = None, options: SearchOptions = DEFAULTS) -> Found:
        """Find the best results, best first; none if nothing is better than chance.

        Args:
            query: Words, unwanted words and filters.
            image: A PNG, JPEG or DICOM file to look for, alone or with words; alone it is looked for by vectors.
            options: What is shown.

        Raises:
            InputError: There is nothing to look for, or the model or the index lacks what it takes.
        """
        if not query.words and image is None:
            raise InputError("there is nothing to look for; give --text, --image or both")
        by, left_out = options.by, dict[str, int]()
        if by == "words" and not query.words:
            raise InputError("by words needs words; give --text")
        passes_N = passing(self.index.rows, query.filters)
        if image is not None and not options.own_patient:
            own_N = passes_N & np.isin(self._patients_N, self._owners(image))
            left_out["of the image's own patient"] = len(set(self._pair_N[own_N].tolist()))
            passes_N &= ~own_N
        if not passes_N.any():
            return Found(hits=[], left_out=left_out)
        ranked: dict[str, dict[int, int]] = {}
        vector = None
        if by != "words":
            vector = self._vector(query, image)
            ranked["vectors"] = _ranks(self._pair_N[self._nearest(vector, passes_N)])
        if by != "vectors" and query.words:
            ranked["words"] = _ranks(self._by_words(query, passes_N))
        # Chance was measured for whole queries of one kind; of others no percentile is known.
        plain = not query.unwanted and (image is None or not query.words)
        kind = ("image" if image is not None else "text") if plain and vector is not None else ""
        hits = self._hits(ranked, vector, passes_N, kind)
        if not options.everything:
            likely = [
                hit for hit in hits if hit[1].percentile is None or hit[1].percentile >= LIKELY or "words" in hit[1].by
            ]
            left_out["no better than chance"] = len(hits) - len(likely)
            hits = likely
        shown = self._with_sentences(_thinned(hits, self.index, options.group)[: options.k], query.words)
        return Found(hits=shown, left_out={reason: count for reason, count in left_out.items() if count})

    def _owners(self, image: Path) -> list[str]:
        """Patients of the index that have this very file."""
        from convirt.data.shards import file_sha256

        digest = file_sha256(image)
        return self._patients_N[self.index.rows.column("sha256").to_numpy(zero_copy_only=False) == digest].tolist()

    def _vector(self, query: Query, image: Path | None) -> np.ndarray:
        space = self.index.about["space"]
        parts = [] if image is None else [self.model.encode_image(image, space=space)[0]]
        if query.words or query.unwanted:
            if space != "shared":
                raise InputError("the model of this index has no text tower; look for an image, or by words")
            if query.words:
                parts.append(self.model.encode_text([query.words])[0])
            if query.unwanted:
                parts.append(-UNWANTED * self.model.encode_text(list(query.unwanted)).mean(axis=0))
        vector = np.sum(parts, axis=0)
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)

    def _nearest(self, vector_D: np.ndarray, passes_N: np.ndarray) -> np.ndarray:
        """Rows that pass and are nearest, best first: exact, whatever the filter leaves."""
        faiss, _ = import_engines()
        number = min(CANDIDATES, int(passes_N.sum()))
        selector = None if passes_N.all() else faiss.IDSelectorBitmap(np.packbits(passes_N, bitorder="little"))
        asked = {"params": faiss.SearchParameters(sel=selector)} if selector is not None else {}
        return np.asarray(self._flat.search(vector_D[None], number, **asked)[1][0])

    def _by_words(self, query: Query, passes_N: np.ndarray) -> np.ndarray:
        """Pairs whose reports hold words of the query, best first."""
        scores_P = self._words.get_scores(words(query.words))
        for word in query.unwanted:
            scores_P = scores_P - UNWANTED * self._words.get_scores(words(word))
        allowed = np.zeros(len(scores_P), dtype=bool)
        allowed[self._pair_N[passes_N]] = True
        scores_P = np.where(allowed, scores_P, 0)
        order = np.argsort(-scores_P, kind="stable")[:CANDIDATES]
        return order[scores_P[order] > 0]

    def _hits(
        self, ranked: dict[str, dict[int, int]], vector_D: np.ndarray | None, passes_N: np.ndarray, kind: str
    ) -> list[tuple[int, Hit, int]]:
        """Pair, result and row of every candidate, best first; without a vector the first image stands for a pair."""
        fused: dict[int, float] = {}
        for ranks in ranked.values():
            for pair, rank in ranks.items():
                fused[pair] = fused.get(pair, 0.0) + 1 / (RANK_CONSTANT + rank)
        best: dict[int, tuple[float, int]] = {}
        rows = np.flatnonzero(passes_N & np.isin(self._pair_N, list(fused)))
        scores = np.zeros(len(rows)) if vector_D is None else self.index.vectors_ND[rows].astype(np.float32) @ vector_D
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            pair = int(self._pair_N[row])
            if pair not in best or score > best[pair][0]:
                best[pair] = score, row
        chance = self.index.about.get("chance", {}).get(kind)
        hits = []
        for pair in sorted(best, key=lambda pair: (-fused[pair], pair)):
            score, row = best[pair]
            (about,) = self.index.rows.slice(row, 1).select(_SHOWN).to_pylist()
            hit = Hit(
                rank=0,
                study=about["pair_id"],
                patient=about["patient_id"],
                source=about["source"],
                view=about["view"],
                split=about["split"],
                score=None if vector_D is None else round(score, 4),
                percentile=int(np.searchsorted(chance, score)) if chance else None,
                by=", ".join(f"{name} {ranks[pair]}" for name, ranks in ranked.items() if pair in ranks),
            )
            hits.append((pair, hit, row))
        return hits

    def _with_sentences(self, hits: Sequence[tuple[Hit, int]], text: str) -> list[Hit]:
        """Number the results, and name the sentence of each that is closest to the words, if there are any."""
        found = []
        wanted = self.model.encode_text([text])[0] if text and self.model.text_encoder is not None else None
        for rank, (hit, row) in enumerate(hits, 1):
            sentences = self.index.rows.column("sentences")[row].as_py()
            sentence = sentences[0]
            if wanted is not None:
                sentence = sentences[int(np.argmax(self.model.encode_text(sentences) @ wanted))]
            found.append(replace(hit, rank=rank, sentence=redact(sentence)[0]))
        return found


def _ranks(pairs: np.ndarray) -> dict[int, int]:
    """Rank of each pair, from 1, by its first place."""
    return {pair: rank for rank, pair in enumerate(dict.fromkeys(pairs.tolist()), 1)}


def _thinned(
    hits: Sequence[tuple[int, Hit, int]], index: Index, group: Literal["study", "patient", "none"]
) -> list[tuple[Hit, int]]:
    """Show each patient once, if asked for, and fold near-duplicates into the best of them."""
    looks = index.rows.column("look").to_pylist()
    kept: list[tuple[Hit, int]] = []
    patients: set[str] = set()
    for _, hit, row in hits:
        if group == "patient" and hit.patient in patients:
            continue
        twin = next((n for n, (_, other) in enumerate(kept) if _differences(looks[row], looks[other]) <= ALIKE), None)
        if twin is not None and group != "none":
            kept[twin] = replace(kept[twin][0], folded=kept[twin][0].folded + 1), kept[twin][1]
            continue
        patients.add(hit.patient)
        kept.append((hit, row))
    return kept


def _differences(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()
