"""What stands on the encoders: the projections g_v and g_u (ConVIRT, 2.3), and the head of Contrastive-Binary (3.3)."""

import torch
from torch import Tensor, nn

from convirt.config import ProjectionConfig


class Projection(nn.Sequential):
    """g(h) = W2 relu(W1 h), or one linear map for the paper's ablation (table 5).

    Shapes: h_BI of the encoder's size I to vectors of the shared space, not normalised.
    """

    def __init__(self, in_dim: int, config: ProjectionConfig) -> None:
        hidden = config.hidden or in_dim
        if config.linear:
            super().__init__(nn.Linear(in_dim, config.dim, bias=config.bias))
        else:
            super().__init__(
                nn.Linear(in_dim, hidden, bias=config.bias),
                nn.ReLU(),
                nn.Linear(hidden, config.dim, bias=config.bias),
            )
        self.in_dim = in_dim
        self.dim = config.dim


class PairHead(nn.Sequential):
    """Is this text the image's own? An MLP of one hidden layer over the two projections, laid side by side.

    Shapes: v_BD and u_BD, projected and not normalised, to one logit a row; above 0 means a real pair.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, v_BD: Tensor, u_BD: Tensor) -> Tensor:  # type: ignore[override]
        """Logits_B of the pairs that the rows are."""
        return super().forward(torch.cat([v_BD, u_BD], dim=1))[:, 0]

    def all_pairs(self, v_ND: Tensor, u_TD: Tensor) -> Tensor:
        """Logits_NT of every image with every text."""
        first, *rest = self
        image_HD, text_HD = first.weight.chunk(2, dim=1)  # type: ignore[operator]
        # The first layer is linear, so that each image and each text passes its half of it once.
        hidden_NTH = (v_ND @ image_HD.T)[:, None] + (u_TD @ text_HD.T + first.bias)[None]  # type: ignore[operator]
        for layer in rest:
            hidden_NTH = layer(hidden_NTH)
        return hidden_NTH[..., 0]
