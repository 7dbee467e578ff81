"""Minibatches: who meets whom, what is drawn, and that nothing but seed and step decides it."""

import multiprocessing
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from conftest import SIZE, png, write_corpus, write_pairs
from convirt.data.corpora import Corpus, decode
from convirt.data.loading.loader import Batch, TrainingBatches, ValidationBatches, read_ahead
from convirt.data.loading.sampling import arrange_batches
from convirt.data.records import ImageRecord, Pair
from convirt.data.splits import derive_seed
from convirt.errors import InputError


def same(one: Batch, two: Batch) -> bool:
    return (
        torch.equal(one.images_B1SS, two.images_B1SS)
        and one.sentences == two.sentences
        and np.array_equal(one.indices, two.indices)
        and one.step == two.step
    )


def write_two_pairs(out: Path, images: tuple[ImageRecord, ...], sentences: tuple[str, ...]) -> None:
    values = {"split": "train", "images": images, "sentences": sentences, "text": ""}
    write_pairs(out, [Pair(pair_id=name, patient_id=name, **values) for name in "ab"])


def test_derived_seeds_are_stable_distinct_and_63_bits() -> None:
    assert derive_seed(0, 1, "order") == derive_seed(0, 1, "order")
    seeds = {derive_seed(seed, step, what) for seed in range(20) for step in range(20) for what in ("a", "b")}
    assert len(seeds) == 800
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Fixed for good: another value would change every run that is to be resumed or repeated.
    assert derive_seed(0, 1, "order") == 5477332743485824662


def test_each_pair_is_visited_once_an_epoch_but_the_dropped_last(tiny_corpus: Path) -> None:
    corpus = Corpus.open(tiny_corpus)
    train = TrainingBatches(corpus, 7, seed=3)
    assert train.steps_per_epoch == 40 // 7
    dropped = set()
    for epoch in range(6):
        visited = [int(i) for s in range(5) for i in train[epoch * 5 + s].indices]
        assert len(set(visited)) == 35
        assert set(visited) <= set(corpus.indices("train").tolist())
        dropped |= set(corpus.indices("train").tolist()) - set(visited)
    assert len(dropped) > 5  # not always the same ones


@pytest.mark.parametrize("sizes", [[1] * 40, [2] * 20, [5] * 8, [1, 2, 3, 4, 5] * 3, [6, 4, 3, 3, 3, 3]])
@pytest.mark.parametrize("batch_size", [4, 5])
def test_no_batch_has_two_images_of_a_patient_where_avoidable(sizes: list[int], batch_size: int) -> None:
    patients = np.repeat([f"p{i}" for i in range(len(sizes))], sizes)
    indices = 100 + np.arange(len(patients))
    batches, left_out = divmod(len(indices), batch_size)
    assert sum(max(0, size - batches) for size in sizes) <= left_out
    for seed in range(20):
        arranged = arrange_batches(indices, patients, batch_size, np.random.default_rng(seed))
        assert arranged.shape == (batches, batch_size)
        assert len(np.unique(arranged)) == arranged.size
        for batch in arranged:
            assert len(set(patients[batch - 100])) == batch_size


def test_where_a_patient_has_more_pairs_than_there_are_batches_every_batch_is_still_full() -> None:
    patients = np.array(["a"] * 9 + ["b", "c", "d"])
    batches = arrange_batches(np.arange(12), patients, 4, np.random.default_rng(0))
    assert batches.shape == (3, 4)
    assert sorted(batches.ravel()) == list(range(12))
    assert [Counter(patients[batch])["a"] for batch in batches] == [3, 3, 3]


def test_the_order_is_uniform_over_pairs_of_single_patients() -> None:
    counts = np.zeros((6, 6))
    for seed in range(3000):
        for batch in arrange_batches(np.arange(6), np.arange(6), 2, np.random.default_rng(seed)):
            counts[batch[0], batch[1]] += 1
            counts[batch[1], batch[0]] += 1
    together = counts[np.triu_indices(6, 1)]
    assert chisquare(together).pvalue > 1e-3


def test_images_and_sentences_are_drawn_uniformly(tmp_path: Path) -> None:
    images = tuple(png(np.full((SIZE, SIZE), value, dtype=np.uint8)) for value in (10, 20, 30))
    sentences = ("one .", "two .", "three .", "four .")
    write_two_pairs(tmp_path / "c", images, sentences)
    train = TrainingBatches(Corpus.open(tmp_path / "c"), 2, seed=0)
    drawn: Counter[tuple[int, str]] = Counter()
    for step in range(1200):
        batch = train[step]
        drawn.update(zip(batch.images_B1SS[:, 0, 0, 0].tolist(), batch.sentences, strict=True))
    assert len(drawn) == 12
    # The joint counts: uniform, and image independent of sentence.
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_batches_depend_on_seed_and_step_alone(tiny_corpus: Path) -> None:
    corpus = Corpus.open(tiny_corpus)
    train = TrainingBatches(corpus, 8, seed=0)
    in_order = [train[step] for step in range(12)]
    fresh = TrainingBatches(Corpus.open(tiny_corpus), 8, seed=0)
    for step in (11, 0, 7, 3):
        assert same(fresh[step], in_order[step])
    assert not same(TrainingBatches(corpus, 8, seed=1)[0], in_order[0])
    assert not np.array_equal(in_order[0].indices, in_order[5].indices)  # another epoch, another order
    assert [batch.step for batch in in_order] == list(range(12))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_read_the_same_batches(tiny_corpus: Path, workers: int) -> None:
    corpus = Corpus.open(tiny_corpus)
    train = TrainingBatches(corpus, 8, seed=0)
    state = torch.get_rng_state()
    with read_ahead(TrainingBatches(corpus, 8, seed=0), range(2, 9), workers) as batches:
        read = list(batches)
    assert [batch.step for batch in read] == list(range(2, 9))
    assert all(same(batch, train[batch.step]) for batch in read)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_are_padded_with_zeros_about_the_centre(tiny_corpus: Path) -> None:
    corpus = Corpus.open(tiny_corpus)
    batch = ValidationBatches(corpus, "val", 16, 16, seed=0)[0]
    assert batch.images_B1SS.shape == (16, 1, SIZE, SIZE)
    assert batch.images_B1SS.dtype == torch.uint8
    shapes = set()
    for row, index in enumerate(batch.indices):
        pair = corpus.pair(int(index))
        assert batch.sentences[row] in pair.sentences
        candidates = []
        for image_1HW in map(decode, pair.images):
            _, height, width = image_1HW.shape
            shapes.add((height, width))
            padded = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
            top, left = (SIZE - height) // 2, (SIZE - width) // 2
            padded[:, top : top + height, left : left + width] = image_1HW
            candidates.append(padded)
        assert any(torch.equal(batch.images_B1SS[row], candidate) for candidate in candidates)
    assert shapes == {(32, 40), (40, 32)}


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    write_two_pairs(tmp_path / "c", (png(ramp),), ("a .",))
    images_B1SS = TrainingBatches(Corpus.open(tmp_path / "c"), 2, seed=0)[0].images_B1SS
    assert images_B1SS.dtype == torch.float32
    np.testing.assert_allclose(images_B1SS[0, 0].numpy() * 65535, ramp, atol=0.01)
    assert len(images_B1SS[0].unique()) > 1000


def test_validation_batches_are_fixed_and_full(tiny_corpus: Path) -> None:
    corpus = Corpus.open(tiny_corpus)
    batches = ValidationBatches(corpus, "val", 100, 5, seed=0)
    assert len(batches) == 3
    again = ValidationBatches(Corpus.open(tiny_corpus), "val", 100, 5, seed=0)
    assert all(same(one, two) for one, two in zip(batches, again, strict=True))
    assert set(np.concatenate([batch.indices for batch in batches])) <= set(corpus.indices("val").tolist())
    few = ValidationBatches(corpus, "val", 7, 5, seed=0)
    assert [len(batch) for batch in few] == [5]
    small = ValidationBatches(corpus, "val", 4, 32, seed=0)
    assert [len(batch) for batch in small] == [4]
    with pytest.raises(IndexError):
        batches[3]


def test_too_few_pairs_are_refused(tmp_path: Path, tiny_corpus: Path) -> None:
    corpus = Corpus.open(tiny_corpus)
    with pytest.raises(InputError, match=r"40 pairs, too few for a batch of 41.*lower"):
        TrainingBatches(corpus, 41, seed=0)
    bare = Corpus.open(write_corpus(tmp_path / "bare", val=0))
    with pytest.raises(InputError, match=r"'val' has 0 pairs.*validation share"):
        ValidationBatches(bare, "val", 10, 5, seed=0)


def test_a_reader_that_is_killed_is_one_line_and_leaves_none_behind(tiny_corpus: Path) -> None:
    """The others ignore SIGTERM, so that they would be waited for at exit."""
    batches = TrainingBatches(Corpus.open(tiny_corpus), 8, seed=0)
    before = set(multiprocessing.active_children())
    readers: list[Any] = []

    def kill_one() -> None:
        with read_ahead(batches, range(10_000), 2) as opened:
            next(opened)
            readers.extend(set(multiprocessing.active_children()) - before)
            readers[0].kill()
            list(opened)

    with pytest.raises(InputError, match=r"was killed, perhaps for want of memory; .*--resume"):
        kill_one()
    assert len(readers) == 2
    for reader in readers:
        reader.join(timeout=60)
        assert not reader.is_alive()


class Damaged(Sequence[Batch]):
    """A source whose third batch cannot be read."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: Any) -> Any:
        if step == 2:
            raise InputError("data-00002.arrow is damaged")
        return self.batches[step]


def test_readers_end_with_an_error_although_its_traceback_lives_on(tiny_corpus: Path) -> None:
    """Else the command would wait for them at its exit, for ever."""
    before = set(multiprocessing.active_children())
    with pytest.raises(InputError, match="is damaged") as caught:  # which keeps the frames of the generator
        consume(Damaged(TrainingBatches(Corpus.open(tiny_corpus), 8, seed=0)))
    assert caught.value.__traceback__ is not None
    assert set(multiprocessing.active_children()) == before


def consume(source: Sequence[Batch]) -> None:
    with read_ahead(source, range(20), 2) as opened:
        list(opened)
