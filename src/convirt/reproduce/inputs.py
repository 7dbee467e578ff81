"""What `convirt reproduce` works on: runs, benchmarks and settings, from options and one TOML file.

    [runs]                                # folders of `convirt pretrain`, by method
    convirt = "runs/chest"
    simclr = "runs/simclr"

    [benchmarks]                          # folders of `convirt benchmark`
    rsna = "benchmarks/rsna"
    chexpert8x200 = "benchmarks/chexpert8x200"

    [table5]                              # pretrains a grid of its own
    corpus = "corpora/mimic-cxr"
    recipe = "paper_chest"

Paths are relative to the file. Options on the command line come first.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convirt.errors import InputError
from convirt.reproduce.tables import BESIDE, PAPER, PAPER_TASKS, Task

RETRIEVAL = "chexpert8x200"
SECTIONS = ("runs", "benchmarks", "table5", "figure3")
PRETRAINED = (*PAPER, *BESIDE)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that cells are made of; a method or benchmark that is missing leaves its cells empty."""

    runs: Mapping[str, Path] = field(default_factory=dict)
    """Folder of the run of each method."""
    tasks: Sequence[Task] = tuple(PAPER_TASKS.values())
    classification: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By task: the arguments of `classify` that name table and columns."""
    retrieval: Mapping[str, Any] | None = None
    """The same of `retrieve`."""
    supervised: Mapping[str, Any] | None = None
    """The same of `finetune`, for the upper bound of table 2."""
    left_out: Path | None = None
    """List whose images one of the supervised encoders is not trained on; None if no training image is on it."""
    boxes: Path | None = None
    """Boxes around findings, for figure 4; by default the benchmark's."""
    training_images: Mapping[str, int] = field(default_factory=dict)
    """Labelled training images of each task, for the estimate."""
    other_images: Mapping[str, int] = field(default_factory=dict)
    """Validation and test images of each task, and those of the retrieval set."""
    seeds: Mapping[str, int] = field(default_factory=lambda: {"linear": 5, "finetuned": 5})
    """Independent runs of each setting (3.1: 5)."""
    max_steps: int | None = None
    """Limit of fine-tuning after its warm-up."""
    table5: Mapping[str, str] = field(default_factory=dict)
    categories: tuple[str, ...] = ()
    """Categories of figure 3; all by default."""
    device: str = "auto"


def read_inputs(path: Path | None, runs: Sequence[str], benchmarks: Sequence[str], device: str) -> Inputs:
    """Inputs from a TOML file and `NAME=FOLDER` options, which come first.

    Raises:
        InputError: The file or an option is unusable, or a name is unknown.
    """
    content = _read(path) if path else {}
    folders = {
        "runs": _folders(content.get("runs", {}), runs, PRETRAINED, "runs", path),
        "benchmarks": _folders(
            content.get("benchmarks", {}), benchmarks, (*PAPER_TASKS, RETRIEVAL), "benchmarks", path
        ),
    }
    inputs = Inputs(runs=folders["runs"], device=device)
    inputs = _with_benchmarks(inputs, folders["benchmarks"])
    categories = content.get("figure3", {}).get("categories", [])
    return replace(inputs, table5=_table5(content.get("table5", {}), path), categories=tuple(categories))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check --inputs") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no TOML ({error}); repair it") from None
    if unknown := sorted(set(content) - set(SECTIONS)):
        raise InputError(f"{path}: unknown section {unknown[0]!r}; known are {', '.join(SECTIONS)}")
    if wrong := next((name for name, values in content.items() if not isinstance(values, dict)), None):
        raise InputError(f"{path}: {wrong} must be a section; write [{wrong}]")
    return content


def _folders(
    section: Mapping[str, Any], options: Sequence[str], known: Sequence[str], what: str, path: Path | None
) -> dict[str, Path]:
    base = path.parent if path else Path()
    given = {name: base / str(value) for name, value in section.items()}
    for option in options:
        name, _, place = option.partition("=")
        if not place:
            raise InputError(f"--{what} {option!r} has no folder; write NAME=FOLDER")
        given[name] = Path(place)
    for name, folder in given.items():
        if name not in known:
            raise InputError(f"{what}: unknown name {name!r}; known are {', '.join(known)}")
        if not Path(folder).is_dir():
            raise InputError(f"{what}: {name} = {str(folder)!r} is no folder; check the path")
    return given


def _with_benchmarks(inputs: Inputs, folders: Mapping[str, Path]) -> Inputs:
    """Tables and sizes of benchmark folders."""
    from convirt.data.benchmarks.folder import open_benchmark

    training: dict[str, int] = {}
    others: dict[str, int] = {}
    for name, folder in folders.items():
        benchmark = open_benchmark(folder)
        if (benchmark.kind == "retrieval") != (name == RETRIEVAL):
            raise InputError(f"benchmarks: {folder} is a {benchmark.kind} benchmark, it cannot be {name}")
        counts = {part: int(about["images"]) for part, about in benchmark.counts.items()}
        training[name] = counts.pop("train", 0)
        others[name] = sum(counts.values())
    tables: dict[str, Mapping[str, Any]] = {name: {"table": folder} for name, folder in folders.items()}
    return replace(
        inputs,
        classification={name: value for name, value in tables.items() if name != RETRIEVAL},
        retrieval=tables.get(RETRIEVAL),
        supervised=tables.get("chexpert"),
        left_out=folders.get(RETRIEVAL),
        training_images=training,
        other_images=others,
    )


def _table5(section: Mapping[str, Any], path: Path | None) -> dict[str, str]:
    if not section:
        return {}
    if sorted(section) != ["corpus", "recipe"] or not all(isinstance(value, str) for value in section.values()):
        raise InputError(f"{path}: [table5] needs corpus and recipe, and nothing else")
    assert path is not None
    corpus = section["corpus"] if "://" in section["corpus"] else str(path.parent / section["corpus"])
    return {"corpus": corpus, "recipe": section["recipe"]}
