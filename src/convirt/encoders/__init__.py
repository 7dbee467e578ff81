"""The encoders f_v and f_u and the projections g_v and g_u (ConVIRT, section 2.3)."""

from convirt.encoders.heads import PairHead, Projection
from convirt.encoders.image_encoder import ImageEncoder, build_image_encoder, load_image_encoder
from convirt.encoders.text_encoder import TextEncoder, build_text_encoder, load_text_encoder

__all__ = [
    "ImageEncoder",
    "PairHead",
    "Projection",
    "TextEncoder",
    "build_image_encoder",
    "build_text_encoder",
    "load_image_encoder",
    "load_text_encoder",
]
