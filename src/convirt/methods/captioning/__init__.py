"""Captioning baselines (ConVIRT, section 3.3): an image encoder pretrained by having to say the report."""

from convirt.methods.captioning.captioner import Captioner, CaptionLSTM, CaptionTransformer

__all__ = ["CaptionLSTM", "CaptionTransformer", "Captioner"]
