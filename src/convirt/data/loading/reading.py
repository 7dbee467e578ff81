"""Reading batches ahead of time, in processes of their own."""

import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from convirt.data.loading.loader import Batch, Batches, to_unit
from convirt.errors import InputError


class _Items(Dataset[Batch | InputError]):
    """What one reading process is asked for: item `n` is part `n % parts` of the n // parts-th step."""

    def __init__(self, source: Any, steps: range, parts: int) -> None:
        self.source, self.steps, self.parts = source, steps, parts

    def __getitem__(self, item: int) -> Batch | InputError:
        step, part = self.steps[item // self.parts], item % self.parts
        try:
            return self.source.read(step, part, self.parts) if self.parts > 1 else self.source[step]
        except InputError as error:
            return error  # raised in a worker, it would reach the user with a traceback in its text


@contextmanager
def read_ahead(
    source: Sequence[Batch] | Batches, steps: range, workers: int, *, pin: bool = False
) -> Iterator[Iterator[Batch]]:
    """Read the batches of `steps` in order, ahead of time in `workers` processes when there are any.

    Args:
        source: Batches addressed by step.
        steps: Which ones.
        workers: Reading processes, which end with the block; 0 reads in this process. Of a streamed corpus each reads
            its own slots of every batch, and so its own shards; else each reads whole batches in turn.
        pin: Put images in page-locked memory, for a GPU.
    """
    parts = max(1, workers) if isinstance(source, Batches) and source.parted else 1
    loader: DataLoader[Batch | InputError] = DataLoader(
        _Items(source, steps, parts),
        batch_size=None,
        # Items go to the processes in turn, so that of `parts` parts each always goes to the same one.
        sampler=range(len(steps) * parts),
        num_workers=workers,
        worker_init_fn=_leave_signals_to_parent,
        pin_memory=pin,
        # Without its own generator the loader would draw from the global one, which dropout uses.
        generator=torch.Generator(),
    )

    def batches() -> Generator[Batch]:
        read: list[Batch] = []
        for item in loader:
            if isinstance(item, InputError):
                raise item
            read.append(item)
            if len(read) == parts:
                yield _join(read)
                read = []

    # Closing is what ends the workers: at exit they would be sent a SIGTERM, which they leave to this process.
    with closing(batches()) as opened:
        yield opened


def _leave_signals_to_parent(_: int) -> None:
    """Ctrl-C reaches every process of the terminal; the parent decides when the readers stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _join(parts: Sequence[Batch]) -> Batch:
    """Put the parts of one batch together, in their order."""
    if len(parts) == 1:
        return parts[0]
    images = [part.images_B1SS for part in parts]
    if len({image.dtype for image in images}) > 1:
        images = [to_unit(image) for image in images]
    return Batch(
        images_B1SS=torch.cat(images),
        sentences=[sentence for part in parts for sentence in part.sentences],
        reports=[report for part in parts for report in part.reports],
        indices=np.concatenate([part.indices for part in parts]),
        step=parts[0].step,
    )
