"""The verb `pretrain`: from a prepared corpus to a run folder with a pretrained encoder (ConVIRT, appendix A).

From top to bottom: check the folder and the corpus, build the method, then steps, evaluations and checkpoints until the
rules say stop: `last/` to resume from, `best/` with the best validation figure.
"""

import errno
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import tyro

from convirt.atomic import atomic_folder, check_writable, latest_complete, write_json
from convirt.config import PretrainConfig
from convirt.errors import InputError
from convirt.jobs import difference
from convirt.training import CONFIG
from convirt.versions import versions

if TYPE_CHECKING:
    from convirt.data.loading.loader import TrainingBatches, ValidationBatches
    from convirt.data.records import AnyCorpus
    from convirt.training.logs import Display, RunLog
    from convirt.training.trainer import Trainer

CORPUS = "corpus.json"
METRICS = "metrics.json"
KEPT = "checkpoints"
"""Folder of the checkpoints that `PretrainConfig.keep_every` keeps."""
WHOLE = "shuffled as a whole"
"""The order of a corpus on disk."""
CHANGEABLE = {"device", "workers", "max_steps", "max_epochs", "checkpoint_every", "keep_every"}
"""Settings that a resumed run may change: none changes what a step computes, though another device rounds otherwise."""


def pretrain(
    config: PretrainConfig,
    corpus: Annotated[str | Path, tyro.conf.arg(metavar="STR")],
    out: Path,
    *,
    resume: bool = False,
    dry_run: bool = False,
    verify: bool = False,
) -> Path:
    """Pretrain on the training pairs of a corpus.

    Args:
        config: Every setting of the run.
        corpus: Folder of a prepared corpus, or folder or address (https://..., s3://...) of an exported one, to be
            streamed.
        out: Folder of the run: `best/` and `last/` (checkpoints), `config.json`, `log.jsonl`, `tensorboard/`, and at
            the end `metrics.json`.
        resume: Go on with the run in `out` from its last checkpoint, bit for bit as if it had never stopped.
        dry_run: Print the plan (parameters, steps, memory, time from a few measured steps) and write nothing.
        verify: Read the whole corpus first and compare all hashes. Without it small files are hashed, and the shards of
            a small corpus; of a larger one each shard is known by its size.

    Returns:
        `out`.

    Raises:
        InputError: The corpus, the configuration, the folder or a checkpoint cannot be used, the disk is full, or the
            loss stops being finite.
        Interrupted: After Ctrl-C or SIGTERM, once the run is saved; a `SystemExit` with status 130 or 143.
    """
    from convirt.data.loading.streaming import open_corpus
    from convirt.methods import METHODS
    from convirt.training.plan import make_plan, print_plan
    from convirt.training.trainer import Trainer, make_fabric, total_steps

    out = Path(out).absolute() if Path(out).name == "" else Path(out)
    pairs = open_corpus(corpus)
    if not dry_run:
        _check_folder(out, resume)
    pairs.check(whole=verify)
    method_class = METHODS[config.method]
    train = method_class.training_batches(pairs, config)
    validation = method_class.validation_batches(pairs, config)
    total = total_steps(config, train.steps_per_epoch)
    config = config.in_steps(total)
    if resume and not dry_run:
        _check_same(out, config, pairs)
    _warn_of_unfinished_cosine(config, total)
    with _reproducible(), _disk_errors(out):
        last = latest_complete(out / "last") if resume else None
        method = method_class(config, folder=last, corpus=pairs)
        trainer = Trainer(method, config, make_fabric(config), steps_per_epoch=train.steps_per_epoch)
        if dry_run:
            print_plan(make_plan(trainer, train, validation))
            return out
        state = {} if last is None else trainer.restore(last)
        _open_folder(out, config, pairs)
        _fit(trainer, train, validation, out, state.get("log_size", 0))
    return out


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


class Run:
    """A trainer at work: steps, evaluations, checkpoints, logs, and an orderly stop at any moment."""

    def __init__(self, folder: Path, trainer: "Trainer", log: "RunLog", display: "Display") -> None:
        self.folder = folder
        self.trainer = trainer
        self.log = log
        self.display = display
        self._saved = trainer.step, trainer.evaluated
        self._seconds_before = trainer.seconds
        self._start = time.monotonic()

    def fit(self, train: "TrainingBatches", validation: "ValidationBatches") -> None:
        """Train until the rules say stop, saving on the way.

        Raises:
            Interrupted: After SIGINT or SIGTERM, once `last/` is saved.
            InputError: The loss is not finite, or a checkpoint cannot be written.
        """
        from convirt.data.loading.loader import read_ahead

        trainer, config = self.trainer, self.trainer.config
        pin = trainer.fabric.device.type == "cuda"
        ahead = read_ahead(train, range(trainer.step, trainer.total), config.workers, pin=pin)
        with StopRequest() as stop, ahead as batches, self.display:
            while not stop:
                if trainer.evaluation_due:
                    self._evaluate(validation, stop)
                elif trainer.finished:
                    break
                else:
                    before = time.monotonic()
                    batch = next(batches)
                    figures = trainer.train_step(batch)
                    self._note_step(figures, len(batch), time.monotonic() - before)
                    if trainer.step % config.checkpoint_every == 0 and not trainer.evaluation_due:
                        self.save_last()
            self.save_last()
        if stop.signal is not None and (trainer.evaluation_due or not trainer.finished):
            raise Interrupted(stop.signal, trainer.step)

    def _note_step(self, figures: dict[str, float], pairs: int, seconds: float) -> None:
        self.trainer.training_seconds += seconds
        speed = pairs / seconds
        self.log.row("step", self.trainer.step, {**figures, "pairs_per_s": round(speed, 1)})
        self.display.step(self.trainer.step, figures["loss"], speed)

    def _evaluate(self, validation: "ValidationBatches", stop: StopRequest) -> None:
        trainer = self.trainer
        before = time.monotonic()
        figures = trainer.validate(validation, stop)
        if figures is None:
            return  # asked to stop: the evaluation is still due, and comes first when the run goes on
        config, criterion, plateau = trainer.config, trainer.method.criterion, trainer.plateau
        figure, extreme = figures[criterion.name], "highest" if criterion.higher_is_better else "lowest"
        best = plateau.update(figure, trainer.step, config.validation)
        trainer.evaluated = trainer.step
        assert plateau.best is not None
        row = {**figures, extreme: plateau.best, "best": best, "rate_factor": plateau.factor}
        self.log.row("validation", trainer.step, {**row, "seconds": round(time.monotonic() - before, 3)})
        self.display.line(
            f"step {trainer.step}: validation {criterion.name} {figure:.4f}"
            + (f", the {extreme} so far" if best else f" ({extreme} {plateau.best:.4f} at step {plateau.best_step})")
        )
        if best:
            trainer.save(self.folder / "best")
        if config.keep_every is not None and plateau.evaluations % config.keep_every == 0:
            trainer.save(self.folder / KEPT / f"step-{trainer.step:06d}")
        self.save_last()

    def save_last(self) -> None:
        """Write `last/`, unless nothing has happened since it was written."""
        trainer = self.trainer
        if self._saved == (trainer.step, trainer.evaluated):
            return
        trainer.seconds = self._seconds_before + time.monotonic() - self._start
        trainer.save(self.folder / "last", resumable={"log_size": self.log.sync()})
        self._saved = trainer.step, trainer.evaluated


def _fit(
    trainer: "Trainer", train: "TrainingBatches", validation: "ValidationBatches", out: Path, log_size: int
) -> None:
    from rich.console import Console

    from convirt.training.logs import Display, RunLog

    display = Display(Console(), trainer.total, trainer.step)
    if trainer.step:
        display.line(f"resuming {out} after step {trainer.step}")
    try:
        with closing(RunLog(out, step=trainer.step, size=log_size)) as log:
            Run(out, trainer, log, display).fit(train, validation)
    except Interrupted as stopped:
        display.line(
            f"{stopped.signal}: {out} is saved after step {stopped.step}; "
            "the same command with --resume goes on from there"
        )
        raise
    write_json(out / METRICS, run_metrics(trainer, train.corpus))
    plateau = trainer.plateau
    display.line(
        f"best validation {trainer.method.criterion.name} {plateau.best:.4f} at step {plateau.best_step}: "
        f"{out / 'best'}"
    )


def run_metrics(trainer: "Trainer", corpus: "AnyCorpus") -> dict[str, Any]:
    """What `metrics.json` says of a finished run."""
    import torch

    config, seconds = trainer.config, trainer.training_seconds
    return {
        "format": 1,
        "verb": "pretrain",
        "config": asdict(config),
        "seeds": [config.seed],
        "versions": versions(),
        "data": {"corpus": corpus.fingerprint, "train_pairs": len(corpus.indices("train"))},
        f"best_validation_{trainer.method.criterion.name}": trainer.plateau.best,
        "best_step": trainer.plateau.best_step,
        "steps": trainer.step,
        "evaluations": trainer.plateau.evaluations,
        "device": str(trainer.fabric.device),
        "precision": str(trainer.fabric.strategy.precision.precision),
        "threads": torch.get_num_threads(),
        "pairs_per_s": trainer.step * config.optimiser.batch_size / seconds if seconds else None,
        "wall_time_s": trainer.seconds,
    }


def _warn_of_unfinished_cosine(config: PretrainConfig, total: int) -> None:
    """Say that a shortened run ends before its schedule does."""
    ends, begins = config.optimiser.cosine_steps, config.optimiser.cosine_from
    if ends is not None and total < ends:
        print(
            f"note: the run ends after {total} steps, but its learning rate falls from step {begins} to {ends}; give "
            "--optimiser.cosine-from 0.5 --optimiser.cosine-steps 1.0 --validation.every 0.25 to have the schedule in "
            "shares of the run"
        )


def _check_folder(out: Path, resume: bool) -> None:
    """Refuse to write over anything, or to resume what is not there."""
    is_run = (out / CONFIG).is_file()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder as --out")
    check_writable(out)
    if resume and not is_run:
        raise InputError(f"{out} holds no run to resume; leave out --resume to start one")
    if is_run and not resume:
        raise InputError(f"{out} holds a run already; add --resume to go on with it, or choose another --out")
    if not is_run and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run; choose another --out")


def _check_same(out: Path, config: PretrainConfig, corpus: "AnyCorpus") -> None:
    """Refuse to resume with other settings or other data than the run was started with."""
    from convirt.training.checkpoint import read_config, read_json

    before, now = (
        {name: value for name, value in asdict(one).items() if name not in CHANGEABLE}
        for one in (read_config(out), config)
    )
    if changed := difference(before, now):
        raise InputError(
            f"{out} was started with other settings ({changed}); "
            "resume with the same settings, or start another run with another --out"
        )
    started = read_json(out / CORPUS)
    if started.get("fingerprint") != corpus.fingerprint:
        raise InputError(
            f"{out} was started on another corpus than {corpus.path} (the fingerprints differ); "
            "resume with the corpus it was started on"
        )
    if started.get("order", WHOLE) != corpus.order:
        raise InputError(
            f"{out} was started on the same pairs, but visits them in another order than {corpus.path} gives "
            f"({corpus.order}); resume with the corpus or the export it was started on"
        )


def _open_folder(out: Path, config: PretrainConfig, corpus: "AnyCorpus") -> None:
    """Make the folder of a new run, whole or not at all; note what a resumed run may have changed."""
    if (out / CONFIG).is_file():
        write_json(out / CONFIG, asdict(config))
        return
    if out.is_dir():
        out.rmdir()  # it is empty
    with atomic_folder(out, replace=True) as new:
        about = {"path": str(corpus.path), "fingerprint": corpus.fingerprint, "pairs": len(corpus)}
        write_json(new / CORPUS, about | {"order": corpus.order})
        write_json(new / CONFIG, asdict(config))


@contextmanager
def _reproducible() -> Iterator[None]:
    """The same seed gives the same run; the caller's random state is left as it was."""
    import torch

    with (
        torch.random.fork_rng(devices=range(min(1, torch.cuda.device_count()))),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        yield


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """Say in one line that the disk is full or refuses, whichever file met it first."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(next(p for p in (out, *out.parents) if p.exists())).free
            raise InputError(
                f"{out}: the disk is full ({free / 2**20:.0f} MiB free); make room and go on with --resume"
            ) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError) or error.errno == errno.EROFS:
            raise InputError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
        raise
