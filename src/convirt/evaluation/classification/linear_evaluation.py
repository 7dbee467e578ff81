"""Linear evaluation: heads on features of a frozen encoder (ConVIRT, section 4.1).

Shape legend: S seeds, N rows, D features, C classes.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from convirt.evaluation.classification.linear_head import train_heads
from convirt.evaluation.classification.logistic_regression import fit_logistic
from convirt.evaluation.classification.outcomes import Outcome, Outcomes
from convirt.evaluation.classification.protocol import ClassificationProtocol, Place, draw_subsets
from convirt.evaluation.inputs.features import LabelledFeatures
from convirt.evaluation.inputs.table import LabelledTable


def train_linear(
    features: Mapping[str, NDArray[np.float32]], table: LabelledTable, protocol: ClassificationProtocol
) -> Outcomes:
    """Train the heads of every method, fraction and seed.

    Args:
        features: h_v [N, D] of every row of the table, by method.
        table: Labels, patients and splits.
        protocol: What to train.
    """
    places = [
        Place(setting="linear", head=head, fraction=fraction)
        for head in protocol.heads
        for fraction in protocol.fractions
    ]
    subsets = {fraction: draw_subsets(table, fraction, protocol.seeds) for fraction in protocol.fractions}
    outcomes: Outcomes = {place: {} for place in places}
    with Progress(transient=True) as progress, _cores() as pool:
        bar = progress.add_task("training heads", total=len(places) * len(features))
        jobs: dict[tuple[Place, str], Future[Outcome]] = {
            (place, method): pool.submit(_train, place.head, vectors_ND, table, subsets[place.fraction], protocol)
            for place in places
            for method, vectors_ND in features.items()
            if place.head == "paper"  # scikit-learn's thread limits are of the whole process
        }
        for place in places:
            for method, vectors_ND in features.items():
                job = jobs.get((place, method))
                outcomes[place][method] = (
                    job.result() if job else _train(place.head, vectors_ND, table, subsets[place.fraction], protocol)
                )
                progress.advance(bar)
    return outcomes


@contextmanager
def _cores() -> Iterator[ThreadPoolExecutor]:
    """Threads for heads that take one core each; a head's result does not depend on what runs beside it."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _train(
    head: str,
    vectors_ND: NDArray[np.float32],
    table: LabelledTable,
    subsets: Sequence[NDArray[np.int64]],
    protocol: ClassificationProtocol,
) -> Outcome:
    everything = LabelledFeatures(features_ND=vectors_ND, targets_NC=table.targets_NC, multi_label=table.multi_label)
    train, val = everything.take(table.rows("train")), everything.take(table.rows("val"))
    test_ND = vectors_ND[table.rows("test")]
    if head == "paper":
        heads = train_heads(train, val, subsets, protocol.seeds, protocol.schedule)
        selected = [
            {"epoch": int(epoch), "validation_score": float(best)}
            for epoch, best in zip(heads.epoch_S, heads.best_S, strict=True)
        ]
        return Outcome(test_SNC=heads.scores(test_ND), val_SNC=heads.scores(val.features_ND), selected=selected)
    fits: dict[bytes, Any] = {}
    for subset in subsets:  # with all labels every seed has the same subset, and the fit draws nothing
        if subset.tobytes() not in fits:
            fits[subset.tobytes()] = fit_logistic(train.take(subset), val, test_ND)
    chosen = [fits[subset.tobytes()] for subset in subsets]
    return Outcome(
        test_SNC=np.stack([fit.test_scores_NC for fit in chosen]),
        val_SNC=np.stack([fit.val_scores_NC for fit in chosen]),
        selected=[{"C": fit.c, "validation_loss": fit.validation_loss, "converged": fit.converged} for fit in chosen],
    )
