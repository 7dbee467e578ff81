"""Training: one loop for every method, with checkpoints that resume bit for bit (ConVIRT, appendix A)."""

CONFIG = "config.json"
"""The configuration, in the folder of a run and in each of its checkpoints."""
