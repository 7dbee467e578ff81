"""Fine-tuning of every method, fraction and seed, each a cell that is kept on disk once it is done."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from convirt.encoders import ImageEncoder
from convirt.errors import InputError
from convirt.evaluation.classification.finetuning import Examples, fine_tune
from convirt.evaluation.classification.outcomes import Outcome, Outcomes
from convirt.evaluation.classification.protocol import ClassificationProtocol, Place, draw_subsets
from convirt.evaluation.inputs.canvases import Canvases
from convirt.evaluation.inputs.features import Encoder
from convirt.evaluation.inputs.pooling import Pooled
from convirt.evaluation.results import replace_file

FOLDER = "cells"


@dataclass(frozen=True, kw_only=True)
class Tower:
    """An image encoder that can be fine-tuned."""

    encoder: ImageEncoder
    size: int
    """Side of the views that it takes."""
    device: torch.device

    @classmethod
    def of(cls, model: Encoder) -> "Tower":
        """The image tower of a loaded model.

        Raises:
            InputError: It has none.
        """
        encoder = getattr(model, "image_encoder", None)
        if encoder is None:
            raise InputError(f"{model.name} has no image encoder that could be fine-tuned; give an image method's run")
        return cls(encoder=encoder, size=model.config.transform.size, device=model.device)  # type: ignore[attr-defined]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the architecture and the weights."""
        digest = hashlib.sha256(repr(self.encoder.architecture).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def train_finetuned(
    towers: Mapping[str, Tower],
    canvases: Canvases,
    pooled: Pooled,
    protocol: ClassificationProtocol,
    out: Path,
) -> Outcomes:
    """Fine-tune every method on every fraction with every seed.

    Args:
        towers: Image encoders by method.
        canvases: Every image.
        pooled: Labels and splits, and which images are one row.
        protocol: What to train.
        out: Results folder; done cells lie in its folder `cells` and are not trained again.

    Raises:
        InputError: Training diverges, or the folder cannot be written.
    """
    table = pooled.table
    subsets = {fraction: draw_subsets(table, fraction, protocol.seeds) for fraction in protocol.fractions}
    outcomes: Outcomes = {}
    with Progress(transient=True) as progress:
        bar = progress.add_task("fine-tuning", total=len(towers) * len(subsets) * len(protocol.seeds))
        for fraction in protocol.fractions:
            place = Place(setting="finetuned", head="paper", fraction=fraction)
            for name, tower in towers.items():
                examples = Examples(
                    canvases=canvases,
                    size=tower.size,
                    targets_NC=table.targets_NC,
                    multi_label=table.multi_label,
                    pooled=pooled,
                )
                done = []
                for subset, seed in zip(subsets[fraction], protocol.seeds, strict=True):
                    progress.update(bar, description=f"fine-tuning {name}, {100 * fraction:g} %, seed {seed}")
                    key = cell_key(tower, canvases, pooled, subset, seed, protocol)
                    path = out / FOLDER / f"{_plain(name)}-{fraction:g}-{seed}-{key[:12]}.npz"
                    if (outcome := read_cell(path, key)) is None:
                        outcome = fine_tune(tower.encoder, examples, table, subset, seed, protocol, tower.device)
                        write_cell(path, key, outcome)
                    done.append(outcome)
                    progress.advance(bar)
                outcomes.setdefault(place, {})[name] = Outcome.stack(done)
    return outcomes


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", name)


def cell_key(
    tower: Tower,
    canvases: Canvases,
    pooled: Pooled,
    subset: NDArray[np.int64],
    seed: int,
    protocol: ClassificationProtocol,
) -> str:
    """Hash of everything that a cell's result depends on."""
    table = pooled.table
    settings: dict[str, Any] = {
        "encoder": tower.fingerprint,
        "size": tower.size,
        "device": tower.device.type,
        "images": canvases.sha256,
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


def write_cell(path: Path, key: str, outcome: Outcome) -> None:
    """Keep a cell, in one move.

    Raises:
        InputError: The folder cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, key=key, test=outcome.test_SNC, val=outcome.val_SNC, selected=json.dumps(outcome.selected))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: file.write(buffer.getvalue()))
    except OSError as error:
        raise InputError(f"cannot keep the finished cell {path}: {error.strerror or error}") from error


def read_cell(path: Path, key: str) -> Outcome | None:
    """A kept cell; None where there is none, or one that cannot be read or is of something else."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as kept:
            if str(kept["key"]) != key:
                return None
            return Outcome(test_SNC=kept["test"], val_SNC=kept["val"], selected=json.loads(str(kept["selected"])))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
