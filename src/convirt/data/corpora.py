"""Prepared corpora: the image-report pairs of ConVIRT, section 2.1, on disk.

A corpus is a folder of Arrow shards, mapped row by row, with `corpus.json` (format, image size, fingerprint, counts,
settings), `catalogue.arrow` and `audit.json` (what became of every row of the source) beside them; the `datasets`
library loads it as well. Opening a corpus touches no shard: its time and memory are those of the catalogue.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from convirt.data.records import ImageRecord, Pair
from convirt.data.shards import (
    FORMAT,
    SCHEMA,
    Catalogue,
    Fingerprint,
    file_sha256,
    indices_of_split,
    map_shards,
    pair_digest,
    pixels,
    read_catalogue,
    sealed,
)
from convirt.errors import InputError

_SOON_HASHED = 256 * 2**20  # bytes of shards that are hashed unasked: a second at most


def decode(image: ImageRecord) -> Tensor:
    """The pixels of a prepared image: [1, H, W], uint8, or uint16 if it was encoded with 16 bits."""
    return torch.from_numpy(pixels(image)).unsqueeze(0)


class Corpus:
    """A prepared corpus, opened for reading; it can be pickled and costs no memory for its images.

    Attributes:
        path: Its folder.
        fingerprint: sha256 over the content (texts, ids, splits, pixels), the same on every machine.
        image_size: Larger side of every prepared image, in pixels.
        patient_ids: Patient of each pair, object array [pairs].
        splits: Split of each pair, object array [pairs].
        settings: How it was prepared.
        shards: None: pairs are shuffled as a whole. Set it to the shards of an export to visit pairs in its order.
        order: Names this order.
    """

    def __init__(self, path: Path, about: dict[str, Any], catalogue: Catalogue) -> None:
        self.path = path
        self.fingerprint: str = about["fingerprint"]
        self.image_size: int = about["image_size"]
        self.settings: dict[str, Any] = about["settings"]
        self.patient_ids = catalogue.patients
        self.splits = catalogue.splits
        self.shards: np.ndarray | None = None
        self.order = "shuffled as a whole"
        self._about = about
        self._catalogue = catalogue
        self._mapped: dict[int, pa.Table] = {}

    @classmethod
    def open(cls, path: str | Path) -> "Corpus":
        """Open the corpus in the folder `path`.

        Raises:
            InputError: There is no corpus, or it is incomplete, or another version of convirt wrote it.
        """
        path = Path(path)
        remedy = "prepare one with `convirt prepare archive`"
        if not (path / "corpus.json").is_file():
            raise InputError(f"{path} is not a prepared corpus (it has no corpus.json); {remedy}")
        try:
            about = json.loads((path / "corpus.json").read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise InputError(f"{path} has corpus format {about['format']}, this version reads {FORMAT}; {remedy}")
            corpus = cls(path, about, read_catalogue(path))
            corpus._check_shards()
        except (OSError, KeyError, TypeError, AttributeError, ValueError, pa.ArrowException) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is a damaged corpus ({type(error).__name__}: {error}); {remedy}") from error
        if len(corpus) != about["counts"]["pairs"]:
            raise InputError(f"{path} should hold {about['counts']['pairs']} pairs, has {len(corpus)}; {remedy}")
        return corpus

    def _check_shards(self) -> None:
        """Raise a `ValueError` if a shard is missing or was cut; what else can be wrong with it shows when it is read.

        All names and sizes are asked for at once: a corpus may have thousands of shards.
        """
        with os.scandir(self.path) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries}
        for name, size in zip(("state.json", *self._catalogue.shards), (None, *self._catalogue.sizes), strict=True):
            if name not in sizes:
                raise ValueError(f"{name} is missing")
            if size not in (None, sizes[name]):
                raise ValueError(f"{name} has {sizes[name]} bytes, should have {size}")

    def check(self, *, whole: bool = False) -> None:
        """Verify the files cheaply: hash the small ones, and the shards if they have 256 MiB or less.

        A hash that a corpus of an earlier version does not hold is not compared.

        Args:
            whole: Hash all shards; where the corpus does not hold their hashes, read and decode every pair and compare
                the fingerprint.

        Raises:
            InputError: A file is not the one that was written; the message names it.
        """
        remedy = "prepare the corpus again, or copy it anew from where it is whole"
        if "sha256" in self._about and self._about["sha256"] != sealed(self._about)["sha256"]:
            raise InputError(f"{self.path / 'corpus.json'} is not what was written (its sha256 differs); {remedy}")
        sums = dict(self._about.get("files", {}))
        known = all(self._catalogue.sums)
        if known and (whole or sum(self._catalogue.sizes) <= _SOON_HASHED):
            sums |= dict(zip(self._catalogue.shards, self._catalogue.sums, strict=True))
        for name, sha256 in sums.items():
            try:
                found = file_sha256(self.path / name)
            except OSError as error:
                raise InputError(f"{self.path / name} cannot be read ({error.strerror}); {remedy}") from error
            if found != sha256:
                raise InputError(f"{self.path / name} is not what was written (its sha256 differs); {remedy}")
        if whole and not known:
            read = Fingerprint(self.image_size)
            read.update(pair_digest(self.pair(index), self.image_size) for index in range(len(self)))
            if read.hexdigest() != self.fingerprint:
                raise InputError(f"{self.path} has another fingerprint than its corpus.json says; {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, (self.path,)

    def __len__(self) -> int:
        return len(self.splits)

    def _row(self, index: int) -> pa.Table:
        """One row, in the file that is mapped."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._catalogue.ends, index, side="right"))
        start = int(self._catalogue.ends[number - 1]) if number else 0
        return self._shard(number).slice(index - start, 1)

    def _shard(self, number: int) -> pa.Table:
        if number not in self._mapped:
            name = self._catalogue.shards[number]
            try:
                self._mapped[number] = map_shards(self.path, [name])
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{self.path / name} is damaged ({error}); prepare the corpus again") from error
        return self._mapped[number]

    def pair(self, index: int) -> Pair:
        """Read one pair, with the encoded bytes of its images."""
        (row,) = self._row(int(index)).to_pylist()
        return Pair.from_row(row)

    def reports(self, split: str) -> Iterator[tuple[str, ...]]:
        """Read the sentences of each pair of a split, in any order; touches no image bytes."""
        for index in self.indices(split):
            yield tuple(self._row(index).column("sentences")[0].as_py())

    def table(self, indices: np.ndarray) -> pa.Table:
        """Read pairs as an Arrow table whose columns are those of `SCHEMA`, in the order of `indices`."""
        rows = [self._row(int(index)) for index in indices]
        return pa.concat_tables([SCHEMA.empty_table(), *rows]).combine_chunks()

    def image_bytes(self) -> np.ndarray:
        """How many bytes the encoded images of each pair take, int64 [pairs]; touches no image bytes."""
        sizes = [np.empty(0, dtype=np.int64)]
        for number in range(len(self._catalogue.shards)):
            for chunk in self._shard(number).column("images").chunks:
                lengths = pc.binary_length(pc.struct_field(chunk.flatten(), "encoded")).to_numpy(zero_copy_only=False)
                ends = np.cumsum(pc.list_value_length(chunk).to_numpy(zero_copy_only=False))
                sizes.append(np.diff(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[np.r_[0, ends]]))
        return np.concatenate(sizes).astype(np.int64)

    def indices(self, split: str) -> np.ndarray:
        """The indices of the pairs of a split, ascending, int64; empty if it has none."""
        return indices_of_split(self.splits, split)

    def column_lengths(self, name: str) -> np.ndarray:
        """How many `images` or `sentences` each pair has, int64 [pairs]; touches no shard."""
        return self._catalogue.lengths[name]

    def expect(self, shards: np.ndarray) -> None:
        """Nothing has to be fetched: the shards are mapped."""
