"""The linear heads whose scores are explained: trained on a share of the labels, the encoder frozen (figure 4).

Shape legend: S seeds, N rows, C classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from convirt.evaluation.inputs.images import Encoder, LabelledFeatures, encode_images
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.linear import LinearHeads, train_heads
from convirt.evaluation.protocol import Schedule


def train_explained_heads(
    encoders: Mapping[str, Encoder],
    table: LabelledTable,
    fraction: float,
    seeds: Sequence[int],
    schedule: Schedule,
    *,
    batch_size: int,
) -> dict[str, LinearHeads]:
    """The paper's head of each encoder and seed; only the images of the subsets and of validation are encoded."""
    train = table.rows("train")
    subsets = [table.training_subset(fraction, seed) for seed in seeds]
    used = np.unique(np.concatenate(subsets))
    rows = np.concatenate([train[used], table.rows("val")])
    encoded = encode_images(
        [(encoder, "features") for encoder in encoders.values()],
        [table.paths[row] for row in rows],
        normalise=False,
        batch_size=batch_size,
        label="encoding images to train heads",
    )
    positions = [np.searchsorted(used, subset) for subset in subsets]
    heads = {}
    for name, features_ND in zip(encoders, encoded.vectors, strict=True):
        everything = LabelledFeatures(
            features_ND=features_ND, targets_NC=table.targets_NC[rows], multi_label=table.multi_label
        )
        known, val = (everything.take(part) for part in np.split(np.arange(len(rows)), [len(used)]))
        heads[name] = train_heads(known, val, positions, seeds, schedule)
    return heads
