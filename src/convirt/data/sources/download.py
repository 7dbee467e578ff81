"""Download of public archives: resumed where it stopped, checked, and never half there under the final name.

Bytes go to `NAME.part`, with what the server said of the file in `NAME.part.json`. A later call asks for the rest
(HTTP Range) on condition that the file is still the same (If-Range, RFC 9110, section 13.1.5); a server that ignores
this, or has another file by now, makes it start again. Sums stand in a `SHA256SUMS` beside the file, as `sha256sum -c`
reads them: put one there to have downloads checked against it. What it does not list is recorded on the first download.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from urllib3.exceptions import HTTPError

from convirt.atomic import disk_errors, write_text
from convirt.data.http import (
    TIMEOUT,
    Patience,
    Refused,
    Transient,
    check_status,
    explain,
    open_session,
    persist,
)
from convirt.errors import InputError
from convirt.jobs import hold

SUMS = "SHA256SUMS"
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What the server said of the file whose beginning is in `NAME.part`."""

    url: str = ""
    etag: str = ""
    """Strong entity tag; empty if there is none."""
    modified: str = ""
    total: int | None = None
    """Bytes of the whole file."""

    @property
    def condition(self) -> str:
        """What If-Range may hold; empty if the file cannot be told from a later one."""
        return self.etag or self.modified


def download(url: str, path: Path, *, magic: bytes = b"", patience: Patience | None = None) -> str:
    """Bring a file here, unless it is here already, and check it.

    Args:
        url: Its address.
        path: Where it goes; its folder is made.
        magic: How its content begins, so that a login page is never taken for it.
        patience: How long failures are borne.

    Returns:
        Its sha256.

    Raises:
        InputError: The server refuses or fails for too long, the content is not what it should be, or the disk is full.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        expected = read_sums(path.parent).get(path.name)
        if path.exists():
            digest = _check(path, path, expected, magic)
        else:
            with hold(path):
                _fetch(url, path, patience or Patience())
                digest = _check(path, _part(path), expected, magic)
                os.replace(_part(path), path)
                _state(path).unlink(missing_ok=True)
        if expected is None:
            _record(path, digest)
        return digest


def read_sums(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file that the folder's SHA256SUMS lists; empty if there is none.

    Raises:
        InputError: A line of it is not what `sha256sum` writes.
    """
    sums: dict[str, str] = {}
    path = folder / SUMS
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if not line.strip():
                continue
            if not (match := re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line)):
                raise InputError(f"{path}, line {number} is not `sha256  file`; correct it or remove the file")
            sums[match[2]] = match[1].lower()
    return sums


def _record(path: Path, digest: str) -> None:
    sums = {**read_sums(path.parent), path.name: digest}
    write_text(path.parent / SUMS, "".join(f"{value}  {name}\n" for name, value in sorted(sums.items())))


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _state(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


def _check(path: Path, file: Path, expected: str | None, magic: bytes) -> str:
    """Return the sha256 of a complete file; what is wrong is removed, unless it was there before this call."""
    digest = hashlib.sha256()
    with open(file, "rb") as handle:
        start = handle.read(len(magic))
        digest.update(start)
        while block := handle.read(_BLOCK):
            digest.update(block)
    problem = ""
    if start != magic:
        problem = f"does not begin as such a file does (it begins with {start[:16]!r})"
    elif expected and digest.hexdigest() != expected:
        problem = f"has sha256 {digest.hexdigest()}, {SUMS} says {expected}"
    if not problem:
        return digest.hexdigest()
    if file == path:
        raise InputError(f"{path} {problem}; remove it to download it again")
    file.unlink()
    _state(path).unlink(missing_ok=True)
    raise InputError(f"{path.name} as downloaded {problem}; it was removed: check the address, or try again later")


def _fetch(url: str, path: Path, patience: Patience) -> None:
    """Complete `path`.part."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with open_session() as session, Progress(*columns, TimeRemainingColumn(), transient=True) as progress:
        task = progress.add_task(path.name, total=None)
        moved = partial(progress.update, task)
        try:
            persist(lambda: _fetch_once(session, url, path, moved), url, patience)
        except Refused as error:
            raise InputError(f"{url}: {error}; check the address") from error


def _fetch_once(session: requests.Session, url: str, path: Path, moved: partial[None]) -> None:
    """Ask for what is missing, once; whatever comes is kept for the next try."""
    known = _read_state(path, url)
    have = _part(path).stat().st_size if _part(path).exists() and known.condition else 0
    if known.total is not None and have == known.total and have:
        return
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges are of the file, not of its compressed form
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.condition}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing lies beyond what is here, so it was another file
            _forget(path)
            raise Transient("the file on the server is shorter than what is here", wait=0)
        check_status(response)
        now = _describe(response, url)
        if have and (response.status_code != 206 or not _continues(response, have, known, now)):
            if response.status_code == 206:
                _forget(path)
                raise Transient("the file changed on the server", wait=0)
            have = 0
        if not have:
            _write_state(path, now)
        _check_space(path, (now.total or 0) - have)
        moved(total=now.total, completed=have)
        with open(_part(path), "r+b" if have else "wb") as handle:
            handle.seek(have)
            _copy(response, handle, now.total, moved)


def _copy(response: requests.Response, handle: BinaryIO, total: int | None, moved: partial[None]) -> None:
    start = handle.tell()
    problem = ""
    try:
        # The raw bytes: `requests` would unpack an archive that a server declares to be gzip-encoded.
        while block := response.raw.read(_BLOCK, decode_content=False):
            handle.write(block)
            moved(advance=len(block))
    except (requests.RequestException, HTTPError) as error:
        problem = explain(error)
    handle.flush()
    os.fsync(handle.fileno())
    size = handle.tell()
    if problem or (total is not None and size < total):
        problem = problem or f"the connection ended after {size} of {total} bytes"
        raise Transient(problem, progress=size > start)
    if total is not None and size > total:
        handle.truncate(0)
        raise Transient(f"the server sent {size} bytes, it announced {total}")


def _describe(response: requests.Response, url: str) -> _Known:
    headers = response.headers
    etag = headers.get("ETag", "")
    span = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", "").strip())
    length = headers.get("Content-Length", "")
    total = int(span[1]) if span else int(length) if response.status_code == 200 and length.isdigit() else None
    etag = "" if etag.startswith("W/") else etag  # a weak tag says nothing about bytes
    return _Known(url=url, etag=etag, modified=headers.get("Last-Modified", ""), total=total)


def _continues(response: requests.Response, have: int, known: _Known, now: _Known) -> bool:
    """Whether a partial answer goes on exactly where the part ends, in the same file."""
    span = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", "").strip())
    same = now.total == known.total or known.total is None
    if known.etag and now.etag:
        same = same and now.etag == known.etag
    elif known.modified and now.modified:
        same = same and now.modified == known.modified
    return span is not None and int(span[1]) == have and same


def _read_state(path: Path, url: str) -> _Known:
    try:
        known = _Known(**json.loads(_state(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _Known()
    return known if known.url == url else _Known()


def _write_state(path: Path, known: _Known) -> None:
    _state(path).write_text(json.dumps(asdict(known)), encoding="utf-8")


def _forget(path: Path) -> None:
    _part(path).unlink(missing_ok=True)
    _state(path).unlink(missing_ok=True)


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(
            f"{path.name} needs {needed / 1e9:.2f} GB more, the disk of {path.parent} has {free / 1e9:.2f} GB free; "
            "free some space and run the command again"
        )
