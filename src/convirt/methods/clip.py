"""CLIP: a symmetric contrastive loss with a learned temperature and linear projections (Radford et al. 2021)."""

from pathlib import Path

import torch
from torch import Tensor

from convirt.data.loading.loader import Batch
from convirt.data.records import AnyCorpus
from convirt.errors import InputError
from convirt.methods.two_towers import LearnedTemperatureTowers, agreement
from convirt.objectives import scaled_contrastive_loss
from convirt.recipes.image_and_text import LearnedTemperatureObjective


class CLIP(LearnedTemperatureTowers):
    """Two towers, linear projections, and a temperature that is learned (Radford et al. 2021, sections 2.3 to 2.5)."""

    title = "CLIP"
    objective_class = LearnedTemperatureObjective

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Build both towers and the temperature.

        Raises:
            InputError: The projections are not linear, or have a bias.
        """
        if not self.config.projection.linear or self.config.projection.bias:
            raise InputError(
                f"{self.config.method} projects linearly and without bias (Radford et al. 2021, section 2.3); "
                "give --projection.linear and --projection.no-bias"
            )
        super().build(folder, corpus)

    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The symmetric contrastive loss of one batch (see `Method.loss`).

        Returns:
            The scalar loss, the figures of `agreement`, and `scale`, which is 1 / tau.
        """
        _, v_BD = self.encode_image(self.draw_views(batch.images_B1SS, generator))
        _, u_BD = self.encode_text(batch.sentences)
        scale = self.temperature()
        figures = agreement(v_BD.detach(), u_BD.detach(), batch.sentences)
        return scaled_contrastive_loss(v_BD, u_BD, scale), {**figures, "scale": scale.item()}
