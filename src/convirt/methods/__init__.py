"""Pretraining methods by name. A new one is a file here, one with its recipes in `convirt.recipes`, a line below."""

from convirt.methods.base import Method
from convirt.methods.captioning import CaptionLSTM, CaptionTransformer
from convirt.methods.clip import CLIP
from convirt.methods.contrastive_binary import ContrastiveBinary
from convirt.methods.convirt import ConVIRT
from convirt.methods.masked_language_model import MaskedLanguageModel
from convirt.methods.medclip import MedCLIP
from convirt.methods.moco import MoCo
from convirt.methods.siglip import SigLIP
from convirt.methods.simclr import SimCLR

METHODS: dict[str, type[Method]] = {
    "caption_lstm": CaptionLSTM,
    "caption_transformer": CaptionTransformer,
    "convirt": ConVIRT,
    "contrastive_binary": ContrastiveBinary,
    "clip": CLIP,
    "siglip": SigLIP,
    "medclip": MedCLIP,
    "masked_language_model": MaskedLanguageModel,
    "simclr": SimCLR,
    "moco": MoCo,
}

__all__ = [
    "CLIP",
    "METHODS",
    "CaptionLSTM",
    "CaptionTransformer",
    "ConVIRT",
    "ContrastiveBinary",
    "MaskedLanguageModel",
    "MedCLIP",
    "Method",
    "MoCo",
    "SigLIP",
    "SimCLR",
]
