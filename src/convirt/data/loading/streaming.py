"""Corpora that are read where they lie: Parquet shards that `convirt export` wrote, below any address.

An export is a folder of `corpus.json` (as that of a corpus on disk, with the sizes and hashes of all shards),
`index.parquet` (of every pair: its patient as a number, how many images and sentences it has, its place in the corpus
that was exported) and the shards, each with pairs of one split. The index is read at once, so that batches can be
arranged and drawn without reading any pair; a shard is read whole, when it is needed, and let go after its last use.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from convirt.data.corpora import Corpus
from convirt.data.loading.remote import Remote, describe, is_address
from convirt.data.records import AnyCorpus, Pair
from convirt.data.shards import SCHEMA, SPLITS, indices_of_split, sealed
from convirt.errors import InputError

ABOUT, INDEX = "corpus.json", "index.parquet"
FORMAT = 2
KIND = "convirt corpus in Parquet shards"
INDEX_SCHEMA = pa.schema(
    [("pair", pa.int64()), ("patient", pa.int64()), ("images", pa.int32()), ("sentences", pa.int32())]
)
"""Columns of the index: the number of the pair in the exported corpus, that of its patient in the order of the ids,
how many images and sentences it has; rows in the order of the shards."""
_AT_ONCE = 4  # files that are asked for at the same time


def open_corpus(place: str | Path) -> AnyCorpus:
    """Open a prepared corpus on disk, or one that `convirt export` wrote, from a folder or an address.

    Raises:
        InputError: There is none, or it is damaged or out of reach.
    """
    return StreamedCorpus.open(str(place)) if is_export(str(place)) else Corpus.open(place)


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One file of an export."""

    file: str
    """Its name: split, number, and the start of its hash."""
    split: str
    """`train`, `val` or `test`: of all its pairs."""
    pairs: int
    """How many it holds."""
    bytes: int
    """Its size."""
    sha256: str
    """Hash of its bytes."""


def is_export(place: str) -> bool:
    """Whether a place is an address, or a folder that `convirt export` wrote."""
    folder = Path(place)
    files = [(folder / name).is_file() for name in (ABOUT, INDEX)]
    return is_address(place) or (all(files) and not (folder / "state.json").exists())


class StreamedCorpus:
    """A corpus that is read shard by shard; it can be pickled, and used after a fork.

    Attributes:
        path: Its address.
        fingerprint: That of the corpus which was exported: of the content, the same everywhere.
        image_size: Larger side of every prepared image, in pixels.
        patient_ids: Number of the patient of each pair, in the order of the patients' ids, int64 [pairs].
        shards: Number of the shard of each pair, int32 [pairs].
        settings: How it was prepared.
        order: Names how pairs were dealt out to shards, which decides the order in which they are visited.

    Pairs have the numbers that they have in the corpus which was exported.
    """

    def __init__(self, remote: Remote, about: dict[str, Any], files: Sequence[ShardFile], index: pa.Table) -> None:
        self.path = remote.place
        self.fingerprint: str = about["fingerprint"]
        self.image_size: int = about["image_size"]
        self.settings: dict[str, Any] = about["settings"]
        self._remote = remote
        self._files = list(files)
        pairs = index.column("pair").to_numpy()
        place = np.argsort(pairs)
        if not np.array_equal(pairs[place], np.arange(len(pairs))):
            raise ValueError("the index names some pairs twice, or not at all")
        sizes = [file.pairs for file in files]
        self.shards: np.ndarray = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)[place]
        self._rows = (np.arange(len(pairs)) - np.repeat(np.cumsum(sizes) - sizes, sizes)).astype(np.int32)[place]
        self.patient_ids: np.ndarray = index.column("patient").to_numpy()[place]
        self._lengths = {name: index.column(name).to_numpy()[place] for name in ("images", "sentences")}
        dealt = hashlib.sha256(self.shards.tobytes()).hexdigest()[:16]
        self.order = f"streamed by {len(sizes)} shards, {dealt}"
        self._hold_nothing()

    def _hold_nothing(self) -> None:
        self._held: dict[int, Future[bytes] | pa.Table] = {}  # a shard is parsed by who first needs a pair of it
        self._gate = threading.BoundedSemaphore(_AT_ONCE)
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": {}, "_gate": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._hold_nothing()

    @classmethod
    def open(cls, place: str) -> "StreamedCorpus":
        """Open an export at an address, or in a folder.

        Raises:
            InputError: There is none, it is damaged or out of reach, or another version of convirt wrote it.
        """
        remote = Remote(place)
        remedy = "write it with `convirt export`"
        try:
            about = json.loads(remote.read(ABOUT))
            if about.get("kind") != KIND:
                raise InputError(f"{place} is not an exported corpus, the only kind that can be streamed; {remedy}")
            if about["format"] != FORMAT:
                raise InputError(f"{place} has export format {about['format']}, this version reads {FORMAT}; {remedy}")
            if about["sha256"] != sealed(about)["sha256"]:
                raise ValueError(f"{ABOUT} is not what was exported (its sha256 differs)")
            files = [ShardFile(**file) for file in about["shards"]]
            for file in files:
                if file.split not in SPLITS or not file.file.isprintable() or set(file.file) & set("/\\?#%:"):
                    raise ValueError(f"{file.file!r} is not the name of a shard")
            index = about["index"]
            data = remote.read(INDEX, size=index["bytes"], sha256=index["sha256"])
            table = _read_parquet(data, INDEX_SCHEMA)
            if not len(table) == about["counts"]["pairs"] == sum(file.pairs for file in files):
                raise ValueError("counts of pairs differ")
            return cls(remote, about, files, table)
        except (KeyError, TypeError, AttributeError, ValueError, pa.ArrowException) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{place} is a damaged export ({describe(error)}); {remedy}") from error

    def check(self, *, whole: bool = False) -> None:
        """Verify that the shards are there, on this machine with their sizes; each is hashed whenever it is read.

        Args:
            whole: Read all of them now.

        Raises:
            InputError: One is missing, was cut, or (if all are read) is not what was exported; the message names it.
        """
        there = self._remote.sizes() if self._remote.local is not None else None
        for file in self._files:
            if there is not None and (found := there.get(file.file)) != file.bytes:
                what = "is missing" if found is None else f"has {found} bytes, should have {file.bytes}"
                raise InputError(f"{self.path}/{file.file} {what}; export the corpus anew")
            if whole:
                self._remote.read(file.file, size=file.bytes, sha256=file.sha256)

    def __len__(self) -> int:
        return len(self.shards)

    def indices(self, split: str) -> np.ndarray:
        """The indices of the pairs of a split, ascending, int64; empty if it has none."""
        return indices_of_split(np.array([file.split for file in self._files])[self.shards], split)

    def column_lengths(self, name: str) -> np.ndarray:
        """How many `images` or `sentences` each pair has, int64 [pairs]; reads no pair."""
        return self._lengths[name].astype(np.int64)

    def pair(self, index: int) -> Pair:
        """Read one pair; its shard is fetched whole, unless it is held.

        Raises:
            InputError: The shard is missing, damaged or out of reach.
        """
        shard = self._shard(int(self.shards[index]))
        return Pair.from_row(shard.slice(int(self._rows[index]), 1).to_pylist()[0])

    def reports(self, split: str) -> Iterator[tuple[str, ...]]:
        """Read the sentences of each pair of a split, in any order; each shard of the split is fetched whole, once."""
        shards = np.unique(self.shards[self.indices(split)])
        for place, shard in enumerate(shards):
            self.expect(shards[place : place + _AT_ONCE])
            for sentences in self._shard(int(shard)).column("sentences"):
                yield tuple(sentences.as_py())
        self.expect(shards[:0])

    def expect(self, shards: np.ndarray) -> None:
        """Fetch shards in the background, the most urgent first, and let go of all others."""
        if self._process != os.getpid():  # forked: the threads that would deliver what is under way are not here
            self._hold_nothing()
        wanted = [int(shard) for shard in shards]
        for shard in self._held.keys() - set(wanted):
            if isinstance(held := self._held.pop(shard), Future):
                held.cancel()
        for shard in wanted:
            if shard not in self._held:
                promise: Future[bytes] = Future()
                self._held[shard] = promise
                # Not a pool: its threads would be waited for at exit, however long a server takes. Such a thread is cut
                # off when the interpreter ends, and must not be amid Arrow's C++ then: it fetches, and parses nothing.
                threading.Thread(target=self._deliver, args=(self._files[shard], promise), daemon=True).start()

    def held(self) -> int:
        """How many shards are held, or on their way."""
        return len(self._held)

    def _deliver(self, file: ShardFile, promise: "Future[bytes]") -> None:
        with self._gate:
            if not promise.set_running_or_notify_cancel():
                return
            try:
                promise.set_result(self._remote.read(file.file, size=file.bytes, sha256=file.sha256))
            except BaseException as error:
                promise.set_exception(error)

    def _shard(self, shard: int) -> pa.Table:
        """A shard; one that was not expected takes the place of all that were."""
        if shard not in self._held or self._process != os.getpid():
            self.expect(np.array([shard]))
        if isinstance(held := self._held[shard], pa.Table):
            return held
        file, data = self._files[shard], held.result()
        try:
            table = _read_parquet(data, SCHEMA)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise InputError(f"{self.path}/{file.file} is a damaged shard ({error}); export the corpus anew") from error
        if len(table) != file.pairs:
            raise InputError(f"{self.path}/{file.file} has {len(table)} pairs, should have {file.pairs}; export anew")
        self._held[shard] = table
        return table


def _read_parquet(data: bytes, schema: pa.Schema) -> pa.Table:
    """Read the bytes of a Parquet file, in this thread alone.

    `pyarrow.parquet.read_table` reads in threads of Arrow's own, even with `use_threads=False`. The last to hold
    `data` may be one of them, and a thread that waits for Python while the interpreter ends aborts the process.
    """
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False).cast(schema)
