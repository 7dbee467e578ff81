"""The image encoder f_v (ConVIRT, section 2.3): any timm model, its classifier removed.

Shapes: B images, R side of a view, D size of the feature h_v.
"""

import difflib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.models import is_model, list_models
from torch import Tensor, nn

from convirt.config import ImageEncoderConfig
from convirt.encoders.sources import hub_answers, load_by_name, local_path, read_tensors, weight_file
from convirt.errors import InputError

FILE = "image_encoder.json"


@dataclass(frozen=True, kw_only=True)
class ImageArchitecture:
    """All that rebuilds an image encoder without its weights: what `image_encoder.json` holds."""

    name: str
    """timm model name."""
    dim: int
    """Size of h_v."""
    mean: tuple[float, ...]
    """Per channel, of the data that the model was first trained on; its length is the number of channels."""
    std: tuple[float, ...]


class ImageEncoder(nn.Module):
    """f_v: grey views in [0, 1] to features h_v."""

    mean_C11: Tensor
    std_C11: Tensor
    matched: str = ""
    """What of a file of initial weights went into the model, for people."""

    def __init__(self, backbone: nn.Module, architecture: ImageArchitecture) -> None:
        super().__init__()
        self.backbone = backbone
        self.architecture = architecture
        self.register_buffer("mean_C11", torch.tensor(architecture.mean)[:, None, None], persistent=False)
        self.register_buffer("std_C11", torch.tensor(architecture.std)[:, None, None], persistent=False)

    @property
    def dim(self) -> int:
        """Size of h_v."""
        return self.architecture.dim

    def forward(self, images_B1RR: Tensor) -> Tensor:
        """Encode float views in [0, 1]: grey is repeated to the model's channels and normalised as its weights expect.

        Returns:
            h_v_BD, not normalised.
        """
        return self.backbone(self._normalised(images_B1RR))

    def grid(self, images_B1RR: Tensor) -> Tensor:
        """The last feature map, before pooling: one vector for each place of the image.

        Returns:
            map_BDHW; H = W = R / 32 for most convolutional models.

        Raises:
            InputError: The model has no such map (a vision transformer gives tokens).
        """
        map_BDHW = self.backbone.forward_features(self._normalised(images_B1RR))  # type: ignore[operator]
        if map_BDHW.ndim != 4:
            raise InputError(
                f"{self.architecture.name} has no spatial feature map; take a convolutional image_encoder.name"
            )
        return map_BDHW

    @property
    def grid_dim(self) -> int:
        """Channels of `grid`."""
        return int(self.backbone.num_features)  # type: ignore[arg-type]

    def _normalised(self, images_B1RR: Tensor) -> Tensor:
        images_BCRR = (images_B1RR - self.mean_C11) / self.std_C11
        # Convolutions are faster on both processors and GPUs when channels come last.
        return images_BCRR.contiguous(memory_format=torch.channels_last)

    def save_architecture(self, folder: Path) -> None:
        """Write `image_encoder.json`, from which `load_image_encoder` rebuilds this module without its weights."""
        (folder / FILE).write_text(json.dumps(asdict(self.architecture), indent=2) + "\n")


def build_image_encoder(config: ImageEncoderConfig, *, seed: int = 0) -> ImageEncoder:
    """Build f_v with its initial weights.

    Args:
        config: Architecture and source of the weights.
        seed: Decides random weights; the global random state is left as it was.

    Raises:
        InputError: No such model, or its weights cannot be had or do not fit.
    """
    _require_model(config.name)
    matched = ""
    if config.weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = timm.create_model(config.name, pretrained=False, num_classes=0)
    elif config.weights == "hub":
        backbone = _from_hub(config)
    else:
        backbone, matched = _from_file(config)
    encoder = ImageEncoder(backbone, _architecture(config.name, backbone))
    encoder.matched = matched
    return encoder


def _from_hub(config: ImageEncoderConfig) -> Any:
    """The weights of timm's pretrained tag, from the hub's cache on this machine if they are there."""
    preset = timm.get_pretrained_cfg(config.name)
    hub_id = preset.hf_hub_id if preset is not None else None
    cached = try_to_load_from_cache(hub_id, "model.safetensors") if hub_id else None
    overlay = {"file": cached} if isinstance(cached, str) else None
    try:
        if overlay is None and not hub_answers():
            raise ConnectionError
        return timm.create_model(config.name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except Exception as error:  # whatever the hub's client raises when it is refused, or the model has no weights
        raise InputError(
            f"cannot get the weights of {config.name!r} from the hub ({type(error).__name__}): "
            "give a local file or folder as image_encoder.weights, or 'random'"
        ) from error


def _from_file(config: ImageEncoderConfig) -> tuple[Any, str]:
    """The weights of a local file, and what of them matched."""
    path = local_path(config.weights)
    if path is None:
        raise InputError(
            f"image_encoder.weights {config.weights!r} is neither hub, random, package:NAME nor an existing file"
        )
    file = weight_file(path)
    tensors = read_tensors(file)
    backbone: Any = timm.create_model(config.name, pretrained=False)
    matched = load_by_name(backbone, tensors, where=str(file), head=_classifier(backbone))
    backbone.reset_classifier(0)
    return backbone, matched


def load_image_encoder(folder: Path) -> ImageEncoder:
    """Rebuild f_v from `image_encoder.json`; its weights are arbitrary until a state dict is loaded.

    Raises:
        InputError: The file is missing or damaged, or this version of timm lacks the model.
    """
    try:
        values = json.loads((folder / FILE).read_text())
        architecture = ImageArchitecture(
            name=values["name"], dim=values["dim"], mean=tuple(values["mean"]), std=tuple(values["std"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {folder / FILE}: not a checkpoint folder, or damaged") from error
    _require_model(architecture.name)
    with torch.random.fork_rng(devices=[]):  # the global random state is left as it was
        return ImageEncoder(timm.create_model(architecture.name, pretrained=False, num_classes=0), architecture)


def _require_model(name: str) -> None:
    if not is_model(name):
        close = difflib.get_close_matches(name, list_models(), n=3)
        raise InputError(f"timm has no model {name!r}" + (f"; close are {', '.join(close)}" if close else ""))
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        architecture = name.partition(".")[0]
        tags = ", ".join(list_models(f"{architecture}.*", pretrained=True))
        raise InputError(f"timm has no weights {name!r}; known are {tags or architecture}") from error


def _architecture(name: str, backbone: Any) -> ImageArchitecture:
    preset = backbone.pretrained_cfg
    # Some models pool to fewer numbers than their last feature map has channels, or to more.
    dim = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return ImageArchitecture(name=name, dim=int(dim), mean=tuple(preset["mean"]), std=tuple(preset["std"]))


def _classifier(backbone: Any) -> str:
    classifier = backbone.pretrained_cfg["classifier"]
    return classifier if isinstance(classifier, str) else classifier[0]
