"""Phantom chest radiographs with reports: a deterministic, embedded archive to learn on when there is no other.

Nothing here comes from a patient. A study is drawn from a seed: a body, its pose and exposure, up to two of the eight
categories of CheXpert 8x200 (ConVIRT, appendix C) with side and severity, one to three images, and a report in varied
wording. The generator was frozen before any model was tuned on it: tests/test_phantom.py holds its hash.
"""

from convirt.data.phantom.radiograph import render
from convirt.data.phantom.study import CATEGORIES, Finding, Study, draw_study

__all__ = ["CATEGORIES", "Finding", "Study", "draw_study", "render"]
