"""Caption-Transformer, a baseline of ConVIRT (section 3.3): the Meshed-Memory Transformer (Cornia et al., 2020).

Shapes as in `captioner`.
"""

from torch import Tensor

from convirt.config import MeshedTransformerObjective
from convirt.methods.captioning.captioner import Captioner, word_loss
from convirt.methods.captioning.meshed_transformer import MeshedMemoryTransformer


class CaptionTransformer(Captioner):
    """The report from a transformer over the places of the image encoder's last feature map.

    Trained by cross-entropy alone. Cornia et al. then go on with self-critical training for CIDEr-D (section 3.3);
    ConVIRT says only that the model is trained to decode the report, and chooses a checkpoint by CIDEr.
    """

    def build_decoder(self) -> MeshedMemoryTransformer:
        """The decoder with its initial weights."""
        assert isinstance(self.objective, MeshedTransformerObjective)
        return MeshedMemoryTransformer(self.image_encoder.grid_dim, len(self.vocabulary), self.objective)

    def score(self, grid_BDHW: Tensor, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The mean cross-entropy of a word, nats."""
        return word_loss(self.decoder(grid_BDHW, inputs_BT), targets_BT), {}
