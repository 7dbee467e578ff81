"""Prepared corpora: the image-report pairs of ConVIRT, section 2.1, on disk.

A corpus is a folder of Arrow shards that `datasets.load_from_disk` memory-maps row by row, with `corpus.json`
(format, image size, fingerprint, counts, settings) and `audit.json` (what became of every row of the source) beside
them. Opening a corpus, or reading a column such as `patient_ids`, touches no image bytes.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
_BYTES_PER_SHARD = 256 * 2**20


def decode(image: ImageRecord) -> Tensor:
    """Return the pixels of a prepared image: [1, H, W], uint8, or uint16 if it was encoded with 16 bits."""
    with Image.open(io.BytesIO(image.encoded)) as opened:
        return torch.from_numpy(np.array(opened)).unsqueeze(0)


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

    def __init__(self, path: Path, about: dict[str, Any], rows: datasets.Dataset) -> None:
        self.path = path
        self.fingerprint: str = about["fingerprint"]
        self.image_size: int = about["image_size"]
        self.settings: dict[str, Any] = about["settings"]
        self.patient_ids: np.ndarray = rows.data.column("patient_id").to_numpy()
        self.splits: np.ndarray = rows.data.column("split").to_numpy()
        self._rows = rows

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
            rows = datasets.load_from_disk(str(path))
            assert isinstance(rows, datasets.Dataset)
            corpus = cls(path, about, rows)
        except (OSError, KeyError, TypeError, AttributeError, ValueError, pa.ArrowException) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is a damaged corpus ({type(error).__name__}: {error}); {remedy}") from error
        if len(corpus) != about["counts"]["pairs"]:
            raise InputError(f"{path} should hold {about['counts']['pairs']} pairs, has {len(corpus)}; {remedy}")
        return corpus

    def __len__(self) -> int:
        return len(self._rows)

    def pair(self, index: int) -> Pair:
        """Read one pair, with the encoded bytes of its images."""
        row = self._rows[int(index)]
        return Pair(
            pair_id=row["pair_id"],
            patient_id=row["patient_id"],
            split=row["split"],
            images=tuple(ImageRecord(**image) for image in row["images"]),
            sentences=tuple(row["sentences"]),
            text=row["text"],
            attributes={entry["name"]: entry["value"] for entry in row["attributes"]},
        )

    def indices(self, split: str) -> np.ndarray:
        """Return the indices of the pairs of a split, ascending, int64; empty if it has none."""
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r}; splits are {', '.join(SPLITS)}")
        return np.flatnonzero(self.splits == split).astype(np.int64)

    def column_lengths(self, name: str) -> np.ndarray:
        """Return how many `images` or `sentences` each pair has, int64 [pairs]; touches no image bytes."""
        return pc.list_value_length(self._rows.data.column(name)).to_numpy().astype(np.int64)


def check_free(out: Path) -> None:
    """Refuse to write a corpus over anything: `out` must be missing or an empty folder.

    Raises:
        InputError: It is neither.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists already; remove it or choose another --out")


class CorpusWriter:
    """Writes a corpus, all or nothing.

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
        self._schema = FEATURES.arrow_schema
        self._hash = hashlib.sha256(f"convirt corpus {FORMAT} {image_size}".encode())
        self._ids: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._patients: set[str] = set()
        self._shards: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._stream: pa.ipc.RecordBatchStreamWriter | None = None
        self._sink: pa.OSFile | None = None

    def __enter__(self) -> "CorpusWriter":
        check_free(self.out)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f".{self.out.name}.", dir=self.out.parent))
        self._folder.chmod(0o755)  # mkdtemp keeps others out, a finished corpus need not
        return self

    def add(self, pair: Pair) -> None:
        """Append one pair.

        Raises:
            InputError: Its id was added before, or an image has another size than the corpus, or nothing to read.
        """
        if pair.pair_id in self._ids:
            raise InputError(f"pair id {pair.pair_id!r} occurs twice; ids of pairs must be unique")
        if pair.split not in SPLITS:
            raise InputError(f"pair {pair.pair_id!r}: split {pair.split!r} is none of {', '.join(SPLITS)}")
        if not pair.images or not pair.sentences:
            raise InputError(f"pair {pair.pair_id!r} needs at least one image and one sentence")
        self._ids.add(pair.pair_id)
        self._patients.add(pair.patient_id)
        row = asdict(pair)
        row["attributes"] = [{"name": name, "value": value} for name, value in pair.attributes.items()]
        self._rows.append(row)
        self._hash_pair(pair, row)
        self._counts.update(
            {"pairs": 1, f"pairs_{pair.split}": 1, "images": len(pair.images), "sentences": len(pair.sentences)}
        )
        if len(self._rows) >= _ROWS_PER_BATCH:
            self._flush()

    def counts(self) -> dict[str, int]:
        """Return the pairs (in all and of each split), images, sentences and patients added so far."""
        counts = {"pairs": 0, **{f"pairs_{split}": 0 for split in SPLITS}, **self._counts}
        return {**counts, "patients": len(self._patients)}

    def _hash_pair(self, pair: Pair, row: dict[str, Any]) -> None:
        # Pixels, not their PNG bytes: two versions of zlib write the same pixels differently.
        images = []
        for image, values in zip(pair.images, row["images"], strict=True):
            pixels_1HW = decode(image)
            if max(image.height, image.width) != self.image_size or pixels_1HW.shape != (1, image.height, image.width):
                raise InputError(
                    f"pair {pair.pair_id!r}, image {image.source!r}: {tuple(pixels_1HW.shape)} is not a grey image "
                    f"with larger side {self.image_size}"
                )
            pixels = hashlib.sha256(pixels_1HW.numpy().tobytes()).hexdigest()
            images.append({**values, "encoded": pixels, "dtype": str(pixels_1HW.dtype)})
        self._hash.update(json.dumps({**row, "images": images}, sort_keys=True).encode())

    def _flush(self) -> None:
        if self._rows:
            if self._stream is None:
                self._shards.append(f"data-{len(self._shards):05d}.arrow")
                self._sink = pa.OSFile(str(self._folder / self._shards[-1]), "wb")
                self._stream = pa.ipc.new_stream(self._sink, self._schema)
            self._stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows = []
            assert self._sink is not None
            if self._sink.tell() >= _BYTES_PER_SHARD:
                self._close_shard()

    def _close_shard(self) -> None:
        if self._stream is not None and self._sink is not None:
            self._stream.close()
            self._sink.close()
            self._stream = self._sink = None

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
        self._discard()
        if isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"the disk of {self.out} is full; nothing was written, free some space") from failure
        if failure is not error:
            raise failure

    def _discard(self) -> None:
        with suppress(OSError):  # a full disk: the folder goes anyway
            self._close_shard()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if not self._ids:
            raise InputError(f"no pair is left to write to {self.out}")
        self._flush()
        self._close_shard()
        self.fingerprint = self._hash.hexdigest()
        about = {
            "format": FORMAT,
            "image_size": self.image_size,
            "fingerprint": self.fingerprint,
            "counts": self.counts(),
            "settings": self.settings,
        }
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in self._shards],
            "_fingerprint": self.fingerprint[:16],  # its own would be random
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        datasets.DatasetInfo(features=FEATURES).write_to_directory(str(self._folder))
        for name, value in (("state", state), ("corpus", about), ("audit", self.audit)):
            text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
            (self._folder / f"{name}.json").write_text(text, encoding="utf-8")
        for file in self._folder.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        check_free(self.out)
        os.replace(self._folder, self.out)
