"""The projections g_v and g_u into the shared space (ConVIRT, section 2.3 and appendix A)."""

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

    def forward(self, features_BI: Tensor) -> Tensor:
        """Project features into the shared space."""
        return super().forward(features_BI)
