"""Contrastive objectives between images and texts: softmax over the pairs of a minibatch.

Shapes: N pairs in the minibatch, D size of the shared space.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def bidirectional_contrastive_loss(
    v_ND: Tensor, u_ND: Tensor, temperature: float = 0.1, weight: float = 0.75
) -> Tensor:
    """The bidirectional contrastive loss L of ConVIRT (section 2.2).

    With <v, u> the cosine similarity, tau the temperature and lambda the weight::

        l(v->u)_i = -log( exp(<v_i, u_i> / tau) / sum_k exp(<v_i, u_k> / tau) )
        l(u->v)_i = -log( exp(<u_i, v_i> / tau) / sum_k exp(<u_i, v_k> / tau) )
        L = mean_i ( lambda l(v->u)_i + (1 - lambda) l(u->v)_i )

    Args:
        v_ND: Image vectors, not necessarily of unit length; row i belongs to row i of `u_ND`.
        u_ND: Text vectors.
        temperature: tau, positive.
        weight: lambda in [0, 1], the share of the image-to-text loss.

    Returns:
        The scalar loss. It is computed in float32 or better, whatever autocast or the inputs say: half precision
        would lose small differences of similarity that the temperature then multiplies.

    Raises:
        ValueError: The two matrices differ in shape, are empty or are no matrices, or a constant is out of range.
    """
    if v_ND.ndim != 2 or v_ND.shape != u_ND.shape or v_ND.shape[0] == 0:
        raise ValueError(f"expected two equal, nonempty N x D matrices, got {tuple(v_ND.shape)}, {tuple(u_ND.shape)}")
    if temperature <= 0 or not 0 <= weight <= 1:
        raise ValueError(f"temperature must be positive and weight in [0, 1], got {temperature} and {weight}")
    with torch.autocast(device_type=v_ND.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(v_ND.dtype, u_ND.dtype), torch.float32)
        v_ND, u_ND = F.normalize(v_ND.to(dtype), dim=1), F.normalize(u_ND.to(dtype), dim=1)
        logits_NN = v_ND @ u_ND.T / temperature
        own_N = torch.arange(len(logits_NN), device=logits_NN.device)
        image_to_text = F.cross_entropy(logits_NN, own_N)
        text_to_image = F.cross_entropy(logits_NN.T, own_N)
        return weight * image_to_text + (1 - weight) * text_to_image
