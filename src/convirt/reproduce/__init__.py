"""`convirt reproduce`: the paper's tables and figures from benchmarks and checkpoints, ours beside the paper's."""
