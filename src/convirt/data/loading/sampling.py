"""The order in which pairs are visited: batches of an epoch as arrays of pair numbers, nothing read.

Corpora on disk are shuffled as a whole. Corpora that stream are read shard by shard: the shards are permuted and laid
end to end, the row is cut into lanes of equal length, and each lane feeds its own slots of every batch, shuffled within
a window of shards. A reading process takes some of the slots, and so reads some of the shards. Either order is a
function of the epoch's random generator alone, never of who reads.

Shape legend: N pairs, B pairs in a batch, T batches in the epoch, C conflicts.
"""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LANES = 16
"""Lanes of a streamed epoch, unless that makes a lane wider than `LANE_WIDTH`; each holds two or three shards."""
LANE_WIDTH = 16
"""Slots of a batch that a lane feeds, at most: in many slots, the pairs of a patient could hardly be kept apart."""
WINDOW = 2
"""Shards of a lane that are mixed: a pair moves by up to this many shards from the place of its own."""
_ROUNDS = 64  # of mending batches; nearly all conflicts are gone after the first few


def arrange_batches(
    indices: np.ndarray, patients: np.ndarray, batch_size: int, generator: np.random.Generator
) -> np.ndarray:
    """Shuffle pairs into full batches so that no batch holds two pairs of one patient, where that can be avoided.

    Two studies of one patient are near duplicates, and would be false negatives of each other. The pairs are laid in a
    row, patient by patient in random order, and dealt out to the batches like cards: the pairs of one patient land in
    different batches as long as there are at least as many batches as pairs of that patient.

    Args:
        indices: Pairs to arrange, int64 [N].
        patients: The patient of each of them, [N].
        batch_size: Pairs in a batch; the N % batch_size pairs that fill no batch are left out.
        generator: Where the randomness comes from.

    Returns:
        Pair indices, int64 [N // batch_size, batch_size].
    """
    batches = len(indices) // batch_size
    patients = number_patients(patients)
    order = generator.permutation(len(indices))
    # Left out are the last of the random order, but first of all the pairs that would have to share a batch.
    kept = order[np.argsort(_surplus(order, patients, batches), kind="stable")][: batches * batch_size]
    rank = generator.permutation(int(patients.max(initial=-1)) + 1)
    dealt = kept[np.argsort(rank[patients[kept]], kind="stable")].reshape(batch_size, batches).T
    return indices[generator.permutation(dealt, axis=0)]


def number_patients(patient_ids: np.ndarray) -> np.ndarray:
    """Replace the ids of patients by 0, 1, 2 ... in the order of the ids, int64 [N]: numbers sort faster than names."""
    if patient_ids.dtype != object:
        return np.unique(patient_ids, return_inverse=True)[1]
    # Sorting a million strings takes seconds; each is hashed instead, and only the distinct ones are sorted.
    coded = pa.array(patient_ids, pa.large_string()).dictionary_encode()
    rank = np.empty(len(coded.dictionary), dtype=np.int64)
    rank[pc.array_sort_indices(coded.dictionary).to_numpy()] = np.arange(len(rank))
    return rank[coded.indices.to_numpy()]


def _surplus(order: np.ndarray, patients: np.ndarray, batches: int) -> np.ndarray:
    """Whether each pair of `order` has `batches` pairs of its patient before it, and so has to share a batch."""
    by_patient = order[np.argsort(patients[order], kind="stable")]
    sizes = np.bincount(patients)
    place = np.empty(len(order), dtype=np.int64)
    place[by_patient] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place[order] >= batches


def arrange_stream(
    indices: np.ndarray,
    patients: np.ndarray,
    shards: np.ndarray,
    batch_size: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Shuffle pairs into full batches such that each slot of the batches reads few shards at a time.

    Args:
        indices: Pairs to arrange, int64 [N].
        patients: The patient of each of them, [N].
        shards: The shard of each of them, int [N].
        batch_size: Pairs in a batch; the N % batch_size pairs that fill no batch are left out, other ones each epoch.
        generator: Where the randomness comes from.

    Returns:
        Pair indices, int64 [N // batch_size, batch_size]. No batch holds two pairs of one patient, unless a patient
        has more pairs than there are batches or fills most of a lane's window.
    """
    batches = len(indices) // batch_size
    patients = number_patients(patients)
    names, shard = np.unique(shards, return_inverse=True)
    place = generator.permutation(len(names))[shard]
    order = np.argsort(place + generator.random(len(indices)))
    order = order[np.argsort(_surplus(order, patients, batches), kind="stable")][: batches * batch_size]
    lanes = min(batch_size, max(LANES, -(-batch_size // LANE_WIDTH)))
    slots = np.arange(lanes + 1) * batch_size // lanes
    lane = np.repeat(np.arange(lanes), batches * np.diff(slots))
    shift = WINDOW * _spread(patients[order] * len(names) + shard[order], generator)
    order = order[np.lexsort((place[order] + shift, lane))]
    arranged = np.empty((batches, batch_size), dtype=np.int64)
    for first, last in pairwise(slots):
        arranged[:, first:last] = order[batches * first : batches * last].reshape(batches, last - first)
    reach = max(1, WINDOW * len(indices) * lanes // (len(names) * batch_size))
    _part_patients(arranged, patients, slots, reach, generator)
    return indices[arranged]


def _spread(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Uniform draws from [0, 1), those of one group evenly spaced: [N] for the number of each member's group, [N]."""
    shuffled = generator.permutation(len(groups))
    by_group = shuffled[np.argsort(groups[shuffled], kind="stable")]
    starts = np.flatnonzero(np.diff(groups[by_group], prepend=-1))
    sizes = np.diff(np.append(starts, len(groups)))
    member = np.arange(len(groups)) - np.repeat(starts, sizes)
    drawn = np.empty(len(groups))
    drawn[by_group] = (np.repeat(generator.random(len(starts)), sizes) + member / np.repeat(sizes, sizes)) % 1
    return drawn


def _part_patients(
    arranged: np.ndarray, patients: np.ndarray, slots: np.ndarray, reach: int, generator: np.random.Generator
) -> None:
    """Swap pairs that share a batch with their patient into other batches of their lane, in place.

    Args:
        arranged: Positions in `patients`, int64 [T, B].
        patients: Numbers of patients, int64 [N].
        slots: Where the lanes begin and end in a batch.
        reach: How many batches away a pair may go: further away its shard would have to be kept.
        generator: Where the randomness comes from.
    """
    batches, batch_size = arranged.shape
    lane = np.searchsorted(slots, np.arange(batch_size), side="right") - 1
    met = patients[arranged]
    suspects = np.arange(batches)
    for attempt in range(_ROUNDS):
        step, slot = _conflicts(met, suspects, generator)
        if not len(step):
            return
        suspects = step
        far = reach * (1 + attempt // 16)  # a patient with very many pairs needs more room
        other = np.clip(step + generator.integers(-far, far + 1, len(step)), 0, batches - 1)
        other_slot = slots[lane[slot]] + generator.integers(0, np.diff(slots)[lane[slot]])
        # Neither patient may be in the batch that its pair would go to.
        fits = ~(met[other] == met[step, slot, None]).any(axis=1)
        fits &= ~(met[step] == met[other, other_slot, None]).any(axis=1)
        swap = _disjoint(step, other, fits, batches)
        here, there = (step[swap], slot[swap]), (other[swap], other_slot[swap])
        for values in (arranged, met):
            values[here], values[there] = values[there], values[here]


def _conflicts(met: np.ndarray, suspects: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Find in each suspected batch one pair, drawn at random, whose patient the batch holds already.

    Args:
        met: The patient in each slot of each batch, int64 [T, B].
        suspects: Batches to look at.
        generator: Where the randomness comes from.

    Returns:
        The batches that have such a pair, ascending, and the slot of the pair, int64 [C] each.
    """
    order = np.argsort(met[suspects], axis=1, kind="stable")
    ranked = np.take_along_axis(met[suspects], order, axis=1)
    rows, columns = np.nonzero(ranked[:, 1:] == ranked[:, :-1])
    mixed = generator.permutation(len(rows))
    found, first = np.unique(rows[mixed], return_index=True)
    return suspects[found], order[found, columns[mixed[first]] + 1]


def _disjoint(step: np.ndarray, other: np.ndarray, fits: np.ndarray, batches: int) -> np.ndarray:
    """Choose among the swaps that fit some that have no batch in common; gives their positions."""
    proposed = np.flatnonzero(fits)
    first = np.full(batches, len(step))
    np.minimum.at(first, step[proposed], proposed)
    np.minimum.at(first, other[proposed], proposed)
    return proposed[(first[step[proposed]] == proposed) & (first[other[proposed]] == proposed)]


class Schedule:
    """The shards that a reader of batches needs, and from when to when.

    Attributes:
        shards: Shards in the order of their first use.
        first: The batch in which each is used first.
        last: The batch in which each is used last.
    """

    def __init__(self, shards_Tb: np.ndarray) -> None:
        """Find first and last uses.

        Args:
            shards_Tb: The shard of each pair that the reader reads of each batch, int [batches, pairs].
        """
        names, which = np.unique(shards_Tb.ravel(), return_inverse=True)
        batch = np.repeat(np.arange(shards_Tb.shape[0]), shards_Tb.shape[1])
        first, last = np.full(len(names), len(shards_Tb)), np.full(len(names), -1)
        np.minimum.at(first, which, batch)
        np.maximum.at(last, which, batch)
        order = np.argsort(first, kind="stable")
        self.shards, self.first, self.last = names[order], first[order], last[order]

    def at(self, place: int, ahead: int = 4) -> np.ndarray:
        """The shards to have at hand at a batch: those in use, and then as many as `ahead` of the next ones."""
        begun = int(np.searchsorted(self.first, place, side="right"))
        in_use = self.shards[:begun][self.last[:begun] >= place]
        return np.concatenate([in_use, self.shards[begun : begun + ahead]])


def draw_image_and_sentence(images: np.ndarray, sentences: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image and one sentence of each pair of a batch, uniformly.

    Args:
        images: How many images each pair has, int [B].
        sentences: How many sentences each pair has, int [B].
        seed: Seed of this batch.

    Returns:
        Which image and which sentence of each pair, int64 [B] each.
    """
    generator = np.random.default_rng(seed)
    drawn = np.empty((2, len(images)), dtype=np.int64)
    for row, bounds in enumerate(zip(images, sentences, strict=True)):
        for which, bound in enumerate(bounds):
            drawn[which, row] = generator.integers(bound)
    return drawn[0], drawn[1]
