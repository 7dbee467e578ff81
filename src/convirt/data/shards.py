"""Shards: the Arrow files of a corpus, each written whole by one process, and what their content hashes to."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from convirt.data.records import ImageRecord, Pair
from convirt.errors import InputError

FORMAT = 1
SPLITS = ("train", "val", "test")

_IMAGE = {name: datasets.Value("string") for name in ("view", "source", "sha256", "recipe")}
FEATURES = datasets.Features(
    {
        "pair_id": datasets.Value("string"),
        "patient_id": datasets.Value("string"),
        "split": datasets.Value("string"),
        "text": datasets.Value("string"),
        "sentences": [datasets.Value("string")],
        "attributes": [{"name": datasets.Value("string"), "value": datasets.Value("string")}],
        "images": [
            {
                "encoded": datasets.Value("binary"),
                "height": datasets.Value("int32"),
                "width": datasets.Value("int32"),
                **_IMAGE,
            }
        ],
    }
)

_ROWS_PER_BATCH = 64  # small enough that one row never drags much else into memory


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"data-{number:05d}.arrow"


def decode(image: ImageRecord) -> Tensor:
    """Return the pixels of a prepared image: [1, H, W], uint8, or uint16 if it was encoded with 16 bits."""
    with Image.open(io.BytesIO(image.encoded)) as opened:
        return torch.from_numpy(np.array(opened)).unsqueeze(0)


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
        self._schema = FEATURES.arrow_schema
        self._sink = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._sink, self._schema)

    def add(self, pair: Pair) -> None:
        """Append one pair.

        Raises:
            InputError: An image has another size than the corpus, or there is nothing to read.
        """
        if pair.split not in SPLITS:
            raise InputError(f"pair {pair.pair_id!r}: split {pair.split!r} is none of {', '.join(SPLITS)}")
        if not pair.images or not pair.sentences:
            raise InputError(f"pair {pair.pair_id!r} needs at least one image and one sentence")
        row = asdict(pair)
        row["attributes"] = [{"name": name, "value": value} for name, value in pair.attributes.items()]
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
            self._stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
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


def _digest(pair: Pair, row: dict[str, Any], image_size: int) -> bytes:
    """Hash a pair: its values, and pixels in place of PNG bytes, which two versions of zlib write differently."""
    images = []
    for image, values in zip(pair.images, row["images"], strict=True):
        pixels_1HW = decode(image)
        if max(image.height, image.width) != image_size or pixels_1HW.shape != (1, image.height, image.width):
            raise InputError(
                f"pair {pair.pair_id!r}, image {image.source!r}: {tuple(pixels_1HW.shape)} is not a grey image "
                f"with larger side {image_size}"
            )
        pixels = hashlib.sha256(pixels_1HW.numpy().tobytes()).hexdigest()
        images.append({**values, "encoded": pixels, "dtype": str(pixels_1HW.dtype)})
    return hashlib.sha256(json.dumps({**row, "images": images}, sort_keys=True).encode()).digest()


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
    """Write the files that make a folder of shards a corpus that `Corpus.open` and `datasets.load_from_disk` read."""
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
    datasets.DatasetInfo(features=FEATURES).write_to_directory(str(folder))
    for name, value in (("state", state), ("corpus", about)):
        write_json(folder / f"{name}.json", value)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people to read."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
