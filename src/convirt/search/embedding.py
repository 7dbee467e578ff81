"""Vectors of images and texts as a Parquet file, for whatever is built on them elsewhere."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from convirt.atomic import atomic_file
from convirt.data.corpora import Corpus, decode
from convirt.data.imaging.pixels import Unreadable
from convirt.data.imaging.prepared import read_pixels
from convirt.errors import InputError
from convirt.model import Model, Space, load
from convirt.search.index import weights_of

AT_ONCE = 512
"""Vectors in memory before they are written."""
KEY = b"convirt"
"""Of the Parquet file's metadata: JSON with the run, the sha256 of its weights and the space."""

Item = tuple[dict[str, str], np.ndarray | str]
"""What is said of an item, and its pixels [H, W] or its text."""


def embed_all(
    run: Path, out: Path, *, corpus: Path | None, images: Path | None, text: bool, space: Space
) -> tuple[Counter[str], dict[str, list[str]]]:
    """Write the vectors of a corpus, or of a folder of images, to a Parquet file.

    Returns:
        How many vectors of each kind were written; and what could not be read, files by reason.

    Raises:
        InputError: Neither or both are given, nothing can be read, or the model lacks a tower or the space.
    """
    if (corpus is None) == (images is None):
        raise InputError("give either --corpus or --images")
    if text and corpus is None:
        raise InputError("--text embeds the sentences of a corpus; give --corpus")
    model, left_out = load(run), dict[str, list[str]]()
    items = _of_corpus(Corpus.open(corpus), text) if corpus is not None else _of_folder(Path(images or ""), left_out)
    about = {"run": run.name, "weights": weights_of(run), "space": space}
    names = ("kind", "id", "study", "patient", "split")
    columns = [*((name, pa.string()) for name in names), ("vector", pa.list_(pa.float16()))]
    schema = pa.schema(columns, {KEY: json.dumps(about).encode()})
    counts: Counter[str] = Counter()
    with atomic_file(out) as file, pq.ParquetWriter(file, schema) as writer:
        for batch in _batches(items):
            vectors = _encoded(model, batch, space)
            counts.update(said["kind"] for said, _ in batch)
            rows = [{**said, "vector": vector} for (said, _), vector in zip(batch, vectors, strict=True)]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        if not counts:
            reasons = ", ".join(f"{reason} ({len(names)})" for reason, names in left_out.items())
            raise InputError(f"nothing to embed in {corpus or images}" + (f": {reasons}" if reasons else ""))
    return counts, left_out


def _encoded(model: Model, batch: list[Item], space: Space) -> list[np.ndarray]:
    """One float16 vector an item, in their order."""
    vectors: list[np.ndarray] = [np.empty(0)] * len(batch)
    pictures = [place for place, (_, item) in enumerate(batch) if not isinstance(item, str)]
    texts = [place for place, (_, item) in enumerate(batch) if isinstance(item, str)]
    if pictures:
        found = model.encode_image((batch[place][1] for place in pictures), space=space)
        for place, vector in zip(pictures, found, strict=True):
            vectors[place] = vector.astype(np.float16)
    if texts:
        found = model.encode_text((str(batch[place][1]) for place in texts), space=space)
        for place, vector in zip(texts, found, strict=True):
            vectors[place] = vector.astype(np.float16)
    return vectors


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _of_corpus(corpus: Corpus, text: bool) -> Iterator[Item]:
    for number in range(len(corpus)):
        pair = corpus.pair(number)
        said = {"study": pair.pair_id, "patient": pair.patient_id, "split": pair.split}
        for place, image in enumerate(pair.images):
            yield {"kind": "image", "id": image.source or f"{pair.pair_id}#{place}", **said}, decode(image).numpy()[0]
        for place, sentence in enumerate(pair.sentences if text else ()):
            yield {"kind": "sentence", "id": f"{pair.pair_id}#{place}", **said}, sentence


def _of_folder(folder: Path, left_out: dict[str, list[str]]) -> Iterator[Item]:
    """Every file below a folder that is an image, known by its content; the others go to `left_out`, by reason."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; --images names the folder with the images")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        try:
            values = read_pixels(path.read_bytes(), suffix=path.suffix.lower()).values_HW
        except Unreadable as problem:
            left_out.setdefault(problem.reason, []).append(name)
            continue
        yield (
            {"kind": "image", "id": name, "study": "", "patient": "", "split": ""},
            np.require(values, requirements="W"),
        )
