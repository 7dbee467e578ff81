"""Decoders in a process of their own, for files that crash or hang them.

Image decoders are written in C; a file made for it, or by chance, can crash one or keep it busy for ever. Inside
`sandboxed()` decoding runs in a child process with a bounded address space and a time limit, and such a file is one
more `Unreadable`. Outside it decoding runs here, which is a little faster and gives the same bytes.
"""

import contextvars
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from convirt.data.imaging.pixels import Unreadable
from convirt.errors import InputError

REASON = "file that its decoder does not survive"

Result = TypeVar("Result")

_MEMORY = 6 * 2**30  # address space, not memory in use: the libraries alone map one
_START = 300  # seconds for the child to import what it needs: on a busy machine longer than an image may take


class _Child:
    """A process that calls one function after the other; it starts when first needed, and again after it died."""

    def __init__(self, seconds: float, memory: int) -> None:
        self.seconds = seconds
        self.memory = memory
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        if self._process is None or self._pipe is None or not self._process.is_alive():
            self._start(function)
        assert self._process is not None
        assert self._pipe is not None
        try:
            self._pipe.send((function, arguments))
            good, value = self._receive(self.seconds)
        except TimeoutError as error:
            self.close()
            raise Unreadable(REASON, f"no result within {self.seconds:g} s") from error
        except (EOFError, OSError) as error:
            self._process.join()
            status = self._process.exitcode or 0
            self.close()
            raise Unreadable(REASON, signal.Signals(-status).name if status < 0 else f"exit status {status}") from error
        if not good:
            raise value
        return value  # type: ignore[no-any-return]

    def _start(self, function: Callable[..., Any]) -> None:
        self.close()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # With the function come the modules it needs: they are imported before the clock runs.
        self._process = context.Process(target=_serve, args=(theirs, self.memory, function), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._receive(_START)
        except (EOFError, OSError) as error:
            self.close()
            raise InputError(
                f"the process that decodes images cannot start ({type(error).__name__}); it may use "
                f"{self.memory / 2**30:.0f} GB of addresses: see `ulimit -v`; a script of your own needs "
                "its call under `if __name__ == '__main__':`"
            ) from error

    def _receive(self, seconds: float) -> Any:
        assert self._pipe is not None
        if not self._pipe.poll(seconds):
            raise TimeoutError
        return self._pipe.recv()

    def close(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._pipe.close()
        self._process = self._pipe = None


_child: contextvars.ContextVar[_Child | None] = contextvars.ContextVar("child", default=None)


@contextmanager
def sandboxed(*, seconds: float = 60, memory: int = _MEMORY) -> Iterator[None]:
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
    """Call a function of the package: here, or inside `sandboxed()` in the child process.

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


def _serve(pipe: Connection, memory: int, _first: Callable[..., Any]) -> None:
    """Run in the child: call each function that the pipe brings, until the pipe closes."""
    import resource

    with open(os.devnull, "r+b") as nothing:  # a library that prints must not print into the parent's output
        for descriptor in (0, 1, 2):
            os.dup2(nothing.fileno(), descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = (True, function(*arguments))
        except Exception as error:
            answer = (False, error)
        pipe.send(answer)
