"""CIDEr-D: how close captions are to their references (Vedantam et al., CVPR 2015, "CIDEr-D").

The ConVIRT paper chooses the checkpoints of its captioning baselines by CIDEr (section 3.3). What everybody reports
under that name, and pycocoevalcap's `Cider` computes, is CIDEr-D. Ours takes words; pycocoevalcap's own tokenizer
needs Java. On the same words the two agree to rounding (tests/test_cider.py).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

Words = Sequence[str]
NGrams = Counter[tuple[str, ...]]

ORDERS = (1, 2, 3, 4)
"""N-gram lengths, weighted equally (section 3: N = 4, w_n = 1/4)."""
SIGMA = 6.0
"""Width of the Gaussian penalty of a difference in length, words ("CIDEr-D")."""
SCALE = 10.0
"""Factor of the final score ("CIDEr-D")."""


def cider_d(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """CIDEr-D of each caption against the references of its image.

    With g^n(x) the vector of x's n-grams weighted by TF-IDF, l(x) its length, and S_i the references of image i::

        idf(w) = log(images) - log(max(1, images of which a reference holds w))
        s_n(c, s) = exp(-(l(c) - l(s))^2 / (2 sigma^2)) * min(g^n(c), g^n(s)) . g^n(s) / (|g^n(c)| |g^n(s)|)
        CIDEr-D(c_i) = 10 * mean_n mean_{s in S_i} s_n(c_i, s)

    Document frequencies come from all the references given, as in pycocoevalcap's default ("corpus"): n-grams of no
    reference get the weight of those of one image. TF is a count here and a share of the text's n-grams in the paper's
    equation 1; in a cosine this matters only through the clipping, which the authors' code applies to counts too.

    Args:
        candidates: The words of each caption.
        references: For each caption, the words of one or more references.

    Returns:
        One score for each caption, from 0 to 10. A single image, or words that all images share, weigh nothing.

    Raises:
        ValueError: The numbers of captions and of reference sets differ, or a set is empty.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} captions, but references of {len(references)}")
    if not all(references):
        raise ValueError("each caption needs a reference")
    counted = [[_count(words) for words in of_image] for of_image in references]
    frequency = Counter(ngram for of_image in counted for ngram in set().union(*of_image))
    weights = {ngram: math.log(len(references) / images) for ngram, images in frequency.items()}
    unseen = math.log(len(references)) if references else 0.0
    scores = []
    for words, of_image, texts in zip(candidates, counted, references, strict=True):
        vectors = _vectors(_count(words), weights, unseen)
        each = [
            _similarity(vectors, _vectors(ngrams, weights, unseen)) * _length_penalty(len(words) - len(text))
            for ngrams, text in zip(of_image, texts, strict=True)
        ]
        scores.append(SCALE * sum(each) / len(each))
    return scores


def _count(words: Words) -> NGrams:
    return Counter(tuple(words[at : at + order]) for order in ORDERS for at in range(len(words) - order + 1))


def _vectors(
    ngrams: NGrams, weights: Mapping[tuple[str, ...], float], unseen: float
) -> list[dict[tuple[str, ...], float]]:
    """g^n of a text, for each n."""
    vectors: list[dict[tuple[str, ...], float]] = [{} for _ in ORDERS]
    for ngram, count in ngrams.items():
        vectors[len(ngram) - 1][ngram] = count * weights.get(ngram, unseen)
    return vectors


def _similarity(candidate: list[dict[tuple[str, ...], float]], reference: list[dict[tuple[str, ...], float]]) -> float:
    """The clipped cosine, mean over n; 0 where a text has no n-gram of any weight."""
    total = 0.0
    for c, s in zip(candidate, reference, strict=True):
        norm = math.hypot(*c.values()) * math.hypot(*s.values())
        if norm:
            total += sum(min(value, s[ngram]) * s[ngram] for ngram, value in c.items() if ngram in s) / norm
    return total / len(ORDERS)


def _length_penalty(difference: int) -> float:
    return math.exp(-(difference**2) / (2 * SIGMA**2))
