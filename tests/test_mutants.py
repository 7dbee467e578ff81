"""The list of seeded faults fits the sources of today."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "mutants"))
from catalogue import problems, read_faults


def test_every_fault_applies_exactly_once_and_leaves_python():
    assert problems(read_faults()) == []


def test_there_are_enough_faults_in_each_part():
    faults = read_faults()
    assert len(faults) >= 30
    parts = {fault.file.split("/")[0] for fault in faults}
    assert {"objectives", "methods", "evaluation", "data", "encoders", "training", "transforms.py"} <= parts
