"""Claims: which process works on which part of a study, in a folder that processes and machines share.

A claim is a file `claim-0001.json` that is created only if it does not exist, which every shared file system does
atomically. Its owner touches it now and then. A claim is dead when it was released, when its process is gone from the
machine it ran on, or when it has not been touched for a while; then somebody takes over by creating the next number,
which again only one can. Nothing is ever deleted, so there is no moment at which two can believe to own the same part;
an owner that slept past its time finds the higher number and stops.
"""

import json
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from convirt.errors import InputError

EXPIRY = 600.0
"""Seconds without a touch after which a claim of another machine is dead."""


class Lost(InputError):
    """Another process has taken over, as this one was silent for too long."""


def _machine() -> str:
    """This machine since it was started, and the space of process numbers that this process sees."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return "/".join(parts)


def _birth(process: int) -> str | None:
    """When a process was started, so that its number, given to another one later, is not taken for it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _running(process: int, birth: str | None) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return birth is None or _birth(process) in (birth, None)


def _latest(folder: Path) -> tuple[int, Path | None]:
    """The highest claim of a folder."""
    claims = sorted(folder.glob("claim-*.json"))
    return (int(claims[-1].stem.partition("-")[2]), claims[-1]) if claims else (0, None)


def _alive(path: Path, expiry: float) -> bool:
    """Whether the owner of a claim is still at work."""
    try:
        about: Any = json.loads(path.read_text())
    except ValueError:
        about = {}  # just being written
    if not isinstance(about, dict) or about.get("released"):
        return False
    process = about.get("process")
    here = about.get("machine") == _machine()
    if here and isinstance(process, int) and not _running(process, about.get("birth")):
        return False
    # The file system's own clock: those of two machines may differ.
    probe = path.with_name(f".clock-{uuid.uuid4().hex}")
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime < expiry
    finally:
        probe.unlink()


def _stop_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Claim:
    """A part of a study that this process works on; a context that keeps the claim alive and releases it at the end."""

    def __init__(self, path: Path, number: int, expiry: float, on_lost: Callable[[], None]) -> None:
        self.path = path
        self.number = number
        self.lost = False
        self._interval = max(0.05, min(30.0, expiry / 10))
        self._on_lost = on_lost
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    @classmethod
    def take(
        cls, folder: Path, *, expiry: float = EXPIRY, on_lost: Callable[[], None] = _stop_this_process
    ) -> "Claim | None":
        """Claim a folder, or find that somebody else is at work there.

        Args:
            folder: What is claimed; it is made if need be.
            expiry: Seconds without a touch after which another machine's claim is dead.
            on_lost: Called, from another thread, when somebody else has taken over.

        Raises:
            InputError: An expiry so short that the living would be taken for dead.
        """
        if not expiry > 0:
            raise InputError(f"expiry must be positive, got {expiry}; an owner touches its claim ten times in it")
        folder.mkdir(parents=True, exist_ok=True)
        number, latest = _latest(folder)
        if latest is not None and _alive(latest, expiry):
            return None
        path = folder / f"claim-{number + 1:04d}.json"
        about = {"machine": _machine(), "process": os.getpid(), "birth": _birth(os.getpid())}
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(about) + "\n")
            file.flush()
            os.fsync(handle)
        return cls(path, number + 1, expiry, on_lost)

    def check(self) -> None:
        """Make sure that the claim is still this process's.

        Raises:
            Lost: Somebody else has taken over.
        """
        if self.lost or _latest(self.path.parent)[0] != self.number:
            self.lost = True
            raise Lost(f"{self.path.parent}: another process has taken over, as this one was silent for too long")

    def _keep(self) -> None:
        while not self._done.wait(self._interval):
            try:
                self.check()
                os.utime(self.path)
            except Lost:
                self._on_lost()
                return
            except OSError:
                continue  # the share is away for a moment; the claim dies if it stays away

    def __enter__(self) -> "Claim":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        if not self.lost:
            temporary = self.path.with_name(f".{self.path.name}.new")
            with suppress(OSError):
                temporary.write_text(json.dumps({"released": True}) + "\n")
                os.replace(temporary, self.path)
