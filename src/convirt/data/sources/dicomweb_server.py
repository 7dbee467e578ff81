"""A DICOMweb server (DICOM PS3.18): search by QIDO-RS, page by page, and retrieval by WADO-RS, to disk.

Answers are bounded: a listing is read up to `_MAX_JSON` bytes, an instance goes to disk block by block. An instance
takes its name only when all of it has arrived and it is the one that was asked for.
"""

import json
import re
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pydicom
import requests
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from convirt.atomic import atomic_file
from convirt.data.http import (
    PASSWORD,
    TIMEOUT,
    TOKEN,
    USER,
    Auth,
    Patience,
    Refused,
    Transient,
    anonymous,
    check_status,
    open_session,
    persist,
)
from convirt.errors import InputError

_UID = re.compile(r"[0-9][0-9.]{0,63}")  # never a path such as `..`
_PAGE = 200
_BLOCK = 1 << 18
_MAX_JSON = 64 * 2**20
_MAX_INSTANCE = 2 * 2**30
_MAX_PART_HEADER = 2**16
_MAX_INFLATED = 400 * 2**20
_FAULTS = 3  # times that a server may fail on one instance with 500 before it is set aside


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study as the server lists it."""

    uid: str
    patient: str
    accession: str
    sex: str
    """As the server says it, empty if it does not."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An instance as the server lists it."""

    study: str
    series: str
    uid: str
    sop_class: str
    modality: str


class Missing(Exception):
    """An instance that the server lists and does not give."""


class DicomWebServer:
    """One server; its methods can be called from several threads.

    Attributes:
        notes: What is to be said of its answers, such as filters that it does not support, and how often.
    """

    def __init__(self, url: str, *, auth: Auth = anonymous, patience: Patience | None = None) -> None:
        self.url = url
        self.notes: Counter[str] = Counter()
        self._stopped = threading.Event()
        self._syntax = "; transfer-syntax=*"
        self._auth = auth
        self._patience = patience or Patience()
        self._local = threading.local()
        if auth is not anonymous and urlsplit(url).scheme == "http" and not _is_here(urlsplit(url).hostname or ""):
            self.notes["credentials and images travelled unencrypted (http); use https"] += 1

    def stop(self) -> None:
        """End the waiting of all threads: their requests fail at their next try."""
        self._stopped.set()

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise InputError(f"{self.url}: stopped")

    def studies(self, query: Mapping[str, str]) -> Iterator[Study]:
        """Yield each study that answers the query once.

        Raises:
            InputError: The server refuses, or fails for too long, or does not talk DICOMweb.
        """
        for item in self._search("studies", query, "0020000D"):
            yield Study(
                uid=_value(item, "0020000D"),
                patient=_value(item, "00100020"),
                accession=_value(item, "00080050"),
                sex=_value(item, "00100040"),
            )

    def instances(self, study: str) -> list[Instance]:
        """List the instances of a study, by number of series and instance."""
        query = {"includefield": "Modality"}
        found = list(self._search(f"studies/{study}/instances", query, "00080018", "0020000E"))
        found.sort(
            key=lambda item: tuple(_order(item, tag) for tag in ("00200011", "0020000E", "00200013", "00080018"))
        )
        return [
            Instance(
                study=study,
                series=_value(item, "0020000E"),
                uid=_value(item, "00080018"),
                sop_class=_value(item, "00080016"),
                modality=_value(item, "00080060"),
            )
            for item in found
        ]

    def retrieve(self, instance: Instance, path: Path) -> None:
        """Bring an instance to `path`, as the server stores it, without transcoding where it can be had so.

        Raises:
            Missing: The server does not give it, or gives another.
            InputError: The server fails for too long, or refuses the credentials.
        """
        url = f"{self.url}/studies/{instance.study}/series/{instance.series}/instances/{instance.uid}"
        path.parent.mkdir(parents=True, exist_ok=True)
        faults = 0
        while True:
            syntax = self._syntax
            once = partial(self._retrieve_once, url, path, instance, syntax)
            try:
                return persist(once, url, self._patience, sleep=self._sleep)
            except Refused as error:
                if error.status == 406 and syntax:
                    self._syntax = ""  # a server that only transcodes, always to Explicit VR Little Endian
                    continue
                faults += 1
                if error.status != 500 or faults == _FAULTS:
                    raise Missing(str(error)) from error

    def _retrieve_once(self, url: str, path: Path, instance: Instance, syntax: str) -> None:
        accept = f'multipart/related; type="application/dicom"{syntax}'
        with self._get(url, {}, accept) as response, atomic_file(path) as file:
            _receive(response, file)
            file.flush()
            _check_instance(Path(file.name), instance)

    def _search(self, path: str, query: Mapping[str, str], *keys: str) -> Iterator[dict[str, Any]]:
        """Yield items of all pages, each once: until a page brings nothing new, as servers choose its length.

        An item is known by the first of `keys`; all of them become parts of paths, so they must be UIDs.
        """
        seen: set[str] = set()
        while True:
            page = self._page(path, {**query, "limit": str(_PAGE), "offset": str(len(seen))})
            new = {_value(item, keys[0]): item for item in page if _value(item, keys[0]) not in seen}
            if not new:
                return
            seen.update(new)
            for item in new.values():
                if all(_UID.fullmatch(_value(item, key)) for key in keys):
                    yield item
                else:
                    self.notes["items that the server lists without a usable UID were passed over"] += 1

    def _page(self, path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        url = f"{self.url}/{path}"

        def ask() -> list[dict[str, Any]]:
            with self._get(url, query, "application/dicom+json") as response:
                if warning := response.headers.get("Warning"):
                    self.notes[f"the server warns: {warning[:200]}"] += 1
                if response.status_code == 204:
                    return []
                data = b"".join(_blocks(response, _MAX_JSON))
            items = json.loads(data) if data.strip() else []
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise ValueError("not a list of objects")
            return items

        try:
            return persist(ask, url, self._patience, sleep=self._sleep)
        except Refused as error:
            raise InputError(f"{url}: {error}; check --url and --query") from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{url}: the answer is not DICOM JSON; check that --url is a DICOMweb service") from error

    def _get(self, url: str, query: Mapping[str, str], accept: str) -> requests.Response:
        if not hasattr(self._local, "session"):
            self._local.session = open_session(self._auth)
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        response = self._local.session.get(url, params=query, headers=headers, stream=True, timeout=TIMEOUT)
        try:
            if response.status_code in (401, 403):
                raise InputError(
                    f"{self.url}: the server answered {response.status_code}, it does not accept the credentials; set "
                    f"{USER} and {PASSWORD}, or {TOKEN}"
                )
            return check_status(response)
        except BaseException:
            response.close()
            raise


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _value(item: Mapping[str, Any], tag: str) -> str:
    """Return the first value of an attribute in DICOM JSON (PS3.18, annex F), as text; empty if there is none."""
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list) or not values or isinstance(values[0], dict | list) or values[0] is None:
        return ""
    return str(values[0]).strip(" \0")


def _order(item: Mapping[str, Any], tag: str) -> tuple[int, str]:
    value = _value(item, tag)
    return (int(value) if re.fullmatch(r"-?\d{1,12}", value) else 0, value)


def _check_instance(path: Path, instance: Instance) -> None:
    try:
        header = read_header(path)
    except ValueError as error:
        raise Refused(f"the answer is not a DICOM file ({error})", 415) from error
    given = (str(header.get("StudyInstanceUID", "")), str(header.get("SOPInstanceUID", "")))
    if given != (instance.study, instance.uid):
        raise Refused(f"the server gave the instance {given[1][:64] or 'without UID'} of study {given[0][:64]}", 415)


def _blocks(response: requests.Response, limit: int) -> Iterator[bytes]:
    """Yield an answer's bytes, at most `limit` of them."""
    size = 0
    for block in response.iter_content(_BLOCK):
        size += len(block)
        if size > limit:
            raise Refused(f"the answer is larger than {limit / 1e6:.0f} MB", 413)
        yield block


def _receive(response: requests.Response, file: BinaryIO) -> None:
    """Write the one part of a multipart answer (PS3.18, 8.7.1), or an answer that is the instance itself.

    Raises:
        Transient: It ends before its closing boundary.
    """
    incoming = _blocks(response, _MAX_INSTANCE)
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
        if len(held) > _MAX_PART_HEADER or not (block := next(incoming, b"")):
            raise Transient("the answer has no DICOM part")
        held += block
    start = held.find(b"\r\n\r\n", max(held.find(boundary), 0)) + 4
    held, closing = held[start:], b"\r\n" + boundary
    keep = len(closing) + _MAX_PART_HEADER
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
        ValueError: It is not one, or would inflate to more than a header and its image can have.
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
