"""CheXpert 8x200: the paper's retrieval set, from its authors' lists (ConVIRT, appendices C and D).

Eight categories, each with 200 candidate images that are positive in it alone, 10 query images and 5 text queries (the
lists' own README says ten; the file, like the paper, has five). The misspellings of the texts stay.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from convirt.data.benchmarks.building import Source, build_benchmark
from convirt.data.benchmarks.chexpert import LABELS, inside, read_labels
from convirt.data.benchmarks.files import find, find_optional, read_source
from convirt.data.benchmarks.folder import Benchmark, Protocol
from convirt.errors import InputError

KS = (5, 10, 50, 100)  # the paper's text says 100 where its tables say 50


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The authors' lists."""

    candidates: pd.DataFrame
    """image, patient, view, sex, age and fourteen labels."""
    queries: pd.DataFrame
    """image and label."""
    texts: pd.DataFrame
    """text and label."""
    files: tuple[Path, ...]

    @property
    def categories(self) -> list[str]:
        """The one label of each candidate."""
        return _only_label(self.candidates)

    @property
    def images(self) -> list[str]:
        """Candidates and queries."""
        return [*self.candidates["image"], *self.queries["image"]]


def benchmark_chexpert8x200(root: Path, out: Path, *, lists: Path | None = None, images: bool = True) -> Benchmark:
    """Build the CheXpert 8x200 retrieval benchmark from its authors' lists (ConVIRT, appendices C and D).

    Where ROOT holds CheXpert's train.csv, every listed image is looked up in it: it must be there and be positive in
    the label that it stands for, and in no other.

    Args:
        root: CheXpert's folder, with the images in train/.
        out: Benchmark folder to write; it must not exist yet, or be empty.
        lists: Folder with image-retrieval/ and text-retrieval/; by default ROOT.
        images: Check that every image file exists. With --no-images the lists are built from the tables alone.

    Returns:
        The benchmark.

    Raises:
        InputError: Missing or unusable lists or images.
    """
    found = read_lists(lists or root)
    tables = list(found.files)
    if train := find_optional(root, "train.csv"):
        check_against(found, read_labels(train))
        tables.append(train)
    candidates = found.candidates.assign(role="candidate", label=found.categories)
    queries = found.queries.assign(role="query", patient=[_patient(name) for name in found.queries["image"]])
    frame = pd.concat([candidates, queries], ignore_index=True)[["image", "patient", "label", "role", "view"]]
    frame = frame.fillna({"view": ""}).assign(split="test")
    source = Source(
        name="chexpert8x200",
        kind="retrieval",
        labels=("label",),
        root=root,
        frame=frame,
        tables=tuple(tables),
        notes=_notes(frame, found.texts),
        protocol=Protocol(ks=KS, own_patient=True),  # the paper ranks all candidates
    )
    extra = {"queries.csv": found.texts.to_csv(index=False, lineterminator="\n")}
    return build_benchmark(source, frame, out, split={"name": "official"}, images=images, extra=extra)


def read_lists(folder: Path) -> Lists:
    """Read and check the authors' lists.

    Raises:
        InputError: A list is missing, or a candidate is not positive in exactly one label.
    """
    files = [find(folder / "image-retrieval", name) for name in ("candidate.csv", "query.csv")]
    files.append(find(folder / "text-retrieval", "query.csv"))
    candidates = read_labels(files[0])
    positive_N = (candidates[list(LABELS)] == "1").sum(axis=1)
    if (wrong := positive_N != 1).any():
        raise InputError(f"{files[0]}: {candidates['image'][wrong].iloc[0]} must be positive in exactly one label")
    queries = read_source(files[1], ["Variable", "Path"])
    texts = read_source(files[2], ["Variable", "Text"])
    for path, frame in ((files[1], queries), (files[2], texts)):
        if unknown := sorted(set(frame["Variable"]) - set(_only_label(candidates))):
            raise InputError(f"{path}: category {unknown[0]!r} has no candidate")
    lists = Lists(
        candidates=candidates,
        queries=pd.DataFrame({"image": queries["Path"].map(inside), "label": queries["Variable"]}),
        texts=pd.DataFrame({"text": texts["Text"], "label": texts["Variable"]}),
        files=tuple(files),
    )
    if len(set(lists.images)) < len(lists.images):
        raise InputError(f"{folder}: an image stands twice on the lists; copy them again")
    return lists


def check_against(lists: Lists, train: pd.DataFrame) -> None:
    """Hold the lists against CheXpert's own table.

    Raises:
        InputError: A listed image is not there, or is positive in another label, in several, or uncertain in one.
    """
    known = train.set_index("image")[list(LABELS)]
    if missing := [name for name in lists.images if name not in known.index]:
        raise InputError(f"{len(missing)} listed images are not in train.csv, the first is {missing[0]}")
    labels = [*lists.categories, *lists.queries["label"]]
    rows = known.loc[lists.images]
    alone = (rows == "1").sum(axis=1).eq(1) & (rows != "-1").all(axis=1)
    for name, label, exclusive in zip(lists.images, labels, alone, strict=True):
        if not exclusive or rows.at[name, label] != "1":
            raise InputError(f"{name} is not positive in {label} alone in train.csv; is it CheXpert's own?")


def _only_label(candidates: pd.DataFrame) -> list[str]:
    positive = candidates[list(LABELS)].to_numpy() == "1"
    return [LABELS[place] for place in positive.argmax(axis=1)]


def _patient(image: str) -> str:
    return image.split("/")[1]


def _notes(frame: pd.DataFrame, texts: pd.DataFrame) -> tuple[str, ...]:
    by_role = {role: set(rows["patient"]) for role, rows in frame.groupby("role")}
    both = len(by_role["query"] & by_role["candidate"])
    counts = texts["label"].value_counts()
    return (
        f"{both} patients have both a query and a candidate; as in the paper every candidate is ranked",
        f"{counts.min()} to {counts.max()} text queries a category"
        if counts.nunique() > 1
        else f"{counts.min()} text queries a category",
    )
