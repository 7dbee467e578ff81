"""A real PACS for tests: Orthanc with its DICOMweb plugin, on a free local port, and DICOM files to fill it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import requests
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

USER, PASSWORD = "reader", "päss word:1"
CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
_PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")


def require_orthanc() -> tuple[str, str]:
    """The server and its plugin, or skip."""
    server = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    plugin = next((path for path in _PLUGINS if os.path.exists(path)), None)
    if server is None or plugin is None:
        pytest.skip("needs Orthanc with DICOMweb: apt-get install orthanc orthanc-dicomweb")
    return server, plugin


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Orthanc:
    """One server with a storage of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def start(self) -> None:
        """Start it and wait until it answers."""
        server, plugin = require_orthanc()
        storage = self.folder / "storage"
        configuration = {
            "Name": "convirt tests",
            "StorageDirectory": str(storage),
            "IndexDirectory": str(storage),
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [plugin],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (self.folder / "orthanc.json").write_text(json.dumps(configuration))
        with open(self.folder / "orthanc.log", "ab") as log:
            self.process = subprocess.Popen([server, str(self.folder / "orthanc.json")], stdout=log, stderr=log)
        for _ in range(200):
            if self.process.poll() is not None:
                break
            try:
                requests.get(f"{self.url}/studies?limit=1", auth=self.auth, timeout=5).raise_for_status()
                return
            except requests.RequestException:
                time.sleep(0.1)
        raise RuntimeError(f"Orthanc does not answer: {(self.folder / 'orthanc.log').read_text()[-2000:]}")

    @property
    def auth(self) -> tuple[bytes, bytes]:
        return USER.encode(), PASSWORD.encode()

    def kill(self) -> None:
        """End it as a power failure would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def store(self, files: Iterable[Path]) -> None:
        """Store DICOM files."""
        for file in files:
            url = f"http://127.0.0.1:{self.port}/instances"
            requests.post(url, data=file.read_bytes(), auth=self.auth, timeout=30).raise_for_status()


def new_dataset(sop_class: str, *, patient: str, study: str, accession: str, modality: str) -> Dataset:
    """A data set with what every instance has."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[study, modality, str(time.time_ns())])
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[study, modality])
    dataset.PatientID = patient
    dataset.PatientName = "Test^Patient"
    dataset.PatientSex = "F"
    dataset.AccessionNumber = accession
    dataset.Modality = modality
    dataset.StudyDate, dataset.StudyTime, dataset.StudyDescription = "20200131", "101500", "Chest"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def image_dataset(pixels: np.ndarray, *, bits: int, **about: str) -> Dataset:
    """A radiograph from unsigned pixels [height, width] of so many bits."""
    dataset = new_dataset(CR_IMAGE, modality="CR", **about)
    dataset.PatientAge, dataset.ViewPosition = "061Y", "PA"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    if bits > 8:
        dataset.WindowCenter, dataset.WindowWidth = str(1 << (bits - 1)), str(1 << bits)
    dataset.PixelData = pixels.astype("u1" if bits == 8 else "<u2").tobytes()
    return dataset


def coded(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    """A coded concept."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def item(kind: str, name: Dataset | None = None, text: str = "", children: Iterable[Dataset] = ()) -> Dataset:
    """One item of the content of a structured report."""
    content = Dataset()
    content.RelationshipType, content.ValueType = "CONTAINS", kind
    if name is not None:
        content.ConceptNameCodeSequence = [name]
    if kind == "TEXT":
        content.TextValue = text
    if children := list(children):
        content.ContentSequence = children
    return content


def report_dataset(findings: str, impression: str, **about: str) -> Dataset:
    """A structured report with Findings and Impressions, as template TID 2000 has them."""
    dataset = new_dataset(BASIC_TEXT_SR, modality="SR", **about)
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [coded("18782-3", "X-Ray Report", "LN")]
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "VERIFIED"
    dataset.ContentDate, dataset.ContentTime = "20200131", "120000"
    observer = item("PNAME", coded("121008", "Person Observer Name"))
    observer.RelationshipType, observer.PersonName = "HAS OBS CONTEXT", "Doe^John"
    dataset.ContentSequence = [
        observer,
        item("CONTAINER", coded("121060", "History"), children=[item("TEXT", coded("121060", "History"), "Cough.")]),
        item("CONTAINER", coded("121070", "Findings"), children=[item("TEXT", coded("121071", "Finding"), findings)]),
        item(
            "CONTAINER",
            coded("121072", "Impressions"),
            children=[item("TEXT", coded("121073", "Impression"), impression)],
        ),
    ]
    return dataset


def write(dataset: Dataset, folder: Path) -> Path:
    """Write a data set as a DICOM file named by its UID."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path
