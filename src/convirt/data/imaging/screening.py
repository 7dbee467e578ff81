"""Which DICOM files are pictures to learn from, and why the others are set aside.

An archive holds much that is no radiograph: presentation states, structured reports, photographs, dose maps. Each kind
has its own reason, so that an audit tells a hospital what its archive holds.
"""

import pydicom
from pydicom import uid

from convirt.data.imaging.pixels import Choice, Unreadable, check_size

REPORT_BURNED_IN = "burned-in annotation, says the file"
REPORT_VISIBLE = "recognizable face or body, says the file"

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# By the start of the SOP class, the longest first where one is the start of another (PS3.4, annex B.5).
_WITHOUT_PIXELS = {
    "1.2.840.10008.1.3.10": "media directory",
    f"{_STORAGE}88.59": "key object selection",
    f"{_STORAGE}88.": "structured report",
    f"{_STORAGE}104.": "encapsulated document",
    f"{_STORAGE}11.": "presentation state",
    f"{_STORAGE}9.": "waveform",
    f"{_STORAGE}66.5": "surface segmentation",
    f"{_STORAGE}66.": "registration or raw data",
    f"{_STORAGE}67": "real world value mapping",
    f"{_STORAGE}481.": "radiotherapy object",
}
_MAPS = {
    f"{_STORAGE}66.4": "segmentation",
    f"{_STORAGE}66.7": "label map",
    f"{_STORAGE}481.2": "radiotherapy dose",
    f"{_STORAGE}30": "parametric map",
}
_VISIBLE_LIGHT = f"{_STORAGE}77.1."
_PHOTOGRAPHS = ("XC", "ES", "GM", "SM", "OP", "DMS")


def screen(dataset: pydicom.Dataset, choice: Choice) -> int:
    """Return the frame to read, numbered from 1.

    Raises:
        Unreadable: The file holds no picture, or several and none was asked for, or its header lacks what pixels need.
    """
    if not len(dataset):
        raise Unreadable("not a PNG, JPEG or DICOM file")
    kind = str(dataset.get("SOPClassUID", "") or dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    modality = str(dataset.get("Modality", "") or "unknown")
    if not any(name in dataset for name in _PIXELS):
        what = next((name for start, name in _WITHOUT_PIXELS.items() if kind.startswith(start)), "")
        named = uid.UID(kind).name if kind else f"modality {modality}"
        raise Unreadable("DICOM without pixels" + (f": {what}" if what else ""), named)
    if kind in _MAPS:
        raise Unreadable("DICOM whose pixels are no picture", _MAPS[kind])
    for name in ("Rows", "Columns", "BitsAllocated"):
        if dataset.get(name) is None:
            raise Unreadable("DICOM that cannot be decoded", f"header without {name}")
    _check_colour(dataset, kind, modality)
    check_size(int(dataset.Rows), int(dataset.Columns))
    return _frame(dataset, choice)


def _check_colour(dataset: pydicom.Dataset, kind: str, modality: str) -> None:
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    samples = int(dataset.get("SamplesPerPixel", 1) or 1)
    if photometric not in _GREY + _COLOUR:
        raise Unreadable("DICOM in colour", f"photometric interpretation {photometric or 'missing'}")
    if samples not in (1, 3) or (samples == 3) != (photometric not in (*_GREY, "PALETTE COLOR")):
        raise Unreadable("DICOM that cannot be decoded", f"{samples} samples a pixel in {photometric}")
    if photometric in _COLOUR and (kind.startswith(_VISIBLE_LIGHT) or modality in _PHOTOGRAPHS):
        raise Unreadable("DICOM in colour: photograph", f"modality {modality}")


def _frame(dataset: pydicom.Dataset, choice: Choice) -> int:
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames < 1:
        raise Unreadable("DICOM that cannot be decoded", f"{frames} frames")
    if choice.frame is None:
        if frames > 1:
            raise Unreadable("DICOM with several frames", f"{frames} frames")
        return 1
    if not 1 <= choice.frame <= frames:
        raise Unreadable("DICOM without the frame asked for", f"frame {choice.frame} of {frames}")
    return choice.frame


def marks(dataset: pydicom.Dataset) -> list[str]:
    """Return what the file says of itself that someone should look at: its pixels may name or show the patient."""
    said = (("BurnedInAnnotation", REPORT_BURNED_IN), ("RecognizableVisualFeatures", REPORT_VISIBLE))
    return [report for name, report in said if str(dataset.get(name, "")).strip().upper() == "YES"]
