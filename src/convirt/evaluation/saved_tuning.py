"""Fine-tuning on disk: its state between two epochs, and the encoder that it leaves behind."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from safetensors.torch import save
from torch import Tensor, nn

from convirt.atomic import disk_errors, latest_complete, write_bytes
from convirt.config import PretrainConfig
from convirt.errors import InputError
from convirt.evaluation.finetuning import Classifier, FineTuning
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
        "plateau": plateau.state(),
    }
    if tuning.epoch == int(plateau.epoch_S[0]):  # beside the folder: it changes less often than the rest
        best = {name: tensor.cpu().contiguous().clone() for name, tensor in tuning.best.items()}
        with disk_errors(folder.parent):
            write_bytes(_best(folder, tuning.epoch), save(best))
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
    complete = latest_complete(folder)
    if complete is None:
        return False
    state = read_state(complete)
    if state.get("key") != key:
        raise InputError(
            f"{folder.parent} holds a fine-tuning with other settings, data or another run; give another --out"
        )
    method = FineTuned(config, tuning.classifier)
    load_weights(method, read_tensors(complete / WEIGHTS), complete / WEIGHTS)
    tuning.adam = tuning.optimiser()
    restore_optimiser(method, tuning.adam, read_tensors(complete / OPTIMISER))
    tuning.epoch, tuning.step = state["epoch"], state["step"]
    tuning.plateau.restore(state["plateau"])
    tuning.best = read_tensors(_best(folder, int(tuning.plateau.epoch_S[0])))
    return True


def train_on_disk(tuning: FineTuning, out: Path, config: PretrainConfig, key: str) -> None:
    """Train to the end, going on from the state in `out/last` and leaving it there after each epoch.

    Raises:
        InputError: The state is of other settings, or cannot be written.
    """
    console, last = Console(), out / "last"
    if restore_progress(last, tuning, config, key):
        console.print(f"going on after epoch {tuning.epoch}", highlight=False)
    elif list(out.glob(f"*-{BEST_SO_FAR}")):
        for leftover in out.glob(f"*-{BEST_SO_FAR}"):  # killed before the first state was whole
            leftover.unlink()

    def after_epoch(tuning: FineTuning) -> None:
        save_progress(last, tuning, config, key)
        plateau = tuning.plateau
        console.print(
            f"epoch {tuning.epoch}, step {tuning.step}: best validation score {plateau.best_S[0]:.4f} "
            f"at epoch {plateau.epoch_S[0]}, rate {float(plateau.rate_S[0]):.2g}",
            highlight=False,
        )

    tuning.run(after_epoch)
