"""Batches of images and texts that are drawn independently of each other (MedCLIP; Wang et al. 2022, section 3.1)."""

from dataclasses import replace

import numpy as np

from convirt.data.corpora import Corpus
from convirt.data.loading.loader import Batch, TrainingBatches, derive_seed
from convirt.data.loading.streaming import StreamedCorpus


class DecoupledBatches(TrainingBatches):
    """Training batches whose sentences come from another permutation of the corpus than their images.

    Of a batch, `images_B1SS`, `reports` and `indices` are those of one set of pairs, in the order that every method
    meets them in; `sentences` are those of another set. In one epoch each pair gives its image once and one of its
    sentences once. A streamed corpus keeps the shards of both sets at hand, and so about twice as many.
    """

    def __init__(self, corpus: Corpus | StreamedCorpus, batch_size: int, seed: int, split: str = "train") -> None:
        super().__init__(corpus, batch_size, seed, split)
        self.texts = TrainingBatches(corpus, batch_size, derive_seed(seed, "texts"), split)
        self.texts.with_images = False

    def _draw(self, step: int, rows: slice) -> Batch:
        return replace(super()._draw(step, rows), sentences=self.texts._draw(step, rows).sentences)

    def _needed(self, epoch: int, place: int, rows: slice) -> np.ndarray:
        return np.concatenate([super()._needed(epoch, place, rows), self.texts._needed(epoch, place, rows)])
