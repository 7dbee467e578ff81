"""Contrastive objectives: between images and texts, and between views of the same image (ConVIRT, appendix E).

Shapes: N pairs, or images, in the minibatch, D size of the shared space, K keys in the queue.
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
        ValueError: The two matrices differ in shape, are empty or are not matrices, or a constant is out of range.
    """
    if temperature <= 0 or not 0 <= weight <= 1:
        raise ValueError(f"temperature must be positive and weight in [0, 1], got {temperature} and {weight}")
    with torch.autocast(device_type=v_ND.device.type, enabled=False):
        logits_NN = cosine_similarities(v_ND, u_ND) / temperature
        own_N = torch.arange(len(logits_NN), device=logits_NN.device)
        image_to_text = F.cross_entropy(logits_NN, own_N)
        text_to_image = F.cross_entropy(logits_NN.T, own_N)
        return weight * image_to_text + (1 - weight) * text_to_image


def scaled_contrastive_loss(v_ND: Tensor, u_ND: Tensor, scale: Tensor) -> Tensor:
    """The symmetric loss of CLIP (Radford et al. 2021, figure 3), whose temperature is learned.

    With <v, u> the cosine similarity and s the scale, which stands for 1 / tau::

        L = mean_i ( -log softmax_k(s <v_i, u_k>)_i - log softmax_k(s <u_i, v_k>)_i ) / 2

    Args:
        v_ND: Image vectors, not necessarily of unit length; row i belongs to row i of `u_ND`.
        u_ND: Text vectors.
        scale: s, a positive scalar that may want a gradient.

    Returns:
        The scalar loss, in float32 or better.

    Raises:
        ValueError: The two matrices differ in shape, are empty or are not matrices.
    """
    with torch.autocast(device_type=v_ND.device.type, enabled=False):
        logits_NN = scale * cosine_similarities(v_ND, u_ND)
        own_N = torch.arange(len(logits_NN), device=logits_NN.device)
        return (F.cross_entropy(logits_NN, own_N) + F.cross_entropy(logits_NN.T, own_N)) / 2


def sigmoid_pair_loss(v_ND: Tensor, u_ND: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The sigmoid loss of SigLIP (Zhai et al. 2023, section 3.2 and algorithm 1), over all pairs of the minibatch.

    With <v, u> the cosine similarity, t the scale, b the bias, and z_ij = 1 where i = j, else -1::

        L = -mean_i sum_j log sigmoid( z_ij (t <v_i, u_j> + b) )

    Args:
        v_ND: Image vectors, not necessarily of unit length; row i belongs to row i of `u_ND`.
        u_ND: Text vectors.
        scale: t, a positive scalar that may want a gradient.
        bias: b, a scalar that may want a gradient.

    Returns:
        The scalar loss, in float32 or better.

    Raises:
        ValueError: The two matrices differ in shape, are empty or are not matrices.
    """
    with torch.autocast(device_type=v_ND.device.type, enabled=False):
        logits_NN = scale * cosine_similarities(v_ND, u_ND) + bias
        signs_NN = 2 * torch.eye(len(logits_NN), dtype=logits_NN.dtype, device=logits_NN.device) - 1
        return -F.logsigmoid(signs_NN * logits_NN).sum() / len(logits_NN)


def semantic_matching_loss(
    v_ND: Tensor,
    u_ND: Tensor,
    image_findings_NC: Tensor,
    text_findings_NC: Tensor,
    scale: Tensor,
    *,
    target_temperature: float = 1.0,
) -> Tensor:
    """The semantic matching loss of MedCLIP (Wang et al. 2022, section 3.4), for images and texts that are not pairs.

    With s_ij the cosine similarity of the findings of image i and of text j, and z_ij that of their vectors::

        y(v->u)_ij = softmax_j(s_ij / T)        y(u->v)_ji = softmax_i(s_ij / T)
        p(v->u)_ij = softmax_j(z_ij / tau)      p(u->v)_ji = softmax_i(z_ij / tau)
        L(v->u) = -mean_i sum_j y(v->u)_ij log p(v->u)_ij, L(u->v) likewise, L = (L(v->u) + L(u->v)) / 2

    Args:
        v_ND: Image vectors, not necessarily of unit length.
        u_ND: Text vectors.
        image_findings_NC: Findings of each image, multi-hot; no row may be zero.
        text_findings_NC: Findings of each text.
        scale: 1 / tau, a positive scalar that may want a gradient.
        target_temperature: T, above 0; the paper has none, which is 1.

    Returns:
        The scalar loss, in float32 or better. Its least value is the entropy of the soft targets, not 0.

    Raises:
        ValueError: Shapes do not fit, or something has no finding at all: it has no direction.
    """
    if len(image_findings_NC) != len(v_ND):
        raise ValueError(f"expected findings of {len(v_ND)} images and texts, got {len(image_findings_NC)}")
    with torch.autocast(device_type=v_ND.device.type, enabled=False):
        logits_NN = scale * cosine_similarities(v_ND, u_ND)
        meaning_NN = _meaning(image_findings_NC, text_findings_NC).to(logits_NN.dtype) / target_temperature
        image_to_text = F.cross_entropy(logits_NN, meaning_NN.softmax(dim=1))
        text_to_image = F.cross_entropy(logits_NN.T, meaning_NN.T.softmax(dim=1))
        return (image_to_text + text_to_image) / 2


def matching_entropy(image_findings_NC: Tensor, text_findings_NC: Tensor, *, target_temperature: float = 1.0) -> Tensor:
    """The mean entropy of the soft targets of both directions, nats: what `semantic_matching_loss` is at its least."""
    meaning_NN = _meaning(image_findings_NC, text_findings_NC) / target_temperature
    rows_NN, columns_NN = meaning_NN.log_softmax(dim=1), meaning_NN.log_softmax(dim=0)
    return -((rows_NN.exp() * rows_NN).sum() + (columns_NN.exp() * columns_NN).sum()) / (2 * len(meaning_NN))


def _meaning(image_findings_NC: Tensor, text_findings_NC: Tensor) -> Tensor:
    """s_ij, in float32 or better."""
    if not bool((image_findings_NC.any(dim=1)).all() and text_findings_NC.any(dim=1).all()):
        raise ValueError("a row without any finding has no direction; give it a class of its own, such as No Finding")
    return cosine_similarities(image_findings_NC, text_findings_NC)


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
        ValueError: The matrices differ in shape, are empty or are not matrices, or the temperature is not positive.
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


def cosine_similarities(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """<a_i, b_k> for all i and k, [N, N], in float32 or better; call it outside of autocast.

    Raises:
        ValueError: The two matrices differ in shape, are empty or are not matrices.
    """
    if a_ND.ndim != 2 or a_ND.shape != b_ND.shape or a_ND.shape[0] == 0:
        raise ValueError(f"expected two equal, nonempty N x D matrices, got {tuple(a_ND.shape)}, {tuple(b_ND.shape)}")
    dtype = torch.promote_types(torch.promote_types(a_ND.dtype, b_ND.dtype), torch.float32)
    return F.normalize(a_ND.to(dtype), dim=1) @ F.normalize(b_ND.to(dtype), dim=1).T
