"""Tiny data sets with the exact file names and columns of the paper's benchmarks; the grey of an image tells its label.

`grey` 0 to 3 is the class that `fake_encoders.Oracle` reads off an image.
"""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from convirt.data.benchmarks.chexpert import COLUMNS, LABELS
from fake_encoders import STEP

CATEGORIES = ("Edema", "Fracture", "No Finding")


def write_csv(path: Path, rows: list, header: tuple = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return path


def pixels(grey: int, seed: int) -> np.ndarray:
    """Nearly all of one grey; the first row is noise, so that no two files are equal."""
    image = np.full((12, 12), STEP * grey, np.uint8)
    image[0] = np.random.default_rng(seed).integers(0, 255, 12)
    return image


def write_image(path: Path, grey: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(grey, seed)).save(path)


def write_dicom(path: Path, grey: int, seed: int) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    path.parent.mkdir(parents=True, exist_ok=True)
    values = pixels(grey, seed)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = values.tobytes()
    data.save_as(path, enforce_file_format=True)


def rsna(root: Path, *, train: int = 40, test: int = 16, test_labels: bool = True, mapping: bool = True) -> Path:
    """The challenge: positives have two rows (two boxes); two images a NIH patient, also across train and test."""
    root.mkdir(parents=True, exist_ok=True)
    names = {"train": [f"{i:08x}-train" for i in range(train)], "test": [f"{i:08x}-test" for i in range(test)]}
    entries = []
    for part, ids in names.items():
        rows = []
        for i, name in enumerate(ids):
            target = i % 3 == 0
            rows += [(name, 10, 10, 30, 30, 1)] * 2 if target else [(name, "", "", "", "", 0)]
            write_dicom(root / f"stage_2_{part}_images" / f"{name}.dcm", int(target), i)
            patient = i // 2 + (18 if part == "test" else 0)
            entries.append(
                {
                    "subset_img_id": name,
                    "img_id": f"{patient:08d}_{i:03d}.png",
                    "StudyInstanceUID": f"1.2.{part}.{i}",
                    "SOPInstanceUID": f"1.2.{part}.{i}.9",
                }
            )
        if part == "train" or test_labels:
            write_csv(root / f"stage_2_{part}_labels.csv", rows, ("patientId", "x", "y", "width", "height", "Target"))
    if mapping:
        (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(entries))
    return root


def chexpert_row(path: str, positive: tuple = (), uncertain: tuple = (), view: str = "Frontal") -> list:
    labels = ["1.0" if name in positive else "-1.0" if name in uncertain else "" for name in LABELS]
    return [path, "Female", "50", view, "AP" if view == "Frontal" else "", *labels]


def chexpert(root: Path, *, patients: int = 60, test: int = 12) -> Path:
    """CheXpert-v1.0-small: two images a patient; each positive in one of three labels, some uncertain in another."""
    positive = {0: ("No Finding",), 1: ("Edema", "Atelectasis"), 2: ("Cardiomegaly",), 3: ("Consolidation",)}
    positive[2] += ("Pleural Effusion",)
    for part, count in (("train", patients), ("valid", test)):
        rows = []
        for i in range(count):
            for view in (1, 2):
                grey = (i + view) % 4
                name = f"{part}/patient{i + (90000 if part == 'valid' else 1000):05d}/study1/view{view}_frontal.jpg"
                uncertain = ("Consolidation",) if part == "train" and i % 5 == 0 and grey != 3 else ()
                rows.append(chexpert_row(f"CheXpert-v1.0-small/{name}", positive[grey], uncertain))
                write_image(root / name, grey, 2 * i + view)
        write_csv(root / f"{part}.csv", rows, (*COLUMNS, *LABELS))
    return root


def lists_8x200(lists: Path, images: Path, *, candidates: int = 6, queries: int = 2) -> tuple[Path, list]:
    """The authors' lists, small and with three categories, and rows for a train.csv that holds them."""
    rows, asked, texts = [], [], []
    for grey, category in enumerate(CATEGORIES):
        for i in range(candidates + queries):
            name = f"train/patient{100 * grey + i:05d}/study1/view1_frontal.jpg"
            row = chexpert_row(f"CheXpert-v1.0-small/{name}", (category,))
            rows.append(row)
            if i >= candidates:
                asked.append((category, row[0]))
            write_image(images / name, grey, 50 * grey + i)
        word = ("edema", "fracture", "none")[grey]
        texts += [(category, f"{word} number {i}.") for i in range(5)]
    header = (*COLUMNS, *LABELS)
    listed = [row for row in rows if row[0] not in {path for _, path in asked}]
    zeros = [[cell or "0.0" for cell in row] for row in listed]
    for folder in ("image-retrieval", "text-retrieval"):
        write_csv(lists / folder / "candidate.csv", zeros, header)
    write_csv(lists / "image-retrieval" / "query.csv", asked, ("Variable", "Path"))
    write_csv(lists / "text-retrieval" / "query.csv", texts, ("Variable", "Text"))
    return lists, rows


def covidx4(root: Path, *, train: int = 60, test: int = 15) -> Path:
    """COVIDx: three or four columns, and the second training file a second time under another patient."""
    classes = ("COVID-19", "normal", "pneumonia")
    for part, count in (("train", train), ("test", test)):
        lines = []
        for i in range(count):
            label, source = classes[i % 3], ("cohen", "rsna", "rsna")[i % 3]
            write_image(root / part / f"{i}.png", i % 3, i)
            lines.append(f"p{part}{i // 2} {i}.png {label}" + (f" {source}" if part == "train" or i % 3 else ""))
        if part == "train":
            lines.insert(2, "other 1.png normal rsna")
        (root / f"{part}_COVIDx4.txt").write_text("\n".join(lines) + "\n")
    return root


def mura(root: Path, *, train: int = 30, test: int = 10, images: bool = True) -> Path:
    """MURA-v1.1: patients with one or two studies of one or two images; every fifth patient's studies differ."""
    bones = ("ELBOW", "HAND", "WRIST")
    for part, count in (("train", train), ("valid", test)):
        paths, studies = [], []
        for i in range(count):
            patient = f"patient{i + (11185 if part == 'valid' else 1):05d}"
            for s in range(1 + i % 2):
                abnormal = int(i % 3 == 0) if s == 0 or i % 5 else 1 - int(i % 3 == 0)
                sign = "positive" if abnormal else "negative"
                study = f"MURA-v1.1/{part}/XR_{bones[(i + s) % 3]}/{patient}/study{s + 1}_{sign}/"
                studies.append((study, abnormal))
                for n in range(1, 2 + i % 3):
                    paths.append([f"{study}image{n}.png"])
                    if images:
                        write_image(root / paths[-1][0].partition("/")[2], abnormal, 100 * i + 10 * s + n)
        write_csv(root / f"{part}_image_paths.csv", paths)
        write_csv(root / f"{part}_labeled_studies.csv", studies)
    return root
