"""SigLIP: a sigmoid loss over all pairs of a batch, with a learned temperature and bias (Zhai et al. 2023)."""

import math

import torch
from torch import Tensor, nn

from convirt.data.loading.loader import Batch
from convirt.methods.two_towers import LearnedTemperatureTowers, agreement
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


class SigLIP(LearnedTemperatureTowers):
    """v and u whose every pair in the batch is called real or not on its own (section 3.2).

    The paper is silent on weight decay of the temperature and the bias; here they have none, as in CLIP.
    """

    title = "SigLIP"
    objective_class = SigLIPObjective
    objective: SigLIPObjective
    temperature_class = ScaleAndBias
    temperature: ScaleAndBias

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
