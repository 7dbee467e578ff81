"""Encoders that were not pretrained here, as checkpoints, so that every row of a table is evaluated alike."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from convirt.config import PretrainConfig
from convirt.methods import Method
from convirt.model import Model, baseline
from convirt.training.checkpoint import save_checkpoint

if TYPE_CHECKING:
    from convirt.data.loading.loader import Batch


class Untrained(Method):
    """An image encoder alone, as a checkpoint holds it."""

    def __init__(self, model: Model) -> None:
        nn.Module.__init__(self)
        self.config = model.config
        self.image_encoder = model.image_encoder

    def loss(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        raise NotImplementedError("a baseline is not trained")

    def save_architecture(self, folder: Path) -> None:
        """Write `image_encoder.json`."""
        assert self.image_encoder is not None
        self.image_encoder.save_architecture(folder)


def write_baseline(kind: Literal["imagenet", "random"], like: PretrainConfig, run: Path) -> None:
    """Write the run folder of a baseline with the architecture of a configuration; its checkpoint is in `best/`.

    Raises:
        InputError: The initial weights cannot be had, or the disk refuses.
    """
    method = Untrained(baseline(kind, like, device="cpu"))
    save_checkpoint(run / "best", method, method.config)
