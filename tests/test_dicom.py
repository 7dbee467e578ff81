"""DICOM pixels against a naive reading of the standard (PS3.3, sections C.7.6.3 and C.11)."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from convirt.data.dicom import read_dicom
from convirt.data.images import prepare_image, read_pixels
from convirt.data.pixels import Unreadable


def dicom(stored_HW: np.ndarray, *, bits: int = 12, **tags: Any) -> bytes:
    """Return a DICOM file of the given stored values."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Modality = "CR"
    dataset.Rows, dataset.Columns = stored_HW.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = stored_HW.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored_HW.dtype.kind == "i")
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = stored_HW.tobytes()
    return written(dataset)


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def ramp(low: int, high: int, dtype: str = "<u2") -> np.ndarray:
    return np.linspace(low, high, 8 * 6).round().astype(dtype).reshape(8, 6)


def naive_linear(value: float, center: float, width: float) -> float:
    if value <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if value > center - 0.5 + (width - 1) / 2:
        return 1.0
    return (value - (center - 0.5)) / (width - 1) + 0.5


def test_rescale_and_window() -> None:
    stored_HW = ramp(0, 4095)
    pixels = read_dicom(
        dicom(stored_HW, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=[40, 900], WindowWidth=[400, 1])
    )
    expected = [[naive_linear(2 * float(x) - 1024, 40, 400) for x in row] for row in stored_HW]
    np.testing.assert_allclose(pixels.values_HW, expected, atol=1e-6)
    assert 0 < pixels.values_HW.mean() < 1
    assert pixels.recipe["voi"] == "LINEAR window, center 40, width 400"
    assert pixels.recipe["modality"] == "slope 2, intercept -1024"


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_other_window_functions(function: str) -> None:
    stored_HW = ramp(0, 4095)
    pixels = read_dicom(dicom(stored_HW, WindowCenter=2000, WindowWidth=1500, VOILUTFunction=function))
    naive = {
        "LINEAR_EXACT": lambda x: min(max((x - 2000) / 1500 + 0.5, 0), 1),
        "SIGMOID": lambda x: 1 / (1 + math.exp(-4 * (x - 2000) / 1500)),
    }[function]
    np.testing.assert_allclose(pixels.values_HW, [[naive(float(x)) for x in row] for row in stored_HW], atol=1e-6)


def test_monochrome1_is_inverted() -> None:
    tags = {"WindowCenter": 2000, "WindowWidth": 3000}
    plain = read_dicom(dicom(ramp(0, 4095), **tags)).values_HW
    inverted = read_dicom(dicom(ramp(0, 4095), PhotometricInterpretation="MONOCHROME1", **tags)).values_HW
    np.testing.assert_allclose(inverted, 1 - plain, atol=1e-6)


def test_signed_values_without_window_use_their_range() -> None:
    stored_HW = ramp(-1000, 3000, "<i2")
    pixels = read_dicom(dicom(stored_HW, bits=16))
    np.testing.assert_allclose(pixels.values_HW, (stored_HW + 1000.0) / 4000, atol=1e-6)
    assert pixels.recipe["signed"] is True


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_set_the_range(photometric: str) -> None:
    stored_HW = ramp(100, 300, "<i2")
    stored_HW[:, 0] = -2000
    pixels = read_dicom(dicom(stored_HW, bits=16, PixelPaddingValue=-2000, PhotometricInterpretation=photometric))
    inside = stored_HW[:, 1:].astype(float)
    expected = (inside - inside.min()) / (inside.max() - inside.min())
    np.testing.assert_allclose(
        pixels.values_HW[:, 1:], expected if photometric == "MONOCHROME2" else 1 - expected, atol=1e-6
    )
    assert (pixels.values_HW[:, 0] == 0).all()
    assert pixels.recipe["padding"] == [-2000, -2000]


def test_voi_lut_comes_before_a_window() -> None:
    lut = Dataset()
    lut.LUTDescriptor = [16, 10, 16]
    table = [i * i for i in range(16)]  # announces 16 bits, fills fewer
    lut.LUTData = np.array(table, dtype="<u2").tobytes()
    pixels = read_dicom(dicom(ramp(0, 40), bits=8, VOILUTSequence=Sequence([lut]), WindowCenter=1, WindowWidth=2))
    expected = [[table[min(max(int(x) - 10, 0), 15)] / 225 for x in row] for row in ramp(0, 40)]
    np.testing.assert_allclose(pixels.values_HW, expected, atol=1e-6)


def test_modality_lut() -> None:
    lut = Dataset()
    lut.LUTDescriptor = [8, 0, 16]
    lut.ModalityLUTType = "US"
    lut.add_new("LUTData", "US", [7, 6, 5, 4, 3, 2, 1, 0])  # US or OW: both are in use
    stored_HW = np.arange(8, dtype="<u2").reshape(2, 4)
    pixels = read_dicom(dicom(stored_HW, ModalityLUTSequence=Sequence([lut])))
    np.testing.assert_allclose(pixels.values_HW, (7 - stored_HW) / 7, atol=1e-6)


def test_compressed_pixels_are_the_same() -> None:
    plain = dicom(ramp(0, 4095), WindowCenter=2000, WindowWidth=3000)
    dataset = pydicom.dcmread(io.BytesIO(plain))
    dataset.compress(RLELossless)
    np.testing.assert_array_equal(read_dicom(written(dataset)).values_HW, read_dicom(plain).values_HW)


def test_file_without_preamble_is_read_by_its_suffix() -> None:
    data = dicom(ramp(0, 4095))
    dataset = pydicom.dcmread(io.BytesIO(data))
    bare = io.BytesIO()
    pydicom.dcmwrite(bare, Dataset(dataset), implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert bare.getvalue()[128:132] != b"DICM"
    np.testing.assert_array_equal(read_pixels(bare.getvalue(), suffix=".dcm").values_HW, read_dicom(data).values_HW)
    with pytest.raises(Unreadable, match="not a PNG, JPEG or DICOM file"):
        read_pixels(bare.getvalue(), suffix=".png")


def without_pixels() -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp(0, 9))))
    del dataset.PixelData
    return written(dataset)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (without_pixels(), "DICOM without pixels"),
        (dicom(ramp(0, 9), PhotometricInterpretation="RGB"), "DICOM in colour"),
        (dicom(ramp(0, 9), PhotometricInterpretation="PALETTE COLOR"), "DICOM in colour"),
        (dicom(ramp(0, 9), NumberOfFrames=3), "DICOM with several frames"),
        (dicom(ramp(0, 9), Rows=60000, Columns=60000), "image too large"),
        (dicom(ramp(0, 4095))[:-20], "DICOM that cannot be decoded"),
        (dicom(ramp(0, 4095))[:300], "DICOM"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 500, "DICOM|not a PNG"),
    ],
)
def test_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_dicom(data)


def test_prepared_record(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(ramp(0, 4095), PhotometricInterpretation="MONOCHROME1"))
    record, repairs = prepare_image(tmp_path / "a.dcm", source="a.dcm", image_size=32)
    assert (record.height, record.width, repairs) == (32, 24, ())
    recipe = json.loads(record.recipe)
    assert recipe["format"] == "DICOM"
    assert recipe["photometric"] == "MONOCHROME1"
    assert recipe["bits"] == 12
