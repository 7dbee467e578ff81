"""MURA v1.1: abnormal or normal radiographs of the upper limb (ConVIRT, appendix B).

Labels are of studies, and images inherit them. The paper scores patients: it averages the predictions of a patient's
images and scores them against the patient's label. MURA's own paper scores studies. A patient whose studies differ is
called abnormal here, as one abnormal study makes the patient one whom a reader must not call normal.
"""

from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd

from convirt.data.benchmarks.building import Source, build_split
from convirt.data.benchmarks.files import find, read_lines, unique_images
from convirt.data.benchmarks.folder import Benchmark
from convirt.data.benchmarks.splits import Asked, Sizes, SplitRule
from convirt.errors import InputError

_PAPER = Sizes(train=33078, val=3730, test=3197)
RULES = {
    "paper": SplitRule(group="image", sizes=_PAPER, exact=True),
    "images": SplitRule(group="image", sizes=_PAPER),
    "patient": SplitRule(group="patient", sizes=_PAPER),
}
_PARTS = {"train": "train", "valid": "test"}
"""Released parts -> ours: the released validation set is the paper's test set."""

Unit = Literal["patient", "study", "image"]


def benchmark_mura(
    root: Path,
    out: Path,
    *,
    split: Literal["paper", "images", "patient"] = "paper",
    unit: Unit = "patient",
    val_images: int | None = None,
    seed: int = 0,
    images: bool = True,
) -> Benchmark:
    """Build the MURA benchmark: abnormal or normal, scored by AUC (ConVIRT, appendix B).

    Splits: `paper` has exactly 33078/3730/3197 random images; `patient` the same sizes with no patient in two parts;
    `images` is `paper` for a part of the data.

    Args:
        root: Folder MURA-v1.1, with train_image_paths.csv, train_labeled_studies.csv, the same of valid, and images.
        out: Benchmark folder to write; it must not exist yet, or be empty.
        split: Named split.
        unit: What is scored at test, by the mean of its images' predictions: `patient` as in the paper (abnormal if any
            study is), `study` as in MURA's own paper, or single images.
        val_images: Size of the validation part, except for the split `paper`.
        seed: Seed of the split.
        images: Check that every image file exists. With --no-images the lists are built from the tables alone.

    Returns:
        The benchmark.

    Raises:
        InputError: Missing or unusable tables, images or sizes.
    """
    rule = RULES[split]
    source = read_mura(root, unit=unit)
    asked = Asked(seed=seed, val_images=val_images)
    return build_split(source, out, split, rule, asked, images=images)


def read_mura(root: Path, *, unit: Unit = "patient") -> Source:
    """Every image of the two released parts."""
    rows = []
    tables = []
    for released, part in _PARTS.items():
        paths, studies = find(root, f"{released}_image_paths.csv"), find(root, f"{released}_labeled_studies.csv")
        tables += [paths, studies]
        labels = _read_studies(studies)
        for number, cells in enumerate(_cells(paths, 1), start=1):
            image = _inside(cells[0])
            study = str(PurePosixPath(image).parent)
            if study.count("/") != 3:
                raise InputError(f"{paths}, line {number}: {image!r} is not PART/XR_BONE/PATIENT/STUDY/IMAGE")
            if study not in labels:
                raise InputError(f"{paths}, line {number}: study {study} is not in {studies.name}; copy both again")
            rows.append((image, part, study, labels[study]))
    frame = pd.DataFrame(rows, columns=["image", "released", "study", "abnormal"])
    unique_images(frame, str(root))
    frame["patient"] = frame["study"].str.split("/").str[2]
    frame["bone"] = frame["study"].str.split("/").str[1].str.removeprefix("XR_").str.lower()
    notes = []
    if unit != "image":
        frame["unit"] = frame["patient"] if unit == "patient" else frame["study"]
        notes.append(f"scored by {unit}: the mean of the predictions of its images against its label")
    if unit == "patient":
        test = frame[frame["released"] == "test"].groupby("patient")["abnormal"].nunique()
        notes.append(f"{int((test > 1).sum())} test patients have both normal and abnormal studies; they are abnormal")
    return Source(
        name="mura",
        kind="binary",
        labels=("abnormal",),
        root=root,
        frame=frame,
        tables=tuple(tables),
        notes=tuple(notes),
        unit=None if unit == "image" else unit,
        settings={"unit": unit},
    )


def _cells(path: Path, count: int) -> list[list[str]]:
    """Rows of one of MURA's tables, which have no header."""
    rows = [[cell.strip() for cell in line.split(",")] for line in read_lines(path) if line.strip()]
    for number, row in enumerate(rows, start=1):
        if len(row) != count or not all(row):
            raise InputError(f"{path}, line {number}: {','.join(row)[:80]!r} has not {count} values; copy it again")
    if not rows:
        raise InputError(f"{path} is empty; copy it again")
    return rows


def _read_studies(path: Path) -> dict[str, str]:
    labels = {}
    for number, (study, label) in enumerate(_cells(path, 2), start=1):
        if label not in ("0", "1"):
            raise InputError(f"{path}, line {number}: label {label!r} must be 0 or 1; copy it again")
        labels[_inside(study).rstrip("/")] = label
    return labels


def _inside(path: str) -> str:
    """A path relative to the folder MURA-v1.1, which the tables put before it."""
    first, _, rest = path.partition("/")
    return rest if first.lower().startswith("mura") else path
