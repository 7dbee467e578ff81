"""CIDEr-D against examples worked out by hand, a naive re-derivation, and what pycocoevalcap gives."""

import math
import random

import pytest

from convirt.cider import cider_d

WORDS = ("small", "large", "left", "right", "effusion", "pneumothorax", "no", "heart", "size", "normal", "clear")


def split(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


# Worked out by hand


def test_a_copy_of_the_reference_scores_ten_times_the_share_of_orders_that_it_has():
    references = [[text] for text in split("a b c d", "e f g", "h", "i j k l m")]
    scores = cider_d([reference[0] for reference in references], references)
    assert scores == pytest.approx([10, 10 * 3 / 4, 10 / 4, 10])


def test_one_word_of_two():
    """Two images, `a b` and `c d`; the caption `a x` has one of two words and no pair.

    Each word is in one image: idf = log 2, and the same for the unseen x. Unigrams: both vectors are (log 2, log 2),
    with one in common: cosine 1/2. Longer n-grams: 0. Equal lengths: no penalty. 10 * (1/2 + 0 + 0 + 0) / 4.
    """
    assert cider_d(split("a x", "c d"), [split("a b"), split("c d")]) == pytest.approx([10 / 8, 10 / 2])


def test_words_of_all_images_weigh_nothing():
    """`the` is in both references: idf = log(2 / 2) = 0; `the a` and `the b` are pairs of one image each."""
    scores = cider_d(split("the the", "the b"), [split("the a"), split("the b")])
    assert scores[0] == 0
    assert scores[1] == pytest.approx(10 * (1 + 1) / 4)


def test_repeating_a_word_is_clipped_and_a_wrong_length_costs():
    """The caption `a a a` against `a`: counts 3 and 1, clipped to 1: 1 * 1 / (3 * 1) = 1/3; two words too long."""
    scores = cider_d(split("a a a", "b"), [split("a"), split("b")])
    assert scores[0] == pytest.approx(10 * (1 / 3) / 4 * math.exp(-4 / (2 * 36)))
    # Without clipping it would be 3 * 1 / (3 * 1) = 1.
    assert scores[0] < 10 / 4 * math.exp(-4 / 72) / 2


def test_the_penalty_is_a_gaussian_of_six_words():
    """References of one word and captions with 6 words after it: exp(-6^2 / (2 * 6^2)), cosine 1 / sqrt 7."""
    long = "a b c d e f g"
    score = cider_d(split(long, "z"), [split("a"), split("z")])[0]
    assert score == pytest.approx(10 / 4 * math.exp(-1 / 2) / math.sqrt(7))


def test_several_references_are_averaged():
    one = cider_d(split("a b", "x y"), [split("a b"), split("x y")])[0]
    both = cider_d(split("a b", "x y"), [split("a b", "q r"), split("x y")])[0]
    assert both == pytest.approx(one / 2)


def test_an_n_gram_counts_once_an_image_however_many_references_hold_it():
    """`a` stands in both references of one image: it is in one image of two, idf = log 2, as `x` is."""
    scores = cider_d(split("a x", "y"), [split("a", "a"), split("y")])
    cosine = 1 / math.sqrt(2)
    assert scores[0] == pytest.approx(10 / 4 * cosine * math.exp(-1 / 72))


# Re-derived from the paper


def naive(candidates: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    """Section 3 and "CIDEr-D", with loops over every n-gram that occurs anywhere."""

    def count(ngram: tuple[str, ...], text: list[str]) -> int:
        n = len(ngram)
        return sum(tuple(text[i : i + n]) == ngram for i in range(len(text) - n + 1))

    texts = [*candidates, *(text for of_image in references for text in of_image)]
    scores = []
    for candidate, own in zip(candidates, references, strict=True):
        score = 0.0
        for n in (1, 2, 3, 4):
            omega = sorted({tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)})
            idf = []
            for ngram in omega:
                images = sum(min(1, sum(count(ngram, text) for text in of_image)) for of_image in references)
                idf.append(math.log(len(references) / max(1, images)))
            for text in own:
                g_c = [count(ngram, candidate) * weight for ngram, weight in zip(omega, idf, strict=True)]
                g_s = [count(ngram, text) * weight for ngram, weight in zip(omega, idf, strict=True)]
                dot = sum(min(c, s) * s for c, s in zip(g_c, g_s, strict=True))
                norm = math.sqrt(sum(c * c for c in g_c)) * math.sqrt(sum(s * s for s in g_s))
                penalty = math.exp(-((len(candidate) - len(text)) ** 2) / (2 * 6.0**2))
                score += penalty * dot / norm / 4 / len(own) if norm else 0.0
        scores.append(10 * score)
    return scores


def test_it_is_the_papers_formula_with_naive_loops():
    draw = random.Random(0)
    for _ in range(20):
        images = draw.randint(1, 6)
        references = [
            [[draw.choice(WORDS) for _ in range(draw.randint(1, 9))] for _ in range(draw.randint(1, 3))]
            for _ in range(images)
        ]
        candidates = []
        for own in references:
            words = [word if draw.random() < 0.7 else draw.choice(WORDS) for word in draw.choice(own)]
            candidates.append(words[: draw.randint(0, 9)])
        assert cider_d(candidates, references) == pytest.approx(naive(candidates, references), abs=1e-12)


def test_it_is_what_pycocoevalcap_gives():
    """From pycocoevalcap 1.2: `CiderScorer().compute_score()` of the same words, its figures written out.

    Over 5,176 random captions ours and the authors' (tylin/coco-caption) differ by less than 1e-14.
    """
    captions = split(
        "no pleural effusion or pneumothorax",
        "the heart is mildly enlarged",
        "a small left effusion a small left effusion",
        "normal",
    )
    references = [
        split("no effusion or pneumothorax", "there is no pleural effusion or pneumothorax"),
        split("the heart is enlarged"),
        split("there is a small left pleural effusion"),
        split("the heart is normal"),
    ]
    assert cider_d(captions, references) == pytest.approx([6.38006809, 2.91391352, 2.14101671, 1.80138926], abs=1e-8)


# What makes no sense


def test_captions_and_references_have_to_go_together():
    assert cider_d([], []) == []
    assert cider_d([[]], [[["a"]]]) == [0]
    with pytest.raises(ValueError, match="1 captions, but references of 2"):
        cider_d([["a"]], [[["a"]], [["b"]]])
    with pytest.raises(ValueError, match="needs a reference"):
        cider_d([["a"]], [[]])
