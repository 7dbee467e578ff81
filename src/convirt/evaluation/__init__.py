"""Evaluation of pretrained encoders: classification, zero-shot classification, and retrieval.

A verb (`classify`, `finetune`, `zero_shot`, `retrieve`) goes one way:

1. `inputs.options`: the table and its columns, as options; `Call.begin` (`results`) refuses what it can.
2. `inputs.table`, `inputs.units`: the rows, and which images are one row or are scored as one.
3. `inputs.images`: encoders, and the features of each image.
4. `linear` or `finetuning` train classifiers by a `protocol`; `ranking` and `prompts` need no training.
5. `scoring`, `calibration` and `metadata` make figures of their predictions, which `findings` collects; `rows` builds
   every row of figures, with `statistics.bootstrap` and `statistics.metrics`.
6. `results` writes `metrics.json` and `predictions.npz`; `printing` prints the tables.
"""
