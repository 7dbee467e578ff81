"""ConVIRT: contrastive learning of an image encoder from paired text (section 2).

Shapes: B pairs in the batch, S side of the prepared images, R side of the views, D size of the shared space.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from convirt import transforms
from convirt.config import PretrainConfig
from convirt.data.loading.loader import derive_seed
from convirt.encoders import (
    Projection,
    build_image_encoder,
    build_text_encoder,
    load_image_encoder,
    load_text_encoder,
)
from convirt.methods.base import Method
from convirt.objectives import bidirectional_contrastive_loss

if TYPE_CHECKING:
    from convirt.data.loading.loader import Batch


class ConVIRT(Method):
    """v = g_v(f_v(t_v(x_v))) and u = g_u(f_u(t_u(x_u))), drawn together for true pairs (section 2.2)."""

    def __init__(self, config: PretrainConfig, *, folder: Path | None = None) -> None:
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
        images_B1RR = images_B1RR.to(self.device)
        if images_B1RR.is_cuda:
            features = self.image_encoder(images_B1RR)
        else:
            # Convolutions in bf16 are slower than in float32 on a CPU; the text encoder's matrices are twice as fast.
            with torch.autocast("cpu", enabled=False):
                features = self.image_encoder(images_B1RR)
        return features, F.normalize(self.image_projection(features).float(), dim=1)

    def encode_text(self, sentences: list[str]) -> tuple[Tensor, Tensor]:
        """Features h_u and unit vectors u of the shared space, from sentences."""
        tokens = {name: tensor.to(self.device) for name, tensor in self.text_encoder.tokenize(sentences).items()}
        features = self.text_encoder(tokens)
        return features, F.normalize(self.text_projection(features).float(), dim=1)

    def loss(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The bidirectional contrastive loss of one batch (see `Method.loss`).

        Returns:
            The scalar loss, and `repeated_sentences` (share of the sentences that stand in the batch more than once:
            false negatives of the loss) with `image_to_text_accuracy` and `text_to_image_accuracy` (how often the
            most similar of the batch is the own one, or one with the same sentence).
        """
        config = self.config
        images_B1SS = batch.images_B1SS.to(self.device)
        if generator is None:
            views_B1RR = transforms.plain_view(images_B1SS, config.transform.size)
        else:
            parameters = transforms.draw_parameters(
                config.transform, len(images_B1SS), images_B1SS.shape[-1], generator
            )
            views_B1RR = transforms.apply(images_B1SS, parameters, config.transform)
        _, v_BD = self.encode_image(views_B1RR)
        _, u_BD = self.encode_text(batch.sentences)
        loss = bidirectional_contrastive_loss(v_BD, u_BD, config.objective.temperature, config.objective.weight)
        return loss, _scalars(v_BD.detach(), u_BD.detach(), batch.sentences)

    def save_architecture(self, folder: Path) -> None:
        """Write `image_encoder.json` and `text_encoder/` (configuration and tokenizer files)."""
        self.image_encoder.save_architecture(folder)
        self.text_encoder.save_architecture(folder)


def _scalars(v_BD: Tensor, u_BD: Tensor, sentences: list[str]) -> dict[str, float]:
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
