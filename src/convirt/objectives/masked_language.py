"""Masked language modelling: which word pieces are hidden, and the loss of naming them (Devlin et al. 2019, 3.1).

Shapes: B texts, T word pieces of the longest, V size of the vocabulary, M hidden pieces.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def hide_pieces(
    pieces_BT: Tensor, may_hide_BT: Tensor, *, share: float, mask: int, vocabulary: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose word pieces at random, and hide them.

    Of the pieces of a text, `share` are chosen, at least one; 80 % of those become the mask, 10 % a random piece, and
    10 % stay as they are, so that the model cannot tell which pieces it will be asked for.

    Args:
        pieces_BT: Word pieces, int64, on the CPU.
        may_hide_BT: Which may be chosen, bool: not padding, and not the special pieces.
        share: Part of a text's pieces to choose, in (0, 1].
        mask: Number of the mask.
        vocabulary: V; a random piece is any of its numbers.
        generator: CPU generator.

    Returns:
        The pieces with the chosen ones hidden, and which were chosen, bool [B, T].
    """
    draws_3BT = torch.rand(3, *pieces_BT.shape, generator=generator)
    wanted_B = (share * may_hide_BT.sum(dim=1)).round().long().clamp_min(1)
    order_BT = torch.where(may_hide_BT, draws_3BT[0], torch.inf).argsort(dim=1).argsort(dim=1)
    chosen_BT = may_hide_BT & (order_BT < wanted_B[:, None])
    random_BT = (draws_3BT[1] * vocabulary).long()
    replaced_BT = torch.where(draws_3BT[2] < 0.9, random_BT, pieces_BT)
    hidden_BT = torch.where(draws_3BT[2] < 0.8, torch.full_like(pieces_BT, mask), replaced_BT)
    return torch.where(chosen_BT, hidden_BT, pieces_BT), chosen_BT


def masked_language_loss(logits_MV: Tensor, pieces_M: Tensor) -> Tensor:
    """The mean cross-entropy of the chosen pieces: -mean_m log softmax(logits_m)[pieces_m], in float32 or better."""
    with torch.autocast(device_type=logits_MV.device.type, enabled=False):
        return F.cross_entropy(logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32)), pieces_M)
