"""Encode every image once per encoder.

A frozen encoder in evaluation mode gives the same features at every visit, so linear evaluation needs one pass.

Shape legend: N images, D features.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from convirt.data.imaging.pixels import Unreadable
from convirt.data.imaging.prepared import read_pixels
from convirt.errors import InputError
from convirt.evaluation.inputs.options import Baseline
from convirt.model import baseline, load

Space = Literal["shared", "features"]


class Encoder(Protocol):
    """What evaluation asks of a model; `convirt.Model` is one."""

    @property
    def name(self) -> str: ...

    def encode_image(self, images: Any, *, space: Space, batch_size: int, normalise: bool) -> NDArray[np.float32]: ...

    def encode_text(self, texts: Any, *, space: Space, batch_size: int, normalise: bool) -> NDArray[np.float32]: ...


@dataclass(frozen=True, kw_only=True)
class LabelledFeatures:
    """Features with their labels: what a head is trained, validated or tested on."""

    features_ND: NDArray[np.float32]
    targets_NC: NDArray[np.float64]
    """1, 0 or NaN (no label); one-hot for a single-label task."""
    multi_label: bool

    def take(self, rows: NDArray[np.int64]) -> "LabelledFeatures":
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
        InputError: A file that is no image, or a vector that is not finite.
    """
    parts: list[list[NDArray[np.float32]]] = [[] for _ in requests]
    digest = hashlib.sha256()
    sides: list[tuple[int, int]] = []
    for start in track(range(0, len(paths), batch_size), description=label, transient=True):
        chunk = paths[start : start + batch_size]
        images = []
        for path in chunk:
            content = path.read_bytes()
            digest.update(hashlib.sha256(content).digest())
            images.append(read_image(path, content))
            sides.append(images[-1].shape[:2])
        for part, (encoder, space) in zip(parts, requests, strict=True):
            vectors_ND = encoder.encode_image(images, space=space, batch_size=batch_size, normalise=normalise)
            finite = np.isfinite(vectors_ND).all(axis=1)
            if not finite.all():
                raise InputError(f"{encoder.name} gives {chunk[int(np.argmin(finite))]} a vector that is not finite")
            part.append(vectors_ND)
    return EncodedImages(
        vectors=tuple(np.concatenate(part) for part in parts),
        sha256=digest.hexdigest(),
        sides_N2=np.array(sides, dtype=np.int64).reshape(-1, 2),
    )


def read_image(path: Path, content: bytes) -> NDArray:
    """Grey pixels [H, W] of a PNG, JPEG or DICOM file, by the rules that prepare a corpus.

    Raises:
        InputError: The file is no such image, or cut short.
    """
    try:
        pixels = read_pixels(content, suffix=path.suffix.lower())
    except Unreadable as error:
        problem = f"{error.reason}: {error.detail}" if error.detail else error.reason
        raise InputError(f"{path} cannot be used ({problem}); replace it or leave its row out") from error
    return np.require(pixels.values_HW, requirements="W")  # PIL's buffers are read-only, which torch warns of


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
