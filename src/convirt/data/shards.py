"""The files of a corpus: Arrow shards of pairs, the catalogue of what is asked of all pairs at once, `corpus.json`.

Each shard is written whole by one process. A corpus of a million pairs opens from its catalogue without touching a
shard: there, patients and splits are spread over pages between megabytes of images.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from convirt.atomic import atomic_file, write_json
from convirt.data.records import ImageRecord, Pair, content_of
from convirt.errors import InputError

FORMAT = 1
CATALOGUE = "catalogue.arrow"
SPLITS = ("train", "val", "test")
_HASHED = (CATALOGUE, "state.json", "dataset_info.json")  # small files whose hashes `corpus.json` holds
_ROWS_PER_BATCH = 64  # small enough that one row never drags much else into memory

_VALUES = pa.struct([("name", pa.string()), ("value", pa.string())])
_IMAGES = pa.struct(
    [
        ("encoded", pa.binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        *((name, pa.string()) for name in ("view", "source", "sha256", "recipe")),
    ]
)
_COLUMNS = {
    **{name: pa.string() for name in ("pair_id", "patient_id", "split", "text")},
    "sentences": pa.list_(pa.string()),
    "attributes": pa.list_(_VALUES),
    "images": pa.list_(_IMAGES),
}


def _describe(kind: pa.DataType) -> dict[str, Any]:
    """A type as the `datasets` library describes it in its metadata. Importing that library costs seconds."""
    if pa.types.is_list(kind):
        return {"feature": _describe(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _describe(field.type) for field in kind}
    return {"dtype": str(kind), "_type": "Value"}


_FEATURES = {name: _describe(kind) for name, kind in _COLUMNS.items()}
SCHEMA = pa.schema(list(_COLUMNS.items()), {"huggingface": json.dumps({"info": {"features": _FEATURES}})})
"""Columns of a shard."""
_CATALOGUE_SCHEMA = pa.schema(
    [("patient_id", pa.string()), ("split", pa.string()), ("images", pa.int32()), ("sentences", pa.int32())]
)


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"data-{number:05d}.arrow"


def shard_names(folder: Path) -> list[str]:
    """The shards of a corpus in their order."""
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return [file["filename"] for file in state["_data_files"]]


def indices_of_split(splits: np.ndarray, split: str) -> np.ndarray:
    """The indices of the pairs of a split, ascending, int64, given the split of each pair.

    Raises:
        InputError: There is no such split.
    """
    if split not in SPLITS:
        raise InputError(f"there is no split {split!r}; splits are {', '.join(SPLITS)}")
    return np.flatnonzero(splits == split).astype(np.int64)


def map_shards(folder: Path, names: Sequence[str] | None = None) -> pa.Table:
    """Map shards of a corpus as one table; all of them, if none are named."""
    names = shard_names(folder) if names is None else names
    return pa.concat_tables(pa.ipc.open_stream(pa.memory_map(str(folder / name))).read_all() for name in names)


def pixels(image: ImageRecord) -> np.ndarray:
    """The pixels of a prepared image: [H, W], uint8, or uint16 if it was encoded with 16 bits.

    Raises:
        InputError: Its bytes are damaged.
    """
    try:
        with Image.open(io.BytesIO(image.encoded)) as opened:
            return np.array(opened)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"the prepared image of {image.source!r} is damaged ({error}); prepare the corpus again"
        ) from error


class ShardWriter:
    """Writes pairs to one Arrow file, which appears whole or not at all. A context manager.

    The bytes depend on the pairs alone.

    Attributes:
        digests: sha256 over the content of each pair, in their order.
        counts: `pairs`, `pairs_train`, `pairs_val`, `pairs_test`, `images` and `sentences` so far.
    """

    def __init__(self, path: Path, *, image_size: int) -> None:
        self.path = path
        self.image_size = image_size
        self.digests: list[bytes] = []
        self.counts: Counter[str] = Counter()
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> "ShardWriter":
        self._opened = ExitStack()
        file = self._opened.enter_context(atomic_file(self.path))
        self._stream = self._opened.enter_context(pa.ipc.new_stream(file, SCHEMA))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._opened.callback(self._flush)
        self._opened.__exit__(kind, error, trace)

    def add(self, pair: Pair) -> None:
        """Append one pair.

        Raises:
            InputError: An image has another size than the corpus, or there is nothing to read.
        """
        if pair.split not in SPLITS:
            raise InputError(f"pair {pair.pair_id!r}: split {pair.split!r} is none of {', '.join(SPLITS)}")
        if not pair.images or not pair.sentences:
            raise InputError(f"pair {pair.pair_id!r} needs at least one image and one sentence")
        self.digests.append(pair_digest(pair, self.image_size))
        self._rows.append(_stored(pair))
        self.counts.update(
            {"pairs": 1, f"pairs_{pair.split}": 1, "images": len(pair.images), "sentences": len(pair.sentences)}
        )
        if len(self._rows) >= _ROWS_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
            self._rows = []


def _stored(pair: Pair) -> dict[str, Any]:
    """A pair as a row of a shard's table."""
    row = asdict(pair)
    for image in row["images"]:
        del image["content"]
    row["attributes"] = [{"name": name, "value": value} for name, value in pair.attributes.items()]
    return row


def pair_digest(pair: Pair, image_size: int) -> bytes:
    """Hash a pair: its values, and pixels in place of PNG bytes, which two versions of zlib write differently.

    Raises:
        InputError: An image of it cannot be decoded, or has another size.
    """
    row = _stored(pair)
    for image, values in zip(pair.images, row["images"], strict=True):
        dtype, height, width, digest = (image.content or _content(image)).split()
        shape = int(height), int(width)
        if max(image.height, image.width) != image_size or shape != (image.height, image.width):
            raise InputError(
                f"pair {pair.pair_id!r}, image {image.source!r}: {shape} is not a grey image "
                f"with larger side {image_size}"
            )
        values |= {"encoded": digest, "dtype": dtype}
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()


def _content(image: ImageRecord) -> str:
    values_HW = pixels(image)
    if values_HW.ndim != 2:
        raise InputError(f"image {image.source!r}: {values_HW.shape} is not a grey image")
    return content_of(values_HW)


class Fingerprint:
    """The hash of a corpus' content: of its pairs in their order, wherever its files are cut."""

    def __init__(self, image_size: int) -> None:
        self._hash = hashlib.sha256(f"convirt corpus {FORMAT} {image_size}".encode())

    def update(self, digests: Iterable[bytes]) -> None:
        """Go on with the pairs of the next shard."""
        for digest in digests:
            self._hash.update(digest)

    def hexdigest(self) -> str:
        """The hash in hexadecimal."""
        return self._hash.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What is known of the pairs and shards of a corpus without reading them."""

    patients: np.ndarray
    """Patient of each pair, object array [pairs]."""
    splits: np.ndarray
    """Split of each pair, object array [pairs]."""
    lengths: dict[str, np.ndarray]
    """How many `images` and how many `sentences` each pair has, int64 [pairs]."""
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
    with atomic_file(folder / CATALOGUE) as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def read_catalogue(folder: Path) -> Catalogue:
    """Read the catalogue of a corpus; that of a corpus which has none is collected from its shards."""
    if (folder / CATALOGUE).is_file():
        table = pa.ipc.open_stream(pa.memory_map(str(folder / CATALOGUE))).read_all()
    else:
        table = _collect(folder, shard_names(folder))
    shards = json.loads(table.schema.metadata[b"shards"])
    sums = json.loads(table.schema.metadata.get(b"sha256", b"{}"))
    return Catalogue(
        patients=_strings(table.column("patient_id")),
        splits=_strings(table.column("split")),
        lengths={name: table.column(name).to_numpy().astype(np.int64) for name in ("images", "sentences")},
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
        part = pa.table([rows.column("patient_id"), rows.column("split"), *lengths], schema=_CATALOGUE_SCHEMA)
        parts.append(part.combine_chunks())  # a copy: the shard need not stay mapped
        shards.append((name, len(rows), (folder / name).stat().st_size))
    table = pa.concat_tables([_CATALOGUE_SCHEMA.empty_table(), *parts]).combine_chunks()
    return table.replace_schema_metadata({"shards": json.dumps(shards)})


def _strings(column: pa.ChunkedArray) -> np.ndarray:
    """A column as an object array in which equal strings are one object."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.dictionary.to_numpy(zero_copy_only=False)[encoded.indices.to_numpy()]


def write_about(
    folder: Path, *, shards: list[str], image_size: int, fingerprint: str, counts: dict[str, int], settings: Any
) -> None:
    """Write the files that make a folder of shards a corpus that `Corpus.open` and `datasets.load_from_disk` read.

    The catalogue lies there already. `corpus.json` comes last, with the hash of each other small file and its own.
    """
    about = {
        "format": FORMAT,
        "image_size": image_size,
        "fingerprint": fingerprint,
        "counts": {"pairs": 0, **{f"pairs_{split}": 0 for split in SPLITS}, **counts},
        "settings": settings,
    }
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in shards],
        "_fingerprint": fingerprint[:16],  # its own would be random
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    info = {"citation": "", "description": "", "features": _FEATURES, "homepage": "", "license": ""}
    for name, value in (("state", state), ("dataset_info", info)):
        write_json(folder / f"{name}.json", value)
    about["files"] = {name: file_sha256(folder / name) for name in _HASHED if (folder / name).is_file()}
    write_json(folder / "corpus.json", sealed(json.loads(json.dumps(about))))  # keys as they are read back


def sealed(about: dict[str, Any]) -> dict[str, Any]:
    """The content of `corpus.json` with a hash of all else in it, so that a changed one is noticed."""
    rest = {name: value for name, value in about.items() if name != "sha256"}
    return {**rest, "sha256": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
