"""Studies over many runs or checkpoints: interrupted, resumed, and spread over processes that share a folder."""
