"""Caption-LSTM, a baseline of ConVIRT (section 3.3): Show, Attend and Tell (Xu et al., 2015).

Shapes as in `captioner`.
"""

from torch import Tensor

from convirt.config import AttentionLSTMObjective
from convirt.methods.captioning.attention_lstm import AttentionLSTM, attention_penalty
from convirt.methods.captioning.captioner import Captioner, word_loss
from convirt.methods.captioning.vocabulary import PAD


class CaptionLSTM(Captioner):
    """The report from an LSTM with attention to the places of the image encoder's last feature map."""

    decoder: AttentionLSTM

    def build_decoder(self) -> AttentionLSTM:
        """The decoder with its initial weights."""
        assert isinstance(self.objective, AttentionLSTMObjective)
        return AttentionLSTM(self.image_encoder.grid_dim, len(self.vocabulary), self.objective)

    def score(self, grid_BDHW: Tensor, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Equation 14 of Xu et al., summed over the batch and divided by its words.

        L = ( sum_reports -log P(y | x) + lambda sum_i (1 - sum_t alpha_ti)^2 ) / words

        Returns:
            L, with `cross_entropy` (nats a word) and `attention_penalty` (its second part, without lambda).
        """
        assert isinstance(self.objective, AttentionLSTMObjective)
        logits_BTV, alpha_BTL = self.decoder(grid_BDHW, inputs_BT)
        spoken_BT = targets_BT != PAD
        cross_entropy = word_loss(logits_BTV, targets_BT)
        penalty = attention_penalty(alpha_BTL, spoken_BT).sum() / spoken_BT.sum()
        figures = {"cross_entropy": float(cross_entropy.detach()), "attention_penalty": float(penalty.detach())}
        return cross_entropy + self.objective.attention_penalty * penalty, figures
