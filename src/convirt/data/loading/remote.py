"""Files below one address, wherever fsspec reaches: a folder, a web server, object storage.

Every file is read whole, checked by size and hash, and asked for again after an error that may pass. Credentials are
found where fsspec and the service's own library look for them (environment variables, configuration files); none
belongs into an address.
"""

import contextlib
import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from convirt.atomic import atomic_file
from convirt.errors import InputError

log = logging.getLogger(__name__)

CACHE = "CONVIRT_CACHE"
"""Environment variable: a folder in which to keep shards that were read; unset, none are kept."""
CACHE_GIB = "CONVIRT_CACHE_GIB"
"""Environment variable: how large that folder may grow, 50 by default."""
ATTEMPTS = 7
"""How often a file is asked for."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt; each further wait is twice as long, so that half a minute is waited in all."""
_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss"}  # where folders need not be made
_LEFT: list[Any] = []
"""Connections that a process has from its parent. Let go of, they would be closed, and their events unsubscribed, for
the parent as well, which would then wait for them in vain."""
_EXTRA = {"s3": "s3", "s3a": "s3"}  # protocol: extra of this package that brings its library


def is_address(place: str) -> bool:
    """Whether a place is named by a URL, and is no path of this machine."""
    return "://" in place or "::" in place


class Remote:
    """Files of one folder, at a URL or on this machine. It can be pickled, and used after a fork."""

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
                raise InputError(f"{place!r} is no address: {error}") from error
            if parts.username or parts.password or parts.query:
                raise InputError(
                    f"address of {parts.hostname or 'the corpus'} holds a user, a password or a query; leave them out: "
                    "credentials belong into the environment (see fsspec and the service's own variables)"
                )
        self.place = place.rstrip("/") or place
        self._opened: tuple[int, Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place, "_opened": None}

    @property
    def local(self) -> Path | None:
        """The folder, if it lies on this machine."""
        return None if is_address(self.place) else Path(self.place)

    def _open(self) -> tuple[Any, str]:
        # A connection does not survive a fork: each process opens its own.
        if self._opened is None or self._opened[0] != os.getpid():
            _LEFT.append(self._opened)
            protocol = _protocol(self.place)
            try:
                filesystem, root = fsspec.core.url_to_fs(self.place, **_options(self.place))
            except (ImportError, ValueError) as error:
                extra = f"install convirt[{_EXTRA[protocol]}]" if protocol in _EXTRA else "install what it names"
                raise InputError(f"{self.place} cannot be reached: {error}; {extra}") from error
            self._opened = os.getpid(), filesystem, root.rstrip("/")
        return self._opened[1], self._opened[2]

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
        if kept is not None and sha256 is not None and (data := kept.get(sha256)) is not None:
            return data
        trouble = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                log.warning("%s/%s: %s; asking again", self.place, name, trouble)
                time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
            try:
                data = self._read_once(name)
            except (TypeError, AttributeError, NameError):
                raise
            except Exception as error:  # each of fsspec's services has errors of its own
                trouble = _describe(error)
                if remedy := _final(error):
                    raise InputError(f"{self.place}/{name} {remedy}") from error
                if self.local is not None:
                    break
                continue
            if size is not None and len(data) != size:
                trouble = f"it has {len(data)} bytes, should have {size}"
            elif sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
                trouble = "its content is not what was exported (sha256 differs)"
            else:
                if kept is not None and sha256 is not None:
                    kept.put(sha256, data)
                return data
            if self.local is not None:
                break  # a disk gives the same bytes again
        tried = f" in {ATTEMPTS} attempts" if self.local is None else ""
        raise InputError(f"{self.place}/{name} cannot be read{tried}: {trouble}; see to the server, or export anew")

    def _read_once(self, name: str) -> bytes:
        filesystem, root = self._open()
        return bytes(filesystem.cat_file(f"{root}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        """Write a file: it appears whole or not at all, as far as the service can do that.

        Raises:
            InputError: The place cannot be written to.
        """
        try:
            if self.local is not None:
                self.local.mkdir(parents=True, exist_ok=True)
                with atomic_file(self.local / name) as handle:
                    handle.write(data)
            else:
                filesystem, root = self._open()
                try:
                    filesystem.pipe_file(f"{root}/{name}", data)
                except FileNotFoundError:
                    if _protocol(self.place) in _BUCKETS:
                        raise  # a bucket is not made in passing
                    filesystem.makedirs(root, exist_ok=True)
                    filesystem.pipe_file(f"{root}/{name}", data)
        except InputError:
            raise
        except Exception as error:
            what = "cannot be written"
            if isinstance(error, NotImplementedError):
                what = f"cannot be written: {_protocol(self.place)}:// is for reading only"
            raise InputError(f"{self.place}/{name} {what} ({_describe(error)}); choose another --out") from error

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no mistake.

        Raises:
            InputError: The service refuses.
        """
        filesystem, root = self._open()
        try:
            filesystem.rm_file(f"{root}/{name}")
        except FileNotFoundError:
            return
        except Exception as error:
            raise InputError(f"{self.place}/{name} cannot be removed ({_describe(error)}); remove it") from error

    def sizes(self) -> dict[str, int]:
        """The files that lie there, with their sizes in bytes; empty if there is no such place.

        Raises:
            InputError: They cannot be listed.
        """
        filesystem, root = self._open()
        try:
            filesystem.invalidate_cache()
            listed = filesystem.ls(root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise InputError(f"{self.place} cannot be listed: {_describe(error)}") from error
        return {entry["name"].rpartition("/")[2]: entry["size"] or 0 for entry in listed if entry["type"] == "file"}


def _protocol(place: str) -> str:
    return place.partition("://")[0].partition("::")[0] if is_address(place) else "file"


def _options(place: str) -> dict[str, Any]:
    """Let web servers be reached through the proxies, and with the passwords of .netrc, that the user has set."""
    if not place.startswith(("http://", "https://")):
        return {}
    import aiohttp

    given = fsspec.config.conf.get(_protocol(place), {}).get("client_kwargs", {})
    # A server that has fallen silent is left after a minute, not after five.
    timeout = aiohttp.ClientTimeout(sock_connect=30, sock_read=60)
    return {"client_kwargs": {"trust_env": True, "timeout": timeout, **given}}


def _describe(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if said else ''}{said[:300]}"


def _final(error: Exception) -> str:
    """What there is to say of an error that asking again would not mend; empty if it would, perhaps."""
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError):
        return "is missing; export the corpus anew, or correct the address"
    refused = isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__
    if refused:
        return f"may not be read ({_describe(error)}); give credentials by the environment"
    if isinstance(error, InputError | ImportError | ValueError):
        return f"cannot be read: {error}"
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        return f"cannot be read ({_describe(error)}); correct the address"
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
            InputError: Its size is no positive number.
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
                with contextlib.suppress(FileNotFoundError):  # another process made room as well
                    if len(entry.name) == len(sha256):
                        kept.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
            excess = sum(size for _, size, _ in kept) - self.limit
            for _, size, path in sorted(kept):
                if excess > 0:
                    Path(path).unlink(missing_ok=True)
                    excess -= size
        except OSError as error:
            log.warning("%s: nothing more can be kept there (%s)", self.folder, error.strerror)
