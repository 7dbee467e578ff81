"""Beam search: equal to trying every report, to the greedy choice, and to a plain restatement of its rule."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from convirt.methods.captioning.decoding import Decoder, State, beam_search
from convirt.methods.captioning.vocabulary import END, START

VOCABULARY = 7
"""Four special words, three others."""
SAYABLE = (END, 4, 5, 6)


class Table(Decoder):
    """Says words by a random table that looks at the image and the last two words."""

    def __init__(self, images: int, seed: int, sharpness: float = 2.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.logits = sharpness * torch.randn(images, VOCABULARY, VOCABULARY, VOCABULARY, generator=generator)

    def begin(self, grid_NDHW: Tensor) -> State:
        image_N = grid_NDHW[:, 0, 0, 0].long()
        return State((image_N,), (torch.zeros(len(image_N), dtype=torch.int64),))

    def step(self, state: State, words_N: Tensor) -> tuple[Tensor, State]:
        (image_N,), (before_N,) = state.image, state.words
        return self.logits[image_N, before_N, words_N], State(state.image, (words_N,))

    def log_p(self, image: int, words: tuple[int, ...]) -> float:
        """Log probability of a report."""
        total, before, last = 0.0, 0, START
        for word in words:
            logits = self.logits[image, before, last].tolist()
            total += logits[word] - math.log(sum(math.exp(value) for value in logits))
            before, last = last, word
        return total


def grids(images: int) -> Tensor:
    return torch.arange(images).float()[:, None, None, None]


def every_report(max_words: int) -> list[tuple[int, ...]]:
    """All that end within `max_words` words, and all that are cut there."""
    inner = SAYABLE[1:]
    ended = [(*words, END) for n in range(max_words) for words in itertools.product(inner, repeat=n)]
    return ended + list(itertools.product(inner, repeat=max_words))


def naive_beam(decoder: Table, image: int, width: int, max_words: int) -> list[int]:
    """The rule of `beam_search`, for one image with lists."""
    going: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[tuple[float, tuple[int, ...]]] = []
    for _ in range(max_words):
        further = [(decoder.log_p(image, (*words, w)), (*words, w)) for _, words in going for w in SAYABLE]
        further.sort(key=lambda pair: -pair[0])
        ended += [pair for pair in further[:width] if pair[1][-1] == END]
        if len(ended) >= width:
            break
        going = [pair for pair in further[: 2 * width] if pair[1][-1] != END][:width]
    else:
        ended += going
    return list(max(ended, key=lambda pair: pair[0] / len(pair[1]))[1])


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_wide_enough_finds_the_best_of_all_reports(seed):
    decoder, max_words = Table(3, seed), 4
    reports = every_report(max_words)
    found = beam_search(decoder, grids(3), width=len(reports), max_words=max_words)
    for image in range(3):
        best = max(reports, key=lambda words: decoder.log_p(image, words) / len(words))
        assert found[image] == list(best)


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_it_keeps_its_rule(width, sharpness):
    images = 12
    decoder = Table(images, seed=width, sharpness=sharpness)
    found = beam_search(decoder, grids(images), width=width, max_words=9)
    assert found == [naive_beam(decoder, image, width, 9) for image in range(images)]
    assert len({tuple(words) for words in found}) > 3  # the images differ
    assert any(words[-1] == END for words in found)


def test_one_hypothesis_is_the_greedy_choice():
    decoder = Table(8, seed=3)
    for image, found in enumerate(beam_search(decoder, grids(8), width=1, max_words=6)):
        greedy: tuple[int, ...] = ()
        while len(greedy) < 6 and END not in greedy:
            greedy = max(((*greedy, word) for word in SAYABLE), key=lambda words: decoder.log_p(image, words))
        assert found == list(greedy)


def test_a_wider_beam_finds_likelier_reports():
    decoder = Table(40, seed=0, sharpness=1.0)

    def mean(width: int) -> float:
        found = beam_search(decoder, grids(40), width=width, max_words=8)
        return sum(decoder.log_p(i, tuple(words)) / len(words) for i, words in enumerate(found)) / 40

    assert mean(1) < mean(3) < mean(30)


def test_an_image_does_not_depend_on_the_others_and_nothing_is_drawn():
    decoder = Table(6, seed=1)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    together = beam_search(decoder, grids(6), width=3, max_words=8)
    assert torch.equal(before, torch.random.get_rng_state())
    assert together == [beam_search(decoder, grids(6)[i : i + 1], width=3, max_words=8)[0] for i in range(6)]
    assert together == beam_search(decoder, grids(6), width=3, max_words=8)


def test_what_cannot_be_said_is_never_said():
    found = beam_search(Table(20, seed=5), grids(20), width=3, max_words=6)
    assert {word for words in found for word in words} <= set(SAYABLE)
    assert all(END not in words[:-1] for words in found)
