"""MoCo v2: contrastive learning of images against a queue of earlier keys (ConVIRT, appendix E; He et al. 2020).

The key encoder follows the trained one slowly, and its vectors of the last batches are the negatives. The head with a
hidden layer and the augmentations are those of version 2 (Chen et al. 2020b).

Shapes: B images in the batch, R side of the views, D size of the projected vectors, K keys in the queue.
"""

from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convirt.data.loading.loader import Batch
from convirt.data.records import AnyCorpus
from convirt.data.splits import derive_seed
from convirt.errors import InputError
from convirt.methods.base import encode_views
from convirt.methods.simclr import TwoViews
from convirt.objectives import queue_contrastive_loss
from convirt.recipes.image_only import MoCoObjective


class MoCo(TwoViews):
    """q of one view against k of another, and against a queue of keys; all of it lies in the state dict."""

    queue_KD: Tensor
    """Unit vectors of the last K keys; random ones at first, as in the authors' code."""
    oldest: Tensor
    """The row of the queue to replace next, int64 scalar."""

    title = "MoCo v2"
    objective_class = MoCoObjective
    objective: MoCoObjective

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Build the encoder and its head, their slow copies, and the queue.

        Raises:
            InputError: The queue is shorter than a batch.
        """
        super().build(folder, corpus)
        config = self.config
        if config.optimiser.batch_size > self.objective.queue:
            raise InputError(
                f"objective.queue {self.objective.queue} is shorter than a batch of {config.optimiser.batch_size}; "
                "lengthen the queue or lower optimiser.batch_size"
            )
        self.key_encoder = deepcopy(self.image_encoder).requires_grad_(False)
        self.key_head = deepcopy(self.head).requires_grad_(False)
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "queue"))
        queue_KD = torch.randn(self.objective.queue, config.projection.dim, generator=generator)
        self.register_buffer("queue_KD", F.normalize(queue_KD, dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """InfoNCE of one batch against the queue; in training the key encoder and the queue move on.

        In validation the negatives are the keys of the batch's other images: losses against a queue that changes
        could not be compared with one another, and the first, against random vectors, would be the lowest.

        Returns:
            The scalar loss, and `own_key_nearest`, how often a query finds its key.
        """
        views_B1RR, other_views_B1RR = self.two_views(batch, generator)
        if generator is None:
            query_BD = _unit(self.image_encoder, self.head, views_B1RR)
            key_BD = _unit(self.key_encoder, self.key_head, other_views_B1RR)
            return _against_each_other(query_BD, key_BD, self.objective.temperature)
        self._follow()
        with torch.no_grad():
            key_BD = self._keys(other_views_B1RR, generator)
        parts = views_B1RR.chunk(self.objective.norm_groups)
        query_BD = torch.cat([_unit(self.image_encoder, self.head, part) for part in parts])
        loss, hits = queue_contrastive_loss(query_BD, key_BD, self.queue_KD.clone(), self.objective.temperature)
        self._enqueue(key_BD)
        return loss, {"own_key_nearest": float(hits)}

    def _keys(self, views_B1RR: Tensor, generator: torch.Generator) -> Tensor:
        """Keys k_BD; as on the paper's two GPUs, each group has a batch norm of its own and a shuffled membership.

        A query and its key then differ in what shares their batch norm, which else could tell them (He et al., 3.3).
        """
        order_B = torch.randperm(len(views_B1RR), generator=generator).to(views_B1RR.device)
        parts = views_B1RR[order_B].chunk(self.objective.norm_groups)
        shuffled_BD = torch.cat([_unit(self.key_encoder, self.key_head, part) for part in parts])
        return shuffled_BD[order_B.argsort()]

    @torch.no_grad()
    def _follow(self) -> None:
        """theta_k <- m theta_k + (1 - m) theta_q (He et al., equation 2); running statistics stay the keys' own."""
        pairs = ((self.key_encoder, self.image_encoder), (self.key_head, self.head))
        for followers, leaders in ((f.parameters(), leader.parameters()) for f, leader in pairs):
            for follower, leader in zip(followers, leaders, strict=True):
                follower.lerp_(leader, 1 - self.objective.key_momentum)

    @torch.no_grad()
    def _enqueue(self, key_BD: Tensor) -> None:
        """Put the keys in the place of the oldest ones, around the end of the queue if need be."""
        places_B = (self.oldest + torch.arange(len(key_BD), device=key_BD.device)) % len(self.queue_KD)
        self.queue_KD[places_B] = key_BD
        self.oldest.add_(len(key_BD)).remainder_(len(self.queue_KD))


def _unit(encoder: nn.Module, head: nn.Module, views_B1RR: Tensor) -> Tensor:
    """Projected vectors of unit length, in float32 or better."""
    vectors_BD = head(encode_views(encoder, views_B1RR))
    return F.normalize(vectors_BD.to(torch.promote_types(vectors_BD.dtype, torch.float32)), dim=1)


def _against_each_other(query_BD: Tensor, key_BD: Tensor, temperature: float) -> tuple[Tensor, dict[str, float]]:
    """InfoNCE whose negatives are the keys of the batch's other images."""
    logits_BB = query_BD @ key_BD.T / temperature
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    hits = (logits_BB.argmax(dim=1) == own_B).float().mean()
    return F.cross_entropy(logits_BB, own_B), {"own_key_nearest": float(hits)}
