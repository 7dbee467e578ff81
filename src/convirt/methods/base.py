"""What every pretraining method has in common: the trainer knows nothing else of a method."""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from convirt.config import PretrainConfig
from convirt.encoders import ImageEncoder

if TYPE_CHECKING:
    from convirt.data.loading.loader import Batch


class Method(nn.Module):
    """A pretraining method: a loss over batches, and the image encoder that it leaves behind.

    A subclass defines `__init__(config, *, folder=None)`, `loss` and `save_architecture`, and is entered in
    `convirt.methods.METHODS`.
    """

    image_encoder: ImageEncoder
    """f_v, what pretraining is for."""

    def __init__(self, config: PretrainConfig, *, folder: Path | None = None) -> None:
        """Build every module.

        Args:
            config: The run's configuration.
            folder: A checkpoint folder whose architecture files to build from, instead of reading initial weights.
        """
        super().__init__()
        self.config = config

    @classmethod
    def from_folder(cls, config: PretrainConfig, folder: Path) -> Self:
        """Build the architecture of a checkpoint folder; its state dict is yet to be loaded."""
        return cls(config, folder=folder)

    @abstractmethod
    def loss(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch.

        Args:
            batch: Prepared images and sentences.
            generator: CPU generator that the augmentation draws from; None means validation, with no augmentation.

        Returns:
            The scalar loss, and further scalars to log.
        """

    @abstractmethod
    def save_architecture(self, folder: Path) -> None:
        """Write into `folder` all that `from_folder` needs besides the configuration."""

    def forward(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The same as `loss`, for wrappers that act on `forward`."""
        return self.loss(batch, generator)

    def parameters_to_train(self) -> dict[str, nn.Parameter]:
        """Name and tensor of each trained parameter: exactly what the optimiser gets."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device
