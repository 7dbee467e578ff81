"""The boxes of the RSNA Pneumonia Detection Challenge, as the table that `convirt saliency` reads."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from convirt.data.benchmarks.files import read_source
from convirt.data.tables import read_table

EDGES = ("x", "y", "width", "height")
COLUMNS = ("image", "label", *EDGES)


def rsna_boxes(
    labels: Sequence[tuple[str, Path]], mapping: Mapping[str, Mapping[str, str]], wanted: Sequence[str]
) -> bytes | None:
    """`boxes.csv` of the benchmark, in pixels of the images.

    Args:
        labels: Part (`train`, `test`) and its labels: a table with a row for each box, or the published annotations.
            A table without the columns of boxes has none.
        mapping: Challenge id of an image -> its DICOM identifiers, for the annotations.
        wanted: Images of the benchmark; boxes of others are left out.

    Returns:
        The file, or None where no box is known.
    """
    rows = []
    for part, path in labels:
        found = _annotated(path, mapping) if path.suffix == ".json" else _tabled(path)
        rows += [(f"stage_2_{part}_images/{name}.dcm", "pneumonia", *box) for name, box in found]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame = frame[frame["image"].isin(wanted)]
    return frame.to_csv(index=False, lineterminator="\n").encode() if len(frame) else None


def _tabled(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    if not {"patientId", *EDGES} <= set(read_table(path).frame.columns):
        return
    frame = read_source(path, ["patientId", *EDGES])
    for _, row in frame[(frame[list(EDGES)] != "").all(axis=1)].iterrows():
        yield str(row["patientId"]), tuple(str(row[edge]) for edge in EDGES)


def _annotated(path: Path, mapping: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The boxes of the group `Calculated`; the challenge's own reader has checked the file's form before."""
    content: Any = json.loads(path.read_bytes())
    names = {about.get("SOPInstanceUID"): name for name, about in mapping.items()}
    groups = [group for group in content["labelGroups"] if group["name"] == "Calculated"]
    opacity = {label["id"] for group in groups for label in group["labels"] if label["name"].lower() == "lung opacity"}
    for row in (row for dataset in content["datasets"] for row in dataset["annotations"]):
        name, box = names.get(row.get("SOPInstanceUID")), row.get("data")
        if row["labelId"] in opacity and name and isinstance(box, dict) and set(EDGES) <= set(box):
            yield name, tuple(str(box[edge]) for edge in EDGES)
