"""Instances as they come from a DICOMweb server: out of the answer, onto the disk, and their headers."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pydicom
import requests
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from convirt.data.sources.http import Refused, Transient

_BLOCK = 1 << 18
_MAX_INSTANCE = 2 * 2**30
_MAX_HEADER = 2**16
_MAX_INFLATED = 400 * 2**20


def blocks(response: requests.Response, limit: int) -> Iterator[bytes]:
    """Yield an answer's bytes, at most `limit` of them."""
    size = 0
    for block in response.iter_content(_BLOCK):
        size += len(block)
        if size > limit:
            raise Refused(f"the answer is larger than {limit / 1e6:.0f} MB", 413)
        yield block


def receive(response: requests.Response, file: BinaryIO) -> None:
    """Write the one part of a multipart answer (PS3.18, 8.7.1), or an answer that is the instance itself.

    Raises:
        Transient: It ends before its closing boundary.
    """
    incoming = blocks(response, _MAX_INSTANCE)
    kind = response.headers.get("Content-Type", "")
    if kind.lower().startswith("application/dicom"):
        for block in incoming:
            file.write(block)
        return
    match = re.search(r'boundary=(?:"([^"]+)"|([^;\s]+))', kind, re.IGNORECASE)
    if not match:
        raise Refused(f"the answer is {kind[:80] or 'of unknown type'}, not DICOM", 415)
    boundary = b"--" + (match[1] or match[2]).encode()
    held = b""
    while b"\r\n\r\n" not in held[max(held.find(boundary), 0) :]:
        if len(held) > _MAX_HEADER or not (block := next(incoming, b"")):
            raise Transient("the answer has no DICOM part")
        held += block
    start = held.find(b"\r\n\r\n", max(held.find(boundary), 0)) + 4
    held, closing = held[start:], b"\r\n" + boundary
    keep = len(closing) + _MAX_HEADER
    for block in incoming:
        held += block
        if len(held) > 2 * keep:
            file.write(held[:-keep])
            held = held[-keep:]
    if (end := held.rfind(closing)) < 0:
        raise Transient("the answer ended before the instance did")
    file.write(held[:end])


def read_header(path: Path) -> pydicom.Dataset:
    """Read what stands before the pixels of a DICOM file; long values stay on disk.

    Raises:
        ValueError: It is none, or would inflate to more than a header and its image can have.
    """
    try:
        _check_inflated(path)
        return pydicom.dcmread(path, stop_before_pixels=True, defer_size=2**16)
    except Exception as error:  # a damaged file can fail anywhere in the parser
        raise ValueError(f"{type(error).__name__}: {error}".splitlines()[0][:200]) from error


def _check_inflated(path: Path) -> None:
    """Refuse a file in deflated transfer syntax, which pydicom inflates in memory, if it is a bomb."""
    with open(path, "rb") as file:
        file.seek(128)
        if file.read(4) != b"DICM":
            return
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        # The group length counts from the end of its own element: 128 + 4 bytes of preamble, 12 of the element.
        file.seek(144 + int(meta.FileMetaInformationGroupLength))
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        size = 0
        while block := inflater.unconsumed_tail or file.read(_BLOCK):
            size += len(inflater.decompress(block, _BLOCK))
            if size > _MAX_INFLATED:
                raise ValueError(f"deflated DICOM of more than {_MAX_INFLATED} bytes")
            if inflater.eof:
                return
