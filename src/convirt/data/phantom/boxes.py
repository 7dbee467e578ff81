"""Where the generator drew each finding: `boxes.csv` of a phantom archive.

The generator itself is frozen; it knows the boxes already and keeps them in a column of `labels.csv`. This module
writes them as the table that `convirt saliency` reads.
"""

import json
from pathlib import Path

import pandas as pd

from convirt.atomic import atomic_folder, check_writable, write_text
from convirt.data.phantom import archive
from convirt.errors import InputError

BOXES = "boxes.csv"
EDGES = ("left", "top", "right", "bottom")


def write_boxes(folder: Path) -> Path:
    """Write `boxes.csv` of a phantom archive, one row a finding of a frontal image that can be seen in it.

    Columns: `image`, `label`, and `left`, `top`, `right`, `bottom` as shares of the image's width and height.

    Raises:
        InputError: The folder is no phantom archive, or cannot be written.
    """
    try:
        labels = pd.read_csv(folder / "labels.csv", dtype=str)
        rows = [
            {"image": image, "label": finding["category"], **dict(zip(EDGES, finding["box"], strict=True))}
            for image, text in zip(labels["image"], labels["boxes"], strict=True)
            for finding in json.loads(text)
            if finding["box"][0] < finding["box"][2] and finding["box"][1] < finding["box"][3]
        ]
        write_text(folder / BOXES, pd.DataFrame(rows, columns=["image", "label", *EDGES]).to_csv(index=False))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{folder} is no phantom archive, or cannot be written ({error})") from error
    return folder / BOXES


def phantom(out: Path, *, patients: int = 2600, size: int = 160, seed: int = 0, workers: int | None = None) -> Path:
    """Write a deterministic archive of phantom chest radiographs with reports.

    The folder holds `images/` (PNG), `reports.csv` (one row an image, with the report of its study), `labels.csv`
    (one row a frontal image: eight 0/1 columns), `retrieval.csv` (query and candidate images), `queries.csv` (text
    queries) and `boxes.csv` (where each finding of a frontal image was drawn).

    Args:
        out: Folder to write; it must not exist yet.
        patients: How many patients; about 1.7 studies and 2.2 images each.
        size: Height and width of the images, pixels.
        seed: Another seed is another archive.
        workers: Processes; the result does not depend on it. Default: one for each processor.

    Returns:
        `out`.

    Raises:
        InputError: `out` exists, or the numbers are too small.
    """
    if out.exists():
        raise InputError(f"{out} exists already: give a new folder, or remove it")
    check_writable(out)
    with atomic_folder(out, sync=False) as beside:
        whole = archive.phantom(beside / "archive", patients=patients, size=size, seed=seed, workers=workers)
        write_boxes(whole)
        for item in whole.iterdir():
            item.rename(beside / item.name)
        whole.rmdir()
    return out
