"""The verb `pretrain`: from a prepared corpus to a run folder with a pretrained encoder (ConVIRT, appendix A)."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from convirt.atomic import atomic_folder, check_writable, latest_complete, write_json
from convirt.config import PretrainConfig
from convirt.data.corpora import open_corpus
from convirt.data.loading.loader import TrainingBatches, ValidationBatches
from convirt.data.records import AnyCorpus
from convirt.errors import InputError
from convirt.methods import METHODS
from convirt.training.checkpoint import (
    CONFIG,
    read_config,
    read_json,
)
from convirt.training.interrupt import Interrupted
from convirt.training.logs import Display, RunLog
from convirt.training.plan import make_plan, print_plan
from convirt.training.run import Run
from convirt.training.trainer import Trainer, make_fabric
from convirt.versions import versions

CORPUS = "corpus.json"
METRICS = "metrics.json"
WHOLE = "shuffled as a whole"
"""The order of a corpus on disk."""
CHANGEABLE = {"device", "workers", "max_steps", "max_epochs", "checkpoint_every", "keep_every"}
"""Settings that a resumed run may change: none changes what a step computes, though another device rounds otherwise."""


def pretrain(
    config: PretrainConfig,
    corpus: str | Path,
    out: Path,
    *,
    resume: bool = False,
    dry_run: bool = False,
    verify: bool = False,
) -> Path:
    """Pretrain on the training pairs of a corpus.

    Args:
        config: Every setting of the run.
        corpus: Folder of a prepared corpus, or folder or address of an exported one, which is streamed.
        out: Folder of the run: `best/` and `last/` (checkpoints), `config.json`, `log.jsonl`, `tensorboard/`, and at
            the end `metrics.json`.
        resume: Go on with the run in `out`, from its last checkpoint; bit for bit as if it had never stopped.
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
    out = Path(out).absolute() if Path(out).name == "" else Path(out)
    console = Console()
    pairs = open_corpus(corpus)
    if not dry_run:
        _check_folder(out, resume)
    pairs.check(whole=verify)
    method_class = METHODS[config.method]
    train = method_class.training_batches(pairs, config)
    validation = method_class.validation_batches(pairs, config)
    if resume and not dry_run:
        _check_same(out, config, pairs)
    with _reproducible(), _disk_errors(out):
        last = latest_complete(out / "last") if resume else None
        method = method_class(config, corpus=pairs) if last is None else method_class.from_folder(config, last)
        trainer = Trainer(method, config, make_fabric(config), steps_per_epoch=train.steps_per_epoch)
        if dry_run:
            print_plan(make_plan(trainer, train, validation), console)
            return out
        state = {} if last is None else trainer.restore(last)
        _open_folder(out, config, pairs)
        _fit(trainer, train, validation, out, state.get("log_size", 0), console)
    return out


def _fit(
    trainer: Trainer,
    train: TrainingBatches,
    validation: ValidationBatches,
    out: Path,
    log_size: int,
    console: Console,
) -> None:
    corpus = train.corpus
    if trainer.step:
        console.print(f"resuming {out} after step {trainer.step}", highlight=False, soft_wrap=True)
    try:
        with closing(RunLog(out, step=trainer.step, size=log_size)) as log:
            Run(out, trainer, log, Display(console, trainer.total, trainer.step)).fit(train, validation)
    except Interrupted as stopped:
        console.print(
            f"{stopped.signal}: {out} is saved after step {stopped.step}; "
            "the same command with --resume goes on from there",
            highlight=False,
            soft_wrap=True,
        )
        raise
    metrics = run_metrics(trainer, corpus)
    write_json(out / METRICS, metrics)
    console.print(
        f"best validation {trainer.method.criterion.name} {trainer.plateau.best:.4f} at step "
        f"{trainer.plateau.best_step}: {out / 'best'}",
        highlight=False,
        soft_wrap=True,
    )


def run_metrics(trainer: Trainer, corpus: AnyCorpus) -> dict[str, Any]:
    """What `metrics.json` says of a finished run."""
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


def _check_same(out: Path, config: PretrainConfig, corpus: AnyCorpus) -> None:
    """Refuse to resume with other settings or other data than the run was started with."""
    before, now = _flat(asdict(read_config(out))), _flat(asdict(config))
    for name in now:
        if name not in CHANGEABLE and before[name] != now[name]:
            raise InputError(
                f"{out} was started with {name} = {before[name]!r}, now it is {now[name]!r}; "
                "resume with the same settings, or start another run with another --out"
            )
    if read_json(out / CORPUS).get("fingerprint") != corpus.fingerprint:
        raise InputError(
            f"{out} was started on another corpus than {corpus.path} (the fingerprints differ); "
            "resume with the corpus it was started on"
        )
    if read_json(out / CORPUS).get("order", WHOLE) != corpus.order:
        raise InputError(
            f"{out} was started on the same pairs, but visits them in another order than {corpus.path} gives "
            f"({corpus.order}); resume with the corpus or the export it was started on"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _open_folder(out: Path, config: PretrainConfig, corpus: AnyCorpus) -> None:
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
