"""A benchmark on disk: a labelled table with its split, what is to be said about it, and its label fractions.

`table.csv` has one row an image: `image`, `patient`, `split`, the label columns, and further ones such as `view`.
`benchmark.json` says what it is, `fractions.json` which training rows make up 1 % and 10 % of the labels for each seed,
and `lists/` names the images of each part, one a line, so that `sha256sum` gives the hashes that stand beside scores.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convirt.atomic import atomic_folder, check_free, disk_errors
from convirt.errors import InputError

FORMAT = 1

T = TypeVar("T")

Kind = Literal["binary", "multi-label", "single-label", "retrieval"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the paper evaluates on the benchmark, where that differs between tasks; None leaves the verb's default."""

    fractions: tuple[float, ...] | None = None
    """Shares of the training labels."""
    learning_rate: float | None = None
    """Of the paper's linear head (appendix B)."""
    select_on: Literal["auc", "accuracy"] | None = None
    """Validation score."""
    ks: tuple[int, ...] | None = None
    """Lengths of retrieved lists."""
    own_patient: bool = False
    """Whether a query may retrieve images of its own patient."""


def first_given(*values: T | None) -> T:
    """The first that is not None: what the user asked, else what the benchmark says, else a default."""
    return next(value for value in values if value is not None)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark folder, opened."""

    folder: Path
    name: str
    kind: Kind
    labels: tuple[str, ...]
    """Label columns of the table; one, `label`, if each image has one class."""
    split: str
    """Name of the split."""
    root: Path
    """Image folder, as it was given when the benchmark was built."""
    lists: Mapping[str, str]
    """sha256 of the list of each part."""
    counts: Mapping[str, Mapping[str, Any]]
    """Images, patients and positives of each part."""
    notes: tuple[str, ...] = ()
    """What has to be said beside every score."""
    unit: str | None = None
    """What is scored at test, by the mean of its images' predictions, if it is not the image: `patient`, `study`."""
    protocol: Protocol = field(default_factory=Protocol)
    subsets: Mapping[tuple[float, int], NDArray[np.int64]] = field(default_factory=dict)
    """(fraction, seed) -> positions among the training rows, in the order of the table."""

    @property
    def table(self) -> Path:
        return self.folder / "table.csv"

    @property
    def queries(self) -> Path | None:
        """Table of text queries, if the benchmark has some."""
        path = self.folder / "queries.csv"
        return path if path.is_file() else None

    def described(self) -> dict[str, Any]:
        """What every row of results says about the benchmark."""
        return {
            "benchmark": self.name,
            "split": self.split,
            "unit": self.unit or "image",
            "lists_sha256": dict(self.lists),
            "notes": list(self.notes),
        }


def list_bytes(images: Sequence[str]) -> bytes:
    """A list of images as it is written and hashed: one a line, in the order of the table."""
    return "".join(f"{image}\n" for image in images).encode()


def write_benchmark(
    out: Path, frame: pd.DataFrame, about: Mapping[str, Any], extra: Mapping[str, bytes | str] | None = None
) -> None:
    """Write a benchmark folder in one move.

    Args:
        out: Folder to write; it must not exist yet, or be empty.
        frame: The table.
        about: Everything of `benchmark.json` but the hashes; `fractions` goes to its own file.
        extra: Further files by name.

    Raises:
        InputError: The folder is not free or cannot be written.
    """
    check_free(out)
    table = frame.to_csv(index=False, lineterminator="\n").encode()
    images_N, parts_N = frame["image"].to_numpy(dtype=str), frame["split"].to_numpy(dtype=str)
    lists = {str(part): list_bytes(images_N[parts_N == part].tolist()) for part in np.unique(parts_N)}
    files: dict[str, bytes | str] = {"table.csv": table, **(extra or {})}
    files |= {f"lists/{part}.txt": content for part, content in lists.items()}
    about = dict(about)
    if fractions := about.pop("fractions", None):
        files["fractions.json"] = json.dumps(fractions) + "\n"
    contents = {name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}
    about |= {
        "format": FORMAT,
        "lists": {part: hashlib.sha256(content).hexdigest() for part, content in lists.items()},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    contents["benchmark.json"] = (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()
    _write_folder(Path(out), contents)


def _write_folder(out: Path, contents: Mapping[str, bytes]) -> None:
    with disk_errors(out), atomic_folder(out) as temporary:
        for name, content in contents.items():
            path = temporary / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)


def open_benchmark(folder: str | Path) -> Benchmark:
    """Open a benchmark folder, and check that none of its files was changed since.

    Raises:
        InputError: No benchmark, one of another format, or a changed one.
    """
    folder = Path(folder)
    remedy = "build it with `convirt benchmark`"
    try:
        about = json.loads((folder / "benchmark.json").read_bytes())
    except OSError as error:
        raise InputError(f"{folder} is no benchmark (no benchmark.json in it); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{folder}/benchmark.json is damaged ({error}); {remedy} anew") from error
    try:
        if about["format"] != FORMAT:
            raise InputError(f"{folder} has benchmark format {about['format']}, this version reads {FORMAT}; {remedy}")
        for name, digest in about["files"].items():
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise InputError(f"{folder}/benchmark.json names a file outside its folder, {name!r}; {remedy} anew")
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                raise InputError(f"{folder / name} was changed since the benchmark was built; {remedy} anew")
        return Benchmark(
            folder=folder,
            name=about["name"],
            kind=about["kind"],
            labels=tuple(about["labels"]),
            split=about["split"]["name"],
            root=Path(about["root"]),
            lists=about["lists"],
            counts=about["counts"],
            notes=tuple(about["notes"]),
            unit=about["unit"],
            protocol=Protocol(**{key: _tuple(value) for key, value in about["protocol"].items()}),
            subsets=_read_fractions(folder),
        )
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} is a damaged benchmark ({type(error).__name__}: {error}); {remedy} anew") from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _read_fractions(folder: Path) -> dict[tuple[float, int], NDArray[np.int64]]:
    path = folder / "fractions.json"
    if not path.is_file():
        return {}
    saved = json.loads(path.read_bytes())["rows"]
    return {
        (float(fraction), int(seed)): np.array(rows, dtype=np.int64)
        for seed, by_fraction in saved.items()
        for fraction, rows in by_fraction.items()
    }
