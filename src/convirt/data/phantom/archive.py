"""Write a phantom archive: images and tables laid out as a hospital's own archive would be."""

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from PIL import Image

from convirt.atomic import atomic_folder
from convirt.data.phantom import wording
from convirt.data.phantom.radiograph import render
from convirt.data.phantom.report import write_report
from convirt.data.phantom.study import CATEGORIES, Study, draw_study, study_generator
from convirt.errors import InputError

STUDY_CHOICES = (1, 2, 3)
CANDIDATES, QUERIES = 40, 10


def split_of(patient: int, patients: int) -> str:
    """Split of a patient: the last 23 % are test, the 7 % before them validation, whatever the seed."""
    share = patient / patients
    return "train" if share < 0.70 else "val" if share < 0.77 else "test"


def _studies(seed: int, patient: int) -> list[Study]:
    count = int(study_generator(seed, patient, 0).choice(STUDY_CHOICES, p=(0.5, 0.3, 0.2)))
    return [draw_study(seed, patient, number) for number in range(count)]


def _write_patient(seed: int, patient: int, patients: int, size: int, out: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for study in _studies(seed, patient):
        report = write_report(study)
        for image, view in enumerate(study.views):
            pixels, findings = render(study, image, size)
            name = f"p{patient:05d}_s{study.number}_{image}.png"
            Image.fromarray(pixels).save(out / "images" / name, compress_level=1)
            rows.append(
                {
                    "image": name,
                    "study_id": f"p{patient:05d}_s{study.number}",
                    "patient_id": f"p{patient:05d}",
                    "split": split_of(patient, patients),
                    "view": view,
                    "sex": study.body.sex,
                    "age": study.body.age,
                    "report": report,
                    "finding": "; ".join(study.categories),
                    **{name: int(name in study.categories) for name in CATEGORIES},
                    "boxes": json.dumps([asdict(f) for f in findings]),
                }
            )
    return rows


def _retrieval_lists(table: pd.DataFrame) -> pd.DataFrame:
    """Queries and candidates as in CheXpert 8x200: exclusively positive frontal test images, one a patient's query."""
    frontal = table[(table["split"] == "test") & (table["view"] != "LATERAL") & table["finding"].isin(CATEGORIES)]
    parts = []
    for category in CATEGORIES:
        own = frontal[frontal["finding"] == category]
        first = own.drop_duplicates("patient_id").head(QUERIES)
        rest = own[~own["patient_id"].isin(first["patient_id"])].head(CANDIDATES)
        parts += [first.assign(role="query"), rest.assign(role="candidate")]
    return pd.concat(parts)[["image", "patient_id", "role", "finding"]]


def phantom(out: Path, *, patients: int = 2600, size: int = 160, seed: int = 0, workers: int | None = None) -> Path:
    """Write a deterministic archive of phantom chest radiographs with reports.

    The folder holds `images/` (PNG), `reports.csv` (one row an image, with the report of its study), `labels.csv`
    (one row a frontal image: eight 0/1 columns), `retrieval.csv` (query and candidate images) and `queries.csv` (text
    queries).

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
    if patients < 10 or size < 32:
        raise InputError(f"a phantom archive needs patients >= 10 and size >= 32, got {patients} and {size}")
    with atomic_folder(out, sync=False) as temporary:
        (temporary / "images").mkdir()
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=spawn) as pool:
            jobs = [pool.submit(_write_patient, seed, p, patients, size, temporary) for p in range(patients)]
            table = pd.DataFrame([row for job in jobs for row in job.result()])
        table[["image", "study_id", "patient_id", "split", "view", "sex", "age", "report"]].to_csv(
            temporary / "reports.csv", index=False
        )
        frontal = table[table["view"] != "LATERAL"]
        columns = ["image", "patient_id", "split", "view", "sex", "age", "finding", *CATEGORIES, "boxes"]
        frontal[columns].to_csv(temporary / "labels.csv", index=False)
        _retrieval_lists(table).to_csv(temporary / "retrieval.csv", index=False)
        pairs = [(text, category) for category, texts in wording.QUERIES.items() for text in texts]
        pd.DataFrame(pairs, columns=["text", "finding"]).to_csv(temporary / "queries.csv", index=False)
    return out
