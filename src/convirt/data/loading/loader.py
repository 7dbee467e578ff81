"""Minibatches of pairs: which pairs, which image of a study, which sentence of a report (ConVIRT, sections 2.1 to 2.3).

Every draw is a function of seed, epoch and step alone, never of the number of processes or of what was read before, so
that a run can be cut at any step and go on bit for bit. Which pairs meet is decided in `sampling.py`.

Shape legend: B pairs in the batch, S side of the padded square (the corpus' image size), H W height and width of one
prepared image.
"""

import multiprocessing
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convirt.data.corpora import decode
from convirt.data.loading.sampling import Schedule, arrange_batches, arrange_stream, draw_image_and_sentence
from convirt.data.records import AnyCorpus
from convirt.data.splits import derive_seed
from convirt.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One minibatch of pairs, one image and one sentence each."""

    images_B1SS: Tensor
    """Grey images, zero-padded to a square with the image in the centre; uint8, or float32 in [0, 1] when the corpus
    holds 16 bits. Of batches without images, S is 0."""
    sentences: list[str]
    """The drawn sentence t_u(x_u) of each pair."""
    reports: list[tuple[str, ...]]
    """All sentences of each pair's report, in their order."""
    indices: np.ndarray
    """Which pairs of the corpus they are, int64 [B]."""
    step: int
    """The step that the batch belongs to, from 0."""

    def __len__(self) -> int:
        return len(self.sentences)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its images on `device`."""
        return replace(self, images_B1SS=self.images_B1SS.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from where a GPU can fetch it while it computes."""
        return replace(self, images_B1SS=self.images_B1SS.pin_memory())


def to_unit(image: Tensor) -> Tensor:
    """Bring integer pixels of any depth to [0, 1], float32."""
    return image if image.is_floating_point() else image.to(torch.float32) / torch.iinfo(image.dtype).max


def _canvas(drawn: Sequence[Tensor], side: int) -> Tensor:
    """Centre images [1, H, W] of 8 or 16 bits on black squares: [B, 1, side, side], uint8, or float32 in [0, 1]."""
    # One image of 16 bits makes the batch floating: the others then are brought to the same scale.
    deep = any(image_1HW.dtype != torch.uint8 for image_1HW in drawn)
    images_B1SS = torch.zeros(len(drawn), 1, side, side, dtype=torch.float32 if deep else torch.uint8)
    for row, image_1HW in enumerate(drawn):
        height, width = image_1HW.shape[1:]
        top, left = (side - height) // 2, (side - width) // 2
        pixels_1HW = to_unit(image_1HW) if deep else image_1HW
        images_B1SS[row, :, top : top + height, left : left + width] = pixels_1HW
    return images_B1SS


class Batches(Dataset[Batch]):
    """Batches addressed by step, of epochs of equal length; each can be read whole or in parts."""

    with_images: bool = True
    """Whether images are decoded; a method that trains a text encoder alone needs none."""

    def __init__(self, corpus: AnyCorpus, split: str, seed: int) -> None:
        self.corpus = corpus
        self.seed = seed
        self.shards = corpus.shards
        self.indices = corpus.indices(split)
        self._lengths = [corpus.column_lengths(name).astype(np.int32) for name in ("images", "sentences")]
        self._length = 0  # batches in an epoch
        self._schedules: dict[tuple[int, int, int], Schedule] = {}

    def epoch(self, epoch: int) -> np.ndarray:
        """All batches of one epoch: pair indices, int64 [batches, B]."""
        raise NotImplementedError

    def _arrange(self, indices: np.ndarray, batch_size: int, generator: np.random.Generator) -> np.ndarray:
        patients = self.corpus.patient_ids[indices]
        if self.shards is None:
            return arrange_batches(indices, patients, batch_size, generator)
        return arrange_stream(indices, patients, self.shards[indices], batch_size, generator)

    def __getitem__(self, step: int) -> Batch:
        return self.read(step)

    def read(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """Read a batch, or one of several parts of it: neighbouring slots, of one lane where possible.

        Args:
            step: Which batch, counted over all epochs.
            part: Which part of it, from 0.
            parts: How many parts there are.
        """
        epoch, place = divmod(step, self._length)
        size = len(self.epoch(epoch)[place])
        rows = slice(size * part // parts, size * (part + 1) // parts)
        if self.shards is not None:
            self.corpus.expect(self._needed(epoch, place, rows))
        return self._draw(step, rows)

    def _draw(self, step: int, rows: slice) -> Batch:
        """Draw an image and a sentence of each pair of a batch, and read those of some rows."""
        epoch, place = divmod(step, self._length)
        indices = self.epoch(epoch)[place]
        images, texts = (lengths[indices] for lengths in self._lengths)
        chosen = draw_image_and_sentence(images, texts, derive_seed(self.seed, step, "views"))
        drawn: list[Tensor] = []
        sentences: list[str] = []
        reports: list[tuple[str, ...]] = []
        for index, image, sentence in zip(indices[rows], *(which[rows] for which in chosen), strict=True):
            pair = self.corpus.pair(int(index))
            if self.with_images:
                drawn.append(decode(pair.images[image]))
            sentences.append(pair.sentences[sentence])
            reports.append(tuple(pair.sentences))
        side = self.corpus.image_size
        images_B1SS = _canvas(drawn, side) if self.with_images else torch.empty(len(sentences), 1, 0, 0)
        return Batch(images_B1SS=images_B1SS, sentences=sentences, reports=reports, indices=indices[rows], step=step)

    def _needed(self, epoch: int, place: int, rows: slice) -> np.ndarray:
        """The shards that some rows of this batch and of the next ones lie in, the most urgent first."""
        key = epoch, rows.start, rows.stop
        if key not in self._schedules:
            assert self.shards is not None
            self._schedules = {key: Schedule(self.shards[self.epoch(epoch)[:, rows]])}
        return self._schedules[key].at(place)


class TrainingBatches(Batches):
    """The endless stream of training batches, addressed by step: a function of (corpus, batch size, seed, step).

    In one epoch each training pair is visited once, except the few that fill no batch.
    """

    def __init__(self, corpus: AnyCorpus, batch_size: int, seed: int, split: str = "train") -> None:
        super().__init__(corpus, split, seed)
        self.batch_size = batch_size
        if len(self.indices) < batch_size:
            raise InputError(
                f"{corpus.path}: split {split!r} has {len(self.indices)} pairs, too few for a batch of {batch_size}; "
                "prepare more pairs or lower optimiser.batch_size"
            )
        self.steps_per_epoch = self._length = len(self.indices) // batch_size
        self._epoch, self._order = -1, np.empty((0, batch_size), dtype=np.int64)

    def epoch(self, epoch: int) -> np.ndarray:
        """All batches of one epoch: pair indices, int64 [steps_per_epoch, B]."""
        if epoch != self._epoch:
            generator = np.random.default_rng(derive_seed(self.seed, epoch, "order"))
            self._epoch, self._order = epoch, self._arrange(self.indices, self.batch_size, generator)
        return self._order


class DecoupledBatches(TrainingBatches):
    """Training batches whose images and texts are drawn independently of each other (MedCLIP, section 3.1).

    Of a batch, `images_B1SS`, `reports` and `indices` are those of one set of pairs, in the order that every method
    meets them in; `sentences` are those of another set. In one epoch each pair gives its image once and one of its
    sentences once. A streamed corpus keeps the shards of both sets at hand, and so about twice as many.
    """

    def __init__(self, corpus: AnyCorpus, batch_size: int, seed: int, split: str = "train") -> None:
        super().__init__(corpus, batch_size, seed, split)
        self.texts = TrainingBatches(corpus, batch_size, derive_seed(seed, "texts"), split)
        self.texts.with_images = False

    def _draw(self, step: int, rows: slice) -> Batch:
        return replace(super()._draw(step, rows), sentences=self.texts._draw(step, rows).sentences)

    def _needed(self, epoch: int, place: int, rows: slice) -> np.ndarray:
        return np.concatenate([super()._needed(epoch, place, rows), self.texts._needed(epoch, place, rows)])


class ValidationBatches(Batches, Sequence[Batch]):  # type: ignore[misc]
    """Fixed batches of held-out pairs, which the validation loss is the mean of (A: 5000 pairs).

    Always the same pairs together, the same image and the same sentence of each: an InfoNCE loss depends on what
    shares the batch; drawn afresh, its noise would choose the "best" checkpoint.
    """

    def __init__(self, corpus: AnyCorpus, split: str, pairs: int, batch_size: int, seed: int) -> None:
        """Arrange the batches.

        Args:
            corpus: A prepared corpus.
            split: Usually `val`.
            pairs: How many pairs at most. They fill whole batches (a smaller batch has a lower loss and would not be
                comparable): the rest is left out, unless there is just one batch.
            batch_size: Pairs in a batch, as in training.
            seed: Seed of the run.

        Raises:
            InputError: The split has fewer than two pairs.
        """
        super().__init__(corpus, split, derive_seed(seed, split, "validation"))
        if len(self.indices) < 2:
            raise InputError(
                f"{corpus.path}: split {split!r} has {len(self.indices)} pairs, so there is nothing to validate on; "
                "prepare the corpus with a validation share (--val-share) or a split column"
            )
        generator = np.random.default_rng(self.seed)
        order = generator.permutation(self.indices)
        if self.shards is not None:  # whole shards, so that no others have to be read
            names, shard = np.unique(self.shards[order], return_inverse=True)
            order = order[np.argsort(generator.permutation(len(names))[shard], kind="stable")]
        chosen = np.sort(order[:pairs])
        self.batches = self._arrange(chosen, min(batch_size, len(chosen)), generator)
        self._length = len(self.batches)

    def epoch(self, epoch: int) -> np.ndarray:
        """All batches, int64 [batches, B]; there is one epoch only."""
        return self.batches

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Batch:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.read(number)


class _Items(Dataset[Batch | InputError]):
    """What a reading process is asked for: item `n` is part `n % parts` of the n // parts-th step."""

    def __init__(self, source: Sequence[Batch] | Batches, steps: range, parts: int) -> None:
        self.source, self.steps, self.parts = source, steps, parts

    def __getitem__(self, item: int) -> Batch | InputError:
        step, part = self.steps[item // self.parts], item % self.parts
        try:
            if isinstance(self.source, Batches) and self.parts > 1:
                return self.source.read(step, part, self.parts)
            return self.source[step]
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

    Raises:
        InputError: A source says so, or a reading process died.
    """
    others = set(multiprocessing.active_children())
    parts = max(1, workers) if isinstance(source, Batches) and source.shards is not None else 1
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

    readers: list[Any] = []

    def batches() -> Generator[Batch]:
        read: list[Batch] = []
        items = iter(loader)
        readers.extend(set(multiprocessing.active_children()) - others)
        try:
            for item in items:
                if isinstance(item, InputError):
                    raise item
                read.append(item)
                if len(read) == parts:
                    yield _join(read)
                    read = []
        finally:
            del items  # ends the readers, although the traceback of an error may hold this frame for long

    try:
        # Closing is what ends the workers: at exit they would be sent a SIGTERM, which they leave to this process.
        with closing(batches()) as opened:
            yield opened
    except (RuntimeError, ConnectionError, EOFError) as error:  # raised wherever this process is when a reader dies
        if not readers or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler raises again for each that ends
        for reader in readers:
            reader.join(timeout=0.2)
        if not any(reader.exitcode for reader in readers):  # all are well: the error is another's
            raise
        for reader in readers:
            reader.kill()  # the rest would be waited for at exit
        raise InputError(
            "a process that reads batches ahead was killed, perhaps for want of memory; what was saved is intact: "
            "go on with --resume, if need be with fewer --workers"
        ) from error


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
