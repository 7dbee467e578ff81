"""What methods with an image tower, a text tower and a shared space have in common.

Shapes: B pairs in the batch, R side of the views, D size of a feature or of the shared space.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from convirt.config import PretrainConfig
from convirt.data.loading.loader import derive_seed
from convirt.encoders import (
    ImageEncoder,
    Projection,
    build_image_encoder,
    build_text_encoder,
    load_image_encoder,
    load_text_encoder,
)
from convirt.methods.base import Method, encode_sentences, encode_views

if TYPE_CHECKING:
    from convirt.data.records import AnyCorpus


class TwoTowers(Method):
    """f_v and f_u with g_v and g_u into one space (ConVIRT, section 2.2); the loss is the subclass's."""

    image_encoder: ImageEncoder
    shared_space = True

    def __init__(
        self,
        config: PretrainConfig,
        *,
        folder: Path | None = None,
        corpus: "AnyCorpus | None" = None,
    ) -> None:
        """Build f_v, f_u, g_v and g_u from initial weights, or from the architecture files of a checkpoint folder."""
        super().__init__(config, folder=folder)
        if folder is None:
            self.image_encoder = build_image_encoder(
                config.image_encoder, seed=derive_seed(config.seed, "image encoder")
            )
            self.text_encoder = build_text_encoder(config.text_encoder, seed=derive_seed(config.seed, "text encoder"))
        else:
            self.image_encoder = load_image_encoder(folder)
            self.text_encoder = load_text_encoder(folder, config.text_encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "projections"))
            self.image_projection = Projection(self.image_encoder.dim, config.projection)
            self.text_projection = Projection(self.text_encoder.dim, config.projection)

    def encode_image(self, images_B1RR: Tensor) -> tuple[Tensor, Tensor]:
        """Features h_v and unit vectors v of the shared space, from float views in [0, 1]."""
        features = encode_views(self.image_encoder, images_B1RR.to(self.device))
        return features, F.normalize(self.image_projection(features).float(), dim=1)

    def encode_text(self, sentences: list[str]) -> tuple[Tensor, Tensor]:
        """Features h_u and unit vectors u of the shared space, from sentences."""
        features = encode_sentences(self.text_encoder, sentences, self.device)
        return features, F.normalize(self.text_projection(features).float(), dim=1)

    def save_architecture(self, folder: Path) -> None:
        """Write `image_encoder.json` and `text_encoder/` (configuration and tokenizer files)."""
        self.image_encoder.save_architecture(folder)
        self.text_encoder.save_architecture(folder)


def agreement(v_BD: Tensor, u_BD: Tensor, sentences: list[str]) -> dict[str, float]:
    """How well a batch's images and sentences find each other, for the log.

    Returns:
        `repeated_sentences` (share of the sentences that stand in the batch more than once: false negatives of a
        contrastive loss), with `image_to_text_accuracy` and `text_to_image_accuracy` (how often the most similar of
        the batch is the own one, or one with the same sentence).
    """
    counts = Counter(sentences)
    numbers = {sentence: number for number, sentence in enumerate(counts)}
    sentence_B = torch.tensor([numbers[sentence] for sentence in sentences])
    similarity_BB = (v_BD @ u_BD.T).cpu()
    right_text_B = sentence_B[similarity_BB.argmax(dim=1)] == sentence_B
    right_image_B = sentence_B[similarity_BB.argmax(dim=0)] == sentence_B
    return {
        "repeated_sentences": sum(count for count in counts.values() if count > 1) / len(sentences),
        "image_to_text_accuracy": right_text_B.float().mean().item(),
        "text_to_image_accuracy": right_image_B.float().mean().item(),
    }
