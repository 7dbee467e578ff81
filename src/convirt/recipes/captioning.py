"""Constants and recipes of the captioning baselines (ConVIRT, section 3.3).

What the ConVIRT paper says of them: ImageNet weights, the two architectures, the same pairs, the checkpoint with the
best CIDEr. For the rest, the constants of their own papers meet ConVIRT's own: image size, views, Adam with its rate,
penalty and halving (now when CIDEr-D has not risen) are ConVIRT's, so that the comparison is one of objectives; both
sources kept their image encoder fixed, and here it is what training is for.
"""

from dataclasses import dataclass
from typing import Annotated

from convirt.config import Objective, OptimiserConfig, PretrainConfig
from convirt.config.settings import Count, Within, require
from convirt.recipes.convirt import at_demo_scale


@dataclass(frozen=True, kw_only=True)
class CaptioningObjective(Objective):
    """What both captioning baselines need (3.3); where the ConVIRT paper is silent, their own papers are named."""

    min_count: Count = 5
    """The vocabulary holds the words that occur this often in the training reports (Cornia et al.'s code: 5)."""
    max_words: Annotated[int, Within("[2, inf)")] = 128
    """Longer reports are cut to so many words, the end among them; none longer is written (silent)."""
    beam: Count = 5
    """Hypotheses of the beam search (Cornia et al., 4.2: 5)."""
    decoded: Annotated[int, Within("[2, inf)")] = 5000
    """Of how many validation pairs reports are written for CIDEr-D, at most: one word costs about as much as the
    decoder's share of a step, so that a bound keeps evaluation short beside training."""


@dataclass(frozen=True, kw_only=True)
class AttentionLSTMObjective(CaptioningObjective, method="caption_lstm"):
    """Caption-LSTM: Show, Attend and Tell (Xu et al., 2015), whose paper leaves the widths open.

    Their code is kelvinxu/arctic-captions, whose settings for COCO (`evaluate_coco.py`) are meant where it is named.
    """

    word_dim: Count = 512
    """Size of a word's vector (the authors' code: 512)."""
    hidden_dim: Count = 1800
    """Size of the LSTM's state (the authors' code: 1800)."""
    attention_dim: Count = 512
    """Width of the layer that scores places (the authors' code: that of an annotation vector, 512)."""
    dropout: Annotated[float, Within("[0, 1)")] = 0.5
    """Before the output layer (Xu et al., 4.3: dropout; its rate is that of the authors' code)."""
    attention_penalty: Annotated[float, Within("[0, inf)")] = 1.0
    """lambda of the doubly stochastic regularisation (Xu et al., equation 14; its value is that of the authors'
    code)."""


@dataclass(frozen=True, kw_only=True)
class MeshedTransformerObjective(CaptioningObjective, method="caption_transformer"):
    """Caption-Transformer: the Meshed-Memory Transformer (Cornia et al., 2020; aimagelab/meshed-memory-transformer)."""

    width: int = 512
    """Size of the model (Cornia et al., 4.2)."""
    heads: Count = 8
    """Of each attention (Cornia et al., 4.2)."""
    layers: Count = 3
    """Of the encoder, and of the decoder (Cornia et al., 4.3)."""
    memories: Annotated[int, Within("[0, inf)")] = 40
    """Memory slots of each encoding layer (Cornia et al., 4.2)."""
    feed_forward: Count = 2048
    """Width of the feed-forward layers (the authors' code)."""
    dropout: Annotated[float, Within("[0, 1)")] = 0.1
    """After each attention and feed-forward layer (Cornia et al., 4.2: kept with probability 0.9)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.width >= 2 and self.width % 2 == 0 and self.width % self.heads == 0,
            f"objective.width must be even and a multiple of heads = {self.heads}, got {self.width}",
        )


SHORT_REPORTS = {"max_words": 80, "beam": 3, "decoded": 128}
"""The demo's reports, and how many of them are written for CIDEr-D."""


def paper_caption_lstm() -> PretrainConfig:
    """Caption-LSTM: the report from an LSTM with attention.

    `convirt pretrain paper_caption_lstm --corpus CORPUS --out RUN`

    Show, Attend and Tell: batches of 64 (Xu et al., 4.3), widths and lambda 1 of the authors' code.
    """
    return PretrainConfig(
        recipe="paper_caption_lstm",
        method="caption_lstm",
        objective=AttentionLSTMObjective(),
        optimiser=OptimiserConfig(batch_size=64),
    )


def paper_caption_transformer() -> PretrainConfig:
    """Caption-Transformer: the report from a Meshed-Memory Transformer.

    `convirt pretrain paper_caption_transformer --corpus CORPUS --out RUN`

    Batches of 50, beam 5 and 10,000 steps of warm-up (Cornia et
    al., 4.2). After it the rate stays and is halved by ConVIRT's rule; theirs falls with the root of the step.
    """
    return PretrainConfig(
        recipe="paper_caption_transformer",
        method="caption_transformer",
        objective=MeshedTransformerObjective(),
        optimiser=OptimiserConfig(batch_size=50, warmup_steps=10_000),
    )


def demo_caption_lstm() -> PretrainConfig:
    """Caption-LSTM at the demo's scale, with a smaller decoder.

    `convirt pretrain demo_caption_lstm --corpus CORPUS --out RUN`
    """
    decoder = {"word_dim": 256, "hidden_dim": 256, "attention_dim": 256}
    dropout = 0.1  # hundreds of steps do not overfit
    # A report's words, about 40, share 9 places where Xu et al. had 10 words for 196: lambda 1 would outweigh them.
    own = {"dropout": dropout, "attention_penalty": 0.05}
    return at_demo_scale(paper_caption_lstm(), has_text=False, objective=decoder | own | SHORT_REPORTS)


def demo_caption_transformer() -> PretrainConfig:
    """Caption-Transformer at the demo's scale, with a smaller decoder.

    `convirt pretrain demo_caption_transformer --corpus CORPUS --out RUN`
    """
    decoder = {"width": 192, "heads": 4, "layers": 2, "memories": 20, "feed_forward": 512}
    return at_demo_scale(paper_caption_transformer(), has_text=False, objective=decoder | SHORT_REPORTS)
