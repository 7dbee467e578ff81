"""Small trees of public data sets with their exact file names and columns; images and words are noise of our own."""

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convirt.data.corpora import Corpus
from convirt.errors import InputError


def columns(names: str) -> list[str]:
    """Names of columns as a header has them."""
    return names.split(",")


MIMIC_METADATA = columns(
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
CHEXPERT_LABELS = columns(
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
CHEXPERT_PLUS = columns(
    "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,"
    "section_narrative,section_clinical_history,section_history,section_comparison,section_technique,"
    "section_procedure_comments,section_findings,section_impression,section_end_of_impression,section_summary,"
    "section_accession_number,age,sex,race,ethnicity,interpreter_needed,insurance_type,recent_bmi,deceased,split"
)

Write = Callable[[Path, int], None]
"""Writes the image of a number to a path."""


def audit_of(corpus: Corpus) -> dict[str, Any]:
    """What `audit.json` of a corpus says."""
    return json.loads((corpus.path / "audit.json").read_text())


def refused(prepare: Callable[..., Corpus], root: Path, out: Path, **arguments: Any) -> str:
    """Prepare, expecting one line of refusal and nothing written; return the line."""
    with pytest.raises(InputError) as caught:
        prepare(root, out, **arguments)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)


def write_jpg(path: Path, number: int) -> None:
    """Noise, 24 x 20 pixels."""
    values = np.random.default_rng(number).integers(0, 256, (24, 20), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, "PNG" if path.suffix == ".png" else "JPEG")


def write_dcm(path: Path, number: int) -> None:
    """Noise of 12 bits as DICOM."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{number + 1}"
    values = np.random.default_rng(number).integers(0, 4096, (24, 20), dtype=np.uint16)
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PhotometricInterpretation = "DX", "MONOCHROME2"
    data.Rows, data.Columns, data.SamplesPerPixel, data.PixelRepresentation = 24, 20, 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def link_one(model: Path) -> Write:
    """Links to one image, for trees of the true size: their files cost a directory entry each."""

    def write(path: Path, number: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(model, path)
        except OSError:  # a file may have too many links
            fresh = model.with_name(f"{model.stem}-{number}{model.suffix}")
            shutil.copyfile(model, fresh)
            os.replace(fresh, model)
            os.link(model, path)

    return write


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table, gzipped if its name says so, row by row."""
    raw = gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else open(path, "wb")  # noqa: SIM115
    with raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(header)
        writer.writerows(rows)


def mimic_report(study: int) -> str:
    """A report in the manner of MIMIC-CXR."""
    return (
        "                                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n"
        " INDICATION:  ___F with cough\n \n FINDINGS: \n \n"
        f" The lungs are clear in study {study}.  No pleural effusion is\n seen.\n \n"
        " IMPRESSION: \n \n No acute cardiopulmonary process.\n"
    )


def mimic_ids(studies: int) -> list[tuple[int, int, list[str], str]]:
    """Patient, study, ids of the images and official split of so many studies; a patient has one to three studies."""
    found = []
    for number in range(studies):
        patient = 10_000_032 + 10_000 * (number // 2 % 3) * (number < 600) + number // 2
        study = 50_000_000 + 7 * number
        digest = hashlib.sha256(f"mimic {study}".encode()).hexdigest()
        names = [
            "-".join(digest[start + k : start + k + 40][i : i + 8] for i in range(0, 40, 8))
            for start, k in ((0, 0), (8, 1), (16, 2))
        ]
        count = (1, 2, 2, 1, 3)[number % 5]
        split = "test" if number // 2 % 10 == 9 else "validate" if number // 2 % 10 == 8 else "train"
        found.append((patient, study, names[:count], split))
    return found


def make_mimic_cxr(
    root: Path,
    studies: int = 20,
    *,
    suffix: str = ".jpg",
    packed: bool = True,
    write: Write | None = write_jpg,
    report: Callable[[int], str] = mimic_report,
) -> list[tuple[int, int, list[str], str]]:
    """MIMIC-CXR-JPG 2.0.0 (or, with `suffix=".dcm"`, the images of MIMIC-CXR) with its reports.

    Args:
        root: Where to.
        studies: How many.
        suffix: Of the images.
        packed: Tables as .csv.gz and reports in the zip archive, or everything unpacked.
        write: Writes an image; None: no images.
        report: Text of a study.

    Returns:
        Patient, study, ids of the images and split of each study.
    """
    root.mkdir(parents=True, exist_ok=True)
    ids = mimic_ids(studies)
    gz = ".gz" if packed else ""
    views = ("PA", "LATERAL", "")
    images = [
        (dicom, patient, study, split, views[number % 3])
        for patient, study, names, split in ids
        for number, dicom in enumerate(names)
    ]
    write_csv(
        root / f"mimic-cxr-2.0.0-metadata.csv{gz}",
        MIMIC_METADATA,
        (
            (
                dicom,
                patient,
                study,
                "CHEST (PA AND LAT)",
                view,
                3056,
                2544,
                21800506,
                213014.53,
                "CHEST (PA AND LAT)",
                "postero-anterior" if view == "PA" else "",
                "Erect",
            )
            for dicom, patient, study, _, view in images
        ),
    )
    write_csv(
        root / f"mimic-cxr-2.0.0-split.csv{gz}",
        ("dicom_id", "study_id", "subject_id", "split"),
        ((dicom, study, patient, split) for dicom, patient, study, split, _ in images),
    )
    write_csv(
        root / f"mimic-cxr-2.0.0-chexpert.csv{gz}",
        ("subject_id", "study_id", *CHEXPERT_LABELS),
        ((patient, study, *("1.0" if study % 14 == k else "" for k in range(14))) for patient, study, _, _ in ids),
    )
    if write is not None:
        for number, (dicom, patient, study, _, _) in enumerate(images):
            write(root / f"files/p{str(patient)[:2]}/p{patient}/s{study}/{dicom}{suffix}", number)
    write_reports(root, {f"files/p{str(p)[:2]}/p{p}/s{s}.txt": report(s) for p, s, _, _ in ids}, packed=packed)
    return ids


def write_reports(root: Path, texts: dict[str, str], *, packed: bool = True) -> None:
    """Texts by their path, in `mimic-cxr-reports.zip` or unpacked beside the images."""
    if packed:
        with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
        return
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def chexpert_plus_row(patient: int, study: int, view: int, split: str = "train", **cells: object) -> list[object]:
    """One row of the table of CheXpert Plus; `cells` replace its values."""
    frontal = view == 1
    path = f"{split}/patient{patient:05d}/study{study}/view{view}_{'frontal' if frontal else 'lateral'}"
    findings = f"The lungs of patient {patient} are clear, study {study}.\nNo effusion."
    impression = '1.  NO ACUTE DISEASE, "STABLE".'
    values: dict[str, object] = {
        "path_to_image": f"{path}.jpg",
        "path_to_dcm": f"{path}.dcm",
        "frontal_lateral": "Frontal" if frontal else "Lateral",
        "ap_pa": ("AP", "PA")[study % 2] if frontal else "",
        "deid_patient_id": f"patient{patient:05d}",
        "patient_report_date_order": study,
        "report": f"NARRATIVE:\nCHEST RADIOGRAPH\n\nFINDINGS:\n{findings}\n\nIMPRESSION:\n{impression}",
        "section_narrative": "CHEST RADIOGRAPH",
        "section_findings": findings,
        "section_impression": impression,
        "age": f"{20 + patient % 60}.0",
        "sex": ("Female", "Male")[patient % 2],
        "race": "Other",
        "deceased": "No",
        "split": split,
        **cells,
    }
    return [values.get(name, "") for name in CHEXPERT_PLUS]


def make_chexpert_plus(
    root: Path,
    patients: int = 10,
    *,
    images: str = "PNG/PNG",
    suffix: str = ".png",
    write: Write | None = write_jpg,
    change: Callable[[list[object]], None] = lambda row: None,
) -> Path:
    """CheXpert Plus: the table and its images; two studies a patient, the first with two images, one patient in valid.

    Args:
        root: Where to.
        patients: How many; the last is in the official validation set.
        images: Folder of `train/` and `valid/` below the root.
        suffix: Of the images.
        write: Writes an image; None: no images.
        change: Changes a row of the table in place.

    Returns:
        The table.
    """
    root.mkdir(parents=True, exist_ok=True)

    def rows() -> Iterable[list[object]]:
        for patient in range(1, patients + 1):
            split = "valid" if patient == patients else "train"
            for study, view in ((1, 1), (1, 2), (2, 1)):
                row = chexpert_plus_row(patient, study, view, split)
                if write is not None:
                    write((root / images / str(row[0])).with_suffix(suffix), 100 * patient + 10 * study + view)
                change(row)
                yield row

    table = root / "df_chexpert_plus_240401.csv"
    write_csv(table, CHEXPERT_PLUS, rows())
    return table
