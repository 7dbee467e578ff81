"""Real or fake: the binary objective of Contrastive-Binary, and how its fake pairs are drawn (ConVIRT, section 3.3).

Shapes: N real pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_pair_loss(real_N: Tensor, fake_N: Tensor) -> Tensor:
    """The binary cross-entropy of real and fake pairs.

    With a the logit of a real pair and b that of its fake one::

        L = -mean_i ( log sigmoid(a_i) + log(1 - sigmoid(b_i)) ) / 2

    Args:
        real_N: Logits of the real pairs.
        fake_N: Logits of the fake pairs, one for each real pair.

    Returns:
        The scalar loss, in float32 or better; log 2 for a head that cannot tell.

    Raises:
        ValueError: The two differ in shape, or are empty.
    """
    if real_N.ndim != 1 or real_N.shape != fake_N.shape or len(real_N) == 0:
        raise ValueError(f"expected two equal, nonempty vectors, got {tuple(real_N.shape)} and {tuple(fake_N.shape)}")
    with torch.autocast(device_type=real_N.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(real_N.dtype, fake_N.dtype), torch.float32)
        real_N, fake_N = real_N.to(dtype), fake_N.to(dtype)
        return (F.softplus(-real_N).mean() + F.softplus(fake_N).mean()) / 2


def draw_fakes(sentences: list[str], generator: torch.Generator) -> Tensor:
    """Draw for each pair another pair of the batch, whose text takes the place of its own.

    No pair gets its own text, each text is used once, and no pair gets a sentence equal to its own, unless more than
    half of the batch share one: what is called fake would be real.

    Args:
        sentences: Those of the batch, at least two.
        generator: Where the randomness comes from.

    Returns:
        Whose text each pair gets, int64 [N], on the CPU.
    """
    if len(sentences) < 2:
        raise ValueError("a fake pair needs the text of another pair; give a batch of at least 2")
    order = torch.randperm(len(sentences), generator=generator).tolist()
    members: dict[str, list[int]] = {}
    for pair in order:
        members.setdefault(sentences[pair], []).append(pair)
    # Equal sentences stand together in a ring; a step as long as the longest run of them leaves every run.
    ring = torch.tensor([pair for pairs in members.values() for pair in pairs])
    step = max(map(len, members.values())) % len(ring) or 1
    fakes_N = torch.empty_like(ring)
    fakes_N[ring] = ring.roll(-step)
    return fakes_N
