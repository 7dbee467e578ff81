"""SimCLR: contrastive learning from two views of each image, without texts (ConVIRT, appendix E; Chen et al. 2020).

The paper ran the code of github.com/sthalles/SimCLR; its loss and head are these, its augmentations and schedule are
in the recipe `paper_simclr`.

Shapes: B images in the batch, R side of the views, S side of the prepared images, D size of the projected vectors.
"""

from pathlib import Path

import torch
from torch import Tensor

from convirt.data.loading.loader import Batch
from convirt.data.records import AnyCorpus
from convirt.data.splits import derive_seed
from convirt.encoders import ImageEncoder, Projection
from convirt.methods.base import Method, encode_views
from convirt.objectives import nt_xent_loss
from convirt.recipes.image_only import TwoViewsObjective


class TwoViews(Method):
    """An image encoder with a projection head that only training needs, for two views of each image (appendix E)."""

    image_encoder: ImageEncoder

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Build both from initial weights, or the encoder from the architecture file of a checkpoint folder."""
        self.image_encoder = self.initial_image_encoder(folder)
        with self.seeded("projections"):
            self.head = Projection(self.image_encoder.dim, self.config.projection)

    def two_views(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Two augmented views of each image, images_B1RR each.

        In validation they are augmented too: two equal views would match whatever the encoder does. They are then a
        function of the run's seed and of the batch's number alone, so that each evaluation sees the same.
        """
        if generator is None:
            seed = derive_seed(self.config.seed, batch.step, "validation views")
            generator = torch.Generator().manual_seed(seed)
        return self.draw_views(batch.images_B1SS, generator), self.draw_views(batch.images_B1SS, generator)


class SimCLR(TwoViews):
    """z = W2 relu(W1 f_v(t_v(x_v))) of two views, drawn together against all other views of the batch."""

    title = "SimCLR"
    objective_class = TwoViewsObjective
    objective: TwoViewsObjective

    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """NT-Xent of one batch (see `Method.loss`).

        Returns:
            The scalar loss, and nothing else.
        """
        views_B1RR = torch.cat(self.two_views(batch, generator))  # one pass, so that both share a batch norm
        first_BD, second_BD = self.head(encode_views(self.image_encoder, views_B1RR)).chunk(2)
        return nt_xent_loss(first_BD, second_BD, self.objective.temperature), {}
