"""What each pretraining method minimises: the constants of its equations, one dataclass a method."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from convirt.config.settings import Count, Positive, Settings, Share, Within, require

OBJECTIVES: "dict[str, type[Objective]]" = {}
"""The objective of each method that has been imported, by the method's name."""


@dataclass(frozen=True, kw_only=True)
class Objective(Settings):
    """The constants of one method's equations: `class ContrastiveObjective(Objective, method="convirt")`.

    The method's name, a key of `convirt.methods.METHODS`, enters the class in `OBJECTIVES`. A new method may keep its
    own beside its recipes (`convirt/recipes/siglip.py`).
    """

    section: ClassVar[str] = "objective."

    def __init_subclass__(cls, *, method: str | None = None) -> None:
        if method is not None:
            OBJECTIVES[method] = cls


@dataclass(frozen=True, kw_only=True)
class ContrastiveObjective(Objective, method="convirt"):
    """ConVIRT: the bidirectional contrastive objective (2.2)."""

    temperature: Positive = 0.1
    """tau, fixed (A)."""
    weight: Share = 0.75
    """lambda, the share of the image-to-text loss (A)."""


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


@dataclass(frozen=True, kw_only=True)
class BinaryObjective(Objective, method="contrastive_binary"):
    """Contrastive-Binary: real or fake pair, by a head over both projections (3.3)."""

    hidden: Count = 512
    """Width of the head's single hidden layer (silent: as wide as a projection)."""


@dataclass(frozen=True, kw_only=True)
class LearnedTemperatureObjective(Objective, method="clip"):
    """CLIP: a symmetric contrastive objective with a learned temperature (Radford et al. 2021, section 2.5)."""

    initial_temperature: Positive = 0.07
    """tau at the first step (2.5)."""
    largest_scale: float = 100.0
    """1 / tau is kept from exceeding this (2.5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        tau, most = self.initial_temperature, self.largest_scale
        require(1 / tau <= most < float("inf"), f"objective.largest_scale must be 1 / {tau} or more, got {most}")


@dataclass(frozen=True, kw_only=True)
class SemanticMatchingObjective(LearnedTemperatureObjective, method="medclip"):
    """MedCLIP: texts and images that are no pairs, matched by their findings (Wang et al. 2022, section 3.4)."""

    lexicon: str = "en"
    """How findings are worded: `en`, or the path of a TOML file (`data/findings/en.toml` tells the form)."""
    uncertain: Share = 1.0
    """What an uncertain finding counts in the vector of findings: 1 as present, 0 as absent (silent)."""
    target_temperature: Positive = 1.0
    """Divides the similarities of findings that the soft targets are made of; the paper's equation has none, which is
    1. Lower is sharper: at 1 the target of a finding is at most e times that of none."""


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageObjective(Objective, method="masked_language_model"):
    """Masked language modelling: naming hidden word pieces (Devlin et al. 2019, section 3.1)."""

    share: Annotated[float, Within("(0, 1]")] = 0.15
    """Part of a text's word pieces that have to be named (3.1)."""


@dataclass(frozen=True, kw_only=True)
class TwoViewsObjective(Objective, method="simclr"):
    """SimCLR: NT-Xent between two views of each image (E)."""

    temperature: Positive = 0.1
    """tau (E)."""


@dataclass(frozen=True, kw_only=True)
class MoCoObjective(TwoViewsObjective, method="moco"):
    """MoCo v2: a query and its key against a queue of earlier keys (E)."""

    temperature: Positive = 0.07
    """tau (E)."""
    queue: Count = 4096
    """How many keys the queue holds (E)."""
    key_momentum: Annotated[float, Within("[0, 1)")] = 0.999
    """m, what the key encoder keeps of itself at each step (silent; He et al., 3.2: 0.999)."""
    norm_groups: Count = 2
    """Parts of a batch with a batch norm each, shuffled for the keys; on one device as on the paper's two GPUs (E)."""
