"""Ctrl-C and SIGTERM: the step in progress ends, the run is saved, and the process leaves with the usual status."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(SystemExit):
    """A run that was asked to stop has saved itself and can be resumed.

    Left alone it ends the process without a traceback, with status 130 after Ctrl-C and 143 after SIGTERM, as shells
    expect; a library caller may catch it.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name
        self.step = step


class StopRequest:
    """While entered, takes note of SIGINT and SIGTERM instead of dying of them; a second Ctrl-C does not wait."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> Self:
        # Python lets only the main thread set handlers; elsewhere the caller keeps its own way of stopping.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
