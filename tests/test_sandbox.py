"""Decoders in a process of their own: crashes, hangs and hunger cost one file."""

import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest

from convirt.data.imaging import sandbox
from convirt.data.imaging.pixels import Unreadable
from convirt.data.imaging.prepared import prepare_bytes
from dicom_files import dicom, texture


def segfault() -> None:
    ctypes.string_at(0)


def test_a_crash_a_hang_and_hunger_are_unreadable_files() -> None:
    data = dicom(texture(12))
    plain = prepare_bytes(data, source="a", image_size=32)
    with sandbox.sandboxed(seconds=120, memory=2**32):
        assert prepare_bytes(data, source="a", image_size=32) == plain
        for function, argument, detail in ((segfault, (), "SIGSEGV"), (os._exit, (3,), "exit status 3")):
            with pytest.raises(Unreadable) as caught:
                sandbox.call(function, *argument)
            assert (caught.value.reason, caught.value.detail) == (sandbox.REASON, detail)
        with pytest.raises(MemoryError):
            sandbox.call(bytearray, 2**33)
        with pytest.raises(Unreadable, match="empty file"):
            prepare_bytes(b"", source="a", image_size=32)
        # The next file is none the worse for it.
        assert prepare_bytes(data, source="a", image_size=32) == plain
    with sandbox.sandboxed(seconds=1), pytest.raises(Unreadable) as caught:
        sandbox.call(time.sleep, 60)
    assert (caught.value.reason, caught.value.detail) == (sandbox.REASON, "no result within 1 s")


def test_what_a_library_prints_does_not_disturb_the_answers() -> None:
    with sandbox.sandboxed(seconds=30):
        assert sandbox.call(os.system, "echo noise") == 0
        assert sandbox.call(len, "four") == 4


def test_deadline_ends_the_process() -> None:
    code = "import time\nfrom convirt.data.imaging.sandbox import deadline\nwith deadline(1):\n    time.sleep(60)"
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGALRM
