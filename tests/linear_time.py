"""Evidence that work grows in proportion to its input, whatever the machine: the ratio of the times for two lengths."""

import gc
import time
from collections.abc import Callable

GROWTH = 4
"""The longer input is so many times as long: linear work takes 4 times as long, quadratic work 16 times."""


def assert_linear(work: Callable[[str], object], unit: str, length: int, runs: int = 3) -> None:
    """Assert that work on a unit, repeated, takes time in proportion to its length, and not to the length's square."""

    def seconds(characters: int) -> float:
        best = float("inf")
        for run in range(runs):
            text = f"{run} {unit * (characters // len(unit) + 1)}"[:characters]  # no two runs share a cache's key
            start = time.process_time()
            work(text)
            best = min(best, time.process_time() - start)
        return best

    gc.collect()
    ratios = []
    for _ in range(3):  # a neighbour on the machine may spoil one comparison
        ratios.append(seconds(GROWTH * length) / max(seconds(length), 1e-9))
        if ratios[-1] < 2.2 * GROWTH:
            return
    raise AssertionError(f"{GROWTH} times the text took {ratios} times as long")
