"""Shards: the Arrow files of a corpus, each written whole by one process, and what their content hashes to."""

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from convirt.atomic import check_writable, write_json
from convirt.data.records import ImageRecord, Pair, content_of
from convirt.errors import InputError

FORMAT = 1
CATALOGUE = "catalogue.arrow"
BESIDE = (CATALOGUE, "state.json", "dataset_info.json")
"""Small files whose hashes `corpus.json` holds."""
SPLITS = ("train", "val", "test")

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
    """A type as the `datasets` library describes it in its metadata. Importing it costs each worker seconds."""
    if pa.types.is_list(kind):
        return {"feature": _describe(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _describe(field.type) for field in kind}
    return {"dtype": str(kind), "_type": "Value"}


_FEATURES = {name: _describe(kind) for name, kind in _COLUMNS.items()}
SCHEMA = pa.schema(list(_COLUMNS.items()), {"huggingface": json.dumps({"info": {"features": _FEATURES}})})
"""Of the shards' files."""

_ROWS_PER_BATCH = 64  # small enough that one row never drags much else into memory


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"data-{number:05d}.arrow"


def pixels(image: ImageRecord) -> np.ndarray:
    """Return the pixels of a prepared image: [H, W], uint8, or uint16 if it was encoded with 16 bits.

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
    """Writes pairs to one Arrow file; the bytes depend on the pairs alone. A context manager.

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
        self._sink = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._sink, SCHEMA)

    def add(self, pair: Pair) -> None:
        """Append one pair.

        Raises:
            InputError: An image has another size than the corpus, or there is nothing to read.
        """
        if pair.split not in SPLITS:
            raise InputError(f"pair {pair.pair_id!r}: split {pair.split!r} is none of {', '.join(SPLITS)}")
        if not pair.images or not pair.sentences:
            raise InputError(f"pair {pair.pair_id!r} needs at least one image and one sentence")
        row = _stored(pair)
        self._rows.append(row)
        self.digests.append(_digest(pair, row, self.image_size))
        self.counts.update(
            {"pairs": 1, f"pairs_{pair.split}": 1, "images": len(pair.images), "sentences": len(pair.sentences)}
        )
        if len(self._rows) >= _ROWS_PER_BATCH:
            self._flush()

    def size(self) -> int:
        """Bytes written so far; the last pairs may still wait."""
        return self._sink.tell()

    def _flush(self) -> None:
        if self._rows:
            self._stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
            self._rows = []

    def close(self) -> None:
        """Write what waits and end the file."""
        self._flush()
        self._stream.close()
        self._sink.close()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._sink.close()


def _stored(pair: Pair) -> dict[str, Any]:
    """A pair as a row of a shard's table."""
    row = asdict(pair)
    for image in row["images"]:
        del image["content"]
    row["attributes"] = [{"name": name, "value": value} for name, value in pair.attributes.items()]
    return row


def pair_digest(pair: Pair, image_size: int) -> bytes:
    """The hash of a pair's content that `Fingerprint` is made of, from what its shard holds.

    Raises:
        InputError: An image of it cannot be decoded, or has another size.
    """
    return _digest(pair, _stored(pair), image_size)


def _digest(pair: Pair, row: dict[str, Any], image_size: int) -> bytes:
    """Hash a pair: its values, and pixels in place of PNG bytes, which two versions of zlib write differently."""
    images = []
    for image, values in zip(pair.images, row["images"], strict=True):
        dtype, height, width, digest = (image.content or _content(image)).split()
        shape = int(height), int(width)
        if max(image.height, image.width) != image_size or shape != (image.height, image.width):
            raise InputError(
                f"pair {pair.pair_id!r}, image {image.source!r}: {shape} is not a grey image "
                f"with larger side {image_size}"
            )
        images.append({**values, "encoded": digest, "dtype": dtype})
    return hashlib.sha256(json.dumps({**row, "images": images}, sort_keys=True).encode()).digest()


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
        """Return it."""
        return self._hash.hexdigest()


def write_about(
    folder: Path, *, shards: list[str], image_size: int, fingerprint: str, counts: dict[str, int], settings: Any
) -> None:
    """Write the files that make a folder of shards a corpus that `Corpus.open` and `datasets.load_from_disk` read.

    The catalogue lies there already: `corpus.json`, the last one, knows the hash of each of the others, and its own.
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
    beside = [folder / name for name in BESIDE]
    about["files"] = {path.name: file_sha256(path) for path in beside if path.is_file()}
    write_json(folder / "corpus.json", sealed(json.loads(json.dumps(about))))  # keys as they are read back


def sealed(about: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `corpus.json` with a hash of all else in it, by which a changed one is noticed."""
    rest = {name: value for name, value in about.items() if name != "sha256"}
    return {**rest, "sha256": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def file_sha256(path: Path) -> str:
    """Return the hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_free(out: Path) -> None:
    """Refuse to write a corpus over anything: `out` must be missing or an empty folder.

    Raises:
        InputError: It is neither, or cannot be written.
    """
    check_writable(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists already; remove it or choose another --out")


def sync(folder: Path) -> None:
    """Have everything in a folder reach the disk."""
    for file in folder.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())


def shard_names(folder: Path) -> list[str]:
    """Return the files of a corpus in their order."""
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return [file["filename"] for file in state["_data_files"]]


def map_shards(folder: Path, names: Sequence[str] | None = None) -> pa.Table:
    """Map shards of a corpus as one table; all of them, if none are named."""
    names = shard_names(folder) if names is None else names
    return pa.concat_tables(pa.ipc.open_stream(pa.memory_map(str(folder / name))).read_all() for name in names)
