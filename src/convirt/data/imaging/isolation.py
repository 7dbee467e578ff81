"""Decoders in a process of their own, for files that kill or hang them.

Image decoders are written in C; a file made for it, or by chance, can crash one or keep it busy for ever. Inside
`careful()` decoding runs in a child process with a bounded address space and a time limit, and such a file is one more
`Unreadable`. Outside it decoding runs here, which is a little faster and gives the same bytes.
"""

import contextvars
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeVar

from convirt.data.imaging.pixels import Unreadable
from convirt.errors import InputError

REASON = "file that its decoder does not survive"

Result = TypeVar("Result")

_MEMORY = 6 * 2**30  # address space, not memory in use: the libraries alone map one
_START = 300  # seconds for the child to import what it needs
_LENGTH = struct.Struct(">Q")


class _Child:
    """A process that calls one function after the other; it is started when first needed, and again when it died."""

    def __init__(self, seconds: float, memory: int) -> None:
        self.seconds = seconds
        self.memory = memory
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = self._start()
        process = self._process
        assert process.stdin is not None
        try:
            _send(process.stdin, (function, arguments))
            good, value = pickle.loads(self._receive(process, self.seconds))
        except TimeoutError as error:
            self.close()
            raise Unreadable(REASON, f"no result within {self.seconds:g} s") from error
        except (EOFError, OSError) as error:
            status = process.wait()
            self.close()
            name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            raise Unreadable(REASON, name) from error
        if not good:
            raise value
        return value  # type: ignore[no-any-return]

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "convirt.data.imaging.isolation", str(self.memory)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        try:
            self._receive(process, _START)  # on a busy machine its imports take longer than an image may
        except (EOFError, TimeoutError) as error:
            process.kill()
            raise InputError(
                f"the process that decodes images cannot start ({type(error).__name__}); it may use "
                f"{self.memory / 2**30:.0f} GB of addresses: see `ulimit -v`"
            ) from error
        return process

    def _receive(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        assert process.stdout is not None
        deadline = time.monotonic() + seconds
        wanted, received = _LENGTH.size, bytearray()
        while len(received) < wanted:
            if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            part = os.read(process.stdout.fileno(), min(1 << 20, wanted - len(received)))
            if not part:
                raise EOFError
            received += part
            if len(received) == _LENGTH.size == wanted:
                wanted += _LENGTH.unpack(received)[0]
        return bytes(received[_LENGTH.size :])

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
            self._process = None


_child: contextvars.ContextVar[_Child | None] = contextvars.ContextVar("child", default=None)


@contextmanager
def careful(*, seconds: float = 60, memory: int = _MEMORY) -> Iterator[None]:
    """Decode in a child process what is prepared inside this block.

    Args:
        seconds: Time for one image.
        memory: Address space of the child, bytes.
    """
    child = _Child(seconds, memory)
    token = _child.set(child)
    try:
        yield
    finally:
        _child.reset(token)
        child.close()


def call(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function of the package: here, or inside `careful()` in the child process.

    Raises:
        Unreadable: The child died or took too long; or whatever the function raises.
    """
    child = _child.get()
    return function(*arguments) if child is None else child.call(function, *arguments)


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Let the kernel end this process if the block takes longer, in C code too; for worker processes' main threads."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _send(pipe: IO[bytes], value: object) -> None:
    data = pickle.dumps(value)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _serve(memory: int) -> None:
    """What the child does: call what it is sent, until the pipe closes."""
    import resource

    import convirt.data.imaging.prepared  # noqa: F401 - everything that decoding needs, before the clock runs

    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nothing:  # a library that prints must not print into the answers
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(answers, "ready")
    while header := requests.read(_LENGTH.size):
        function, arguments = pickle.loads(requests.read(_LENGTH.unpack(header)[0]))
        try:
            answer = (True, function(*arguments))
        except Exception as error:
            answer = (False, error)
        _send(answers, answer)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
