"""A pretrained model at work: images and texts to vectors (ConVIRT, sections 2.2 and 3).

Two spaces are never mixed up: the *features* h_v and h_u of the encoders, which classification and image-image
retrieval use, and the *shared* space of v and u, in which an image can be compared with a text.

Shape legend: N items given, B of them in a batch, H W sides of an image, S side of the padded square, R side of the
view, D size of a vector.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convirt.atomic import latest_complete
from convirt.config import PretrainConfig
from convirt.data.imaging.grey import as_many, grey_image
from convirt.data.imaging.pixels import Unreadable
from convirt.data.imaging.prepared import read_pixels
from convirt.encoders import (
    ImageEncoder,
    PairHead,
    Projection,
    TextEncoder,
    build_image_encoder,
)
from convirt.errors import InputError
from convirt.methods import METHODS
from convirt.training.checkpoint import CONFIG, WEIGHTS, load_weights, read_config, read_tensors
from convirt.transforms import plain_view, square

Space = Literal["shared", "features"]
T = TypeVar("T")


class Model:
    """Two towers, or one of them, ready for inference.

    Attributes:
        config: The configuration that the model was trained with.
        name: For tables: the folder it was loaded from, or the name of the baseline.
        device: Where it computes.
        image_dim, text_dim: Sizes of h_v and h_u; None for an absent tower.
        shared_dim: Size of v and u; None when there are no projections.
        pair_head: The head of Contrastive-Binary, for `match`; None for other methods.
        temperature: tau that training ended with, where it was learned; else None.
    """

    def __init__(
        self,
        config: PretrainConfig,
        *,
        name: str,
        device: torch.device,
        image_encoder: ImageEncoder | None = None,
        image_projection: Projection | None = None,
        text_encoder: TextEncoder | None = None,
        text_projection: Projection | None = None,
        pair_head: PairHead | None = None,
        temperature: float | None = None,
    ) -> None:
        self.config = config
        self.name = name
        self.device = device
        self.image_encoder = _for_inference(image_encoder, device)
        self.image_projection = _for_inference(image_projection, device)
        self.text_encoder = _for_inference(text_encoder, device)
        self.text_projection = _for_inference(text_projection, device)
        self.pair_head = _for_inference(pair_head, device)
        self.temperature = temperature
        self.image_dim = None if image_encoder is None else image_encoder.dim
        self.text_dim = None if text_encoder is None else text_encoder.dim
        projections = (image_projection, text_projection)
        self.shared_dim = next((projection.dim for projection in projections if projection is not None), None)

    def to(self, device: str | torch.device) -> Self:
        """Move the model to another device: a PyTorch device, or `auto` for a GPU if there is one; gives the model.

        Raises:
            InputError: PyTorch has no such device.
        """
        self.device = _device(device)
        for part in vars(self).values():
            if isinstance(part, nn.Module):
                part.to(self.device)
        return self

    @torch.inference_mode()
    def encode_image(
        self, images: Any, *, space: Space = "shared", normalise: bool = True, batch_size: int = 64
    ) -> np.ndarray:
        """Encode images, zero-padded to a square and resized to the view that the model was trained on.

        Args:
            images: One image or an iterable of them, which is read as it goes: paths of PNG, JPEG or DICOM files; PIL
                images; arrays or tensors H x W, 1 x H x W, H x W x 3 or 3 x H x W; uint8, uint16, or floats in [0, 1].
                Colour becomes grey.
            space: `shared` for v, to be compared with texts; `features` for h_v.
            normalise: Scale each vector to length 1.
            batch_size: Images at a time.

        Returns:
            float32 [N, D]; one image gives [1, D].

        Raises:
            InputError: An image has another form or its file cannot be read, or the model has no image tower or no
                shared space.
        """
        encoder = _present(self.image_encoder, "image tower", self.name)
        projection = self._projection(self.image_projection, space)
        size = self.config.transform.size

        def encode(batch: list[Any]) -> Tensor:
            views_B1RR = torch.cat([plain_view(square(_grey(image))[None], size) for image in batch])
            return encoder(views_B1RR.to(self.device))

        dim = self.image_dim if space == "features" else self.shared_dim
        many = [images] if isinstance(images, str | Path) else as_many(images)
        return _encode_all(many, encode, projection, normalise, batch_size, dim)

    @torch.inference_mode()
    def encode_text(
        self, texts: str | Iterable[str], *, space: Space = "shared", normalise: bool = True, batch_size: int = 64
    ) -> np.ndarray:
        """Encode texts; training saw single sentences.

        Args:
            texts: One string or an iterable of them.
            space: `shared` for u, to be compared with images; `features` for h_u.
            normalise: Scale each vector to length 1.
            batch_size: Texts at a time.

        Returns:
            float32 [N, D]; one string gives [1, D].

        Raises:
            InputError: Something is not a string, or the model has no text tower or no shared space.
        """
        encoder = _present(self.text_encoder, "text tower", self.name)
        projection = self._projection(self.text_projection, space)

        def encode(batch: list[str]) -> Tensor:
            if wrong := [type(text).__name__ for text in batch if not isinstance(text, str)]:
                raise InputError(f"encode_text takes strings, got {wrong[0]}")
            return encoder({name: tensor.to(self.device) for name, tensor in encoder.tokenize(batch).items()})

        dim = self.text_dim if space == "features" else self.shared_dim
        return _encode_all([texts] if isinstance(texts, str) else texts, encode, projection, normalise, batch_size, dim)

    def match(self, images: Any, texts: str | Iterable[str], *, batch_size: int = 64) -> np.ndarray:
        """How much each text is each image's own, by the head of Contrastive-Binary (section 3.3).

        Args:
            images: What `encode_image` takes.
            texts: What `encode_text` takes.
            batch_size: Images, and texts, at a time.

        Returns:
            Logits, float32 [N, T]; above 0 the head takes the pair for a real one.

        Raises:
            InputError: The model has no such head, or cannot encode the images or texts.
        """
        v_ND = self.encode_image(images, normalise=False, batch_size=batch_size)
        return self.match_vectors(v_ND, self.encode_text(texts, normalise=False, batch_size=batch_size))

    @torch.inference_mode()
    def match_vectors(self, v_ND: np.ndarray, u_TD: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
        """The same as `match`, for vectors of the shared space that are not normalised.

        Raises:
            InputError: The model has no such head.
        """
        head = _present(self.pair_head, "head that matches pairs", self.name)
        texts_TD = torch.from_numpy(u_TD).to(self.device)
        rows = [
            head.all_pairs(torch.from_numpy(v_ND[start : start + batch_size]).to(self.device), texts_TD).cpu().numpy()
            for start in range(0, len(v_ND), batch_size)
        ]
        return np.concatenate(rows) if rows else np.empty((0, len(u_TD)), dtype=np.float32)

    def _projection(self, projection: Projection | None, space: Space) -> Projection | None:
        if space not in ("shared", "features"):
            raise InputError(f"space {space!r} is unknown; it is 'shared' or 'features'")
        return None if space == "features" else _present(projection, "shared space (use space='features')", self.name)


def load(
    run: str | Path, *, part: Literal["both", "image", "text"] = "both", device: str | torch.device = "auto"
) -> Model:
    """Load a pretrained model from what its folder holds alone: no hub, no package of weights.

    Args:
        run: Folder of a run, of which `best/` is taken, or a checkpoint folder.
        part: Load one tower alone, in half the time and memory.
        device: A PyTorch device, or `auto` for a GPU if there is one.

    Raises:
        InputError: There is no checkpoint, or it is damaged, or PyTorch has no such device.
    """
    target = _device(device)
    run = Path(run)
    folder = latest_complete(run / "best") or run
    if not folder.is_dir():
        raise InputError(f"{run}: no such folder; give the --out folder of `convirt pretrain`")
    if not (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file() and (folder / "corpus.json").is_file():
        raise InputError(f"{run}: the run has no best checkpoint yet; it comes with the first evaluation")
    if (folder / "corpus.json").is_file() and not (folder / CONFIG).is_file():
        raise InputError(f"{run} is a corpus, no run; give the --out folder of `convirt pretrain`")
    if part not in ("both", "image", "text"):
        raise InputError(f"part {part!r} is unknown; it is 'both', 'image' or 'text'")
    config = read_config(folder)
    tensors = read_tensors(folder / WEIGHTS)
    other = {"both": (), "image": ("text_",), "text": ("image_",)}[part]
    held = {name.split(".")[0] for name in tensors if not name.startswith(other)}
    parts: dict[str, Any] = METHODS[config.method].inference_parts(config, folder, held)
    if "image_encoder" not in parts and "text_encoder" not in parts:
        raise InputError(f"{run}: a checkpoint of method {config.method!r} has no {part} tower")
    # Decoders, queues and momentum encoders are of use to training alone.
    tensors = {name: tensor for name, tensor in tensors.items() if name.split(".")[0] in parts}
    load_weights(nn.ModuleDict(parts), tensors, folder / WEIGHTS)
    temperature = parts.pop("temperature", None)
    tau = None if temperature is None else temperature.tau
    return Model(config, name=run.name, device=target, temperature=tau, **parts)


def baseline(
    kind: Literal["imagenet", "random"],
    like: Model | PretrainConfig,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Model:
    """The image encoder that pretraining is measured against: same architecture, features only (section 3.3).

    Args:
        kind: `imagenet` for the initial weights that the configuration names; `random` for default initialisation.
        like: The model, or its configuration, to stand beside.
        seed: Decides random weights.
        device: A PyTorch device, or `auto` for a GPU if there is one.

    Raises:
        InputError: The initial weights cannot be had, or the configuration names none.
    """
    config = like if isinstance(like, PretrainConfig) else like.config
    if kind not in ("imagenet", "random"):
        raise InputError(f"baseline {kind!r} is unknown; it is 'imagenet' or 'random'")
    encoder_config = config.image_encoder
    if kind == "random":
        encoder_config = replace(encoder_config, weights="random")
    elif encoder_config.weights == "random":
        raise InputError(
            "baseline 'imagenet': the run's image_encoder.weights is 'random', so there are no such weights"
        )
    encoder = build_image_encoder(encoder_config, seed=seed)
    return Model(
        replace(config, image_encoder=encoder_config), name=kind, device=_device(device), image_encoder=encoder
    )


def _encode_all(
    items: Iterable[T],
    encode: Callable[[list[T]], Tensor],
    projection: Projection | None,
    normalise: bool,
    batch_size: int,
    dim: int | None,
) -> np.ndarray:
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    rows: list[np.ndarray] = []
    for batch in _batches(items, batch_size):
        vectors_BD = encode(batch)
        if projection is not None:
            vectors_BD = projection(vectors_BD)
        if normalise:
            vectors_BD = F.normalize(vectors_BD, dim=1)
        rows.append(vectors_BD.float().cpu().numpy())
    return np.concatenate(rows) if rows else np.empty((0, dim or 0), dtype=np.float32)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _grey(image: Any) -> Tensor:
    """An image in any accepted form, grey [1, H, W] in [0, 1]; a file by the rules that prepare a corpus."""
    if not isinstance(image, str | Path):
        return grey_image(image)
    path = Path(image)
    try:
        values_HW = read_pixels(path.read_bytes(), suffix=path.suffix.lower()).values_HW
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except Unreadable as error:
        problem = f"{error.reason}: {error.detail}" if error.detail else error.reason
        raise InputError(f"{path} cannot be used ({problem}); give a PNG, JPEG or DICOM file") from error
    return grey_image(np.require(values_HW, requirements="W"))  # torch warns of PIL's buffers, which are read-only


def _for_inference(module: Any, device: torch.device) -> Any:
    if module is None:
        return None
    return module.to(device=device, memory_format=torch.channels_last).eval().requires_grad_(False)


def _present(part: Any, what: str, name: str) -> Any:
    if part is None:
        raise InputError(f"the model {name!r} has no {what}")
    return part


def _device(device: str | torch.device) -> torch.device:
    """The device that is meant.

    Raises:
        InputError: PyTorch knows no such device, or finds none here.
    """
    gpu = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if gpu else "cpu")
    try:
        found = torch.device(device)
        if found.type == "cuda" and not gpu:
            raise InputError(f"device {str(device)!r} was asked for, but PyTorch finds no GPU; take 'cpu' or 'auto'")
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # as PyTorch's back ends put it
        raise InputError(f"device {str(device)!r} cannot be used; use auto, cpu or cuda") from error
    return found
