"""ConVIRT: contrastive learning of an image encoder from paired text (section 2)."""

import torch
from torch import Tensor

from convirt.config import ContrastiveObjective
from convirt.data.loading.loader import Batch
from convirt.methods.two_towers import TwoTowers, agreement
from convirt.objectives import bidirectional_contrastive_loss


class ConVIRT(TwoTowers):
    """v = g_v(f_v(t_v(x_v))) and u = g_u(f_u(t_u(x_u))), drawn together for true pairs (section 2.2)."""

    title = "ConVIRT"
    objective_class = ContrastiveObjective
    objective: ContrastiveObjective

    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The bidirectional contrastive loss of one batch (see `Method.loss`).

        Returns:
            The scalar loss, and the figures of `agreement`.
        """
        _, v_BD = self.encode_image(self.draw_views(batch.images_B1SS, generator))
        _, u_BD = self.encode_text(batch.sentences)
        loss = bidirectional_contrastive_loss(v_BD, u_BD, self.objective.temperature, self.objective.weight)
        return loss, agreement(v_BD.detach(), u_BD.detach(), batch.sentences)
