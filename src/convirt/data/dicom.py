"""Pixels of a DICOM file as a viewer shows them: modality LUT, VOI LUT or window, photometric interpretation.

Scaling a file by its smallest and largest stored value would ignore all three, and make one patient's bone another's
lung. The order of the steps is that of DICOM PS3.4, section N.2; the window functions are those of PS3.3, section
C.11.2.1.2. Shapes: H, W = rows and columns.
"""

import warnings
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from convirt.data.pixels import MAX_PIXELS, Pixels, Unreadable


def read_dicom(data: bytes) -> Pixels:
    """Turn the bytes of a DICOM file into grey pixels in [0, 1].

    Raises:
        Unreadable: No DICOM, no pixels, colour, several frames, or pixel data that cannot be decoded.
    """
    # Reading must be as tolerant as viewers are: pydicom warns of every value that is not as the standard has it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(BytesIO(data), force=True)
            _require_one_grey_frame(dataset)
            return _render(dataset)
        except Unreadable:
            raise
        except Exception as error:  # a damaged file can fail anywhere in the parser or a decoder
            detail = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise Unreadable("DICOM that cannot be decoded", detail) from error


def _require_one_grey_frame(dataset: pydicom.Dataset) -> None:
    if not len(dataset):
        raise Unreadable("not a PNG, JPEG or DICOM file")
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise Unreadable("DICOM without pixels", f"modality {dataset.get('Modality', 'unknown')}")
    photometric = dataset.get("PhotometricInterpretation", "")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable("DICOM in colour", f"photometric interpretation {photometric or 'missing'}")
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise Unreadable("DICOM with several frames", f"{frames} frames")
    if int(dataset.Rows) * int(dataset.Columns) > MAX_PIXELS:
        raise Unreadable("image too large", f"{dataset.Rows} x {dataset.Columns} pixels")


def _render(dataset: pydicom.Dataset) -> Pixels:
    if "TransferSyntaxUID" not in dataset.file_meta:
        # A bare data set, without the preamble: its syntax is the standard's default.
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    stored_HW = dataset.pixel_array
    padding_HW, padding = _padding(dataset, stored_HW)
    recipe: dict[str, Any] = {
        "format": "DICOM",
        "height": int(dataset.Rows),
        "width": int(dataset.Columns),
        "bits": int(dataset.BitsStored),
        "signed": bool(dataset.get("PixelRepresentation", 0)),
        "photometric": str(dataset.PhotometricInterpretation),
        "padding": padding,
        "modality": _modality(dataset),
    }
    values_HW = np.asarray(apply_modality_lut(stored_HW, dataset), dtype=np.float64)
    shown_HW, recipe["voi"] = _apply_voi(dataset, values_HW, ~padding_HW)
    if recipe["photometric"] == "MONOCHROME1":
        shown_HW = 1 - shown_HW
    shown_HW[padding_HW] = 0  # what lies outside the image is black, whatever the window makes of it
    return Pixels(values_HW=shown_HW.astype(np.float32), recipe=recipe)


def _padding(dataset: pydicom.Dataset, stored_HW: np.ndarray) -> tuple[np.ndarray, list[int] | None]:
    """Return where the stored values stand for "no image" (PS3.3, C.7.5.1.1.2), and their range."""
    if (value := dataset.get("PixelPaddingValue")) is None:
        return np.zeros(stored_HW.shape, dtype=bool), None
    limit = dataset.get("PixelPaddingRangeLimit")
    bounds = [int(value), int(value if limit is None else limit)]
    if dataset.get("PixelRepresentation", 0):  # some writers store a negative padding value as unsigned
        bits = int(dataset.BitsAllocated)
        bounds = [bound - (1 << bits) if bound >= 1 << (bits - 1) else bound for bound in bounds]
    bounds.sort()
    padding_HW = (stored_HW >= bounds[0]) & (stored_HW <= bounds[1])
    if padding_HW.all():  # a wrong header would leave nothing to see
        return np.zeros(stored_HW.shape, dtype=bool), None
    return padding_HW, bounds


def _modality(dataset: pydicom.Dataset) -> str:
    if "ModalityLUTSequence" in dataset:
        return "LUT"
    if "RescaleSlope" in dataset and "RescaleIntercept" in dataset:
        return f"slope {float(dataset.RescaleSlope):g}, intercept {float(dataset.RescaleIntercept):g}"
    return "none"


def _apply_voi(dataset: pydicom.Dataset, values_HW: np.ndarray, inside_HW: np.ndarray) -> tuple[np.ndarray, str]:
    """Map values to [0, 1] by the file's first VOI LUT, else its first window, else the range of what is inside."""
    if dataset.get("VOILUTSequence"):
        item = dataset.VOILUTSequence[0]
        mapped_HW = np.asarray(apply_voi(values_HW, dataset, index=0), dtype=np.float64)
        # Some writers announce 16 bits and fill 12: what the table itself holds is the range.
        entries = np.frombuffer(item.LUTData, "<u2") if isinstance(item.LUTData, bytes) else np.asarray(item.LUTData)
        low, high = float(entries.min()), float(entries.max())
        return np.clip((mapped_HW - low) / max(high - low, 1), 0, 1), f"LUT of {int(item.LUTDescriptor[0])} entries"
    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction", "") or "LINEAR").upper()
    if center is not None and width is not None and width > 0:
        return window(values_HW, center, width, function), f"{function} window, center {center:g}, width {width:g}"
    low, high = float(values_HW[inside_HW].min()), float(values_HW[inside_HW].max())
    return np.clip((values_HW - low) / max(high - low, 1e-9), 0, 1), f"no window: range {low:g} to {high:g}"


def window(values_HW: np.ndarray, center: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Map modality values to [0, 1] by a window (PS3.3, C.11.2.1.2); any unknown function counts as LINEAR."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values_HW - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values_HW - center) / width + 0.5, 0, 1)
    if width <= 1:
        return (values_HW > center - 0.5).astype(np.float64)
    return np.clip((values_HW - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _first(value: Any) -> float | None:
    """Return the first of several values; None if there is none."""
    if value is None or isinstance(value, str):
        return float(value) if value else None
    if isinstance(value, pydicom.multival.MultiValue):
        return float(value[0]) if len(value) else None
    return float(value)
