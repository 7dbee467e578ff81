"""Checkpoint folders: safetensors, JSON and tokenizer files that rebuild a model with nothing else; never a pickle.

A checkpoint folder appears whole or not at all. It is written beside its place, flushed to the disk, and swapped in by
two renames; after a kill between the two, its predecessor still lies beside (`atomic.latest_complete`).
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from convirt.atomic import atomic_folder, write_bytes, write_json
from convirt.config import PretrainConfig, from_dict
from convirt.errors import InputError
from convirt.methods import Method
from convirt.training import CONFIG

FORMAT = 2
WEIGHTS = "model.safetensors"
OPTIMISER = "optimiser.safetensors"
STATE = "state.json"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint.

    Raises:
        InputError: The file is missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent}: no checkpoint, {path.name} is missing") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: damaged checkpoint ({error}); take another checkpoint or train anew") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: damaged checkpoint (not a JSON object); take another checkpoint or train anew")
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file of a checkpoint, onto the CPU.

    Raises:
        InputError: The file is missing, cut short or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path.parent}: damaged checkpoint, {path.name} is missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: damaged checkpoint ({reason}); take another checkpoint or train anew") from None


def read_config(folder: Path) -> PretrainConfig:
    """The configuration that a checkpoint or a run was made with."""
    path = folder / CONFIG
    return from_dict(PretrainConfig, read_json(path), where=str(path))


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors: on the CPU, in plain memory order, each with memory of its own."""
    plain = {
        name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    write_bytes(path, save(plain))  # not by its `save_file`, whose files are private whatever the umask says


def save_checkpoint(
    folder: Path,
    method: Method,
    config: PretrainConfig,
    *,
    optimiser: dict[str, Tensor] | None = None,
    state: dict[str, Any] | None = None,
) -> None:
    """Write one checkpoint folder.

    Args:
        folder: Where; a checkpoint that is there is replaced once the new one is complete.
        method: The model with all its parts; it writes its own architecture files.
        config: The configuration of the run.
        optimiser: The optimiser's tensors, for resuming.
        state: Everything else that resuming needs, as JSON values.

    Raises:
        InputError: The disk is full or not writable; what was there before is untouched.
    """
    try:
        with atomic_folder(folder, replace=True) as new:
            method.save_architecture(new)
            write_json(new / CONFIG, asdict(config))
            write_tensors(new / WEIGHTS, method.state_dict())
            if optimiser is not None:
                write_tensors(new / OPTIMISER, optimiser)
            if state is not None:
                write_json(new / STATE, {"format": FORMAT, **state})
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        kept = "the checkpoint before it is intact" if folder.is_dir() else "there is no earlier one"
        raise InputError(
            f"{folder}: cannot write the checkpoint ({reason}); {kept}: make room there and go on with --resume"
        ) from error


def load_weights(method: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Put saved weights into a model, all of them and nothing else.

    Raises:
        InputError: Names or shapes do not fit.
    """
    try:
        method.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: the weights do not fit the configuration beside them ({reason})") from None


def read_state(folder: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as `state`.

    Raises:
        InputError: Missing, damaged, or of another format version.
    """
    path = folder / STATE
    state = read_json(path)
    if state.get("format") != FORMAT:
        raise InputError(f"{path}: checkpoint format {state.get('format')!r}, this version of convirt reads {FORMAT}")
    return state
