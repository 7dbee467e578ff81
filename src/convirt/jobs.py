"""The only engine of work that can stop and go on: a lock, a stamp of the settings, a marker for each finished job.

Every long verb uses the same three parts. `hold` keeps a second process away from an output. `begin` writes what is
being made, and refuses a folder that was begun with other settings. A `Job` leaves a marker once it is finished, with a
fingerprint of everything that its result depends on; it is not done again while that is the same.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import filelock

from convirt.atomic import disk_errors, write_json
from convirt.errors import InputError

STAMP = "stamp.json"
_SHOWN = 60  # characters of a setting in a message


class Held(InputError):
    """Another process holds the place."""


@contextmanager
def hold(place: str | Path) -> Iterator[None]:
    """Keep every other process away from a file or folder while the block runs. A killed process lets go by itself.

    The lock is the hidden file `.NAME.lock` beside the place. It is removed while it is still held; filelock gives no
    lock on a file that was removed before it got hold of it, so never two processes are let in.

    Raises:
        Held: Another process holds the place.
    """
    place = Path(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(place.with_name(f".{place.name.lstrip('.')}.lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise Held(f"another process is writing {place}; wait until it has finished") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def fingerprint(value: Any) -> str:
    """SHA-256 of nested values; what JSON does not know is taken by its text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def read_json(path: str | Path) -> Any:
    """The value in a JSON file; None if the file is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def begin(folder: Path, settings: Mapping[str, Any], *, stamp: str = STAMP, what: str = "work") -> bool:
    """Take up the work in a folder, or begin it there.

    Args:
        folder: It is made if it is missing.
        settings: What is being made, as nested JSON values.
        stamp: Name of the file that keeps the settings.
        what: What the folder holds, for the message.

    Returns:
        Whether it was begun before, with the same settings.

    Raises:
        InputError: It was begun with other settings; the message names the first difference.
    """
    before = read_json(folder / stamp)
    if before is None:
        write_json(folder / stamp, settings)
        return False
    if changed := difference(before, json.loads(json.dumps(settings))):
        raise InputError(
            f"{folder} holds {what} with other settings ({changed}); give the same command to go on, remove the folder "
            "to start afresh, or choose another --out"
        )
    return True


def difference(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> str:
    """Name the first setting in which two nested mappings differ, with both values; empty if there is none."""
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            return difference(old, new, f"{place}{name}.")
        return f"{place}{name} was {json.dumps(old)[:_SHOWN]}, is now {json.dumps(new)[:_SHOWN]}"
    return ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A piece of work with a folder of its own, done once for the same inputs.

    Once it is finished, `NAME.job.json` beside the folder says so, with the fingerprint of the inputs.
    """

    name: str
    """Its folder, below that of all jobs."""
    work: Callable[[Path], Any]
    """Does it in the folder, and goes on where it was interrupted."""
    inputs: Callable[[], Mapping[str, Any]]
    """What the result depends on, as JSON values; raises `FileNotFoundError` while another job has yet to make it."""
    seconds: float = 0.0
    """How long it should take."""
    keep: bool = False
    """Refuse to replace a result of other inputs, because it is too expensive to discard (a pretraining)."""
    log: bool = False
    """Send what the work prints to `NAME.log` beside the folder."""

    def done(self, folder: Path) -> bool:
        """Whether the job's folder below `folder` holds the result of these inputs; not if it was removed since."""
        try:
            return self._found(folder) == fingerprint(self.inputs())
        except FileNotFoundError:
            return False

    def took(self, folder: Path) -> float:
        """Seconds that the finished work took; 0 if it is not known."""
        return float(self._marker(folder).get("seconds", 0.0))

    def run(self, folder: Path) -> float:
        """Do the work unless it is done; gives the seconds that it took, now or then.

        Raises:
            Held: Another process is at it.
            InputError: The work cannot be done, or a result of other inputs must not be replaced.
        """
        own = folder / self.name
        # The lock is the marker's and not the folder's, which the work itself may hold.
        with hold(_marker_path(own)):
            wanted, found = fingerprint(self.inputs()), self._found(folder)
            if found == wanted:
                return self.took(folder)
            if found is not None:
                if self.keep:
                    raise InputError(f"{own} holds a run with other settings or data; remove it, or give another --out")
                self.discard(folder)
            started = time.monotonic()
            with self._logged(own):
                self.work(own)
            seconds = time.monotonic() - started
            write_json(_marker_path(own), {"fingerprint": wanted, "seconds": round(seconds, 1)})
            return seconds

    def discard(self, folder: Path) -> None:
        """Remove the result, finished or not, so that the next run makes it again."""
        own = folder / self.name
        # Whatever is left after a kill in between is a result of no inputs, and is removed next time.
        write_json(_marker_path(own), {"fingerprint": ""})
        with disk_errors(own):
            if own.is_dir():
                shutil.rmtree(own)
        _marker_path(own).unlink()

    def _found(self, folder: Path) -> str | None:
        """The fingerprint of the finished result; None if there is none."""
        found = self._marker(folder).get("fingerprint")
        return found if (folder / self.name).is_dir() else None

    def _marker(self, folder: Path) -> dict[str, Any]:
        found = read_json(_marker_path(folder / self.name))
        return found if isinstance(found, dict) else {}

    @contextmanager
    def _logged(self, own: Path) -> Iterator[None]:
        if not self.log:
            yield
            return
        # Beside the folder: a run's own folder has to be empty when it starts.
        log = own.with_name(f"{own.name}.log")
        with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
            yield


def _marker_path(own: Path) -> Path:
    return own.with_name(f"{own.name}.job.json")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered while its size and time of change stay the same.

    Raises:
        FileNotFoundError: It is not there yet.
    """
    about = os.stat(path)
    return _sha256(str(path), about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
