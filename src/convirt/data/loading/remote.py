"""Files below one address: a folder, a web server, or storage that fsspec reaches.

Every file is read whole, checked by size and hash, and asked for again after an error that may pass. Credentials are
found where `requests`, fsspec and the service's own library look for them (environment variables, .netrc,
configuration files); an address must not hold any.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import requests

from convirt.atomic import atomic_file, write_bytes
from convirt.data.http import TIMEOUT, Refused, Transient, check_status, explain
from convirt.errors import InputError

log = logging.getLogger(__name__)

CACHE = "CONVIRT_CACHE"
"""Environment variable: a folder in which to keep shards that were read; unset, none are kept."""
CACHE_GIB = "CONVIRT_CACHE_GIB"
"""Environment variable: how large that folder may grow, 50 by default."""
ATTEMPTS = 7
"""How often a file is asked for."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt; each further wait is twice as long, so that half a minute is waited in all, unless
the server asks for more."""
_LONGEST_WAIT = 60.0  # seconds, whatever the server asks for
_BUCKETS = {
    "s3",
    "s3a",
    "gs",
    "gcs",
    "abfs",
    "abfss",
    "az",
    "oci",
    "oss",
}  # no folder is made in them, and no bucket in passing


def is_address(place: str) -> bool:
    """Whether a place is named by a URL, and not by a path of this machine."""
    return "://" in place or "::" in place


class Remote:
    """Files of one folder, at a URL or on this machine. It can be pickled, and used after a fork.

    Attributes:
        place: The address, without a slash at its end.
        local: The folder, if it lies on this machine.
    """

    def __init__(self, place: str) -> None:
        """Open nothing yet.

        Raises:
            InputError: The address holds a password or a query, or names a protocol that cannot be served.
        """
        if not place.rpartition("::")[2].rpartition("://")[2].strip("/") and place != "/":
            raise InputError(f"{place!r} names no folder or address")
        if is_address(place):
            try:
                parts = urlsplit(place.rpartition("::")[2])
            except ValueError as error:
                raise InputError(f"{place!r} is not an address: {error}") from error
            if parts.username or parts.password or parts.query:
                raise InputError(
                    f"address of {parts.hostname or 'the corpus'} holds a user, a password or a query; leave them out: "
                    "credentials belong into the environment (see fsspec and the service's own variables)"
                )
        self.place = place.rstrip("/") or place
        self.local = None if is_address(place) else Path(self.place)
        self._protocol = place.partition("://")[0].partition("::")[0] if is_address(place) else "file"
        self._on_web = self._protocol in ("http", "https")
        self._opened: dict[int, tuple[Any, str]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.place,)

    def _open(self) -> tuple[Any, str]:
        """The file system and the path in it; each process opens its own, as connections do not survive a fork.

        A parent's is kept: let go of, it would be closed, and its events unsubscribed, for the parent as well.
        """
        if self._on_web:
            raise InputError(f"{self.place} cannot be written: a web server is for reading only; choose another --out")
        if os.getpid() not in self._opened:
            try:
                filesystem, root = fsspec.core.url_to_fs(self.place)
            except (ImportError, ValueError) as error:
                extra = "convirt[s3]" if self._protocol in ("s3", "s3a") else "what it names"
                raise InputError(f"{self.place} cannot be reached: {error}; install {extra}") from error
            self._opened[os.getpid()] = filesystem, root.rstrip("/")
        return self._opened[os.getpid()]

    def read(self, name: str, *, size: int | None = None, sha256: str | None = None) -> bytes:
        """Read a file whole.

        Args:
            name: Its name below the address.
            size: Bytes it must have.
            sha256: What its bytes must hash to.

        Raises:
            InputError: It is missing, access is refused, it is damaged, or the server did not answer well in time.
        """
        kept = Cache.from_environment() if sha256 and self.local is None else None
        if kept and sha256 and (data := kept.get(sha256)) is not None:
            return data
        attempts = ATTEMPTS if self.local is None else 1  # a disk gives the same bytes again
        trouble, asked = "", 0.0
        for attempt in range(attempts):
            if attempt:
                log.warning("%s/%s: %s; asking again", self.place, name, trouble)
                time.sleep(max(FIRST_WAIT * 2 ** (attempt - 1), min(asked, _LONGEST_WAIT)))
            try:
                data = self._read_once(name)
            except (TypeError, AttributeError, NameError):
                raise
            except Exception as error:  # each of fsspec's services has errors of its own
                trouble, asked = describe(error), getattr(error, "wait", None) or 0.0
                if remedy := _final(error):
                    raise InputError(f"{self.place}/{name} {remedy}") from error
                continue
            if size is not None and len(data) != size:
                trouble = f"it has {len(data)} bytes, should have {size}"
            elif sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
                trouble = "its content is not what was exported (sha256 differs)"
            else:
                if kept and sha256:
                    kept.put(sha256, data)
                return data
        tried = f" in {attempts} attempts" if attempts > 1 else ""
        raise InputError(f"{self.place}/{name} cannot be read{tried}: {trouble}; see to the server, or export anew")

    def _read_once(self, name: str) -> bytes:
        if self._on_web:  # a connection of its own: none is shared by threads, or with the parent after a fork
            return check_status(requests.get(f"{self.place}/{name}", timeout=TIMEOUT)).content
        filesystem, root = self._open()
        return bytes(filesystem.cat_file(f"{root}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        """Write a file: it appears whole or not at all, as far as the service can do that.

        Raises:
            InputError: The place cannot be written to.
        """
        with _refusals(f"{self.place}/{name} cannot be written", "choose another --out"):
            if self.local is not None:
                write_bytes(self.local / name, data)
                return
            filesystem, root = self._open()
            if self._protocol not in _BUCKETS:
                filesystem.makedirs(root, exist_ok=True)
            filesystem.pipe_file(f"{root}/{name}", data)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is ignored.

        Raises:
            InputError: The service refuses.
        """
        filesystem, root = self._open()
        with _refusals(f"{self.place}/{name} cannot be removed", "remove it"), suppress(FileNotFoundError):
            filesystem.rm_file(f"{root}/{name}")

    def sizes(self) -> dict[str, int]:
        """The files at a place that can be written to, with their sizes in bytes; empty if there is no such place.

        Raises:
            InputError: They cannot be listed.
        """
        filesystem, root = self._open()
        listed: list[dict[str, Any]] = []
        with _refusals(f"{self.place} cannot be listed", "check the address"), suppress(FileNotFoundError):
            filesystem.invalidate_cache()
            listed = filesystem.ls(root, detail=True)
        return {entry["name"].rpartition("/")[2]: entry["size"] or 0 for entry in listed if entry["type"] == "file"}


@contextmanager
def _refusals(what: str, remedy: str) -> Iterator[None]:
    """Turn any error of a service into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what} ({describe(error)}); {remedy}") from error


def describe(error: Exception) -> str:
    """The kind of an error and its text, in one line."""
    if isinstance(error, Transient | Refused | requests.RequestException):
        return explain(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if text else ''}{text[:300]}"


def _final(error: Exception) -> str:
    """The message for an error that another attempt would not mend; empty if it might."""
    status = error.status if isinstance(error, Refused) else 0
    if isinstance(error, FileNotFoundError) or status == 404:
        return "is missing; export the corpus anew, or correct the address"
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        return f"may not be read ({describe(error)}); give credentials by the environment"
    if isinstance(error, requests.exceptions.SSLError):
        return f"cannot be read ({describe(error)}); set REQUESTS_CA_BUNDLE to the file of the server's authority"
    if isinstance(error, InputError | ImportError | ValueError):
        return f"cannot be read: {error}"
    if 400 <= status < 500:
        return f"cannot be read ({describe(error)}); correct the address"
    return ""


class Cache:
    """A folder of files named by their hash; the least recently used go when it grows too large.

    Several processes may use it at once. What cannot be kept (a full disk) is not kept: the files can be read again.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    @classmethod
    def from_environment(cls) -> "Cache | None":
        """The cache that the environment names, if any.

        Raises:
            InputError: Its size is not a positive number.
        """
        folder, size = os.environ.get(CACHE), os.environ.get(CACHE_GIB, "50")
        if not folder:
            return None
        try:
            limit = int(float(size) * 2**30)
        except (ValueError, OverflowError):
            limit = 0
        if limit <= 0:
            raise InputError(f"{CACHE_GIB} must be a positive number of GiB, got {size!r}")
        return cls(Path(folder), limit)

    def get(self, sha256: str) -> bytes | None:
        """The bytes with this hash, if they are kept and whole."""
        path = self.folder / sha256
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def put(self, sha256: str, data: bytes) -> None:
        """Keep bytes under their hash, then let the least recently used go if these were too many.

        Whoever writes last sees what all have written, so that several at once do not outgrow the limit together.
        """
        if len(data) > self.limit:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with atomic_file(self.folder / sha256, private=True) as handle:  # reports of patients
                handle.write(data)
            kept = []
            for entry in os.scandir(self.folder):
                with suppress(FileNotFoundError):  # another process made room as well
                    if len(entry.name) == len(sha256):
                        kept.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
            excess = sum(size for _, size, _ in kept) - self.limit
            for _, size, path in sorted(kept):
                if excess > 0:
                    Path(path).unlink(missing_ok=True)
                    excess -= size
        except OSError as error:
            log.warning("%s: nothing more can be kept there (%s)", self.folder, error.strerror)
