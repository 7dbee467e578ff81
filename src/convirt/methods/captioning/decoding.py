"""What a decoder offers, and the beam search that finds a likely report with it.

Shapes: B images, K hypotheses for each (the beam), N = B K rows, T words so far, V words known, D H W the image
encoder's last feature map.
"""

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from convirt.methods.captioning.vocabulary import END, PAD, START, UNKNOWN

UNSPEAKABLE = (PAD, START, UNKNOWN)
"""What no report is written with."""


@dataclass(frozen=True)
class State:
    """What a decoder remembers between two words, a row a hypothesis in every tensor."""

    image: tuple[Tensor, ...]
    """What depends on the image alone: the same for all hypotheses of an image."""
    words: tuple[Tensor, ...]
    """What depends on the words so far."""

    def repeat(self, times: int) -> Self:
        """Each row `times` times in a row."""
        copies = [tuple(t.repeat_interleave(times, dim=0) for t in part) for part in (self.image, self.words)]
        return replace(self, image=copies[0], words=copies[1])

    def pick(self, rows_N: Tensor) -> Self:
        """Other hypotheses of the same images: row n goes on from row rows_N[n]."""
        return replace(self, words=tuple(tensor.index_select(0, rows_N) for tensor in self.words))


class Decoder(nn.Module):
    """Says the next word, from the image and the words so far."""

    @abstractmethod
    def begin(self, grid_NDHW: Tensor) -> State:
        """The state before the first word."""

    @abstractmethod
    def step(self, state: State, words_N: Tensor) -> tuple[Tensor, State]:
        """Take in one word of each hypothesis.

        Returns:
            Logits of the next word, logits_NV, and the state after this one.
        """


@dataclass
class _Beam:
    """The hypotheses of each image that go on, and the best that has ended."""

    score_BK: Tensor
    """Log probability of each; -inf where there is none."""
    words_BKT: Tensor
    ended_B: Tensor
    """How many hypotheses have ended."""
    best_B: Tensor
    """Mean log probability of a word of the best ended one."""
    best: list[list[int]]
    """Its words."""

    @classmethod
    def start(cls, images: int, width: int, device: torch.device) -> "_Beam":
        score_BK = torch.full((images, width), -torch.inf, device=device)
        score_BK[:, 0] = 0  # all hypotheses are equal before the first word: one of them
        return cls(
            score_BK=score_BK,
            words_BKT=torch.empty(images, width, 0, dtype=torch.int64, device=device),
            ended_B=torch.zeros(images, dtype=torch.int64, device=device),
            best_B=torch.full((images,), -torch.inf, device=device),
            best=[[] for _ in range(images)],
        )

    def end(self, score_BC: Tensor, words_BCT: Tensor) -> None:
        """Take in hypotheses that end here, C an image; those with a score of -inf do not exist."""
        running_B = self.ended_B < self.score_BK.shape[1]
        score_BC = score_BC.masked_fill(~running_B[:, None], -torch.inf)
        self.ended_B = self.ended_B + score_BC.isfinite().sum(dim=1)
        mean_B, which_B = (score_BC / words_BCT.shape[2]).max(dim=1)
        for image in (mean_B > self.best_B).nonzero().flatten().tolist():
            self.best_B[image] = mean_B[image]
            self.best[image] = words_BCT[image, which_B[image]].tolist()


@torch.no_grad()
def beam_search(
    decoder: Decoder, grid_BDHW: Tensor, *, width: int, max_words: int, barred: Collection[int] = UNSPEAKABLE
) -> list[list[int]]:
    """The likeliest report of each image that a beam search finds.

    At each word the 2K likeliest continuations of an image's K hypotheses are looked at. Those among the first K that
    say `END` have ended; the K likeliest others go on. A search is over when K hypotheses have ended, or at `max_words`
    words, where those that still go on count as ended. Of all that ended, the one with the highest mean log probability
    of a word (its `END` counts as one) is the report: the plain sum would favour short reports. With K = 1 this is
    the greedy choice. Nothing is drawn.

    Args:
        decoder: In evaluation mode.
        grid_BDHW: The images' feature maps.
        width: K.
        max_words: As in `Vocabulary.encode`.
        barred: Words that are never said.

    Returns:
        The words of each report, with its `END` if it has one.
    """
    images, device = len(grid_BDHW), grid_BDHW.device
    state = decoder.begin(grid_BDHW).repeat(width)
    beam = _Beam.start(images, width, device)
    first_B1 = torch.arange(images, device=device)[:, None] * width  # row of an image's first hypothesis
    words_N = torch.full((images * width,), START, device=device)
    for _ in range(max_words):
        logits_NV, state = decoder.step(state, words_N)
        log_p_NV = logits_NV.float().log_softmax(dim=1)
        log_p_NV[:, list(barred)] = -torch.inf
        vocabulary = log_p_NV.shape[1]
        score_BC = (beam.score_BK.reshape(-1, 1) + log_p_NV).view(images, width * vocabulary)
        score_BC, place_BC = score_BC.topk(min(2 * width, score_BC.shape[1]), dim=1)
        from_BC, word_BC = place_BC // vocabulary, place_BC % vocabulary
        before_BCT = beam.words_BKT.gather(1, from_BC[..., None].expand(-1, -1, beam.words_BKT.shape[2]))
        words_BCT = torch.cat([before_BCT, word_BC[..., None]], dim=2)
        ends_BC = word_BC == END
        beam.end(score_BC.masked_fill(~ends_BC, -torch.inf)[:, :width], words_BCT[:, :width])
        if bool((beam.ended_B >= width).all()):
            return beam.best
        # Each hypothesis ends once, so that at least K of the 2K go on.
        on_BK = ends_BC.long().argsort(dim=1, stable=True)[:, :width]
        beam.score_BK = score_BC.gather(1, on_BK)
        beam.words_BKT = words_BCT.gather(1, on_BK[..., None].expand(-1, -1, words_BCT.shape[2]))
        state = state.pick((first_B1 + from_BC.gather(1, on_BK)).flatten())
        words_N = beam.words_BKT[..., -1].flatten()
    beam.end(beam.score_BK, beam.words_BKT)
    return beam.best
