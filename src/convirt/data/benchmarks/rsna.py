"""RSNA Pneumonia Detection Challenge: pneumonia or not, one label an image (ConVIRT, appendix B).

The 26,684 labelled images of stage 2 are the paper's training and validation images, the 3,000 of the stage 2 test its
test images. Kaggle gives those no labels; they are in the annotations that RSNA publishes for all 30,000 images, or in
a table of one's own. Where they are missing, the split `held-out` takes test images from the 26,684.

A `patientId` names one image, never a patient. The images come from NIH ChestX-ray14, and the challenge's mapping file
says which image each is, and so of which patient.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from convirt.data.benchmarks.building import Source, build_split
from convirt.data.benchmarks.files import find, find_optional, read_source
from convirt.data.benchmarks.folder import Benchmark
from convirt.data.benchmarks.splits import Asked, Sizes, SplitRule
from convirt.data.tables import read_table
from convirt.errors import InputError

_PAPER = Sizes(train=25184, val=1500, test=3000)
_HELD_OUT = Sizes(train=22184, val=1500, test=3000)
RULES = {
    "paper": SplitRule(group="image", sizes=_PAPER, exact=True),
    "images": SplitRule(group="image", sizes=_PAPER),
    "patient": SplitRule(group="patient", sizes=_PAPER, test="pooled"),
    "held-out": SplitRule(group="image", sizes=_HELD_OUT, test="drawn"),
    "held-out-patient": SplitRule(group="patient", sizes=_HELD_OUT, test="drawn"),
}
MAPPINGS = ("pneumonia-challenge-dataset-mappings_2018.json", "pneumonia-challenge-dataset-mappings_2018.csv")
ANNOTATIONS = "pneumonia-challenge-annotations-adjudicated-kaggle_2018.json"
_OPACITY = "lung opacity"  # the class whose images have Target 1


def benchmark_rsna(
    root: Path,
    out: Path,
    *,
    split: Literal["paper", "images", "patient", "held-out", "held-out-patient"] = "paper",
    test_labels: Path | None = None,
    mapping: Path | None = None,
    val_images: int | None = None,
    test_images: int | None = None,
    seed: int = 0,
    images: bool = True,
) -> Benchmark:
    """Build the RSNA pneumonia benchmark: binary, scored by AUC (ConVIRT, appendix B).

    Splits: `paper` has exactly 25184/1500/3000 random images, the test images being those of stage 2, so it needs
    their labels; `patient` has the same sizes with no patient in two parts, so it needs the mapping to NIH patients
    as well. Without the test labels, `held-out` and `held-out-patient` take 1,500 validation and 3,000 test images from
    the 26,684 labelled ones. `images` is `paper` for a part of the data.

    Args:
        root: Folder with stage_2_train_labels.csv and stage_2_train_images (and stage_2_test_images).
        out: Benchmark folder to write; it must not exist yet, or be empty.
        split: Named split.
        test_labels: Labels of the stage 2 test images: a table with patientId and Target, or the annotations that RSNA
            publishes (JSON; these need the mapping); by default what ROOT holds under the usual names.
        mapping: The challenge's mapping to NIH images (JSON or CSV); by default what ROOT holds under the usual name.
        val_images: Size of the validation part, except for the split `paper`.
        test_images: Size of the test part where it is drawn.
        seed: Seed of the split.
        images: Check that every image file exists. With --no-images the lists are built from the tables alone.

    Returns:
        The benchmark.

    Raises:
        InputError: Missing or unusable tables, test labels, mapping, images or sizes.
    """
    rule = RULES[split]
    source = read_rsna(root, test_labels=test_labels, mapping=mapping)
    if rule.group == "patient" and "patients" not in source.settings:
        raise InputError(
            f"the split {split} needs NIH patients, as patientId names single images; give {MAPPINGS[0]} (--mapping)"
        )
    if rule.test != "drawn" and "test" not in set(source.frame["released"]):
        raise InputError(
            f"the split {split} needs the labels of the stage 2 test images (--test-labels); without them choose "
            "--split held-out"
        )
    asked = Asked(seed=seed, val_images=val_images, test_images=test_images)
    boxes = _boxes(root, test_labels, mapping, source)
    return build_split(source, out, split, rule, asked, images=images, extra={"boxes.csv": boxes} if boxes else None)


def read_rsna(root: Path, *, test_labels: Path | None = None, mapping: Path | None = None) -> Source:
    """Every labelled image of the challenge."""
    labels = find(root, "stage_2_train_labels.csv")
    mapping = mapping or find_optional(root, *MAPPINGS)
    test_labels = test_labels or find_optional(root, "stage_2_test_labels.csv", ANNOTATIONS)
    nih = _read_mapping(mapping) if mapping else {}
    train = _targets(labels)
    frame = _frame(train, "train")
    tables = [labels]
    if test_labels:
        tables.append(test_labels)
        if test_labels.suffix == ".json":
            test = _annotated(test_labels, nih, _stage_2_test(root, tables))
        else:
            test = _targets(test_labels)
        if both := sorted(set(train) & set(test)):
            raise InputError(f"{test_labels}: image {both[0]!r} is a training image as well; give test labels alone")
        frame = pd.concat([frame, _frame(test, "test")], ignore_index=True)
    notes = [
        "Target 0 also holds images with other findings (`No Lung Opacity / Not Normal`); the paper calls it normal"
    ]
    if nih:
        if unknown := [name for name in frame["patientId"] if name not in nih]:
            raise InputError(f"{mapping}: {len(unknown)} images are not in the mapping, the first is {unknown[0]}")
        assert mapping is not None
        tables.append(mapping)
        frame["patient"] = [nih[name]["img_id"].split("_")[0] for name in frame["patientId"]]
    else:
        notes.append("patients are unknown (no NIH mapping given): every image counts as a patient of its own")
    if classes := find_optional(root, "stage_2_detailed_class_info.csv"):
        tables.append(classes)
        details = read_source(classes, ["patientId", "class"]).drop_duplicates("patientId")
        frame["class"] = frame["patientId"].map(dict(zip(details["patientId"], details["class"], strict=True)))
        frame["class"] = frame["class"].fillna("")
    return Source(
        name="rsna",
        kind="binary",
        labels=("pneumonia",),
        root=root,
        frame=frame.drop(columns="patientId"),
        tables=tuple(tables),
        notes=tuple(notes),
        settings={"patients": "NIH"} if nih else {},
    )


def _boxes(root: Path, test_labels: Path | None, mapping: Path | None, source: Source) -> bytes | None:
    """`boxes.csv` from the same files; which images get a split does not depend on it."""
    mapping = mapping or find_optional(root, *MAPPINGS)
    test_labels = test_labels or find_optional(root, "stage_2_test_labels.csv", ANNOTATIONS)
    labels = [("train", find(root, "stage_2_train_labels.csv")), *([("test", test_labels)] if test_labels else [])]
    return rsna_boxes(labels, _read_mapping(mapping) if mapping else {}, source.frame["image"].tolist())


def _targets(path: Path) -> dict[str, str]:
    """Target of each image; an image has one row for each box."""
    frame = read_source(path, ["patientId", "Target"])
    if unknown := sorted(set(frame["Target"]) - {"0", "1"}):
        raise InputError(f"{path}: Target is {unknown[0]!r} in some row; it must be 0 or 1")
    distinct = frame[["patientId", "Target"]].drop_duplicates()
    if (twice := distinct["patientId"].duplicated()).any():
        name = distinct["patientId"][twice].iloc[0]
        raise InputError(f"{path}: image {name!r} has Target 0 in one row and 1 in another; copy the file again")
    return dict(zip(distinct["patientId"], distinct["Target"], strict=True))


def _frame(labels: Mapping[str, str], part: Literal["train", "test"]) -> pd.DataFrame:
    names = list(labels)
    return pd.DataFrame(
        {
            "patientId": names,
            "image": [f"stage_2_{part}_images/{name}.dcm" for name in names],
            "patient": names,
            "released": part,
            "pneumonia": list(labels.values()),
        }
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); download it again") from error


def _read_mapping(path: Path) -> dict[str, dict[str, str]]:
    """Challenge id of an image -> its NIH image and its DICOM identifiers."""
    needed = ("subset_img_id", "img_id")
    rows: Any = _read_json(path) if path.suffix == ".json" else read_source(path, needed).to_dict("records")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and set(needed) <= set(row) for row in rows):
        raise InputError(f"{path}: every entry must have {' and '.join(needed)}; is it the challenge's mapping file?")
    return {str(row["subset_img_id"]): {key: str(value) for key, value in row.items()} for row in rows}


def _stage_2_test(root: Path, tables: list[Path]) -> list[str]:
    """The ids of the stage 2 test images: from the sample submission, else from their folder."""
    if submission := find_optional(root, "stage_2_sample_submission.csv"):
        tables.append(submission)
        return read_source(submission, ["patientId"])["patientId"].tolist()
    names = sorted(path.stem for path in (root / "stage_2_test_images").glob("*.dcm"))
    if not names:
        raise InputError(f"{root}: which images are the stage 2 test? add stage_2_sample_submission.csv")
    return names


def _annotated(path: Path, nih: Mapping[str, Mapping[str, str]], wanted: list[str]) -> dict[str, str]:
    """Targets of the wanted images, from the adjudicated annotations (group `Calculated`) that RSNA publishes."""
    if not nih:
        raise InputError(f"{path} names images by DICOM identifiers; give {MAPPINGS[0]} as well (--mapping)")
    content = _read_json(path)
    try:
        groups = [group for group in content["labelGroups"] if group["name"] == "Calculated"]
        classes = {label["id"]: label["name"].strip().lower() for group in groups for label in group["labels"]}
        found: dict[str, set[str]] = {}
        for row in (row for dataset in content["datasets"] for row in dataset["annotations"]):
            if row["labelId"] in classes:
                # The challenge's images are one a study; an image without a box is annotated as a study.
                key = row.get("StudyInstanceUID") or row["SOPInstanceUID"]
                found.setdefault(str(key), set()).add(classes[row["labelId"]])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the annotations of the challenge ({error!r} is missing)") from error
    result = {}
    for name in wanted:
        about = nih.get(name, {})
        values = found.get(about.get("StudyInstanceUID", "")) or found.get(about.get("SOPInstanceUID", ""))
        if not values:
            raise InputError(f"{path}: test image {name} has no annotation in the group `Calculated`")
        result[name] = "1" if _OPACITY in values else "0"
    return result


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
        found = _annotated_boxes(path, mapping) if path.suffix == ".json" else _tabled(path)
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


def _annotated_boxes(path: Path, mapping: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The boxes of the group `Calculated`; the challenge's own reader has checked the file's form before."""
    content: Any = json.loads(path.read_bytes())
    names = {about.get("SOPInstanceUID"): name for name, about in mapping.items()}
    groups = [group for group in content["labelGroups"] if group["name"] == "Calculated"]
    opacity = {label["id"] for group in groups for label in group["labels"] if label["name"].lower() == "lung opacity"}
    for row in (row for dataset in content["datasets"] for row in dataset["annotations"]):
        name, box = names.get(row.get("SOPInstanceUID")), row.get("data")
        if row["labelId"] in opacity and name and isinstance(box, dict) and set(EDGES) <= set(box):
            yield name, tuple(str(box[edge]) for edge in EDGES)
