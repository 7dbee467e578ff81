"""Stored values of one frame of a DICOM file, whatever the transfer syntax.

Uncompressed pixels, of either byte order, are unpacked by pydicom; compressed ones by imagecodecs (libjpeg-turbo,
CharLS and OpenJPEG), after their own headers were held against the file's. What comes out are the values as the file
stores them (PS3.5, section 8.1): cut out of their cell at the high bit, with their sign.

Shapes: H, W = rows and columns; C = samples of a pixel.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
from imagecodecs import jpeg2k_decode, jpeg8_decode, jpegls_decode, packbits_decode
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

from convirt.data.imaging.codestreams import read_jpeg2000_header, read_jpeg_header
from convirt.data.imaging.pixels import MAX_PIXEL_BYTES, Unreadable

_NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
_JPEG = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1})
_JPEG_LS = frozenset({uid.JPEGLSLossless, uid.JPEGLSNearLossless})
_JPEG_2000 = frozenset({uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K})
READ = _NATIVE | _JPEG | _JPEG_LS | _JPEG_2000 | {uid.RLELossless}
"""Transfer syntaxes that are read."""


def stored_values(dataset: pydicom.Dataset, frame: int) -> np.ndarray:
    """Return the stored values of a frame, numbered from 1: integers [H, W], or [H, W, C] if pixels have C samples.

    Raises:
        Unreadable: A transfer syntax that is not read, or pixel data that contradict the header.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in READ:
        raise Unreadable("DICOM of a transfer syntax that is not read", uid.UID(syntax).name)
    height, width, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.get("SamplesPerPixel", 1) or 1)
    if height * width * samples * int(dataset.BitsAllocated) > 8 * MAX_PIXEL_BYTES:
        raise Unreadable("image too large", f"{height} x {width} pixels of {samples} samples")
    if syntax in _NATIVE:
        options: Any = {"raw": True, "correct_unused_bits": False}
        values, _ = get_decoder(syntax).as_array(dataset, index=frame - 1, **options)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return _cut_out(values, dataset) if values.dtype.kind in "iu" else values
    encoded = get_frame(dataset.PixelData, frame - 1, number_of_frames=int(dataset.get("NumberOfFrames", 1) or 1))
    if syntax == uid.RLELossless:
        return _cut_out(_decode_rle(encoded, dataset), dataset)
    values = _decode(encoded, dataset, str(syntax))
    if values.shape != ((height, width) if samples == 1 else (height, width, samples)):
        raise _contradiction(values.shape, dataset)
    return _sign(values, dataset)


def _contradiction(shape: tuple[int, ...], dataset: pydicom.Dataset) -> Unreadable:
    named = " x ".join(map(str, shape))
    return Unreadable(
        "DICOM that cannot be decoded",
        f"pixel data of {named} under a header of {dataset.Rows} x {dataset.Columns} x {dataset.SamplesPerPixel}",
    )


def _decode(encoded: bytes, dataset: pydicom.Dataset, syntax: str) -> np.ndarray:
    """Decode one frame of a JPEG family, once its own header agrees with the file's."""
    header = (read_jpeg2000_header if syntax in _JPEG_2000 else read_jpeg_header)(encoded)
    if (header.height, header.width, header.components) != (
        int(dataset.Rows),
        int(dataset.Columns),
        int(dataset.SamplesPerPixel),
    ):
        raise _contradiction((header.height, header.width, header.components), dataset)
    decode: Callable[..., Any]
    options: dict[str, Any] = {}
    if syntax in _JPEG_2000:
        decode = jpeg2k_decode
    elif syntax in _JPEG_LS:
        decode = jpegls_decode
    else:
        decode = jpeg8_decode
        if dataset.PhotometricInterpretation == "RGB":  # what the file says goes before what the decoder would guess
            options = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}
    return np.asarray(decode(encoded, **options))


def _decode_rle(encoded: bytes, dataset: pydicom.Dataset) -> np.ndarray:
    """Decode RLE segments (PS3.5, annex G): one for each byte of each sample, the most significant first."""
    height, width, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    depth = int(dataset.BitsAllocated) // 8
    count, *offsets = struct.unpack_from("<16I", encoded)
    if count != samples * depth or not 1 <= count <= 15:
        raise Unreadable("DICOM that cannot be decoded", f"RLE with {count} segments instead of {samples * depth}")
    ends = [*offsets[1:count], len(encoded)]
    planes = np.empty((samples, height, width, depth), dtype=np.uint8)
    for number, (start, end) in enumerate(zip(offsets[:count], ends, strict=True)):
        sample, place = divmod(number, depth)
        plane = packbits_decode(encoded[start:end], out=height * width)
        planes[sample, :, :, depth - 1 - place] = np.frombuffer(plane, np.uint8).reshape(height, width)
    values_CHW = planes.view(f"<u{depth}")[..., 0]
    return values_CHW[0] if samples == 1 else np.moveaxis(values_CHW, 0, 2)


def _cut_out(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Keep the bits from the high bit down to the lowest stored one; others may hold overlays or nothing."""
    allocated, stored, high = bit_layout(dataset)
    if allocated == 1 or stored == allocated:
        return _sign(values, dataset)
    unsigned: Any = values.view(f"u{values.dtype.itemsize}")
    return _sign((unsigned >> (high + 1 - stored)) & ((1 << stored) - 1), dataset)


def _sign(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Read values as two's complement of their stored bits, if the file says that they are signed."""
    if not dataset.get("PixelRepresentation", 0) or dataset.BitsAllocated == 1:
        return values
    stored = bit_layout(dataset)[1]
    size = values.dtype.itemsize
    if stored == 8 * size:
        return values.view(f"i{size}")
    if values.dtype.kind == "i" and int(values.min()) < 0:  # a JPEG 2000 codestream knows its own sign
        return values
    wide: Any = values.astype(np.int32 if size <= 2 else np.int64)
    half = 1 << (stored - 1)
    return ((wide & ((1 << stored) - 1)) ^ half) - half


def bit_layout(dataset: pydicom.Dataset) -> tuple[int, int, int]:
    """Return bits allocated, bits stored and high bit; what is impossible is taken as the standard's usual layout.

    Raises:
        Unreadable: A cell that no image has.
    """
    allocated = int(dataset.BitsAllocated)
    if allocated not in (1, 8, 16, 32, 64):
        raise Unreadable("DICOM that cannot be decoded", f"{allocated} bits allocated")
    stored = int(dataset.get("BitsStored", allocated) or allocated)
    if not 1 <= stored <= allocated:
        stored = allocated
    high = int(dataset.get("HighBit", stored - 1))
    return allocated, stored, high if stored - 1 <= high < allocated else stored - 1
