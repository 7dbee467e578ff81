"""Contrastive-Binary: a head tells real pairs from fake ones (ConVIRT, section 3.3).

Shapes: B pairs in the batch, D size of the projections.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from convirt.config import BinaryObjective, PretrainConfig
from convirt.data.loading.loader import derive_seed
from convirt.encoders import PairHead
from convirt.errors import InputError
from convirt.methods.base import encode_sentences, encode_views
from convirt.methods.two_towers import TwoTowers
from convirt.objectives import binary_pair_loss, draw_fakes

if TYPE_CHECKING:
    from convirt.data.loading.loader import Batch
    from convirt.data.records import AnyCorpus


class ContrastiveBinary(TwoTowers):
    """h_v and h_u, each projected linearly to one size, laid side by side, and told real or fake by an MLP (3.3).

    The projected vectors, normalised, are the shared space that the paper's text-image retrieval ranks by, although
    no loss aligns them (4.2); `pair_head` ranks beside them.
    """

    def __init__(
        self,
        config: PretrainConfig,
        *,
        folder: Path | None = None,
        corpus: "AnyCorpus | None" = None,
    ) -> None:
        """Build both towers and the head.

        Raises:
            InputError: The projections are not linear.
        """
        if not config.projection.linear:
            raise InputError("contrastive_binary projects linearly (ConVIRT, section 3.3); give --projection.linear")
        super().__init__(config, folder=folder)
        objective = config.objective
        assert isinstance(objective, BinaryObjective)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "pair head"))
            self.pair_head = PairHead(config.projection.dim, objective.hidden)

    def loss(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
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
