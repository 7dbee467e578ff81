"""What methods with an image tower, a text tower and a shared space have in common.

Shapes: B pairs in the batch, R side of the views, D size of a feature or of the shared space.
"""

import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convirt.config import PretrainConfig
from convirt.data.records import AnyCorpus
from convirt.encoders import ImageEncoder, Projection, TextEncoder
from convirt.errors import InputError
from convirt.methods.base import Method, encode_sentences, encode_views
from convirt.recipes.image_and_text import LearnedTemperatureObjective


class TwoTowers(Method):
    """f_v and f_u with g_v and g_u into one space (ConVIRT, section 2.2); the loss is the subclass's."""

    image_encoder: ImageEncoder
    text_encoder: TextEncoder

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Build f_v, f_u, g_v and g_u from initial weights, or from the architecture files of a checkpoint folder.

        Raises:
            InputError: A tower's source cannot be had; what both towers lack is said at once.
        """
        lacking = []
        try:
            self.image_encoder = self.initial_image_encoder(folder)
        except InputError as error:
            lacking.append(str(error))
        try:
            self.text_encoder = self.initial_text_encoder(folder)
        except InputError as error:
            lacking.append(str(error))
        if lacking:
            raise InputError("; and ".join(lacking))
        with self.seeded("projections"):
            self.image_projection = Projection(self.image_encoder.dim, self.config.projection)
            self.text_projection = Projection(self.text_encoder.dim, self.config.projection)

    @classmethod
    def inference_parts(cls, config: PretrainConfig, folder: Path, held: Collection[str]) -> dict[str, nn.Module]:
        """The encoders and their projections (see `Method.inference_parts`)."""
        parts = super().inference_parts(config, folder, held)
        for side in ("image", "text"):
            if f"{side}_encoder" in parts and f"{side}_projection" in held:
                parts[f"{side}_projection"] = Projection(parts[f"{side}_encoder"].dim, config.projection)  # type: ignore[arg-type]
        return parts

    def encode_image(self, images_B1RR: Tensor) -> tuple[Tensor, Tensor]:
        """Features h_v and unit vectors v of the shared space, from float views in [0, 1]."""
        features = encode_views(self.image_encoder, images_B1RR.to(self.device))
        return features, F.normalize(self.image_projection(features).float(), dim=1)

    def encode_text(self, sentences: list[str]) -> tuple[Tensor, Tensor]:
        """Features h_u and unit vectors u of the shared space, from sentences."""
        features = encode_sentences(self.text_encoder, sentences, self.device)
        return features, F.normalize(self.text_projection(features).float(), dim=1)


class LearnedTemperature(nn.Module):
    """1 / tau as a trained scalar, in logarithms so that it stays positive, and bounded from above (CLIP, 2.5)."""

    def __init__(self, objective: LearnedTemperatureObjective) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(objective.initial_temperature)))
        self.largest_scale = objective.largest_scale
        self.largest = math.log(objective.largest_scale)

    def forward(self) -> Tensor:
        """The scale 1 / tau, at most the largest; in training what lies above is first brought back to it."""
        if not self.training:
            return self.log_scale.clamp(max=self.largest).exp()
        with torch.no_grad():
            self.log_scale.clamp_(max=self.largest)
        # Not clamped again: rounding may leave the bound itself without a gradient, and there would be no way back.
        return self.log_scale.exp()

    @property
    def tau(self) -> float:
        """The temperature that training has come to."""
        return 1 / min(self.log_scale.exp().item(), self.largest_scale)


class LearnedTemperatureTowers(TwoTowers):
    """Two towers with a learned temperature, whose gains, biases and temperature do not decay (CLIP, 2.5)."""

    temperature_class: ClassVar[type[nn.Module]] = LearnedTemperature
    """Makes the temperature of the method's objective; its `tau` is the model's."""

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Build both towers and the temperature."""
        super().build(folder, corpus)
        self.temperature = self.temperature_class(self.objective)

    @classmethod
    def inference_parts(cls, config: PretrainConfig, folder: Path, held: Collection[str]) -> dict[str, nn.Module]:
        """The encoders, their projections and the temperature (see `Method.inference_parts`)."""
        parts = super().inference_parts(config, folder, held)
        if "temperature" in held:
            parts["temperature"] = cls.temperature_class(config.objective)
        return parts

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay acts on a parameter: on weights alone."""
        return parameter.ndim > 1


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
