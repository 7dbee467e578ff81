"""Fine-tuning on disk: its state between two epochs, and the encoder that it leaves behind."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from convirt.atomic import latest_complete
from convirt.config import PretrainConfig
from convirt.errors import InputError
from convirt.evaluation.classification.finetuning import Classifier, FineTuning
from convirt.evaluation.results import replace_file
from convirt.methods import Method
from convirt.training.checkpoint import (
    OPTIMISER,
    WEIGHTS,
    load_weights,
    read_state,
    read_tensors,
    save_checkpoint,
)
from convirt.training.optimiser import optimiser_tensors, restore_optimiser

if TYPE_CHECKING:
    from convirt.data.loading.loader import Batch

BEST_SO_FAR = "best_so_far.safetensors"


class FineTuned(Method):
    """An image encoder and its head as a checkpoint holds them; it trains by `FineTuning` alone."""

    def __init__(self, config: PretrainConfig, classifier: Classifier) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.image_encoder = classifier.encoder
        self.head = classifier.head

    def loss(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        raise NotImplementedError("a fine-tuned encoder has no pretraining loss")

    def save_architecture(self, folder: Path) -> None:
        """Write `image_encoder.json`."""
        assert self.image_encoder is not None
        self.image_encoder.save_architecture(folder)


def save_encoder(folder: Path, tuning: FineTuning, config: PretrainConfig) -> None:
    """Write the checkpoint folder of the current encoder and head; `convirt.load` takes it.

    Raises:
        InputError: The disk is full or not writable.
    """
    save_checkpoint(folder, FineTuned(config, tuning.classifier), config)


def save_progress(folder: Path, tuning: FineTuning, config: PretrainConfig, key: str) -> None:
    """Write everything that going on after this epoch needs, in one move.

    Raises:
        InputError: The disk is full or not writable.
    """
    assert tuning.adam is not None, "saved after an epoch"
    method, plateau = FineTuned(config, tuning.classifier), tuning.plateau
    state: dict[str, Any] = {
        "key": key,
        "epoch": tuning.epoch,
        "step": tuning.step,
        "plateau": {name: value.tolist() for name, value in plateau.state().items()},
    }
    if tuning.epoch == int(plateau.epoch_S[0]):  # beside the folder: it changes less often than the rest
        best = {name: tensor.cpu().contiguous().clone() for name, tensor in tuning.best.items()}
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            replace_file(_best(folder, tuning.epoch), lambda file: file.write(save(best)))
        except OSError as error:
            raise InputError(f"cannot write to {folder.parent}: {error.strerror or error}") from error
    save_checkpoint(folder, method, config, optimiser=optimiser_tensors(method, tuning.adam), state=state)
    for old in folder.parent.glob(f"*-{BEST_SO_FAR}"):
        if old != _best(folder, int(plateau.epoch_S[0])):
            old.unlink()


def _best(folder: Path, epoch: int) -> Path:
    return folder.parent / f"{epoch}-{BEST_SO_FAR}"


def restore_progress(folder: Path, tuning: FineTuning, config: PretrainConfig, key: str) -> bool:
    """Go back to where `save_progress` left off; says whether there was anything.

    Raises:
        InputError: It is of other settings, or damaged.
    """
    standing = latest_complete(folder)
    if standing is None:
        return False
    state = read_state(standing)
    if state.get("key") != key:
        raise InputError(
            f"{folder.parent} holds a fine-tuning with other settings, data or another run; give another --out"
        )
    method = FineTuned(config, tuning.classifier)
    load_weights(method, read_tensors(standing / WEIGHTS), standing / WEIGHTS)
    tuning.adam = tuning.optimiser()
    restore_optimiser(method, tuning.adam, read_tensors(standing / OPTIMISER))
    tuning.epoch, tuning.step = state["epoch"], state["step"]
    tuning.plateau.restore({name: np.array(value) for name, value in state["plateau"].items()})
    tuning.best = read_tensors(_best(folder, int(tuning.plateau.epoch_S[0])))
    return True
