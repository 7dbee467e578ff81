"""Pretraining methods by name; a new one is a file here and a line below."""

from convirt.methods.base import Method
from convirt.methods.captioning import CaptionLSTM, CaptionTransformer
from convirt.methods.convirt import ConVIRT

METHODS: dict[str, type[Method]] = {
    "caption_lstm": CaptionLSTM,
    "caption_transformer": CaptionTransformer,
    "convirt": ConVIRT,
}

__all__ = ["METHODS", "CaptionLSTM", "CaptionTransformer", "ConVIRT", "Method"]
