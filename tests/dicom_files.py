"""DICOM files made in code, for the tests: every corner of the standard that radiographs use."""

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

CR = "1.2.840.10008.5.1.4.1.1.1"


def dicom(stored: np.ndarray, *, bits: int = 12, syntax: str = uid.ExplicitVRLittleEndian, **tags: Any) -> bytes:
    """A DICOM file of the given stored values: [H, W], [H, W, 3], or [frames, H, W] with NumberOfFrames.

    `tags` set or replace attributes; None removes one.
    """
    dataset = data_set(stored, bits=bits, **tags)
    dataset.file_meta.TransferSyntaxUID = syntax
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OW" if stored.dtype.itemsize > 1 else "OB"
    return written(dataset)


def compressed(encoded: bytes | list[bytes], like: np.ndarray, syntax: str, *, bits: int = 12, **tags: Any) -> bytes:
    """A DICOM file whose pixel data are encoded frames; `like` gives shape and type of the cells."""
    dataset = data_set(like, bits=bits, **tags)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([encoded] if isinstance(encoded, bytes) else encoded)
    dataset["PixelData"].VR = "OB"
    return written(dataset)


def data_set(stored: np.ndarray, *, bits: int, **tags: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CR)
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = CR
    dataset.Modality = "CR"
    frames = "NumberOfFrames" in tags and stored.ndim > 2
    dataset.Rows, dataset.Columns = stored.shape[1:3] if frames else stored.shape[:2]
    colour = stored.ndim == 3 + frames
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def bare(data: bytes) -> bytes:
    """The same file without preamble and file meta information, in the default transfer syntax."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, Dataset(dataset), implicit_vr=True, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()


def lut(entries: list[int], first: int, bits: int, *, packed: bool = False, order: str = "<") -> Dataset:
    """One item of a LUT sequence; `packed`: two eight-bit entries to a word; `order`: of the bytes of the file."""
    item = Dataset()
    signed = first < 0
    item.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", np.array(entries, dtype="u1" if packed else f"{order}u2").tobytes())
    return item


def sequence(*items: Dataset) -> Sequence:
    return Sequence(items)


def group(**tags: Any) -> Dataset:
    """A data set of these attributes: an item of a sequence."""
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return item


def ramp(low: int, high: int, dtype: str = "<u2", shape: tuple[int, int] = (8, 6)) -> np.ndarray:
    return np.linspace(low, high, shape[0] * shape[1]).round().astype(dtype).reshape(shape)


def texture(bits: int, *, height: int = 40, width: int = 30, seed: int = 0) -> np.ndarray:
    """Smooth structure with some noise, using all of `bits`; uint8 or uint16."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    values = 0.5 + 0.4 * np.sin(x / 5) * np.cos(y / 7) + rng.normal(0, 0.02, (height, width))
    top = (1 << bits) - 1
    values = np.rint(values.clip(0, 1) * top)
    values.flat[:2] = 0, top
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def rle(values: np.ndarray) -> bytes:
    """One frame as DICOM RLE (PS3.5, annex G), in plain Python; values [H, W] or [H, W, C]."""
    planes = values[..., None] if values.ndim == 2 else values
    segments = []
    for channel in range(planes.shape[2]):
        cells = planes[..., channel].astype(values.dtype.newbyteorder(">"))
        plane = np.ascontiguousarray(cells).view("u1").reshape(-1, values.dtype.itemsize)
        segments += [_pack(plane[:, place].tobytes()) for place in range(values.dtype.itemsize)]
    offsets, place = [], 64
    for segment in segments:
        offsets.append(place)
        place += len(segment)
    return struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(offsets))) + b"".join(segments)


def _pack(data: bytes) -> bytes:
    packed, place = bytearray(), 0
    while place < len(data):
        run = 1
        while run < 128 and place + run < len(data) and data[place + run] == data[place]:
            run += 1
        if run > 1:
            packed += bytes([257 - run, data[place]])
            place += run
            continue
        end = place + 1
        while end < len(data) and end - place < 128 and not (end + 1 < len(data) and data[end] == data[end + 1]):
            end += 1
        packed += bytes([end - place - 1]) + data[place:end]
        place = end
    return bytes(packed + b"\0" * (len(packed) % 2))


def jpeg_lossless(values: np.ndarray, bits: int, predictor: int) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(values, lossless=True, predictor=predictor, bitspersample=bits))


def jpeg_2000(values: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(values, codecformat="J2K", **options))
