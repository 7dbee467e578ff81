"""COVIDx version 4: COVID-19, other pneumonia or normal (ConVIRT, appendix B).

`train_COVIDx4.txt` and `test_COVIDx4.txt` of the COVID-Net project have one line an image: patient, file, class and,
except for 197 of the 300 test images, the data set that it comes from. One training file stands twice.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

import pandas as pd

from convirt.data.benchmarks.building import Source, build_split
from convirt.data.benchmarks.files import find, read_lines
from convirt.data.benchmarks.folder import Benchmark, Protocol
from convirt.data.benchmarks.splits import Asked, Sizes, SplitRule
from convirt.errors import InputError

_PAPER = Sizes(train=13598, val=300, test=300)
RULES = {
    "paper": SplitRule(group="image", sizes=_PAPER, exact=True),
    "images": SplitRule(group="image", sizes=_PAPER),
    "patient": SplitRule(group="patient", sizes=_PAPER),
}
CLASSES = ("COVID-19", "normal", "pneumonia")


def benchmark_covidx4(
    root: Path,
    out: Path,
    *,
    split: Literal["paper", "images", "patient"] = "paper",
    val_images: int | None = None,
    seed: int = 0,
    images: bool = True,
) -> Benchmark:
    """Build the COVIDx version 4 benchmark: three classes, scored by accuracy (ConVIRT, appendix B).

    Splits: `paper` has exactly 13598/300/300 images, counting a training file that stands twice in the official list as
    the paper did (both rows are in one part); `patient` draws whole patients and keeps that file once; `images` is
    `paper` for a part of the data.

    Args:
        root: Folder with train_COVIDx4.txt, test_COVIDx4.txt and the images in train/ and test/.
        out: Benchmark folder to write; it must not exist yet, or be empty.
        split: Named split.
        val_images: Size of the validation part, except for the split `paper`.
        seed: Seed of the split.
        images: Check that every image file exists. With --no-images the lists are built from the tables alone.

    Returns:
        The benchmark.

    Raises:
        InputError: Missing or unusable lists, images or sizes.
    """
    rule = RULES[split]
    source = read_covidx4(root, once=rule.group == "patient")
    asked = Asked(seed=seed, val_images=val_images)
    return build_split(source, out, split, rule, asked, images=images)


def read_covidx4(root: Path, *, once: bool = False) -> Source:
    """Every image of the two lists; `once` keeps a file that stands twice in its first row alone."""
    lists = {part: find(root, f"{part}_COVIDx4.txt") for part in ("train", "test")}
    frame = pd.concat([_read_list(path, part) for part, path in lists.items()], ignore_index=True)
    notes = [_confounded(frame)]
    repeated = frame["image"].duplicated()
    if repeated.any():
        rows = frame[frame["image"] == frame["image"][repeated].iloc[0]]
        said = f"{rows['image'].iloc[0]} stands {len(rows)} times, under patients {', '.join(rows['patient'])}"
        if once:
            frame = frame[~repeated]
            notes.append(f"{said}; its first row alone is kept")
        else:
            notes.append(f"{said}; all rows are kept, in one part, as the paper's counts have them")
    return Source(
        name="covidx4",
        kind="single-label",
        labels=("label",),
        root=root,
        frame=frame,
        tables=tuple(lists.values()),
        notes=tuple(notes),
        # 1 % would leave four COVID-19 images; the rate and the score are appendix B's and section 4.1's.
        fractions=(0.1, 1.0),
        protocol=Protocol(fractions=(0.1, 1.0), learning_rate=1e-3, select_on="accuracy"),
    )


def _read_list(path: Path, part: str) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) not in (3, 4) or cells[2] not in CLASSES:
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} is not `patient file class [source]` with a class of "
                f"{', '.join(CLASSES)}; copy the file again"
            )
        patient, file, label, *source = cells
        rows.append((f"{part}/{file}", patient, part, label, source[0] if source else ""))
    if not rows:
        raise InputError(f"{path} is empty; copy it again")
    return pd.DataFrame(rows, columns=["image", "patient", "released", "label", "source"])


def _confounded(frame: pd.DataFrame) -> str:
    """Where each class comes from, so that nobody takes a score for more than it is."""
    known = frame[frame["source"] != ""]
    counts = Counter(zip(known["label"], known["source"], strict=True))
    by_class = "; ".join(
        f"{label}: " + ", ".join(f"{source} {n}" for (of, source), n in counts.most_common() if of == label)
        for label in CLASSES
    )
    return (
        "class and source are confounded, so a score may measure the source rather than the disease; images by source: "
        f"{by_class}; not said for {len(frame) - len(known)}"
    )
