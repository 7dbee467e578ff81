"""What a run says while it goes: JSON lines and TensorBoard on the disk, a bar or plain lines in the terminal."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from convirt.errors import InputError

Value = float | int | str | bool


class RunLog:
    """`log.jsonl`, one row a step and one row an evaluation, and the same figures for TensorBoard.

    A row reaches the operating system before the next step, so that a killed run has it; rows past the checkpoint that
    a run resumes from are cut off, so that no step is missing or double.
    """

    def __init__(self, run: Path, *, step: int = 0, size: int = 0) -> None:
        """Open the log of a run.

        Args:
            run: The run's folder.
            step: Steps taken so far; TensorBoard forgets what it had after them.
            size: Bytes of `log.jsonl` that belong to them; the rest is cut off.
        """
        self.path = run / "log.jsonl"
        self._file = self.path.open("ab")
        if os.fstat(self._file.fileno()).st_size < size:
            self._file.close()
            raise InputError(f"{self.path}: shorter than at the last checkpoint; put the whole log back to resume")
        self._file.truncate(size)
        self._file.seek(size)
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def row(self, event: str, step: int, values: Mapping[str, Value]) -> None:
        """Add one row: what happened (`step` or `validation`), after how many steps, and the figures."""
        row = {"event": event, "step": step, **values}
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._board.add_scalar(f"{event}/{name}", value, step)

    def sync(self) -> int:
        """Bring the log to the disk; gives its size in bytes, for the checkpoint."""
        os.fsync(self._file.fileno())
        self._board.flush()
        return self._file.tell()

    def close(self) -> None:
        """Close both."""
        self._file.close()
        self._board.close()


class Display:
    """A progress bar with loss, pairs a second and time left; plain lines now and then where there is no terminal."""

    def __init__(self, console: Console, total: int, done: int, *, seconds_between_lines: float = 10.0) -> None:
        self.console = console
        self.total = total
        self._between = seconds_between_lines
        self._speed: float | None = None
        self._last_line = self._start = time.monotonic()
        self._done_before = done
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("pretraining"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.3f}"),
                TextColumn("{task.fields[speed]:.0f} pairs/s"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task("", total=total, completed=done, loss=float("nan"), speed=0.0)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: int, loss: float, pairs_per_s: float) -> None:
        """Show a step: how many are taken, its loss in nats, and the speed."""
        # The speed jumps from step to step: its running mean over some ten steps is what one can read.
        self._speed = pairs_per_s if self._speed is None else 0.9 * self._speed + 0.1 * pairs_per_s
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=loss, speed=self._speed)
            return
        now = time.monotonic()
        if now - self._last_line >= self._between or step == self.total:
            left = (now - self._start) / max(1, step - self._done_before) * (self.total - step)
            self._last_line = now
            self.line(f"step {step}/{self.total}  loss {loss:.3f}  {self._speed:.0f} pairs/s  {duration(left)} left")

    def line(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        self.console.print(text, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """A time span for people: `45 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
