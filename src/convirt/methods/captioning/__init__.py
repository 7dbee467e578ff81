"""Captioning baselines (ConVIRT, section 3.3): an image encoder pretrained by having to say the report."""

from convirt.methods.captioning.caption_lstm import CaptionLSTM
from convirt.methods.captioning.caption_transformer import CaptionTransformer
from convirt.methods.captioning.captioner import Captioner

__all__ = ["CaptionLSTM", "CaptionTransformer", "Captioner"]
