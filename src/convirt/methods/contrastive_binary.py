"""Contrastive-Binary: a head tells real pairs from fake ones (ConVIRT, section 3.3).

Shapes: B pairs in the batch, D size of the projections.
"""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from convirt.config import PretrainConfig
from convirt.data.loading.loader import Batch
from convirt.data.records import AnyCorpus
from convirt.data.splits import derive_seed
from convirt.encoders import PairHead
from convirt.errors import InputError
from convirt.methods.base import encode_sentences, encode_views
from convirt.methods.two_towers import TwoTowers
from convirt.objectives import binary_pair_loss, draw_fakes
from convirt.recipes.image_and_text import BinaryObjective


class ContrastiveBinary(TwoTowers):
    """h_v and h_u, each projected linearly to one size, laid side by side, and told real or fake by an MLP (3.3).

    The projected vectors, normalised, are the shared space that the paper's text-image retrieval ranks by, although
    no loss aligns them (4.2); `pair_head` ranks beside them.
    """

    title = "Contrastive-Binary"
    objective_class = BinaryObjective
    objective: BinaryObjective

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Build both towers and the head.

        Raises:
            InputError: The projections are not linear.
        """
        if not self.config.projection.linear:
            raise InputError("contrastive_binary projects linearly (ConVIRT, section 3.3); give --projection.linear")
        super().build(folder, corpus)
        with self.seeded("pair head"):
            self.pair_head = PairHead(self.config.projection.dim, self.objective.hidden)

    @classmethod
    def inference_parts(cls, config: PretrainConfig, folder: Path, held: Collection[str]) -> dict[str, nn.Module]:
        """The encoders and their projections, and where both are wanted the head (see `Method.inference_parts`)."""
        parts = super().inference_parts(config, folder, held)
        if {"image_projection", "text_projection"} <= set(parts) and "pair_head" in held:
            assert isinstance(config.objective, BinaryObjective)
            parts["pair_head"] = PairHead(config.projection.dim, config.objective.hidden)
        return parts

    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The binary cross-entropy of the batch's real pairs and one fake pair each (see `Method.loss`).

        Returns:
            The scalar loss, `real_accuracy` and `fake_accuracy` (how often the head is right), and `equal_fakes` (the
            share of fake pairs whose sentence equals the real one).
        """
        views = self.draw_views(batch.images_B1SS, generator)
        v_BD = self.image_projection(encode_views(self.image_encoder, views))
        u_BD = self.text_projection(encode_sentences(self.text_encoder, batch.sentences, self.device))
        if generator is None:  # the fakes of a validation batch are always the same
            generator = torch.Generator().manual_seed(derive_seed(self.config.seed, batch.step, "validation fakes"))
        fakes_B = draw_fakes(batch.sentences, generator)
        real_B, fake_B = self.pair_head(v_BD, u_BD), self.pair_head(v_BD, u_BD[fakes_B.to(self.device)])
        equal = sum(batch.sentences[i] == batch.sentences[fake] for i, fake in enumerate(fakes_B.tolist()))
        return binary_pair_loss(real_B, fake_B), {
            "real_accuracy": (real_B > 0).float().mean().item(),
            "fake_accuracy": (fake_B < 0).float().mean().item(),
            "equal_fakes": equal / len(batch),
        }
