"""What methods have in common that learn from images alone, two views of each (ConVIRT, appendix E).

Shapes: B images in the batch, R side of the views, D size of the projected vectors.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from convirt.config import PretrainConfig
from convirt.data.loading.loader import derive_seed
from convirt.encoders import ImageEncoder, Projection, build_image_encoder, load_image_encoder
from convirt.methods.base import Method

if TYPE_CHECKING:
    from convirt.data.loading.loader import Batch
    from convirt.data.records import AnyCorpus


class TwoViews(Method):
    """An image encoder with a projection head; the head is of use to training alone. The loss is the subclass's."""

    image_encoder: ImageEncoder

    def __init__(
        self,
        config: PretrainConfig,
        *,
        folder: Path | None = None,
        corpus: "AnyCorpus | None" = None,
    ) -> None:
        """Build both from initial weights, or the encoder from the architecture file of a checkpoint folder."""
        super().__init__(config, folder=folder)
        if folder is None:
            seed = derive_seed(config.seed, "image encoder")
            self.image_encoder = build_image_encoder(config.image_encoder, seed=seed)
        else:
            self.image_encoder = load_image_encoder(folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "projections"))
            self.head = Projection(self.image_encoder.dim, config.projection)

    def two_views(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Two augmented views of each image, images_B1RR each.

        In validation they are augmented too: two equal views would match whatever the encoder does. They are then a
        function of the run's seed and of the batch's number alone, so that each evaluation sees the same.
        """
        if generator is None:
            seed = derive_seed(self.config.seed, batch.step, "validation views")
            generator = torch.Generator().manual_seed(seed)
        return self.draw_views(batch.images_B1SS, generator), self.draw_views(batch.images_B1SS, generator)

    def save_architecture(self, folder: Path) -> None:
        """Write `image_encoder.json`."""
        self.image_encoder.save_architecture(folder)
