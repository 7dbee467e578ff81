"""Mutated tables and archives of MIMIC-CXR and CheXpert Plus: each ends in a plan or in one line, inside the root."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import trees
from convirt.data.imaging.pixels import Unreadable
from convirt.data.preparing.audit import Audit
from convirt.data.preparing.options import Options
from convirt.data.preparing.pairs import PairPlan
from convirt.data.sources import chexpert_plus, mimic_cxr
from convirt.data.sources.mimic_cxr import official_splits
from convirt.data.sources.studies import Texts, read_study
from convirt.errors import InputError
from hostile_files import MUTATIONS

Plan = Callable[[Path, Audit], tuple[list[PairPlan], Texts]]


def plan_mimic(root: Path, audit: Audit) -> tuple[list[PairPlan], Texts]:
    texts = mimic_cxr.find_reports(root, None)
    table = mimic_cxr.image_table(root)
    plans, _ = mimic_cxr.plan_mimic_cxr(root, table, texts, audit, splits=official_splits(root))
    return plans, texts


def plan_chexpert(root: Path, audit: Audit) -> tuple[list[PairPlan], Texts]:
    table = chexpert_plus.report_table(root, None, (), ())
    plans, _ = chexpert_plus.plan_chexpert_plus(root, table, audit)
    return plans, chexpert_plus.TableReports.of(table)


@pytest.mark.parametrize(
    ("make", "plan", "name"),
    [
        (trees.make_mimic_cxr, plan_mimic, "mimic-cxr-2.0.0-metadata.csv.gz"),
        (trees.make_mimic_cxr, plan_mimic, "mimic-cxr-2.0.0-split.csv"),
        (trees.make_mimic_cxr, plan_mimic, "mimic-cxr-2.0.0-metadata.csv"),
        (trees.make_mimic_cxr, plan_mimic, "mimic-cxr-reports.zip"),
        (trees.make_chexpert_plus, plan_chexpert, "df_chexpert_plus_240401.csv"),
    ],
)
def test_mutated_files(tmp_path: Path, make: Callable[[Path, int], object], plan: Plan, name: str) -> None:
    root = tmp_path / "tree"
    make(root, 8)
    if not (root / name).exists():  # unpacked tables are preferred to packed ones
        other = tmp_path / "other"
        trees.make_mimic_cxr(other, 8, packed=False, write=None)
        shutil.copy(other / name, root / name)
    good = (root / name).read_bytes()
    ends: Counter[str] = Counter()
    for number in range(80):
        rng = np.random.default_rng([number, 22])
        (root / name).write_bytes(MUTATIONS[number % len(MUTATIONS)](good, rng))
        audit = Audit(table=name, total=0)
        try:
            plans, texts = plan(root, audit)
        except InputError as error:
            ends["refused"] += 1
            ends["lines"] += 1 + str(error).count("\n")
            continue
        ends["planned"] += 1
        rows = [row for planned in plans for row in planned.rows]
        assert len({row.number for row in rows}) + audit.counts()["dropped"] == audit.total
        assert all((root / row.source).resolve().is_relative_to(root) for row in rows)
        for planned in plans:
            try:
                read_study(root, texts, Options(), replace(planned, rows=()))
            except Unreadable as error:
                ends[error.reason] += 1
    assert ends["planned"] or name.endswith(".gz")
    assert ends["lines"] == ends["refused"] > 0
