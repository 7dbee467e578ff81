"""The equations of the objectives, one file a family."""

from convirt.objectives.contrastive import (
    bidirectional_contrastive_loss,
    matching_entropy,
    nt_xent_loss,
    queue_contrastive_loss,
    scaled_contrastive_loss,
    semantic_matching_loss,
    sigmoid_pair_loss,
)
from convirt.objectives.masked_language import hide_pieces, masked_language_loss
from convirt.objectives.matching import binary_pair_loss, draw_fakes

__all__ = [
    "bidirectional_contrastive_loss",
    "binary_pair_loss",
    "draw_fakes",
    "hide_pieces",
    "masked_language_loss",
    "matching_entropy",
    "nt_xent_loss",
    "queue_contrastive_loss",
    "scaled_contrastive_loss",
    "semantic_matching_loss",
    "sigmoid_pair_loss",
]
