"""The catalogue of a corpus: what is asked of all its pairs at once, in one small file.

Patients, splits and numbers of images stand in the shards as well, but there each is a page in megabytes of images. A
corpus of a million pairs opens from its catalogue without touching a shard.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from convirt.data.shards import CATALOGUE, file_sha256, map_shards, shard_names

_SCHEMA = pa.schema(
    [("patient_id", pa.string()), ("split", pa.string()), ("images", pa.int32()), ("sentences", pa.int32())]
)


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What a corpus says of its pairs without being read."""

    patients: np.ndarray
    """Patient of each pair, object array [pairs]."""
    splits: np.ndarray
    """Split of each pair, object array [pairs]."""
    images: np.ndarray
    """How many images each pair has, int64 [pairs]."""
    sentences: np.ndarray
    """How many sentences each pair has, int64 [pairs]."""
    shards: tuple[str, ...]
    """Files in their order."""
    ends: np.ndarray
    """The number of the pair after the last of each shard, int64 [shards]."""
    sizes: tuple[int, ...]
    """Bytes of each shard."""
    sums: tuple[str, ...]
    """sha256 of each shard; empty in corpora that were made without."""


def write_catalogue(folder: Path, names: Sequence[str]) -> None:
    """Write the catalogue of the shards in a folder."""
    table = _collect(folder, names)
    sums = json.dumps({name: file_sha256(folder / name) for name in names})
    table = table.replace_schema_metadata({**table.schema.metadata, "sha256": sums})
    with pa.OSFile(str(folder / CATALOGUE), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)


def read_catalogue(folder: Path) -> Catalogue:
    """Read the catalogue of a corpus; one that was written without gets it from its shards."""
    if (folder / CATALOGUE).is_file():
        table = pa.ipc.open_stream(pa.memory_map(str(folder / CATALOGUE))).read_all()
    else:
        table = _collect(folder, shard_names(folder))
    shards = json.loads(table.schema.metadata[b"shards"])
    sums = json.loads(table.schema.metadata.get(b"sha256", b"{}"))
    return Catalogue(
        patients=_strings(table.column("patient_id")),
        splits=_strings(table.column("split")),
        images=table.column("images").to_numpy().astype(np.int64),
        sentences=table.column("sentences").to_numpy().astype(np.int64),
        shards=tuple(name for name, _, _ in shards),
        ends=np.cumsum([rows for _, rows, _ in shards], dtype=np.int64),
        sizes=tuple(size for _, _, size in shards),
        sums=tuple(sums.get(name, "") for name, _, _ in shards),
    )


def _collect(folder: Path, names: Sequence[str]) -> pa.Table:
    shards, parts = [], []
    for name in names:
        rows = map_shards(folder, [name])
        lengths = [pc.list_value_length(rows.column(column)) for column in ("images", "sentences")]
        part = pa.table([rows.column("patient_id"), rows.column("split"), *lengths], schema=_SCHEMA)
        parts.append(part.combine_chunks())  # a copy: the shard need not stay mapped
        shards.append((name, len(rows), (folder / name).stat().st_size))
    metadata = {"shards": json.dumps(shards)}
    return pa.concat_tables([_SCHEMA.empty_table(), *parts]).combine_chunks().replace_schema_metadata(metadata)


def _strings(column: pa.ChunkedArray) -> np.ndarray:
    """A column as an object array in which equal strings are one object."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.dictionary.to_numpy(zero_copy_only=False)[encoded.indices.to_numpy()]
