"""How well does a streamed epoch mix? The order alone, nothing is read; shuffling as a whole stands beside it.

    python benchmarks/order.py [--pairs 1000000] [--shards 7500] [--batch 32 256 1024]

Columns: seconds to arrange one epoch; rank correlation between the place of a pair in the shards and the place at which
it is visited; shards in a batch (mean); shards in use at once (most), which times their size is the memory of a job;
pairs of one patient in one batch; and the spread of a label over batches, as the variance of its count in a batch over
that of independent draws (1 is as good as independent), if the source is sorted by that label: once for shards in
which `convirt export` has mixed the patients, once for shards in the order of the source.
"""

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from convirt.data.loading.sampling import Schedule, arrange_batches, arrange_stream


def draw_patients(pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Patients with 3.3 studies each on average, side by side, as sources have them; int64 [pairs]."""
    sizes = np.minimum(rng.geometric(0.3, pairs), 40)
    return np.repeat(np.arange(pairs), sizes)[:pairs]


def label_ratio(labels: np.ndarray) -> float:
    """Variance of a half-half label's count in the batches of `labels` [T, B], over that of independent draws."""
    return float(labels.sum(axis=1).var() / (labels.shape[1] / 4))


def measure(pairs: int, shards: int, batch: int, streamed: bool) -> list[str]:
    """One row of the table."""
    rng = np.random.default_rng(0)
    patients, shard = draw_patients(pairs, rng), np.arange(pairs) * shards // pairs
    start = time.process_time()
    if streamed:
        arranged = arrange_stream(np.arange(pairs), patients, shard, batch, rng)
    else:
        arranged = arrange_batches(np.arange(pairs), patients, batch, rng)
    seconds = time.process_time() - start
    flat = arranged.ravel()
    met = np.sort(patients[arranged], axis=1)
    schedule = Schedule(shard[arranged])
    in_use = max(len(schedule.at(place, ahead=0)) for place in range(0, len(arranged), max(1, len(arranged) // 500)))
    mixed = rng.permutation(patients.max() + 1) % 2  # a label of patients, who lie in the shards in random order
    return [
        f"{batch}",
        "by shards" if streamed else "as a whole",
        f"{seconds:.1f}",
        f"{spearmanr(flat, np.arange(len(flat)))[0]:+.3f}",
        f"{np.mean([len(np.unique(row)) for row in shard[arranged[:2000]]]):.1f}",
        f"{in_use}",
        f"{int((met[:, 1:] == met[:, :-1]).sum())}",
        f"{label_ratio(mixed[patients[arranged]]):.2f}",
        f"{label_ratio(arranged < pairs // 2):.2f}",
    ]


def main() -> None:
    """Parse arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=7500)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256, 1024])
    arguments = parser.parse_args()
    title = f"{arguments.pairs:,} pairs in {arguments.shards:,} shards"
    columns = ("batch", "shuffled", "s", "rank corr.", "shards a batch", "in use", "same patient", "label", "unmixed")
    table = Table(*columns, title=title)
    for batch in arguments.batch:
        for streamed in (False, True):
            table.add_row(*measure(arguments.pairs, arguments.shards, batch, streamed))
    Console().print(table)


if __name__ == "__main__":
    main()
