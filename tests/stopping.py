"""Runs that are stopped: a process of its own trains, and kills or signals itself at a chosen moment."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convirt.config import PretrainConfig

MOMENTS: dict[str, tuple[int, str]] = {
    "killed after a step": (signal.SIGKILL, "step"),
    "killed within a row of the log": (signal.SIGKILL, "row"),
    "killed while writing the weights": (signal.SIGKILL, "weights"),
    "killed between the renames of a swap": (signal.SIGKILL, "swap"),
    "killed after the best, before the last checkpoint": (signal.SIGKILL, "best"),
    "killed during validation": (signal.SIGKILL, "validation"),
    "SIGTERM during validation": (signal.SIGTERM, "validation"),
    "SIGTERM after a step": (signal.SIGTERM, "step"),
    "Ctrl-C after a step": (signal.SIGINT, "step"),
}
"""What can happen to a run: the signal, and where it strikes once the chosen step is reached."""


def train(config: PretrainConfig, corpus: Path, out: Path, moment: str = "", step: int = 0) -> int:
    """Train in a process of its own, resuming if there is a run, with a stop at `step`; gives its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["convirt.training.pretrain", "torch.utils.tensorboard"])
    process = context.Process(target=_train, args=(config, corpus, out, moment, step))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _train(config: PretrainConfig, corpus: Path, out: Path, moment: str, step: int) -> None:
    import torch

    from convirt.training.pretrain import pretrain

    # Standard error would fill the test's output; standard out holds the line that says how to go on.
    os.dup2(os.open(str(out) + ".stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    torch.set_num_threads(1)
    if moment:
        _arm(*MOMENTS[moment], step)
    pretrain(config, corpus, out, resume=(out / "config.json").exists())


def _arm(number: int, place: str, at: int) -> None:
    """Have this process signalled at a place in the code, the first time it is reached after `at` steps."""
    from convirt.training import checkpoint
    from convirt.training.logs import RunLog
    from convirt.training.pretrain import Run
    from convirt.training.trainer import Trainer

    reached: list[bool] = []
    take_step = Trainer.train_step

    def strike() -> None:
        os.kill(os.getpid(), number)

    def step_then(trainer: Trainer, batch: Any) -> Any:
        figures = take_step(trainer, batch)
        if trainer.step >= at and not reached:
            reached.append(True)
            if place == "step":
                strike()
        return figures

    def struck(before: Callable[..., None] | None, original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if reached:
                if before is not None:
                    before(*args, **kwargs)
                strike()
            return original(*args, **kwargs)

        return wrapped

    def half_row(log: RunLog, event: str, number: int, values: Any) -> None:
        log._file.write(b'{"event": "st')
        log._file.flush()

    def half_file(path: Path, tensors: Any) -> None:
        path.write_bytes(b"\x40\x01\x00\x00\x00\x00\x00\x00{")

    Trainer.train_step = step_then  # type: ignore[method-assign]
    if place == "row":
        RunLog.row = struck(half_row, RunLog.row)  # type: ignore[method-assign]
    elif place == "weights":
        checkpoint.write_tensors = struck(half_file, checkpoint.write_tensors)
    elif place == "validation":
        Trainer.validate = struck(None, Trainer.validate)  # type: ignore[method-assign]
    elif place == "best":
        Run.save_last = struck(None, Run.save_last)  # type: ignore[method-assign]
    elif place == "swap":
        rename = Path.rename

        def rename_then(path: Path, target: Path) -> Path:
            moved = rename(path, target)
            if reached and target.name.endswith(".old"):
                strike()
            return moved

        Path.rename = rename_then  # type: ignore[method-assign]
