"""Which labels of which test images are explained."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convirt.analysis.saliency.boxes import Boxes
from convirt.errors import InputError
from convirt.evaluation.inputs.table import LabelledTable


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Pairs of a test image and a label that it truly has, label by label, each in the order of the table."""

    rows_F: NDArray[np.int64]
    """Row of the table."""
    labels_F: NDArray[np.int64]
    """Position among the classes."""

    def __len__(self) -> int:
        return len(self.rows_F)

    def first_of_each_label(self, count: int) -> NDArray[np.int64]:
        """Positions of the first findings of each label: what is shown, and not picked by its result."""
        return np.concatenate([np.flatnonzero(self.labels_F == label)[:count] for label in np.unique(self.labels_F)])


def choose_findings(table: LabelledTable, boxes: Boxes | None, per_label: int | None) -> Findings:
    """The positive labels of the test images, those with a box if boxes are known.

    Args:
        table: The labelled images.
        boxes: Boxes around findings.
        per_label: At most so many images of each label, the first ones.

    Raises:
        InputError: There is none.
    """
    rows, labels = [], []
    test = table.rows("test")
    for c, name in enumerate(table.classes):
        positive = test[table.targets_NC[test, c] == 1]
        own = [int(row) for row in positive if boxes is None or boxes.of(table.images[row], name)]
        rows += own[:per_label]
        labels += [c] * len(own[:per_label])
    if not rows:
        raise InputError(
            "no positive label of a test image has a box; do the images and labels of the boxes have the table's names?"
            if boxes
            else "no test image has a positive label; there is nothing to explain"
        )
    return Findings(rows_F=np.array(rows), labels_F=np.array(labels))
