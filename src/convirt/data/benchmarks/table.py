"""Any labelled table as a benchmark: a hospital's own task, with the same splits, hashes and label fractions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from convirt.data.benchmarks.building import Source, build_benchmark, build_split
from convirt.data.benchmarks.files import names_of, read_source, unique_images
from convirt.data.benchmarks.folder import Benchmark
from convirt.data.benchmarks.splits import Asked, Sizes, SplitRule
from convirt.data.splits import check_patients, given_split, respelt
from convirt.data.tables import one_class_each
from convirt.errors import InputError

_VALUES = {"1": "1", "1.0": "1", "true": "1", "0": "0", "0.0": "0", "false": "0", "": ""}
_FIXED = ("image", "patient", "split", "unit", "role", "released")
_SHARES = Sizes(train=80, val=10, test=10)
RULES = {
    "patient": SplitRule(group="patient", sizes=_SHARES, test="drawn"),
    "images": SplitRule(group="image", sizes=_SHARES, test="drawn"),
}


def benchmark_table(
    root: Path,
    table: Path,
    out: Path,
    *,
    image_column: str = "image",
    label_column: str | None = None,
    label_columns: Sequence[str] = (),
    patient_column: str | None = None,
    split_column: str | None = None,
    unit_column: str | None = None,
    keep_columns: Sequence[str] = (),
    where: Sequence[str] = (),
    split: Literal["official", "patient", "images"] | None = None,
    name: str | None = None,
    val_images: int | None = None,
    test_images: int | None = None,
    seed: int = 0,
    images: bool = True,
) -> Benchmark:
    """Build a benchmark from any labelled table, one row an image.

    Splits: `official` is the table's own split column; `patient` and `images` draw 10 % of the images for validation
    and 10 % for test, by patient or not.

    Args:
        root: Folder that the table's image paths start from.
        table: CSV (also .gz) or Parquet table.
        out: Benchmark folder to write; it must not exist yet, or be empty.
        image_column: Column with the path of the image.
        label_column: Column with the class of the image (single-label); rows without one are left out.
        label_columns: Columns with 1, 0 or nothing, one a label (multi-label); commas may separate them.
        patient_column: Column with the patient; without it each image counts as a patient of its own.
        split_column: Column with the given split: train, val (valid, dev, validation) or test.
        unit_column: Column with the study (or other unit) that is scored at test by the mean of its images.
        keep_columns: Further columns to keep, such as the view.
        where: Filters `column=value1,value2`; a row must pass all of them.
        split: Named split; by default `official` with a split column, else `patient`.
        name: Name of the benchmark; by default the table's.
        val_images: Size of a drawn validation part.
        test_images: Size of a drawn test part.
        seed: Seed of a drawn split.
        images: Check that every image file exists. With --no-images the lists are built from the tables alone.

    Returns:
        The benchmark.

    Raises:
        InputError: Unusable table, columns, labels, images or sizes.
    """
    labels = names_of(label_columns)
    if bool(label_column) == bool(labels):
        raise InputError("name either one label column (--label-column) or several (--label-columns)")
    asked = [image_column, label_column, *labels, patient_column, split_column, unit_column, *keep_columns]
    rows = read_source(table, [column for column in asked if column], where)
    if label_column:
        rows = rows[rows[label_column] != ""]
        rows = rows.assign(**{label_column: one_class_each(rows[label_column], table)})
    if rows.empty:
        raise InputError(f"{table}: no row has a label; check the label column and the filters")
    if label_column and len(rows) > 2 and rows[label_column].is_unique:
        raise InputError(
            f"{table}: every one of {len(rows)} images has a class of its own in {label_column!r}; "
            "name the column with the class (--label-column)"
        )
    columns = {"image": rows[image_column], "patient": rows[patient_column or image_column]}
    columns |= {"label": rows[label_column]} if label_column else {c: _binary(rows[c], c, table) for c in labels}
    columns |= {"unit": rows[unit_column]} if unit_column else {}
    if taken := sorted((set(labels) | set(keep_columns)) & set(_FIXED)):
        raise InputError(f"{table}: a label or kept column may not be called {taken[0]!r}; rename it")
    columns |= {column: rows[column] for column in keep_columns if column not in columns}
    frame = pd.DataFrame({**columns, "released": "train"}).reset_index(drop=True)
    spellings = respelt(frame["patient"]) if patient_column else {}
    given = frame["patient"]
    frame["patient"] = given.replace(spellings)
    notes = [] if patient_column else ["patients are unknown: every image counts as a patient of its own"]
    if spellings:
        count = len(set(spellings.values()))
        notes.append(f"{count} patients have ids in several spellings; each is one patient")
    _check(frame, table)
    source = Source(
        name=name or table.name.split(".")[0],
        kind="single-label" if label_column else "binary" if len(labels) == 1 else "multi-label",
        labels=("label",) if label_column else labels,
        root=root,
        frame=frame,
        tables=(table,),
        unit=unit_column,
        settings={"where": list(where)},
        notes=tuple(notes),
    )
    chosen = split or ("official" if split_column else "patient")
    if chosen != "official":
        asked_sizes = Asked(seed=seed, val_images=val_images, test_images=test_images)
        return build_split(source, out, chosen, RULES[chosen], asked_sizes, images=images)
    frame = _given(frame, rows, split_column, given if patient_column else None)
    return build_benchmark(source, frame, out, split={"name": chosen}, images=images)


def _binary(values: pd.Series, name: str, table: Path) -> pd.Series:
    lowered = values.str.lower()
    if unknown := sorted(set(lowered) - set(_VALUES)):
        raise InputError(f"{table}: label column {name!r} holds {unknown[0]!r}; use 1, 0 or nothing")
    return lowered.map(_VALUES)


def _check(frame: pd.DataFrame, table: Path) -> None:
    unique_images(frame, str(table))
    for column in {"image", "patient", "unit"} & set(frame.columns):
        if (frame[column] == "").any():
            raise InputError(f"{table}: a row names no {column}; fill it in")


def _given(
    frame: pd.DataFrame, rows: pd.DataFrame, split_column: str | None, patients: pd.Series | None
) -> pd.DataFrame:
    """The frame with the table's own split."""
    if split_column is None:
        raise InputError("the split `official` is the table's own; name its column (--split-column)")
    parts = [given_split(value) for value in rows[split_column]]
    if patients is not None:
        check_patients(zip(patients, parts, strict=True))
    return frame.assign(split=parts)
