"""Labelled benchmarks: tables with named splits, for `classify` and `retrieve` (ConVIRT, appendices B to D).

`building` makes a benchmark folder of the rows that a reader (`rsna`, `chexpert`, ...) found; `folder` writes and
opens it.
"""
