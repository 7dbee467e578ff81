"""Prepared corpora: the image-report pairs of ConVIRT, section 2.1, on disk.

A corpus is a folder of Arrow shards, mapped row by row, with `corpus.json` (format, image size, fingerprint, counts,
settings), `catalogue.arrow` and `audit.json` (what became of every row of the source) beside them; the `datasets`
library loads it as well. Opening a corpus touches no shard: its time and memory are those of the catalogue.
"""

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from convirt.atomic import _beside, write_json
from convirt.data.catalogue import Catalogue, read_catalogue, write_catalogue
from convirt.data.records import ImageRecord, Pair
from convirt.data.shards import (
    FORMAT,
    SCHEMA,
    SPLITS,
    Fingerprint,
    ShardWriter,
    check_free,
    file_sha256,
    map_shards,
    pair_digest,
    pixels,
    sealed,
    shard_name,
    sync,
    write_about,
)
from convirt.errors import InputError

__all__ = ["FORMAT", "SPLITS", "Corpus", "CorpusWriter", "check_free", "decode"]

_BYTES_PER_SHARD = 256 * 2**20
_SOON_HASHED = 256 * 2**20  # bytes of shards that are hashed unasked: a second at most


def decode(image: ImageRecord) -> Tensor:
    """Return the pixels of a prepared image: [1, H, W], uint8, or uint16 if it was encoded with 16 bits."""
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
    """

    def __init__(self, path: Path, about: dict[str, Any], catalogue: Catalogue) -> None:
        self.path = path
        self.fingerprint: str = about["fingerprint"]
        self.image_size: int = about["image_size"]
        self.settings: dict[str, Any] = about["settings"]
        self._about = about
        self.patient_ids = catalogue.patients
        self.splits = catalogue.splits
        self._catalogue = catalogue
        self._shards: dict[int, pa.Table] = {}

    @classmethod
    def open(cls, path: str | Path) -> "Corpus":
        """Open the corpus in the folder `path`.

        Raises:
            InputError: There is no corpus, or it is incomplete, or another version of convirt wrote it.
        """
        path = Path(path)
        remedy = "prepare one with `convirt prepare archive`"
        if not (path / "corpus.json").is_file():
            raise InputError(f"{path} is no prepared corpus (no corpus.json in it); {remedy}")
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
        """See whether the files are still those that were written, as far as that costs little.

        The small files are hashed, and the shards if they have 256 MiB or less. What a corpus of an earlier version
        does not say of itself is not compared.

        Args:
            whole: Hash all shards; where the corpus does not say their hashes, read and decode every pair and compare
                the fingerprint.

        Raises:
            InputError: One is not; it is named.
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
        if whole and not known and self.read_fingerprint() != self.fingerprint:
            raise InputError(f"{self.path} has another fingerprint than its corpus.json says; {remedy}")

    def read_fingerprint(self) -> str:
        """Read every pair and return the fingerprint of what was found.

        Raises:
            InputError: A pair is damaged.
        """
        found = Fingerprint(self.image_size)
        found.update(pair_digest(self.pair(index), self.image_size) for index in range(len(self)))
        return found.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, (self.path,)

    def __len__(self) -> int:
        return len(self.splits)

    def _row(self, index: int) -> pa.Table:
        """Return one row, in the file that is mapped."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._catalogue.ends, index, side="right"))
        start = int(self._catalogue.ends[number - 1]) if number else 0
        return self._shard(number).slice(index - start, 1)

    def _shard(self, number: int) -> pa.Table:
        if number not in self._shards:
            name = self._catalogue.shards[number]
            try:
                self._shards[number] = map_shards(self.path, [name])
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{self.path / name} is damaged ({error}); prepare the corpus again") from error
        return self._shards[number]

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
        """Return how many bytes the encoded images of each pair take, int64 [pairs]; touches no image bytes."""
        sizes = [np.empty(0, dtype=np.int64)]
        for number in range(len(self._catalogue.shards)):
            for chunk in self._shard(number).column("images").chunks:
                lengths = pc.binary_length(pc.struct_field(chunk.flatten(), "encoded")).to_numpy(zero_copy_only=False)
                ends = np.cumsum(pc.list_value_length(chunk).to_numpy(zero_copy_only=False))
                sizes.append(np.diff(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[np.r_[0, ends]]))
        return np.concatenate(sizes).astype(np.int64)

    def indices(self, split: str) -> np.ndarray:
        """Return the indices of the pairs of a split, ascending, int64; empty if it has none."""
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r}; splits are {', '.join(SPLITS)}")
        return np.flatnonzero(self.splits == split).astype(np.int64)

    def column_lengths(self, name: str) -> np.ndarray:
        """Return how many `images` or `sentences` each pair has, int64 [pairs]; touches no shard."""
        return {"images": self._catalogue.images, "sentences": self._catalogue.sentences}[name]


class CorpusWriter:
    """Writes a corpus from pairs that are at hand, all or nothing.

    A context manager: pairs go to a temporary sibling folder, which takes the corpus's name when the block ends well
    and is removed when it does not. The bytes written depend on the pairs, `settings` and `audit` alone.
    """

    def __init__(self, out: str | Path, *, image_size: int, settings: dict[str, Any] | None = None) -> None:
        """Start a corpus.

        Args:
            out: Folder to create; it must be missing or empty.
            image_size: Larger side of every image, in pixels.
            settings: How the pairs were prepared, JSON values; kept in `corpus.json`.
        """
        self.out = Path(out)
        self.image_size = image_size
        self.settings = settings or {}
        self.audit: dict[str, Any] = {}
        """Set it before the block ends: what `audit.json` will hold."""
        self.fingerprint = ""
        self._hash = Fingerprint(image_size)
        self._ids: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._patients: set[str] = set()
        self._shards: list[str] = []
        self._shard: ShardWriter | None = None

    def __enter__(self) -> "CorpusWriter":
        check_free(self.out)
        self._folder = _beside(self.out)
        self._folder.mkdir(parents=True)
        return self

    def add(self, pair: Pair) -> None:
        """Append one pair.

        Raises:
            InputError: Its id was added before, or an image has another size than the corpus, or nothing to read.
        """
        if pair.pair_id in self._ids:
            raise InputError(f"pair id {pair.pair_id!r} occurs twice; ids of pairs must be unique")
        if self._shard is None:
            self._shards.append(shard_name(len(self._shards)))
            self._shard = ShardWriter(self._folder / self._shards[-1], image_size=self.image_size)
        self._shard.add(pair)
        self._ids.add(pair.pair_id)
        self._patients.add(pair.patient_id)
        if self._shard.size() >= _BYTES_PER_SHARD:
            self._close_shard()

    def counts(self) -> dict[str, int]:
        """Return the pairs (in all and of each split), images, sentences and patients added so far."""
        counts = self._counts + (self._shard.counts if self._shard else Counter())
        return {"pairs": 0, **{f"pairs_{split}": 0 for split in SPLITS}, **counts, "patients": len(self._patients)}

    def _close_shard(self) -> None:
        if self._shard is not None:
            shard, self._shard = self._shard, None
            shard.close()
            self._hash.update(shard.digests)
            self._counts.update(shard.counts)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = error
        if failure is None:
            try:
                self._finish()
            except BaseException as raised:
                failure = raised
        if failure is None:
            return
        with suppress(OSError):  # a full disk: the folder goes anyway
            self._close_shard()
        shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"the disk of {self.out} is full; nothing was written, free some space") from failure
        if failure is not error:
            raise failure

    def _finish(self) -> None:
        if not self._ids:
            raise InputError(f"no pair is left to write to {self.out}")
        self._close_shard()
        self.fingerprint = self._hash.hexdigest()
        write_catalogue(self._folder, self._shards)
        write_about(
            self._folder,
            shards=self._shards,
            image_size=self.image_size,
            fingerprint=self.fingerprint,
            counts=self.counts(),
            settings=self.settings,
        )
        write_json(self._folder / "audit.json", self.audit)
        sync(self._folder)
        check_free(self.out)
        os.replace(self._folder, self.out)
