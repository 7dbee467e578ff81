"""Finding what is alike without comparing all with all: items that share a band of their signature are candidates.

Shapes: N items, B bands, P pairs.
"""

from collections.abc import Iterator

import numpy as np

MOST = 24
"""How many neighbours of its bucket an item is compared with: a bucket of thousands must not cost millions."""
MOST_CHECKED = 100_000
"""Candidates that are read again at most, the likeliest first."""


class Candidates:
    """Pairs of items that share the value of at least one band."""

    def __init__(self, bands_BN: np.ndarray, most: int = MOST) -> None:
        """Take the signature.

        Args:
            bands_BN: Values of the bands, unsigned integers.
            most: Largest distance, in the order of a bucket, at which two of its items are compared.
        """
        self.bands_BN = bands_BN
        self.most = most
        self.cut = 0
        """Buckets, over all bands, that were too large to compare all of their items."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield pairs [P, 2], the smaller first, in pieces of at most N; a pair may come again with another band."""
        count = self.bands_BN.shape[1]
        for number, band_N in enumerate(self.bands_BN):
            # In a bucket, neighbours are those that agree in the next band too: what is cut off are the least alike.
            order_N = np.lexsort((self.bands_BN[number - 1], band_N))
            sorted_N = band_N[order_N]
            for lag in range(1, min(self.most, count - 1) + 1):
                same = np.flatnonzero(sorted_N[lag:] == sorted_N[:-lag])
                if not len(same):
                    break
                pairs_P2 = np.stack([order_N[same], order_N[same + lag]], axis=1)
                pairs_P2.sort(axis=1)
                yield pairs_P2
            sizes = np.unique(band_N, return_counts=True)[1]
            self.cut += int((sizes > self.most + 1).sum())


class Shortlist:
    """The likeliest of any number of candidates, in bounded memory."""

    def __init__(self, most: int = MOST_CHECKED) -> None:
        self.most = most
        self.dropped = 0
        """Candidates that found no room; a pair may count again with each of its bands."""
        self._codes = [np.empty(0, np.int64)]  # both places in one number: quick to sort
        self._scores = [np.empty(0, np.float32)]

    def add(self, pairs_P2: np.ndarray, scores_P: np.ndarray) -> None:
        """Enter candidates, places below 2 ** 31, with how likely they are."""
        self._codes.append(pairs_P2[:, 0].astype(np.int64) << 32 | pairs_P2[:, 1].astype(np.int64))
        self._scores.append(scores_P.astype(np.float32))
        if sum(map(len, self._scores)) > 16 * self.most:
            self._prune()

    def _prune(self) -> None:
        codes_P, firsts = np.unique(np.concatenate(self._codes), return_index=True)
        scores_P = np.concatenate(self._scores)[firsts]
        if len(scores_P) > self.most:
            self.dropped += len(scores_P) - self.most
            kept = np.sort(np.argsort(-scores_P, kind="stable")[: self.most])
            codes_P, scores_P = codes_P[kept], scores_P[kept]
        self._codes, self._scores = [codes_P], [scores_P]

    def pairs(self) -> list[tuple[int, int]]:
        """The candidates, sorted, each once."""
        self._prune()
        return [(code >> 32, code & 0xFFFFFFFF) for code in self._codes[0].tolist()]
