"""SimCLR: contrastive learning from two views of each image, without texts (ConVIRT, appendix E; Chen et al. 2020).

The paper ran the code of github.com/sthalles/SimCLR; its loss and head are these, its augmentations and schedule are
in the recipe `paper_simclr`.

Shapes: B images in the batch, R side of the views, D size of the projected vectors.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from convirt.config import TwoViewsObjective
from convirt.methods.base import encode_views
from convirt.methods.two_views import TwoViews
from convirt.objectives import nt_xent_loss

if TYPE_CHECKING:
    from convirt.data.loading.loader import Batch


class SimCLR(TwoViews):
    """z = W2 relu(W1 f_v(t_v(x_v))) of two views, drawn together against all other views of the batch."""

    def loss(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """NT-Xent of one batch (see `Method.loss`).

        Returns:
            The scalar loss, and nothing else.
        """
        objective = self.config.objective
        assert isinstance(objective, TwoViewsObjective)
        views_B1RR = torch.cat(self.two_views(batch, generator))  # one pass, so that both share a batch norm
        first_BD, second_BD = self.head(encode_views(self.image_encoder, views_B1RR)).chunk(2)
        return nt_xent_loss(first_BD, second_BD, objective.temperature), {}
