"""What each pretraining method minimises: the constants of its equations, one dataclass a method.

A new method adds its dataclass here, and a line to `OBJECTIVES`.
"""

import math
from dataclasses import dataclass

from convirt.config.checking import require


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The constants of one method's equations."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveObjective(Objective):
    """ConVIRT: the bidirectional contrastive objective (2.2)."""

    temperature: float = 0.1
    """tau, fixed (A)."""
    weight: float = 0.75
    """lambda, the share of the image-to-text loss (A)."""

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, f"objective.temperature must be positive, got {self.temperature}")
        require(0 <= self.weight <= 1, f"objective.weight must lie in [0, 1], got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class CaptioningObjective(Objective):
    """What both captioning baselines need (3.3); where the ConVIRT paper is silent, their own papers are named."""

    min_count: int = 5
    """The vocabulary holds the words that occur this often in the training reports (Cornia et al.'s code: 5)."""
    max_words: int = 128
    """Longer reports are cut to so many words, the end among them; none longer is written (silent)."""
    beam: int = 5
    """Hypotheses of the beam search (Cornia et al., 4.2: 5)."""
    decoded: int = 5000
    """Of how many validation pairs reports are written for CIDEr-D, at most: one word costs about as much as the
    decoder's share of a step, so that a bound keeps evaluation short beside training."""

    def __post_init__(self) -> None:
        for name in ("min_count", "beam"):
            require(getattr(self, name) >= 1, f"objective.{name} must be at least 1, got {getattr(self, name)}")
        require(self.max_words >= 2, f"objective.max_words must be at least 2, got {self.max_words}")
        require(
            self.decoded >= 2, f"objective.decoded must be at least 2 (one report has no CIDEr-D), got {self.decoded}"
        )


@dataclass(frozen=True, kw_only=True)
class AttentionLSTMObjective(CaptioningObjective):
    """Caption-LSTM: Show, Attend and Tell (Xu et al., 2015), whose paper leaves the widths open.

    Their code is kelvinxu/arctic-captions, whose settings for COCO (`evaluate_coco.py`) are meant where it is named.
    """

    word_dim: int = 512
    """Size of a word's vector (the authors' code: 512)."""
    hidden_dim: int = 1800
    """Size of the LSTM's state (the authors' code: 1800)."""
    attention_dim: int = 512
    """Width of the layer that scores places (the authors' code: that of an annotation vector, 512)."""
    dropout: float = 0.5
    """Before the output layer (Xu et al., 4.3: dropout; its rate is that of the authors' code)."""
    attention_penalty: float = 1.0
    """lambda of the doubly stochastic regularisation (Xu et al., equation 14; its value is that of the authors'
    code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("word_dim", "hidden_dim", "attention_dim"):
            require(getattr(self, name) >= 1, f"objective.{name} must be at least 1, got {getattr(self, name)}")
        require(0 <= self.dropout < 1, f"objective.dropout must lie in [0, 1), got {self.dropout}")
        require(
            0 <= self.attention_penalty < math.inf,
            f"objective.attention_penalty must not be negative, got {self.attention_penalty}",
        )


@dataclass(frozen=True, kw_only=True)
class MeshedTransformerObjective(CaptioningObjective):
    """Caption-Transformer: the Meshed-Memory Transformer (Cornia et al., 2020; aimagelab/meshed-memory-transformer)."""

    width: int = 512
    """Size of the model (Cornia et al., 4.2)."""
    heads: int = 8
    """Of each attention (Cornia et al., 4.2)."""
    layers: int = 3
    """Of the encoder, and of the decoder (Cornia et al., 4.3)."""
    memories: int = 40
    """Memory slots of each encoding layer (Cornia et al., 4.2)."""
    feed_forward: int = 2048
    """Width of the feed-forward layers (the authors' code)."""
    dropout: float = 0.1
    """After each attention and feed-forward layer (Cornia et al., 4.2: kept with probability 0.9)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("heads", "layers", "feed_forward"):
            require(getattr(self, name) >= 1, f"objective.{name} must be at least 1, got {getattr(self, name)}")
        require(self.memories >= 0, f"objective.memories must not be negative, got {self.memories}")
        require(
            self.width >= 2 and self.width % 2 == 0 and self.width % self.heads == 0,
            f"objective.width must be even and a multiple of heads = {self.heads}, got {self.width}",
        )
        require(0 <= self.dropout < 1, f"objective.dropout must lie in [0, 1), got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class BinaryObjective(Objective):
    """Contrastive-Binary: real or fake pair, by a head over both projections (3.3)."""

    hidden: int = 512
    """Width of the head's single hidden layer (silent: as wide as a projection)."""

    def __post_init__(self) -> None:
        require(self.hidden >= 1, f"objective.hidden must be positive, got {self.hidden}")


@dataclass(frozen=True, kw_only=True)
class LearnedTemperatureObjective(Objective):
    """CLIP: a symmetric contrastive objective with a learned temperature (Radford et al. 2021, section 2.5)."""

    initial_temperature: float = 0.07
    """tau at the first step (2.5)."""
    largest_scale: float = 100.0
    """1 / tau is kept from exceeding this (2.5)."""

    def __post_init__(self) -> None:
        tau, most = self.initial_temperature, self.largest_scale
        require(0 < tau < math.inf, f"objective.initial_temperature must be positive, got {tau}")
        require(1 / tau <= most < math.inf, f"objective.largest_scale must be 1 / {tau} or more, got {most}")


@dataclass(frozen=True, kw_only=True)
class SemanticMatchingObjective(LearnedTemperatureObjective):
    """MedCLIP: texts and images that are no pairs, matched by their findings (Wang et al. 2022, section 3.4)."""

    lexicon: str = "en"
    """How findings are worded: `en`, or the path of a TOML file (`data/findings/en.toml` tells the form)."""
    uncertain: float = 1.0
    """What an uncertain finding counts in the vector of findings: 1 as present, 0 as absent (silent)."""
    target_temperature: float = 1.0
    """Divides the similarities of findings that the soft targets are made of; the paper's equation has none, which is
    1. Lower is sharper: at 1 the target of a finding is at most e times that of none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.target_temperature > 0, f"objective.target_temperature must be above 0, got {self.target_temperature}"
        )
        require(0 <= self.uncertain <= 1, f"objective.uncertain must lie in [0, 1], got {self.uncertain}")


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageObjective(Objective):
    """Masked language modelling: naming hidden word pieces (Devlin et al. 2019, section 3.1)."""

    share: float = 0.15
    """Part of a text's word pieces that have to be named (3.1)."""

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, f"objective.share must lie in (0, 1], got {self.share}")


@dataclass(frozen=True, kw_only=True)
class TwoViewsObjective(Objective):
    """SimCLR: NT-Xent between two views of each image (E)."""

    temperature: float = 0.1
    """tau (E)."""

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, f"objective.temperature must be positive, got {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class MoCoObjective(TwoViewsObjective):
    """MoCo v2: a query and its key against a queue of earlier keys (E)."""

    temperature: float = 0.07
    """tau (E)."""
    queue: int = 4096
    """How many keys the queue holds (E)."""
    key_momentum: float = 0.999
    """m, what the key encoder keeps of itself at each step (silent; He et al., 3.2: 0.999)."""
    norm_groups: int = 2
    """Parts of a batch with a batch norm each, shuffled for the keys; on one device as on the paper's two GPUs (E)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.queue >= 1, f"objective.queue must be at least 1, got {self.queue}")
        require(0 <= self.key_momentum < 1, f"objective.key_momentum must lie in [0, 1), got {self.key_momentum}")
        require(self.norm_groups >= 1, f"objective.norm_groups must be at least 1, got {self.norm_groups}")


OBJECTIVES: dict[str, type[Objective]] = {
    "caption_lstm": AttentionLSTMObjective,
    "caption_transformer": MeshedTransformerObjective,
    "convirt": ContrastiveObjective,
    "contrastive_binary": BinaryObjective,
    "clip": LearnedTemperatureObjective,
    "medclip": SemanticMatchingObjective,
    "masked_language_model": MaskedLanguageObjective,
    "simclr": TwoViewsObjective,
    "moco": MoCoObjective,
}
"""The objective of each method, a key of `convirt.methods.METHODS`."""
