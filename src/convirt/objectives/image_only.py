"""Contrastive objectives between views of the same image, without texts (ConVIRT, appendix E).

Shapes: N images, D size of the projected vectors, K keys in the queue.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from convirt.objectives.contrastive import cosine_similarities


def nt_xent_loss(first_ND: Tensor, second_ND: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent, the loss of SimCLR (Chen et al. 2020, equation 1 and algorithm 1).

    With z_1 ... z_2N all vectors of both views, j(i) the other view of the image of i, and <., .> the cosine::

        L = -mean_i log( exp(<z_i, z_j(i)> / tau) / sum_{k != i} exp(<z_i, z_k> / tau) )

    Args:
        first_ND: Vectors of one view of each image, not necessarily of unit length.
        second_ND: Of another view; row i is of the same image as row i of `first_ND`.
        temperature: tau, positive.

    Returns:
        The scalar loss, in float32 or better.

    Raises:
        ValueError: The matrices differ in shape, are empty or are no matrices, or the temperature is not positive.
    """
    if temperature <= 0 or first_ND.shape != second_ND.shape:
        raise ValueError(
            f"temperature must be positive and both views equal in shape, got {temperature}, {tuple(first_ND.shape)} "
            f"and {tuple(second_ND.shape)}"
        )
    with torch.autocast(device_type=first_ND.device.type, enabled=False):
        vectors = torch.cat([first_ND, second_ND])
        logits = cosine_similarities(vectors, vectors) / temperature
        logits = logits.masked_fill(torch.eye(len(logits), dtype=torch.bool, device=logits.device), -torch.inf)
        other_view = torch.arange(len(logits), device=logits.device).roll(len(first_ND))
        return F.cross_entropy(logits, other_view)


def queue_contrastive_loss(
    query_ND: Tensor, key_ND: Tensor, queue_KD: Tensor, temperature: float = 0.07
) -> tuple[Tensor, Tensor]:
    """InfoNCE against a queue of earlier keys, the loss of MoCo (He et al. 2020, equation 1 and algorithm 1).

    With q_i the query and k_i the key of an image, and n_1 ... n_K the keys of the queue, all of unit length::

        L = -mean_i log( exp(q_i k_i / tau) / ( exp(q_i k_i / tau) + sum_j exp(q_i n_j / tau) ) )

    Args:
        query_ND: Unit vectors of one view of each image.
        key_ND: Unit vectors of another view of the same images, by the key encoder.
        queue_KD: Unit vectors of earlier keys.
        temperature: tau, positive.

    Returns:
        The scalar loss, in float32 or better, and how often the own key is the nearest, in [0, 1].

    Raises:
        ValueError: Shapes do not fit, or the temperature is not positive.
    """
    if temperature <= 0 or query_ND.shape != key_ND.shape or queue_KD.shape[1:] != query_ND.shape[1:]:
        raise ValueError(
            f"temperature must be positive and sizes equal, got {temperature}, {tuple(query_ND.shape)}, "
            f"{tuple(key_ND.shape)} and {tuple(queue_KD.shape)}"
        )
    with torch.autocast(device_type=query_ND.device.type, enabled=False):
        dtype = torch.promote_types(query_ND.dtype, torch.float32)
        query_ND, key_ND, queue_KD = (x.to(dtype) for x in (query_ND, key_ND, queue_KD))
        own_N1 = (query_ND * key_ND).sum(dim=1, keepdim=True)
        logits = torch.cat([own_N1, query_ND @ queue_KD.T], dim=1) / temperature
        hits = (logits.argmax(dim=1) == 0).float().mean()
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device)), hits
