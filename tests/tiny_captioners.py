"""Captioners that train in seconds, batches of given reports, and linear maps in plain Python."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from convirt.config import PretrainConfig
from convirt.data.corpora import Corpus
from convirt.data.loading.loader import Batch
from convirt.methods import METHODS
from convirt.methods.captioning import Captioner
from convirt.recipes.captioning import AttentionLSTMObjective, MeshedTransformerObjective

MakeConfig = Callable[..., PretrainConfig]
LSTM = AttentionLSTMObjective(
    word_dim=12, hidden_dim=16, attention_dim=10, dropout=0.0, min_count=1, max_words=20, beam=3, decoded=12
)
TRANSFORMER = MeshedTransformerObjective(
    width=16,
    heads=2,
    layers=3,
    memories=5,
    feed_forward=24,
    dropout=0.0,
    min_count=1,
    max_words=20,
    beam=3,
    decoded=12,
)
OBJECTIVES = {"caption_lstm": LSTM, "caption_transformer": TRANSFORMER}
METHOD_NAMES = list(OBJECTIVES)


def make_captioner(make_config: MakeConfig, corpus: Path, method: str, **changes: object) -> Captioner:
    """A tiny captioner of a method's name, its vocabulary from a corpus."""
    config = make_config(**{"objective": OBJECTIVES[method], **changes, "method": method})
    captioner = METHODS[method](config, corpus=Corpus.open(corpus))
    assert isinstance(captioner, Captioner)
    return captioner


def make_batch(reports: list[tuple[str, ...]], side: int = 48) -> Batch:
    """Noise, with these reports."""
    generator = torch.Generator().manual_seed(len(reports))
    images = torch.randint(0, 256, (len(reports), 1, side, side), generator=generator, dtype=torch.uint8)
    sentences = [report[0] for report in reports]
    return Batch(images_B1SS=images, sentences=sentences, reports=reports, indices=np.arange(len(reports)), step=0)


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x)."""
    return 1 / (1 + math.exp(-x))


def linear(module: torch.nn.Linear, x: list[float]) -> list[float]:
    """W x + b."""
    weight = module.weight.tolist()
    bias = module.bias.tolist() if module.bias is not None else [0.0] * len(weight)
    return [sum(w * value for w, value in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
