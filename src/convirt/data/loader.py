"""Minibatches of pairs: which pairs, which image of a study, which sentence of a report (ConVIRT, sections 2.1 to 2.3).

Every draw is a function of seed, epoch and step alone, never of the number of workers or of what was read before, so
that a run can be cut at any step and go on bit for bit.

Shape legend: B pairs in the batch, S side of the padded square (the corpus' image size), H W height and width of one
prepared image.
"""

import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convirt.data.corpora import Corpus, decode
from convirt.errors import InputError


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed for one purpose, from what it may depend on, such as `(seed, epoch, "order")`."""
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One minibatch of pairs, one image and one sentence each."""

    images_B1SS: Tensor
    """Grey images, zero-padded to a square with the image in the centre; uint8, or float32 in [0, 1] when the corpus
    holds 16 bits."""
    sentences: list[str]
    """The drawn sentence t_u(x_u) of each pair."""
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


def arrange_batches(
    indices: np.ndarray, patient_ids: np.ndarray, batch_size: int, generator: np.random.Generator
) -> np.ndarray:
    """Shuffle pairs into full batches so that no batch holds two pairs of one patient, where that can be avoided.

    Two studies of one patient are near duplicates, and would be false negatives of each other. The pairs are laid in a
    row, patient by patient in random order, and dealt out to the batches like cards: the pairs of one patient land in
    different batches as long as there are at least as many batches as pairs of that patient.

    Args:
        indices: Pairs to arrange, int64 [N].
        patient_ids: The patient of each of them, [N].
        batch_size: Pairs in a batch; the N % batch_size pairs that fill no batch are left out.
        generator: Where the randomness comes from.

    Returns:
        Pair indices, int64 [N // batch_size, batch_size].
    """
    batches = len(indices) // batch_size
    _, patients = np.unique(patient_ids, return_inverse=True)
    order = generator.permutation(len(indices))
    # The place of each pair among those of its patient: from the number of batches on, a patient has too many.
    by_patient = order[np.argsort(patients[order], kind="stable")]
    sizes = np.bincount(patients)
    place = np.empty(len(indices), dtype=np.int64)
    place[by_patient] = np.arange(len(indices)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Left out are the last of the random order, but first of all the pairs that would have to share a batch.
    kept = order[np.argsort(place[order] >= batches, kind="stable")][: batches * batch_size]
    rank = generator.permutation(len(sizes))
    dealt = kept[np.argsort(rank[patients[kept]], kind="stable")].reshape(batch_size, batches).T
    return indices[generator.permutation(dealt, axis=0)]


def _collate(corpus: Corpus, indices: np.ndarray, step: int, seed: int) -> Batch:
    """Draw one image and one sentence of each pair, uniformly, and read them.

    Args:
        corpus: Where the pairs are.
        indices: Pair indices, int64 [B].
        step: What the batch is labelled with.
        seed: Seed of the draws of this batch.
    """
    generator = np.random.default_rng(seed)
    side = corpus.image_size
    drawn: list[Tensor] = []
    sentences: list[str] = []
    for index in indices:
        pair = corpus.pair(int(index))
        drawn.append(decode(pair.images[generator.integers(len(pair.images))]))
        sentences.append(pair.sentences[generator.integers(len(pair.sentences))])
    # One image of 16 bits makes the batch floating: the others then are brought to the same scale.
    deep = any(image_1HW.dtype != torch.uint8 for image_1HW in drawn)
    images_B1SS = torch.zeros(len(indices), 1, side, side, dtype=torch.float32 if deep else torch.uint8)
    for row, image_1HW in enumerate(drawn):
        if deep:
            image_1HW = image_1HW.to(torch.float32) / torch.iinfo(image_1HW.dtype).max
        height, width = image_1HW.shape[1:]
        top, left = (side - height) // 2, (side - width) // 2
        images_B1SS[row, :, top : top + height, left : left + width] = image_1HW
    return Batch(images_B1SS=images_B1SS, sentences=sentences, indices=indices, step=step)


class BatchSource(Protocol):
    """What can be read ahead: batches addressed by number."""

    def __getitem__(self, step: int) -> Batch: ...


class TrainingBatches(Dataset[Batch]):
    """The endless stream of training batches, addressed by step: a function of (corpus, batch size, seed, step).

    In one epoch each training pair is visited once, except the few that fill no batch.
    """

    def __init__(self, corpus: Corpus, batch_size: int, seed: int, split: str = "train") -> None:
        self.corpus = corpus
        self.batch_size = batch_size
        self.seed = seed
        self.indices = corpus.indices(split)
        # Numbers sort faster than names, and each epoch sorts.
        self.patients = np.unique(corpus.patient_ids[self.indices], return_inverse=True)[1]
        if len(self.indices) < batch_size:
            raise InputError(
                f"{corpus.path}: split {split!r} has {len(self.indices)} pairs, too few for a batch of {batch_size}; "
                "prepare more pairs or lower optimiser.batch_size"
            )
        self.steps_per_epoch = len(self.indices) // batch_size
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty((0, batch_size), dtype=np.int64))

    def epoch(self, epoch: int) -> np.ndarray:
        """All batches of one epoch: pair indices, int64 [steps_per_epoch, B]."""
        if self._epoch[0] != epoch:
            generator = np.random.default_rng(derive_seed(self.seed, epoch, "order"))
            self._epoch = epoch, arrange_batches(self.indices, self.patients, self.batch_size, generator)
        return self._epoch[1]

    def __getitem__(self, step: int) -> Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        return _collate(self.corpus, self.epoch(epoch)[place], step, derive_seed(self.seed, step, "views"))


class ValidationBatches(Dataset[Batch], Sequence[Batch]):  # type: ignore[misc]
    """Fixed batches of held-out pairs: always the same pairs together, the same image and the same sentence of each.

    An InfoNCE loss depends on what shares the batch; drawn afresh, its noise would choose the "best" checkpoint.
    """

    def __init__(self, corpus: Corpus, split: str, pairs: int, batch_size: int, seed: int) -> None:
        indices = corpus.indices(split)
        if len(indices) < 2:
            raise InputError(
                f"{corpus.path}: split {split!r} has {len(indices)} pairs, so there is nothing to validate on; "
                "prepare the corpus with a validation share (--val-share) or a split column"
            )
        self.corpus = corpus
        self.seed = derive_seed(seed, split, "validation")
        generator = np.random.default_rng(self.seed)
        chosen = np.sort(generator.permutation(indices)[:pairs])
        self.batches = arrange_batches(chosen, corpus.patient_ids[chosen], min(batch_size, len(chosen)), generator)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Batch:  # type: ignore[override]
        if not 0 <= number < len(self.batches):
            raise IndexError(number)
        return _collate(self.corpus, self.batches[number], number, derive_seed(self.seed, number, "views"))


def validation_batches(corpus: Corpus, split: str, pairs: int, batch_size: int, seed: int) -> ValidationBatches:
    """The fixed batches that the validation loss is the mean of (A: 5000 held-out pairs).

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
    return ValidationBatches(corpus, split, pairs, batch_size, seed)


@contextmanager
def read_ahead(source: BatchSource, steps: range, workers: int, *, pin: bool = False) -> Iterator[Iterator[Batch]]:
    """Read the batches of `steps` in order, ahead of time in `workers` processes when there are any.

    Args:
        source: Batches addressed by step.
        steps: Which ones.
        workers: Reading processes, which end with the block; 0 reads in this process.
        pin: Put images in page-locked memory, for a GPU.
    """
    loader: DataLoader[Batch] = DataLoader(
        source,  # type: ignore[arg-type]
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_parent,
        pin_memory=pin,
        # Without its own generator the loader would draw from the global one, which dropout uses.
        generator=torch.Generator(),
    )

    def batches() -> Generator[Batch]:
        yield from loader

    # Closing is what ends the workers: at exit they would be sent a SIGTERM, which they leave to this process.
    with closing(batches()) as opened:
        yield opened


def _leave_signals_to_parent(_: int) -> None:
    """Ctrl-C reaches every process of the terminal; the parent decides when the readers stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
