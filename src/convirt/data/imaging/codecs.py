"""Stored values of one frame of a DICOM file, whatever the transfer syntax.

Uncompressed pixels, of either byte order, are unpacked by pydicom; compressed ones by imagecodecs (libjpeg-turbo,
CharLS and OpenJPEG). A decoder takes the memory and the time that a codestream's own header asks for, whatever the file
around it says. So size, components and scans are read first, from the text of ITU-T T.81 (JPEG), T.87 (JPEG-LS) and
T.800 (JPEG 2000), and compared with the file's header. The result is the values as the file stores them (PS3.5, section
8.1): cut out of their cell at the high bit, with their sign.

Shapes: H, W = rows and columns; C = samples of a pixel.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from imagecodecs import dicomrle_decode, jpeg2k_decode, jpeg8_decode, jpegls_decode
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

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

_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 and SOF55 (JPEG-LS), without DHT, JPG and DAC."""
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_MAX_SCANS = 100
"""Progressive encoders write about ten; a scan without data costs its author ten bytes and us a pass over the image."""
_MAX_TILES = 65535
REPAIR_PRECISION = "codestream of fewer bits than the header says, whose highest is the sign"
_DAMAGED = "truncated or damaged image"


def stored_values(dataset: pydicom.Dataset, frame: int, repairs: list[str]) -> np.ndarray:
    """Return the stored values of a frame, numbered from 1: integers [H, W], or [H, W, C] if pixels have C samples.

    `repairs` receives what had to be put right.

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
    values, bits = _decode(encoded, dataset, str(syntax))
    if values.shape != ((height, width) if samples == 1 else (height, width, samples)):
        raise _contradiction(values.shape, dataset)
    if dataset.get("PixelRepresentation", 0) and bits < bit_layout(dataset)[1]:
        repairs.append(REPAIR_PRECISION)
    return _sign(values, dataset, bits)


def _contradiction(shape: tuple[int, ...], dataset: pydicom.Dataset) -> Unreadable:
    named = " x ".join(map(str, shape))
    return Unreadable(
        "DICOM that cannot be decoded",
        f"pixel data of {named} under a header of {dataset.Rows} x {dataset.Columns} x {dataset.SamplesPerPixel}",
    )


def _decode(encoded: bytes, dataset: pydicom.Dataset, syntax: str) -> tuple[np.ndarray, int]:
    """Decode one frame of a JPEG family, once its own header agrees with the file's; gives its own precision too."""
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
    return np.asarray(decode(encoded, **options)), header.bits


def _decode_rle(encoded: bytes, dataset: pydicom.Dataset) -> np.ndarray:
    """Decode RLE segments (PS3.5, annex G)."""
    height, width, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    cell = np.dtype(f"<u{int(dataset.BitsAllocated) // 8}")
    size = samples * height * width * cell.itemsize
    decoded = dicomrle_decode(encoded, cell, out=size)
    if len(decoded) != size:
        raise Unreadable("DICOM that cannot be decoded", f"RLE of {len(decoded)} bytes instead of {size}")
    values_CHW = np.frombuffer(decoded, cell).reshape(samples, height, width)
    return values_CHW[0] if samples == 1 else np.moveaxis(values_CHW, 0, 2)


def _cut_out(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Keep the bits from the high bit down to the lowest stored one; others may hold overlays or nothing."""
    allocated, stored, high = bit_layout(dataset)
    if allocated == 1 or stored == allocated:
        return _sign(values, dataset)
    unsigned: Any = values.view(f"u{values.dtype.itemsize}")
    return _sign((unsigned >> (high + 1 - stored)) & ((1 << stored) - 1), dataset)


def _sign(values: np.ndarray, dataset: pydicom.Dataset, bits: int | None = None) -> np.ndarray:
    """Read values as two's complement of their stored bits, if the file says that they are signed.

    The precision of a codestream (`bits`) decides where it is below the stored bits of the header: the sign is its
    highest bit.
    """
    if not dataset.get("PixelRepresentation", 0) or dataset.BitsAllocated == 1:
        return values
    stored = min(bit_layout(dataset)[1], bits or 64)
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


@dataclass(frozen=True, kw_only=True)
class Codestream:
    """The header of a JPEG, JPEG-LS or JPEG 2000 codestream."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    components: int
    bits: int
    """Of one sample."""


def read_jpeg_header(data: bytes) -> Codestream:
    """Read the frame header of a JPEG or JPEG-LS image and look at its scans, without decoding anything.

    Raises:
        Unreadable: It has no frame header, no scan, no end, or too many scans.
    """
    place = data.find(b"\xff\xd8") + 2
    if place < 2:
        raise Unreadable(_DAMAGED, "JPEG without its start marker")
    header: Codestream | None = None
    progressive = False
    while place + 4 <= len(data):
        if data[place] != 0xFF or data[place + 1] == 0xFF:
            place += 1
            continue
        marker = data[place + 1]
        if marker in _BARE_MARKERS:
            place += 2
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if marker in _FRAME_MARKERS and header is None:
            if place + 10 > len(data):
                break
            bits, height, width, components = struct.unpack_from(">BHHB", data, place + 4)
            header = Codestream(height=height, width=width, components=components, bits=bits)
            progressive = marker in _PROGRESSIVE
        if marker == 0xDA:
            break
        place += 2 + max(length, 2)
    if header is None:
        raise Unreadable(_DAMAGED, "JPEG without a frame header")
    if data[place : place + 2] != b"\xff\xda":
        raise Unreadable(_DAMAGED, "JPEG without a scan")
    # One scan with all components is the last that a decoder looks at, unless the frame is progressive.
    several = progressive or data[place + 4 : place + 5] != bytes([header.components])
    if several and (scans := data.count(b"\xff\xda", place)) > _MAX_SCANS:
        raise Unreadable("image too large", f"JPEG of {scans} scans")
    if data.rfind(b"\xff\xd9") < (data.rfind(b"\xff\xda") if several else place):
        raise Unreadable(_DAMAGED, "JPEG without its end marker")
    return header


def read_jpeg2000_header(data: bytes) -> Codestream:
    """Read the SIZ marker of a JPEG 2000 codestream, bare or in a JP2 file.

    Raises:
        Unreadable: It has none, or too many tiles.
    """
    place = data.find(b"\xff\x4f\xff\x51")
    if place < 0 or place + 44 > len(data):
        raise Unreadable(_DAMAGED, "JPEG 2000 without its header")
    x1, y1, x0, y0, tile_width, tile_height, _, _, components = struct.unpack_from(">8IH", data, place + 8)
    bits = (data[place + 42] & 0x7F) + 1
    width, height = x1 - x0, y1 - y0
    if not tile_width or not tile_height or -(-x1 // tile_width) * -(-y1 // tile_height) > _MAX_TILES:
        raise Unreadable(_DAMAGED, f"JPEG 2000 with tiles of {tile_height} x {tile_width} pixels")
    return Codestream(height=height, width=width, components=components, bits=bits)
