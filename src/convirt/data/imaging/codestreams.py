"""What compressed pixel data say of themselves, read before any decoder in C sees them.

A decoder takes the memory and the time that a codestream's own header asks for, whatever the file around it says. So
size, components and scans are read here first, from the text of ITU-T T.81 (JPEG), T.87 (JPEG-LS) and T.800 (JPEG
2000).
"""

import struct
from dataclasses import dataclass

from convirt.data.imaging.pixels import Unreadable

_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 and SOF55 (JPEG-LS), without DHT, JPG and DAC."""
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_MAX_SCANS = 100
"""Progressive encoders write about ten; a scan without data costs its author ten bytes and us a pass over the image."""
_MAX_TILES = 65535
_DAMAGED = "truncated or damaged image"


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
