"""Images decoded once, as the padded and resized canvases that an encoder in training sees again and again.

Shape legend: N images, R side of the canvas.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from convirt.data.imaging.grey import grey_image
from convirt.errors import InputError
from convirt.evaluation.inputs.features import read_image
from convirt.transforms import plain_view, square

IN_MEMORY = 2 * 2**30
"""Bytes of canvases that are held in memory; more lie in a temporary file, which the operating system caches."""


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
        InputError: A file that is no image, or no room in the folder.
    """
    wanted = sorted(set(sizes))
    files: list[Path] = []
    try:
        budget = in_memory // max(1, len(wanted))
        by_size = {size: _room(len(paths), size, folder, budget, files) for size in wanted}
        digest, sides = hashlib.sha256(), np.empty((len(paths), 2), dtype=np.int64)
        for row in track(range(len(paths)), description="decoding images", transient=True):
            content = paths[row].read_bytes()
            digest.update(hashlib.sha256(content).digest())
            pixels = read_image(paths[row], content)
            sides[row] = pixels.shape[:2]
            image_11SS = square(grey_image(pixels))[None]
            for size in wanted:
                by_size[size][row] = (plain_view(image_11SS, size)[0, 0] * 255).round().to(torch.uint8).numpy()
        yield Canvases(by_size=by_size, sha256=digest.hexdigest(), sides_N2=sides)
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
