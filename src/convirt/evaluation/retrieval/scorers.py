"""What compares texts with images: their cosine similarity, and where a method has one the head that tells real pairs.

Shape legend: N images, T texts, D dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from convirt.evaluation.inputs.features import Encoder, Space
from convirt.evaluation.retrieval.ranking import Ranking, cosine

Scores = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class TextScorer:
    """One way to compare texts with the chosen images, by every method that has it."""

    name: Literal["cosine", "head"]
    suffix: str
    """Said after the metric's name."""
    methods: Mapping[str, Callable[[list[str]], Scores]]
    """For each method what gives [T, N] for texts."""

    def score(self, texts: Sequence[str]) -> dict[str, NDArray]:
        """[T, N] by method."""
        return {name: score(list(texts)) for name, score in self.methods.items()}

    def of(self, ranking: Ranking) -> Ranking:
        """The task, marked as ranked in this way."""
        return replace(ranking, scorer=self.name, suffix=ranking.suffix + self.suffix)


def text_scorers(
    encoders: Mapping[str, Encoder],
    shared: Mapping[str, NDArray[np.float32]],
    projected: Mapping[str, NDArray[np.float32]],
    batch_size: int,
) -> list[TextScorer]:
    """The cosine similarity for all methods, and the head for those that have one.

    The paper ranks by the cosine of Contrastive-Binary's projected vectors, although no loss aligns them (section
    4.2); ranking by its head is ours beside it.

    Args:
        encoders: Methods.
        shared: Unit vectors [N, D] of the images in the shared space, by method.
        projected: The same, not normalised, of the methods with a head.
        batch_size: Texts at a time.
    """

    def by_cosine(name: str) -> Callable[[list[str]], Scores]:
        return lambda texts: cosine(
            encoders[name].encode_text(texts, space="shared", batch_size=batch_size, normalise=True), shared[name]
        )

    def by_head(name: str) -> Callable[[list[str]], Scores]:
        model: Any = encoders[name]

        def score(texts: list[str]) -> Scores:
            u_TD = model.encode_text(texts, space="shared", batch_size=batch_size, normalise=False)
            # Equal texts must tie exactly; a logit has some digits more before its point than a cosine.
            return np.round(model.match_vectors(projected[name], u_TD, batch_size=batch_size).T, 4)

        return score

    scorers = [TextScorer(name="cosine", suffix="", methods={name: by_cosine(name) for name in shared})]
    if projected:
        methods = {name: by_head(name) for name in projected}
        scorers.append(TextScorer(name="head", suffix=" by the head", methods=methods))
    return scorers


def has_head(encoder: Encoder) -> bool:
    """Whether a method has a head that matches pairs."""
    return getattr(encoder, "pair_head", None) is not None


class Unnormalised:
    """An encoder whose vectors keep their length, whatever is asked for: the head was trained on such."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @property
    def name(self) -> str:
        return self.encoder.name

    def encode_image(self, images: Any, *, space: Space, batch_size: int, normalise: bool) -> NDArray[np.float32]:
        return self.encoder.encode_image(images, space=space, batch_size=batch_size, normalise=False)

    def encode_text(self, texts: Any, *, space: Space, batch_size: int, normalise: bool) -> NDArray[np.float32]:
        return self.encoder.encode_text(texts, space=space, batch_size=batch_size, normalise=False)
