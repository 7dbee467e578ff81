"""What can be inspected, all read alike, row by row: a prepared corpus, a benchmark folder, a labelled table."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from convirt.data.corpora import Corpus
from convirt.data.imaging.pixels import Unreadable
from convirt.data.imaging.prepared import prepare_image
from convirt.data.paths import said_of_close_file
from convirt.data.records import ImageRecord, Pair
from convirt.data.shards import Fingerprint, pair_digest
from convirt.data.splits import SPLITS
from convirt.data.tables import read_table, require_columns
from convirt.errors import InputError
from convirt.inspection.naming import Naming

_ROWS_AT_ONCE = 64
_LOOK_LIKE_SPLITS = ("split", "subset", "fold", "partition", "set", "dataset")
_DEFAULT_SIZE = 256  # of images read beside nothing that says otherwise (A)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of a table holds what."""

    image: str = "image"
    patient: str | None = None
    split: str | None = None
    text: str | None = None


class Collection(Protocol):
    """Rows to inspect; a row is a pair of a corpus, or an image of a table."""

    name: str
    """What reports call it."""
    about: dict[str, Any]
    """What it says of itself, JSON values."""
    naming: Naming
    unreadable: int
    """Images that were asked for and could not be read."""
    unnamed_split: str
    """A column that looks like one of splits and was not named; empty if there is none."""

    def __len__(self) -> int: ...

    def rows(self) -> Iterator[Pair]:
        """Yield all rows in order, with their images; few are in memory at a time."""

    def row(self, place: int) -> Pair:
        """Read one row."""


class CorpusRows:
    """A prepared corpus."""

    def __init__(self, path: Path) -> None:
        self.corpus = Corpus.open(path)
        self.name = path.resolve().name
        settings = self.corpus.settings
        kind = settings.get("ids", "plain")
        table = settings.get("table")
        self.naming = Naming(
            kind=kind,
            mark=settings.get("ids_mark", "") if kind == "hashed" else "",
            table_mark=table.get("mark", "") if isinstance(table, dict) else "",
        )
        self.about = {
            "kind": "corpus",
            "pairs": len(self.corpus),
            "image_size": self.corpus.image_size,
            "fingerprint": self.corpus.fingerprint,
            "ids": kind,
        }
        if kind == "hashed":
            self.about["sources"] = settings.get("sources", "plain")
            self.about["sources_with_patient"] = settings.get("sources_with_patient")  # older corpora do not say
        self.unreadable = 0
        self.unnamed_split = ""

    def __len__(self) -> int:
        return len(self.corpus)

    def rows(self) -> Iterator[Pair]:
        """Yield all pairs."""
        for start in range(0, len(self), _ROWS_AT_ONCE):
            indices = np.arange(start, min(start + _ROWS_AT_ONCE, len(self)))
            for values in self.corpus.table(indices).to_pylist():
                images = tuple(ImageRecord(**image) for image in values.pop("images"))
                attributes = {entry["name"]: entry["value"] for entry in values.pop("attributes")}
                sentences = tuple(values.pop("sentences"))
                yield Pair(**values, images=images, attributes=attributes, sentences=sentences)

    def row(self, place: int) -> Pair:
        """Read one pair."""
        return self.corpus.pair(place)


@dataclass
class TableRows:
    """A labelled table, or the table of a benchmark folder, with its images."""

    path: Path
    images: Path
    columns: Columns
    image_size: int = _DEFAULT_SIZE
    about: dict[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    """Hashes of the tables that a benchmark was built from."""
    unreadable: int = 0

    def __post_init__(self) -> None:
        if not self.images.is_dir():
            raise InputError(f"there is no image folder at {self.images}; name it with --images")
        self.name = self.path.parent.name if self.path.name == "table.csv" else self.path.name
        source = read_table(self.path)
        named = [name for name in vars(self.columns).values() if name]
        require_columns(source, named)
        self._frame: pd.DataFrame = source.frame[named].apply(lambda column: column.str.strip())
        kind = "plain" if self.columns.patient else "unknown"
        self.naming = Naming(kind=kind, tables=(source.sha256, *self.sources))
        self.unnamed_split = ""
        if not self.columns.split:
            self.unnamed_split = next(
                (name for name in map(str, source.frame) if name.lower() in _LOOK_LIKE_SPLITS), ""
            )
        self._real_root = self.images.resolve()
        self.about = {"kind": "table", "rows": len(self._frame), "sha256": source.sha256, **self.about}

    def __len__(self) -> int:
        return len(self._frame)

    def rows(self) -> Iterator[Pair]:
        """Yield all rows; one whose image cannot be read comes without it and is counted.

        Raises:
            InputError: At the end, if not a single image could be read.
        """
        self.unreadable = 0
        for place in range(len(self)):
            yield self.row(place)
        if self.unreadable == len(self):
            option = "" if self.about["kind"] == "benchmark" else f" and --image-column ({self.columns.image})"
            first = self._frame.iloc[0][self.columns.image]
            raise InputError(
                f"none of the {len(self):,} images of {self.name} can be read below {self.images}, the first being "
                f"{first!r}{said_of_close_file(self.images, first)}; check --images (--against-images){option}"
            )

    def row(self, place: int) -> Pair:
        """Read one row."""
        values = self._frame.iloc[place]
        columns = self.columns
        name = values[columns.image]
        split = values[columns.split].lower() if columns.split else ""
        return Pair(
            pair_id=name,
            patient_id=values[columns.patient] if columns.patient else "",
            split=SPLITS.get(split, split),
            images=self._read(name),
            sentences=(),
            text=values[columns.text] if columns.text else "",
        )

    def _read(self, name: str) -> tuple[ImageRecord, ...]:
        try:
            path = (self.images / name).resolve()
            if not path.is_relative_to(self._real_root) or not path.is_file():
                raise Unreadable("image not found")
            return (prepare_image(path, source=name, image_size=self.image_size)[0],)
        except (Unreadable, OSError, ValueError, RuntimeError):
            self.unreadable += 1
            return ()


def open_collection(
    path: Path, images: Path | None = None, columns: Columns | None = None, image_size: int | None = None
) -> Collection:
    """Open a corpus folder, a benchmark folder, or a CSV or Parquet table.

    Args:
        path: The folder or file.
        images: Folder that a table's image paths start from; a benchmark knows its own.
        columns: Columns of a table.
        image_size: Larger side that a table's images are read at, in pixels.

    Raises:
        InputError: It is none of them, or a table lacks something.
    """
    path = Path(path)
    if (path / "config.json").is_file():
        raise InputError(f"{path} is a run, not a corpus; give the folder of a corpus, which `convirt prepare` writes")
    if (path / "corpus.json").is_file():
        return CorpusRows(path)
    size = image_size or _DEFAULT_SIZE
    if (path / "benchmark.json").is_file():
        return _open_benchmark(path, images, size)
    if path.is_file():
        if images is None:
            raise InputError(f"{path} is a table: name the folder that its image paths start from (--images)")
        return TableRows(path=path, images=Path(images), columns=columns or Columns(), image_size=size)
    raise InputError(f"{path} is not a prepared corpus, a benchmark folder or a table; check the path")


def _open_benchmark(path: Path, images: Path | None, image_size: int) -> TableRows:
    try:
        about = json.loads((path / "benchmark.json").read_text(encoding="utf-8"))
        root, name, split = about["root"], about["name"], about["split"]["name"]
        sources = tuple(map(str, about.get("sources", {}).values()))
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is a damaged benchmark ({type(error).__name__}: {error}); build it again") from error
    return TableRows(
        path=path / "table.csv",
        images=Path(images or root),
        columns=Columns(patient="patient", split="split"),
        image_size=image_size,
        about={"kind": "benchmark", "benchmark": name, "split_name": split},
        sources=sources,
    )


REMEDY = "prepare it again, or copy it anew from where it is whole"


class Integrity:
    """Follows a pass over all pairs of a corpus, in their order."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._found = Fingerprint(corpus.image_size)
        self._damage = ""

    def follow(self, pair: Pair) -> None:
        """Go on with the next pair; images that say what their pixels are (`content`) are not decoded again."""
        try:
            self._found.update([pair_digest(pair, self._corpus.image_size)])
        except InputError as error:
            self._damage = self._damage or str(error)

    def judge(self) -> dict[str, Any]:
        """Return what was `found`, whether the corpus is `intact`, and a `line` that says so."""
        found = self._found.hexdigest()
        says = self._corpus.fingerprint
        line = "Intact: its content has the fingerprint that it was written with."
        intact = False
        if self._damage:
            line = f"DAMAGED: {self._damage}; {REMEDY}."
        elif found != says:
            line = f"DAMAGED: its content has the fingerprint {found[:16]}, corpus.json says {says[:16]}; {REMEDY}."
        else:
            try:
                self._corpus.check()
                intact = True
            except InputError as error:
                line = f"DAMAGED: {error}."
        return {"found": found, "intact": intact, "line": line}


def tell(found: dict[str, Any] | None, show: bool) -> dict[str, Any] | None:
    """Return what `Integrity.judge` found; without names of files and pairs unless `show`."""
    if found is None or show or found["intact"]:
        return found
    return {**found, "line": f"DAMAGED: it does not hold what it was written with; {REMEDY}."}
