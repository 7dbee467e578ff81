"""Minibatches of pairs: which pairs, which image of a study, which sentence of a report (ConVIRT, sections 2.1 to 2.3).

Every draw is a function of seed, epoch and step alone, never of the number of workers or ranks or of what was read
before, so that a run can be cut at any step and go on bit for bit. Which pairs meet is decided in `sampling.py`.

Shape legend: B pairs in the batch, S side of the padded square (the corpus' image size), H W height and width of one
prepared image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from convirt.data.corpora import Corpus, decode
from convirt.data.loading.sampling import Schedule, arrange_batches, arrange_stream, draw_views, number_patients, share
from convirt.data.loading.streaming import StreamedCorpus
from convirt.errors import InputError


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed for one purpose, from what it may depend on, such as `(seed, epoch, "order")`."""
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:8], "big") >> 1


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


AHEAD = 8
"""Batches before the end of an epoch at which a streamed corpus begins to fetch shards of the next one."""


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


def to_unit(image: Tensor) -> Tensor:
    """Bring integer pixels of any depth to [0, 1], float32."""
    return image if image.is_floating_point() else image.to(torch.float32) / torch.iinfo(image.dtype).max


class Batches(Dataset[Batch]):
    """Batches addressed by step, of epochs of equal length; each can be read whole or in parts."""

    with_images: bool = True
    """Whether images are decoded; a method that trains a text encoder alone needs none."""

    def __init__(
        self, corpus: Corpus | StreamedCorpus, split: str, seed: int, rank: int, ranks: int, shards: np.ndarray | None
    ) -> None:
        self.corpus = corpus
        self.seed = seed
        self.rank, self.ranks = rank, ranks
        self.shards = corpus.shards if shards is None and isinstance(corpus, StreamedCorpus) else shards
        self.indices = corpus.indices(split)
        self._lengths = [corpus.column_lengths(name).astype(np.int32) for name in ("images", "sentences")]
        self._schedules: dict[tuple[int, int, int], Schedule] = {}
        self._length = 0  # batches in an epoch

    @property
    def parted(self) -> bool:
        """Whether several processes should read a part of each batch, not each some whole batches."""
        return isinstance(self.corpus, StreamedCorpus)

    def epoch(self, epoch: int) -> np.ndarray:
        """All batches of one epoch: pair indices, int64 [batches, B]."""
        raise NotImplementedError

    def _arrange(
        self, indices: np.ndarray, patients: np.ndarray, batch_size: int, generator: np.random.Generator
    ) -> np.ndarray:
        if self.shards is None:
            return arrange_batches(indices, patients, batch_size, generator)
        return arrange_stream(indices, patients, self.shards[indices], batch_size, generator)

    def __getitem__(self, step: int) -> Batch:
        return self.read(step)

    def read(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """Read a batch: of the rows of this rank, one part.

        Args:
            step: Which batch, counted over all epochs.
            part: Which part of it, from 0.
            parts: How many parts there are.
        """
        epoch, place = divmod(step, self._length)
        mine = share(len(self.epoch(epoch)[place]), self.rank, self.ranks)
        inner = share(mine.stop - mine.start, part, parts)
        rows = slice(mine.start + inner.start, mine.start + inner.stop)
        if isinstance(self.corpus, StreamedCorpus):
            self.corpus.expect(self._needed(epoch, place, rows))
        return self._draw(step, rows)

    def _draw(self, step: int, rows: slice) -> Batch:
        """Draw an image and a sentence of each pair of a batch, and read those of some rows."""
        epoch, place = divmod(step, self._length)
        indices = self.epoch(epoch)[place]
        seed = derive_seed(self.seed, step, "views")
        images, sentence_counts = (lengths[indices] for lengths in self._lengths)
        chosen = draw_views(images, sentence_counts, seed)
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
        needed = [self._schedule(epoch, rows).at(place)]
        if place + AHEAD >= self._length:
            needed.append(self._schedule(epoch + 1, rows).at(0))
        return np.concatenate(needed)

    def _schedule(self, epoch: int, rows: slice) -> Schedule:
        key = epoch, rows.start, rows.stop
        if key not in self._schedules:
            self._schedules = {known: self._schedules[known] for known in self._schedules if known[0] == epoch - 1}
            assert self.shards is not None
            self._schedules[key] = Schedule(self.shards[self.epoch(epoch)[:, rows]])
        return self._schedules[key]


class TrainingBatches(Batches):
    """The endless stream of training batches, addressed by step: a function of (corpus, batch size, seed, step).

    In one epoch each training pair is visited once, except the few that fill no batch. Of several ranks, each gives
    its rows of the same global batches: put together in the order of the ranks, they are what one rank alone gives.
    """

    def __init__(
        self,
        corpus: Corpus | StreamedCorpus,
        batch_size: int,
        seed: int,
        split: str = "train",
        *,
        rank: int = 0,
        ranks: int = 1,
        shards: np.ndarray | None = None,
    ) -> None:
        """Arrange nothing yet.

        Args:
            corpus: On disk or streamed.
            batch_size: Pairs in a batch, over all ranks.
            seed: Seed of the run.
            split: Which pairs.
            rank: Which rank's rows to read.
            ranks: How many ranks share a batch.
            shards: The shard of each pair of a corpus on disk, to visit its pairs in the order in which the corpus
                streams from an export with these shards.
        """
        super().__init__(corpus, split, seed, rank, ranks, shards)
        self.batch_size = batch_size
        if batch_size % ranks:
            raise InputError(f"optimiser.batch_size {batch_size} cannot be shared by {ranks} ranks; take a multiple")
        if len(self.indices) < batch_size:
            raise InputError(
                f"{corpus.path}: split {split!r} has {len(self.indices)} pairs, too few for a batch of {batch_size}; "
                "prepare more pairs or lower optimiser.batch_size"
            )
        self.patients = number_patients(corpus.patient_ids[self.indices])
        self.steps_per_epoch = self._length = len(self.indices) // batch_size
        self._epochs: dict[int, np.ndarray] = {}

    def epoch(self, epoch: int) -> np.ndarray:
        """All batches of one epoch: pair indices, int64 [steps_per_epoch, B]."""
        if epoch not in self._epochs:
            # A streamed corpus looks into the next epoch while one ends.
            self._epochs = {known: self._epochs[known] for known in self._epochs if known == epoch - 1}
            generator = np.random.default_rng(derive_seed(self.seed, epoch, "order"))
            self._epochs[epoch] = self._arrange(self.indices, self.patients, self.batch_size, generator)
        return self._epochs[epoch]


class ValidationBatches(Batches, Sequence[Batch]):  # type: ignore[misc]
    """Fixed batches of held-out pairs: always the same pairs together, the same image and the same sentence of each.

    An InfoNCE loss depends on what shares the batch; drawn afresh, its noise would choose the "best" checkpoint.
    """

    def __init__(
        self,
        corpus: Corpus | StreamedCorpus,
        split: str,
        pairs: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        shards: np.ndarray | None = None,
    ) -> None:
        super().__init__(corpus, split, derive_seed(seed, split, "validation"), rank, ranks, shards)
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
        patients, batch_size = number_patients(corpus.patient_ids[chosen]), min(batch_size, len(chosen))
        self.batches = self._arrange(chosen, patients, batch_size, generator)
        self._length = len(self.batches)

    def epoch(self, epoch: int) -> np.ndarray:
        """All batches, int64 [batches, B]; there is one epoch only."""
        return self.batches[: None if epoch == 0 else 0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Batch:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.read(number)


def validation_batches(
    corpus: Corpus | StreamedCorpus, split: str, pairs: int, batch_size: int, seed: int
) -> ValidationBatches:
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
