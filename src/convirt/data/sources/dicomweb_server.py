"""A DICOMweb server (DICOM PS3.18): search by QIDO-RS, page by page, and retrieval by WADO-RS, to disk.

Answers are bounded: a listing is read up to `_MAX_JSON` bytes, an instance goes to disk block by block. An instance
takes its name only when all of it is there and it is the one that was asked for.
"""

import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pydicom
import requests
from requests.auth import HTTPBasicAuth

from convirt.data.sources.http import (
    TIMEOUT,
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

USER, PASSWORD, TOKEN = "CONVIRT_DICOMWEB_USER", "CONVIRT_DICOMWEB_PASSWORD", "CONVIRT_DICOMWEB_TOKEN"
_UID = re.compile(r"[0-9.]{1,64}")
_PAGE = 200
_BLOCK = 1 << 18
_MAX_JSON = 64 * 2**20
_MAX_INSTANCE = 2 * 2**30
_MAX_HEADER = 2**16
_FAULTS = 3  # times that a server may fail on one instance with 500 before it is set aside


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study as the server lists it."""

    uid: str
    patient: str
    accession: str
    attributes: Mapping[str, str]
    """Sex and description; what is unknown is left out."""


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


def credentials(environment: Mapping[str, str]) -> Auth:
    """Return how requests are authorised: a user with a password, a bearer token, or not at all.

    Raises:
        InputError: Half of it is missing, or both are given.
    """
    user, password, token = (environment.get(name, "") for name in (USER, PASSWORD, TOKEN))
    if bool(user) != bool(password):
        raise InputError(f"set both {USER} and {PASSWORD}, or neither")
    if token and user:
        raise InputError(f"set either {TOKEN} or {USER} and {PASSWORD}, not both")
    if token:
        if not token.isascii() or not token.isprintable():
            raise InputError(f"{TOKEN} holds characters that no header can hold; check for a stray line break")
        return _Bearer(token)
    return HTTPBasicAuth(user.encode(), password.encode()) if user else anonymous


class _Bearer:
    """Puts the token on each request; its value shows nowhere else."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class DicomWebServer:
    """One server; its methods can be called from several threads.

    Attributes:
        notes: What the server said about its own answers, such as filters that it does not support.
    """

    def __init__(self, url: str, *, auth: Auth = anonymous, patience: Patience | None = None) -> None:
        self.url = url
        self.notes: set[str] = set()
        self._auth = auth
        self._patience = patience or Patience()
        self._local = threading.local()
        if auth is not anonymous and urlsplit(url).scheme == "http" and not _is_here(urlsplit(url).hostname or ""):
            self.notes.add("credentials and images travelled unencrypted (http); use https")

    def studies(self, query: Mapping[str, str]) -> Iterator[Study]:
        """Yield each study that answers the query once.

        Raises:
            InputError: The server refuses, or fails for too long, or does not talk DICOMweb.
        """
        for item in self._search("studies", {**query, "includefield": "StudyDescription"}, "0020000D"):
            named = {"sex": _value(item, "00100040"), "description": _value(item, "00081030")}
            yield Study(
                uid=_value(item, "0020000D"),
                patient=_value(item, "00100020"),
                accession=_value(item, "00080050"),
                attributes={name: value for name, value in named.items() if value},
            )

    def instances(self, study: str) -> list[Instance]:
        """List the instances of a study, by number of series and instance."""
        found = list(self._search(f"studies/{study}/instances", {"includefield": "Modality"}, "00080018"))
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
            if _UID.fullmatch(_value(item, "0020000E"))
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
        for syntax in ("*", ""):
            while True:
                try:
                    return persist(partial(self._retrieve_once, url, path, instance, syntax), url, self._patience)
                except Refused as error:
                    if error.status == 406 and syntax:
                        break
                    faults += 1
                    if error.status != 500 or faults == _FAULTS:
                        raise Missing(str(error)) from error
        raise AssertionError("the last answer is an error or a file")

    def _retrieve_once(self, url: str, path: Path, instance: Instance, syntax: str) -> None:
        accept = 'multipart/related; type="application/dicom"'
        accept += f"; transfer-syntax={syntax}" if syntax else ""
        with self._get(url, {}, accept) as response:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    _unwrap(response, file)
                _check_instance(Path(name), instance)
                os.replace(name, path)
            finally:
                Path(name).unlink(missing_ok=True)

    def _search(self, path: str, query: Mapping[str, str], key: str) -> Iterator[dict[str, Any]]:
        """Yield items of all pages, each once: until a page brings nothing new, as servers choose its length."""
        seen: set[str] = set()
        while True:
            page = self._page(path, {**query, "limit": str(_PAGE), "offset": str(len(seen))})
            new = {_value(item, key): item for item in page}
            new = {uid: item for uid, item in new.items() if _UID.fullmatch(uid) and uid not in seen}
            if not new:
                return
            seen.update(new)
            yield from new.values()

    def _page(self, path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        url = f"{self.url}/{path}"

        def ask() -> list[dict[str, Any]]:
            with self._get(url, query, "application/dicom+json") as response:
                if warning := response.headers.get("Warning"):
                    self.notes.add(f"the server warns: {warning[:200]}")
                if response.status_code == 204:
                    return []
                data = b"".join(_blocks(response, _MAX_JSON))
            items = json.loads(data) if data.strip() else []
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise ValueError("no list of objects")
            return items

        try:
            return persist(ask, url, self._patience)
        except Refused as error:
            raise InputError(f"{url}: {error}; check --url and --query") from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{url}: the answer is no DICOM JSON; check that --url is a DICOMweb service") from error

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


def _blocks(response: requests.Response, limit: int) -> Iterator[bytes]:
    """Yield an answer's bytes, at most `limit` of them."""
    size = 0
    for block in response.iter_content(_BLOCK):
        size += len(block)
        if size > limit:
            raise Refused(f"the answer is larger than {limit / 1e6:.0f} MB", 413)
        yield block


def _unwrap(response: requests.Response, file: BinaryIO) -> None:
    """Write the one part of a multipart answer (PS3.18, 8.7.1), or an answer that is the instance itself.

    Raises:
        Transient: It ends before its closing boundary.
    """
    blocks = _blocks(response, _MAX_INSTANCE)
    kind = response.headers.get("Content-Type", "")
    if kind.lower().startswith("application/dicom"):
        for block in blocks:
            file.write(block)
        return
    match = re.search(r'boundary=(?:"([^"]+)"|([^;\s]+))', kind, re.IGNORECASE)
    if not match:
        raise Refused(f"the answer is {kind[:80] or 'of unknown type'}, not DICOM", 415)
    boundary = b"--" + (match[1] or match[2]).encode()
    held = b""
    while b"\r\n\r\n" not in held[max(held.find(boundary), 0) :]:
        if len(held) > _MAX_HEADER or not (block := next(blocks, b"")):
            raise Transient("the answer has no DICOM part")
        held += block
    start = held.find(b"\r\n\r\n", max(held.find(boundary), 0)) + 4
    held, closing = held[start:], b"\r\n" + boundary
    keep = len(closing) + _MAX_HEADER
    for block in blocks:
        held += block
        if len(held) > 2 * keep:
            file.write(held[:-keep])
            held = held[-keep:]
    if (end := held.rfind(closing)) < 0:
        raise Transient("the answer ended before the instance did")
    file.write(held[:end])


def _check_instance(path: Path, instance: Instance) -> None:
    try:
        header = read_header(path)
    except ValueError as error:
        raise Refused(f"the answer is no DICOM file ({error})", 415) from error
    given = (str(header.get("StudyInstanceUID", "")), str(header.get("SOPInstanceUID", "")))
    if given != (instance.study, instance.uid):
        raise Refused(f"the server gave the instance {given[1][:64] or 'without UID'} of study {given[0][:64]}", 415)


def read_header(path: Path) -> pydicom.Dataset:
    """Read what stands before the pixels of a DICOM file; long values stay on disk.

    Raises:
        ValueError: It is none.
    """
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, defer_size=2**16)
    except Exception as error:  # a damaged file can fail anywhere in the parser
        raise ValueError(f"{type(error).__name__}: {error}".splitlines()[0][:200]) from error
