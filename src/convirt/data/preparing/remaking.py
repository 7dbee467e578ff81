"""Prepared images made again at another size or depth, from their sources and the recipes that the corpus keeps.

Nothing is decided anew: which frame, which window, which range of values stays as the recipe says. The result is what
preparing the sources afresh with that size and depth gives, bit for bit.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from convirt.data.corpora import Corpus
from convirt.data.imaging.pixels import Unreadable, read_inside
from convirt.data.imaging.prepared import Bits, prepare_bytes
from convirt.data.preparing.audit import Audit
from convirt.data.preparing.pairs import PairContent, PairPlan, Row
from convirt.data.preparing.prepare import Options, check_out, prepare_corpus
from convirt.data.records import ImageRecord
from convirt.data.reports import Report, count_tokens
from convirt.data.shards import map_shards
from convirt.errors import InputError


def remake(record: ImageRecord, data: bytes, *, image_size: int, bits: Bits = 8) -> ImageRecord:
    """Make a prepared image again at another size or depth.

    Args:
        record: The image as it was prepared.
        data: The bytes of its source file.
        image_size: Larger side of the new image, pixels.
        bits: Depth of the new image.

    Raises:
        Unreadable: These are not the bytes that the record was made from.
    """
    return _remake(record, data, image_size, bits)[0]


def _remake(record: ImageRecord, data: bytes, image_size: int, bits: Bits) -> tuple[ImageRecord, tuple[str, ...]]:
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise Unreadable("source file that has changed", "its hash is not the one that the corpus keeps")
    recipe: dict[str, Any] = json.loads(record.recipe)
    return prepare_bytes(data, source=record.source, image_size=image_size, view=record.view, bits=bits, recipe=recipe)


def prepare_remake(
    corpus: Path,
    images: Path,
    out: Path,
    *,
    image_size: int | None = None,
    bits: Literal[8, 16] | None = None,
    max_failures: float = 0.1,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
) -> Path:
    """Make a corpus again at another image size or depth, from the image files that it was made from.

    Texts, splits and ids stay as they are; images follow the recipes that the corpus keeps (frame, window, range), so
    that they come out as preparing afresh with this size and depth would make them. A corpus prepared with `--sources
    hashed` has no paths to make it from.

    Args:
        corpus: The corpus to make again; it stays as it is.
        images: Folder that the paths of its images start from.
        out: Folder to write the new corpus to; it must not exist yet, or be empty.
        image_size: Larger side of the new images, in pixels; by default that of the corpus.
        bits: Depth of the new images: 8, or 16 for sources that hold more; by default that of the corpus.
        max_failures: Largest share of images that may be missing, changed or unreadable; above it nothing is written.
        workers: Processes that read images; default: one for each processor. The corpus does not depend on it.
        engine: Where they run: `local` on this machine, `ray` on a Ray cluster (extra `convirt[ray]`).

    Returns:
        The folder of the new corpus.

    Raises:
        InputError: Bad folder or corpus, or too many images that cannot be made again; nothing is written then.
    """
    corpus, images, out = Path(corpus), Path(images), Path(out)
    if not images.is_dir():
        raise InputError(f"{images} is no folder; --images names the folder that image paths start from")
    source = Corpus.open(corpus)
    image_size = source.image_size if image_size is None else image_size
    bits = source.settings.get("bits", 8) if bits is None else bits
    options = _NewOptions(
        image_size=image_size, bits=bits, max_failures=max_failures, workers=workers, engine=engine, ids="plain"
    )
    check_out(out)
    if source.settings.get("sources") == "hashed":
        raise InputError(
            f"{corpus} hides the paths of its source files (--sources hashed), so its images cannot be made again; "
            "prepare it afresh from its source"
        )
    about = {"fingerprint": source.fingerprint, "image_size": source.image_size}
    changed = {name: source.settings[name] for name in _NEW if name in source.settings}
    settings = {**source.settings, "remade": {**about, **changed}}
    audit = Audit(table=f"corpus {corpus.name}", total=int(source.column_lengths("images").sum()))
    read = Remaking(corpus=source, images=images, image_size=image_size, bits=bits)
    return prepare_corpus(list(_plans(source)), read, out, options=options, settings=settings, audit=audit)


def _plans(corpus: Corpus) -> Iterator[PairPlan]:
    """Plan every pair of a corpus; the rows are its images, numbered through. Touches no image bytes."""
    table = map_shards(corpus.path)
    batches = table.select(["pair_id", "patient_id", "split", "attributes"]).to_batches()
    rows = (row for batch in batches for row in batch.to_pylist())
    number = 0
    for index, (named, images) in enumerate(zip(rows, _named_images(table), strict=True)):
        members = []
        for source, view in images:
            number += 1
            members.append(
                Row(
                    number=number,
                    image=source,
                    source=source,
                    text="",
                    patient=named["patient_id"],
                    study=str(index),  # where the worker finds the pair
                    split=named["split"],
                    view=view,
                    attributes={},
                )
            )
        yield PairPlan(
            pair_id=named["pair_id"],
            patient=named["patient_id"],
            split=named["split"],
            rows=tuple(members),
            text="",
            attributes={entry["name"]: entry["value"] for entry in named["attributes"]},
        )


def _named_images(table: pa.Table) -> Iterator[list[tuple[str, str]]]:
    """Yield source and view of the images of each pair."""
    for chunk in table.column("images").chunks:
        names = [pc.struct_field(chunk.flatten(), name).to_pylist() for name in ("source", "view")]
        named = iter(zip(*names, strict=True))
        for length in pc.list_value_length(chunk).to_pylist():
            yield list(islice(named, length))


class _NewOptions(Options):
    """Options of which only those hold for the new corpus that a remake decides; ids, for one, are what they were."""

    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("image_size", "bits", "max_failures")}


_NEW = ("bits", "max_failures", "versions", "remade")
"""Settings that are those of the new corpus, the image size beside; the old ones are kept below `remade`."""


@dataclass
class Remaking:
    """Reads a planned pair: its text from the corpus, its images from their sources. It can be pickled."""

    corpus: Corpus
    images: Path
    image_size: int
    bits: Bits

    def __call__(self, plan: PairPlan) -> PairContent:
        pair = self.corpus.pair(int(plan.rows[0].study))
        made = [self._attempt(record) for record in pair.images]
        report = Report(text=pair.text, sentences=pair.sentences, tokens=count_tokens(pair.text), has_sections=False)
        return PairContent(
            report=report,
            images=tuple(image for image, _, _ in made),
            problems=tuple(problem for _, problem, _ in made),
            repairs=tuple(repairs for _, _, repairs in made),
        )

    def _attempt(self, record: ImageRecord) -> tuple[ImageRecord | None, Unreadable | None, tuple[str, ...]]:
        try:
            image, repairs = _remake(record, read_inside(self.images, record.source), self.image_size, self.bits)
        except Unreadable as problem:
            return None, problem, ()
        return image, None, repairs
