"""Fine-tuning on disk: finished ones of `classify`, and of `finetune` the state between two epochs and the encoder."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save
from torch import Tensor, nn

from convirt.atomic import disk_errors, latest_complete, write_bytes
from convirt.config import PretrainConfig
from convirt.errors import InputError
from convirt.evaluation.finetuning import Classifier, Examples, FineTuning, Tower, fine_tune
from convirt.evaluation.inputs.images import Canvases
from convirt.evaluation.inputs.units import Pooled
from convirt.evaluation.protocol import ClassificationProtocol, Outcome, Outcomes, Place
from convirt.jobs import Job
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

CELLS = "cells"
OUTCOME = "outcome.npz"
BEST_SO_FAR = "best_so_far.safetensors"


def train_finetuned(
    towers: Mapping[str, Tower], canvases: Canvases, pooled: Pooled, protocol: ClassificationProtocol, out: Path
) -> Outcomes:
    """Fine-tune every method on every fraction with every seed.

    Args:
        towers: Image encoders by method.
        canvases: Every image.
        pooled: Labels and splits, and which images are one row.
        protocol: What to train.
        out: Results folder; each is a job with a folder in its folder `cells`, and is not trained again once done.

    Raises:
        InputError: Training diverges, or the folder cannot be written.
    """
    subsets = {fraction: protocol.subsets(pooled.table, fraction) for fraction in protocol.fractions}
    outcomes: Outcomes = {}
    with Progress(transient=True) as progress:
        bar = progress.add_task("fine-tuning", total=len(towers) * len(subsets) * len(protocol.seeds))
        for fraction in protocol.fractions:
            place = Place(setting="finetuned", head="paper", fraction=fraction)
            for name, tower in towers.items():
                examples = Examples(tower=tower, canvases=canvases, pooled=pooled)
                done = []
                for subset, seed in zip(subsets[fraction], protocol.seeds, strict=True):
                    progress.update(bar, description=f"fine-tuning {name}, {100 * fraction:g} %, seed {seed}")
                    cell = f"{re.sub(r'[^A-Za-z0-9_.]+', '_', name)}-{fraction:g}-{seed}"
                    done.append(_cell(out / CELLS, cell, examples, subset, seed, protocol))
                    progress.advance(bar)
                outcomes.setdefault(place, {})[name] = Outcome.stack(done)
    return outcomes


def _cell(
    cells: Path,
    name: str,
    examples: Examples,
    subset: NDArray[np.int64],
    seed: int,
    protocol: ClassificationProtocol,
) -> Outcome:
    """One fine-tuning as a job: kept from an earlier call, or trained now."""
    key = cell_key(examples, subset, seed, protocol)

    def work(folder: Path) -> None:
        # A version before 0.2 kept a file where there is a folder now.
        outcome = _read_outcome(folder.with_name(f"{folder.name}.npz"), key)
        if outcome is None:
            outcome = fine_tune(examples, subset, seed, protocol)
        buffer = io.BytesIO()
        np.savez(buffer, key=key, test=outcome.test_SNC, val=outcome.val_SNC, selected=json.dumps(outcome.selected))
        with disk_errors(folder):
            write_bytes(folder / OUTCOME, buffer.getvalue())

    job = Job(name=f"{name}-{key[:12]}", work=work, inputs=lambda: {"key": key})
    job.run(cells)
    kept = _read_outcome(cells / job.name / OUTCOME, key)
    if kept is None:  # damaged since
        job.discard(cells)
        job.run(cells)
        kept = _read_outcome(cells / job.name / OUTCOME, key)
    assert kept is not None, "written just now"
    return kept


def _read_outcome(path: Path, key: str) -> Outcome | None:
    """A kept outcome; None where there is none, or one that cannot be read or is of something else."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as kept:
            if str(kept["key"]) != key:
                return None
            return Outcome(test_SNC=kept["test"], val_SNC=kept["val"], selected=json.loads(str(kept["selected"])))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def cell_key(examples: Examples, subset: NDArray[np.int64], seed: int, protocol: ClassificationProtocol) -> str:
    """Hash of everything that the result of one fine-tuning depends on."""
    table, pooled, tower = examples.table, examples.pooled, examples.tower
    settings: dict[str, Any] = {
        "encoder": tower.fingerprint,
        "size": tower.size,
        "device": tower.device.type,
        "images": examples.canvases.sha256,
        "seed": seed,
        "multi_label": table.multi_label,
        "schedule": asdict(protocol.schedule),
        "warmup": [protocol.warmup_steps, protocol.warmup_rate],
        "max_steps": protocol.max_steps,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    trained_NC = table.targets_NC[table.splits_N != "test"]  # labels of test rows have no part in it
    for array in (subset, trained_NC, np.char.encode(table.splits_N, "utf-8")):
        digest.update(np.ascontiguousarray(array).tobytes())
    if pooled.column is not None:
        digest.update(pooled.index_N.tobytes())
    return digest.hexdigest()


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
