"""Tables beside the images of MIMIC-CXR: the official split, labels of studies, and who the patients are."""

from collections.abc import Mapping
from pathlib import Path

from convirt.data.sources.rows import StreamedTable
from convirt.data.sources.studies import find_file
from convirt.data.splits import check_patients, given_split
from convirt.errors import InputError


def official_splits(root: Path) -> dict[str, str]:
    """Return the split of each patient, `p10000032` -> `train`.

    Raises:
        InputError: There is no split table, or a patient is in two splits.
    """
    path = find_file(root, "mimic-cxr-*-split.csv", "mimic-cxr-*-split.csv.gz")
    if path is None:
        raise InputError(f"{root} has no mimic-cxr-2.0.0-split.csv.gz; put it there, or choose --split paper")
    given = {row.cells for row in StreamedTable(path, ["subject_id", "split"]) if not row.problem}
    splits = [(f"p{patient}", given_split(name)) for patient, name in sorted(given)]
    check_patients(splits, remedy="choose --split patient")
    return dict(splits)


def study_labels(root: Path, name: str) -> dict[str, dict[str, str]]:
    """Return the labels of each study that has some, `s50414267` -> `{"Edema": "1.0"}`; none for the name `none`.

    Raises:
        InputError: There is no such table.
    """
    if name == "none":
        return {}
    path = find_file(root, f"mimic-cxr-*-{name}.csv", f"mimic-cxr-*-{name}.csv.gz")
    if path is None:
        raise InputError(f"{root} has no mimic-cxr-2.0.0-{name}.csv.gz; put it there, or leave --labels out")
    columns = [column for column in StreamedTable(path, ["study_id"]).header if not column.endswith("_id")]
    labels: dict[str, dict[str, str]] = {}
    for row in StreamedTable(path, ["study_id", *columns]):
        if not row.problem:
            study, *values = row.cells
            labels[f"s{study}"] = {name: value for name, value in zip(columns, values, strict=True) if value}
    return labels


class Demographics:
    """Sex and age of the patients, from the table `patients.csv.gz` of MIMIC-IV, which shares its patients' ids."""

    def __init__(self, path: Path | None) -> None:
        """Read the table; without one, nothing is known of anyone."""
        self._patients: dict[str, tuple[str, int | None]] = {}
        self._same: dict[tuple[str, ...], dict[str, str]] = {}  # few distinct ones: their memory is shared
        if path is None:
            return
        distinct: dict[tuple[str, int | None], tuple[str, int | None]] = {}
        for row in StreamedTable(path, ["subject_id", "gender", "anchor_age", "anchor_year"]):
            if not row.problem:
                patient, sex, age, year = row.cells
                known = (sex, int(age) - int(year) if age.isdecimal() and year.isdecimal() else None)
                self._patients[patient] = distinct.setdefault(known, known)

    def of(self, patient: str, date: str) -> Mapping[str, str]:
        """Return what is known: `sex`, and `age` in years in the year of a date such as `21800506`."""
        sex, offset = self._patients.get(patient, ("", None))
        year = date[:4]
        age = str(int(year) + offset) if offset is not None and year.isdecimal() else ""
        known = {"sex": sex, "age": age}
        return self._same.setdefault((sex, age), {name: value for name, value in known.items() if value})
