"""Encoders, and the images of a table: as features that are computed once, or as views for an encoder in training.

A frozen encoder in evaluation mode gives the same features at every visit, so linear evaluation needs one pass. For
fine-tuning each image is decoded once, and stays as the padded and resized canvas that the encoder sees.

Shape legend: N images, D features, R side of the canvas.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from convirt.data.imaging.grey import grey_image
from convirt.data.imaging.pixels import Unreadable
from convirt.data.imaging.prepared import read_pixels
from convirt.errors import InputError
from convirt.evaluation.inputs.options import Baseline
from convirt.model import baseline, load
from convirt.transforms import plain_view, square

Space = Literal["shared", "features"]
IN_MEMORY = 2 * 2**30
"""Bytes of canvases that are held in memory; more lie in a temporary file, which the operating system caches."""


class Encoder(Protocol):
    """What evaluation asks of a model; `convirt.Model` is one."""

    @property
    def name(self) -> str: ...

    def encode_image(self, images: Any, *, space: Space, batch_size: int, normalise: bool) -> NDArray[np.float32]: ...

    def encode_text(self, texts: Any, *, space: Space, batch_size: int, normalise: bool) -> NDArray[np.float32]: ...


def load_encoders(
    runs: Sequence[Path], baselines: Sequence[Baseline], *, part: Literal["both", "image"], device: str = "auto"
) -> dict[str, Encoder]:
    """The runs' models and the baselines beside them, by method name, baselines first.

    A baseline has the architecture of the first run, with the initial weights that the run started from (`imagenet`)
    or with random ones (`random`).

    Raises:
        InputError: No run, an unusable one, or an unknown baseline.
    """
    if not runs:
        raise InputError("name at least one run to evaluate")
    if unknown := sorted(set(baselines) - {"imagenet", "random"}):
        raise InputError(f"unknown baseline {unknown[0]!r}; known are random, imagenet")
    models = [load(run, part=part, device=device) for run in runs]
    encoders: dict[str, Encoder] = {kind: baseline(kind, models[0], device=device) for kind in baselines}
    for run, model in zip(runs, models, strict=True):
        name = model.name or str(run)
        if name in encoders:  # two runs of one name, or a run named like a baseline
            name = str(run)
        if name in encoders:
            raise InputError(f"run {run} is named twice; name each run once")
        encoders[name] = model
    return encoders


def read_image(path: Path, content: bytes) -> NDArray:
    """Grey pixels [H, W] of a PNG, JPEG or DICOM file, by the rules that prepare a corpus.

    Raises:
        InputError: The file is not such an image, or cut short.
    """
    try:
        pixels = read_pixels(content, suffix=path.suffix.lower())
    except Unreadable as error:
        problem = f"{error.reason}: {error.detail}" if error.detail else error.reason
        raise InputError(f"{path} cannot be used ({problem}); replace it or leave its row out") from error
    return np.require(pixels.values_HW, requirements="W")  # PIL's buffers are read-only, which torch warns of


@dataclass(frozen=True, kw_only=True)
class LabelledFeatures:
    """Features with their labels: what a head is trained, validated or tested on."""

    features_ND: NDArray[np.float32]
    targets_NC: NDArray[np.float64]
    """1, 0 or NaN (no label); one-hot for a single-label task."""
    multi_label: bool

    def take(self, rows: NDArray[np.int64]) -> "LabelledFeatures":
        """These rows alone."""
        return LabelledFeatures(
            features_ND=self.features_ND[rows], targets_NC=self.targets_NC[rows], multi_label=self.multi_label
        )


@dataclass(frozen=True, kw_only=True)
class EncodedImages:
    """The vectors of a list of images."""

    vectors: tuple[NDArray[np.float32], ...]
    """[N, D] for each request, in order."""
    sha256: str
    """Hash over the SHA-256 hashes of the image files, in order of the rows."""
    sides_N2: NDArray[np.int64]
    """Height and width of each image, pixels."""


class _Reader:
    """Reads image files one after the other, and remembers the hash over all and their sizes."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.sides: list[tuple[int, int]] = []

    def read(self, path: Path) -> NDArray:
        content = path.read_bytes()
        self.digest.update(hashlib.sha256(content).digest())
        pixels = read_image(path, content)
        self.sides.append((pixels.shape[0], pixels.shape[1]))
        return pixels

    @property
    def sides_N2(self) -> NDArray[np.int64]:
        return np.array(self.sides, dtype=np.int64).reshape(-1, 2)


def encode_images(
    requests: Sequence[tuple[Encoder, Space]],
    paths: Sequence[Path],
    *,
    normalise: bool,
    batch_size: int = 64,
    label: str = "encoding images",
) -> EncodedImages:
    """Read each image once and give it to every encoder once per space.

    Args:
        requests: Encoders and the space that is asked of each.
        paths: Image files.
        normalise: Whether rows are L2-normalised; linear evaluation takes h_v as it is.
        batch_size: Images decoded and encoded at once.
        label: Text beside the progress bar.

    Raises:
        InputError: A file that is not an image, or a vector that is not finite.
    """
    parts: list[list[NDArray[np.float32]]] = [[] for _ in requests]
    reader = _Reader()
    for start in track(
        range(0, len(paths), batch_size), description=label, transient=True, disable=not sys.stdout.isatty()
    ):
        chunk = paths[start : start + batch_size]
        images = [reader.read(path) for path in chunk]
        for part, (encoder, space) in zip(parts, requests, strict=True):
            vectors_ND = encoder.encode_image(images, space=space, batch_size=batch_size, normalise=normalise)
            finite = np.isfinite(vectors_ND).all(axis=1)
            if not finite.all():
                raise InputError(f"{encoder.name} gives {chunk[int(np.argmin(finite))]} a vector that is not finite")
            part.append(vectors_ND)
    vectors = tuple(np.concatenate(part) for part in parts)
    return EncodedImages(vectors=vectors, sha256=reader.digest.hexdigest(), sides_N2=reader.sides_N2)


@dataclass(frozen=True, kw_only=True)
class Canvases:
    """Every image of a table at the sizes that its encoders take."""

    by_size: dict[int, NDArray[np.uint8]]
    """[N, R, R] for each side R: zero-padded to a square and resized, as `Model.encode_image` does, then 8 bits."""
    sha256: str
    """Hash over the SHA-256 hashes of the image files, as of `encode_images`."""
    sides_N2: NDArray[np.int64]
    """Height and width of each file's image, pixels."""

    def views(self, size: int, rows: NDArray[np.int64], device: torch.device) -> Tensor:
        """The canvases of some rows as float32 views in [0, 1], images_B1RR."""
        chosen_BRR = torch.from_numpy(np.ascontiguousarray(self.by_size[size][rows]))
        return chosen_BRR[:, None].to(device).float() / 255


@contextmanager
def read_canvases(
    paths: Sequence[Path], sizes: Iterable[int], folder: Path, *, in_memory: int = IN_MEMORY
) -> Iterator[Canvases]:
    """Decode each image once; what does not fit into memory lies in `folder` until the block ends.

    Args:
        paths: Image files.
        sizes: Sides of the canvases that are wanted.
        folder: Where temporary files may lie.
        in_memory: Bytes that may be held in memory.

    Raises:
        InputError: A file that is not an image, or no room in the folder.
    """
    wanted = sorted(set(sizes))
    files: list[Path] = []
    try:
        budget = in_memory // max(1, len(wanted))
        by_size = {size: _room(len(paths), size, folder, budget, files) for size in wanted}
        reader = _Reader()
        for row in track(range(len(paths)), description="decoding images", transient=True):
            image_11SS = square(grey_image(reader.read(paths[row])))[None]
            for size in wanted:
                by_size[size][row] = (plain_view(image_11SS, size)[0, 0] * 255).round().to(torch.uint8).numpy()
        yield Canvases(by_size=by_size, sha256=reader.digest.hexdigest(), sides_N2=reader.sides_N2)
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _room(images: int, size: int, folder: Path, budget: int, files: list[Path]) -> NDArray[np.uint8]:
    """An array in memory, or in a new file that is listed in `files`."""
    shape = (images, size, size)
    if (needed := images * size * size) <= budget:
        return np.empty(shape, dtype=np.uint8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".canvases-")
        files.append(Path(name))
        try:
            os.posix_fallocate(handle, 0, needed)  # a hole that finds no room later would kill the process
        finally:
            os.close(handle)
    except OSError as error:
        raise InputError(
            f"{folder}: no room for {needed / 2**30:.1f} GiB of decoded images ({error.strerror}); free some"
        ) from error
    return np.memmap(files[-1], dtype=np.uint8, mode="r+", shape=shape)
