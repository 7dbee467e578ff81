"""CLIP: a symmetric contrastive loss with a learned temperature and linear projections (Radford et al. 2021)."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convirt.config import LearnedTemperatureObjective, PretrainConfig
from convirt.errors import InputError
from convirt.methods.temperature import LearnedTemperature
from convirt.methods.two_towers import TwoTowers, agreement
from convirt.objectives import scaled_contrastive_loss

if TYPE_CHECKING:
    from convirt.data.loading.loader import Batch
    from convirt.data.records import AnyCorpus


class CLIP(TwoTowers):
    """Two towers, linear projections, and a temperature that is learned (Radford et al. 2021, sections 2.3 to 2.5)."""

    def __init__(
        self,
        config: PretrainConfig,
        *,
        folder: Path | None = None,
        corpus: "AnyCorpus | None" = None,
    ) -> None:
        """Build both towers and the temperature.

        Raises:
            InputError: The projections are not linear, or have a bias.
        """
        if not config.projection.linear or config.projection.bias:
            raise InputError(
                f"{config.method} projects linearly and without bias (Radford et al. 2021, section 2.3); "
                "give --projection.linear and --projection.no-bias"
            )
        super().__init__(config, folder=folder)
        assert isinstance(config.objective, LearnedTemperatureObjective)
        self.temperature = LearnedTemperature(config.objective)

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay acts on a parameter: on all that are no gains, biases or temperature (2.5)."""
        return parameter.ndim > 1

    def loss(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The symmetric contrastive loss of one batch (see `Method.loss`).

        Returns:
            The scalar loss, the figures of `agreement`, and `scale`, which is 1 / tau.
        """
        _, v_BD = self.encode_image(self.draw_views(batch.images_B1SS, generator))
        _, u_BD = self.encode_text(batch.sentences)
        scale = self.temperature()
        figures = agreement(v_BD.detach(), u_BD.detach(), batch.sentences)
        return scaled_contrastive_loss(v_BD, u_BD, scale), {**figures, "scale": scale.item()}
