"""SigLIP: a sigmoid loss over all pairs of a batch, with a learned temperature and bias (Zhai et al. 2023)."""

import math
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from convirt.config import PretrainConfig
from convirt.data.loading.loader import Batch
from convirt.data.records import AnyCorpus
from convirt.methods.two_towers import TwoTowers, agreement
from convirt.objectives import sigmoid_pair_loss
from convirt.recipes.siglip import SigLIPObjective


class ScaleAndBias(nn.Module):
    """t = exp(t') and b as trained scalars (section 3.2)."""

    def __init__(self, objective: SigLIPObjective) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(objective.initial_scale)))
        self.bias = nn.Parameter(torch.tensor(objective.initial_bias))

    @property
    def tau(self) -> float:
        """The temperature 1 / t that training has come to."""
        return 1 / self.log_scale.exp().item()


class SigLIP(TwoTowers):
    """v and u whose every pair in the batch is called real or not on its own (section 3.2)."""

    title = "SigLIP"
    objective_class = SigLIPObjective
    objective: SigLIPObjective

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Build both towers, the temperature and the bias."""
        super().build(folder, corpus)
        self.temperature = ScaleAndBias(self.objective)

    @classmethod
    def inference_parts(cls, config: PretrainConfig, folder: Path, held: Collection[str]) -> dict[str, nn.Module]:
        """The encoders, their projections, the temperature and the bias (see `Method.inference_parts`)."""
        parts = super().inference_parts(config, folder, held)
        if "temperature" in held:
            assert isinstance(config.objective, SigLIPObjective)
            parts["temperature"] = ScaleAndBias(config.objective)
        return parts

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay acts on a parameter: on weights alone, as in CLIP (the paper is silent)."""
        return parameter.ndim > 1

    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The sigmoid loss of one batch (see `Method.loss`).

        Returns:
            The scalar loss, the figures of `agreement`, `scale` (t) and `bias` (b).
        """
        _, v_BD = self.encode_image(self.draw_views(batch.images_B1SS, generator))
        _, u_BD = self.encode_text(batch.sentences)
        scale, bias = self.temperature.log_scale.exp(), self.temperature.bias
        figures = agreement(v_BD.detach(), u_BD.detach(), batch.sentences)
        return sigmoid_pair_loss(v_BD, u_BD, scale, bias), {**figures, "scale": scale.item(), "bias": bias.item()}
