"""The paper's counts, from the real tables: CheXpert and RSNA as torchxrayvision ships them, COVIDx, the 8x200 lists.

Their images are not there, so benchmarks are built from the tables alone. What no package ships is generated in the
released form: CheXpert's valid.csv, the labels and the NIH mapping of RSNA's test images, MURA's tables.
"""

import importlib.util
import json
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import benchmark_trees as trees
from convirt.data.benchmarks.chexpert import benchmark_chexpert, benchmark_chexpert8x200, read_lists
from convirt.data.benchmarks.covidx4 import benchmark_covidx4
from convirt.data.benchmarks.folder import open_benchmark
from convirt.data.benchmarks.mura import benchmark_mura
from convirt.data.benchmarks.retrieval_set import exclusive_positives, make_retrieval_set
from convirt.data.benchmarks.rsna import benchmark_rsna

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
TABLES = importlib.util.find_spec("torchxrayvision")  # found, not imported: it brings torch, and downloads

needs_tables = pytest.mark.skipif(TABLES is None, reason="torchxrayvision, which ships the tables, is not installed")


def needs(folder):
    return pytest.mark.skipif(not (SHARED / folder).is_dir(), reason=f"there is no {SHARED / folder}")


def shipped(name):
    assert TABLES is not None
    assert TABLES.submodule_search_locations is not None
    return Path(TABLES.submodule_search_locations[0]) / "data" / name


def sizes(benchmark):
    return tuple(benchmark.counts[part]["images"] for part in ("train", "val", "test"))


def table_of(folder):
    return pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)


def crossing(table):
    return int((table.groupby("patient")["split"].nunique() > 1).sum())


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory):
    """CheXpert's train.csv, and a generated valid.csv of 234 images."""
    root = tmp_path_factory.mktemp("chexpert")
    shutil.copy(shipped("chexpert_train.csv.gz"), root / "train.csv.gz")
    rng = random.Random(0)
    rows = []
    for i in range(234):
        positive = tuple(name for name in trees.LABELS if rng.random() < 0.3)
        path = f"CheXpert-v1.0-small/valid/patient{64541 + i // 2}/study1/view{i % 2 + 1}_frontal.jpg"
        rows.append([cell or "0.0" for cell in trees.chexpert_row(path, positive)])
    trees.write_csv(root / "valid.csv", rows, (*trees.COLUMNS, *trees.LABELS))
    return root


@pytest.fixture(scope="module")
def chexpert_paper(chexpert, tmp_path_factory):
    out = tmp_path_factory.mktemp("paper") / "b"
    benchmark_chexpert(chexpert, out, images=False)
    return out


@needs_tables
def test_chexpert_has_the_papers_counts(chexpert_paper):
    benchmark = open_benchmark(chexpert_paper)
    assert sizes(benchmark) == (218414, 5000, 234)
    table = table_of(chexpert_paper)
    assert crossing(table) > 1000
    assert table["view"].value_counts().to_dict()["lateral"] == 32387
    positive = (table[table["split"] != "test"][["Edema", "Consolidation"]] == "1").sum(axis=0)
    assert positive.tolist() == [52246 + 12984, 14783]  # uncertain edema counts as present, consolidation does not
    train = table[table["split"] == "train"]
    for seed in range(5):
        small, large = benchmark.subsets[0.01, seed], benchmark.subsets[0.1, seed]
        assert set(small) < set(large)
        assert (len(small), len(large)) == (pytest.approx(2184, abs=4), pytest.approx(21841, abs=4))
        for label in benchmark.labels:
            shares = [(train[label].to_numpy()[rows] == "1").mean() for rows in (small, large, slice(None))]
            assert shares[1] == pytest.approx(shares[2], rel=0.06)
            assert shares[0] == pytest.approx(shares[2], rel=0.25)


@needs_tables
def test_chexpert_by_patient_has_the_same_sizes(chexpert, tmp_path):
    benchmark = benchmark_chexpert(chexpert, tmp_path / "b", split="patient", images=False)
    assert sizes(benchmark) == (218414, 5000, 234)
    assert crossing(table_of(tmp_path / "b")) == 0


@needs_tables
@needs("chexpert8x200")
def test_no_8x200_holds_none_of_the_lists(chexpert, chexpert_paper, tmp_path):
    lists = read_lists(SHARED / "chexpert8x200")
    assert len(lists.images) == len(set(lists.images)) == 1680
    benchmark = benchmark_chexpert(
        chexpert, tmp_path / "i", split="no-8x200", lists=SHARED / "chexpert8x200", images=False
    )
    table = table_of(tmp_path / "i").set_index("image")["split"]
    assert not set(lists.images) & set(table.index)
    assert sum(sizes(benchmark)) == 223414 - 1680 + 234
    assert any(note.startswith("1680 images are taken out") for note in benchmark.notes)
    assert table.equals(table_of(chexpert_paper).set_index("image")["split"][table.index])
    options = {"split": "no-8x200-patient", "lists": SHARED / "chexpert8x200", "images": False}
    by_patient = benchmark_chexpert(chexpert, tmp_path / "p", **options)
    table = table_of(tmp_path / "p")
    assert not set(table["patient"]) & {name.split("/")[1] for name in lists.images}
    assert sum(sizes(by_patient)) == 223414 - 10445 + 234
    assert crossing(table) == 0


@needs_tables
@needs("chexpert8x200")
def test_every_listed_image_is_in_chexpert_and_positive_in_one_label(chexpert, tmp_path):
    lists = SHARED / "chexpert8x200"
    benchmark = benchmark_chexpert8x200(chexpert, tmp_path / "b", lists=lists, images=False)
    table = table_of(tmp_path / "b")
    counts = table.groupby(["role", "label"]).size()
    assert counts["candidate"].tolist() == [200] * 8
    assert counts["query"].tolist() == [10] * 8
    train = pd.read_csv(chexpert / "train.csv.gz", dtype=str, keep_default_na=False)
    train["image"] = train["Path"].str.partition("/")[2]
    rows = train.set_index("image").loc[table["image"], list(trees.LABELS)]
    assert len(rows) == 1680
    assert ((rows == "1.0").sum(axis=1) == 1).all()
    assert (rows == "1.0").idxmax(axis=1).tolist() == table["label"].tolist()
    queries = pd.read_csv(tmp_path / "b" / "queries.csv")
    assert queries["label"].value_counts().tolist() == [5] * 8
    assert queries["text"].str.contains("abormalities").sum() == 1  # misspellings stay
    assert benchmark.protocol.ks == (5, 10, 50, 100)
    assert any(note.startswith("6 patients have both") for note in benchmark.notes)


@needs_tables
@needs("chexpert8x200")
def test_the_papers_lists_could_have_been_drawn_by_our_rule(chexpert, tmp_path):
    """Every listed image is among our exclusive positives of frontal views, and a set of the same size can be drawn."""
    frame = pd.read_csv(chexpert / "train.csv.gz", dtype=str, keep_default_na=False)
    frame["patient"] = frame["Path"].str.split("/").str[2]
    frame.to_csv(tmp_path / "train.csv", index=False)
    columns = {"image_column": "Path", "patient_column": "patient", "where": ("Frontal/Lateral=Frontal",)}
    pool = exclusive_positives(tmp_path / "train.csv", trees.LABELS, **columns).set_index("image")["label"]
    lists = read_lists(SHARED / "chexpert8x200")
    listed = {f"CheXpert-v1.0-small/{name}" for name in lists.images}
    assert listed <= set(pool.index)
    counts = pool.value_counts()
    assert counts["Pneumonia"] == counts[sorted(set(lists.categories))].min() == 296
    drawn = {}
    for exclude in ("image", "patient"):
        options = {**columns, "categories": sorted(set(lists.categories)), "exclude": exclude, "images": False}
        make_retrieval_set(tmp_path, tmp_path / "train.csv", tmp_path / exclude, trees.LABELS, **options)
        drawn[exclude] = table_of(tmp_path / exclude)
        assert drawn[exclude].groupby(["role", "label"]).size().tolist() == [200] * 8 + [10] * 8
        assert drawn[exclude]["image"].is_unique
    roles = drawn["patient"].groupby("role")["patient"].agg(set)
    assert not roles["query"] & roles["candidate"]


@pytest.fixture(scope="module")
def rsna(tmp_path_factory):
    """The 26,684 labelled images; generated: labels of 3,000 test images, and NIH patients of all."""
    root = tmp_path_factory.mktemp("rsna")
    with zipfile.ZipFile(shipped("kaggle_stage_2_train_labels.csv.zip")) as archive:
        (root / "stage_2_train_labels.csv").write_bytes(archive.read("stage_2_train_labels.csv"))
    test = [(f"test-{i:04d}", "", "", "", "", int(i % 4 == 0)) for i in range(3000)]
    trees.write_csv(root / "stage_2_test_labels.csv", test, ("patientId", "x", "y", "width", "height", "Target"))
    names = [row[0] for row in test]
    names += list(dict.fromkeys(pd.read_csv(root / "stage_2_train_labels.csv", dtype=str)["patientId"]))
    nih = pd.read_csv(shipped("Data_Entry_2017_v2020.csv.gz"), usecols=["Image Index"])["Image Index"].tolist()
    chosen = random.Random(0).sample(nih, len(names))
    entries = [{"subset_img_id": name, "img_id": image} for name, image in zip(names, chosen, strict=True)]
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(entries))
    return root


@needs_tables
def test_rsna_has_the_papers_counts(rsna, tmp_path):
    paper = benchmark_rsna(rsna, tmp_path / "paper", images=False)
    assert sizes(paper) == (25184, 1500, 3000)
    table = table_of(tmp_path / "paper")
    assert table["image"].is_unique
    assert (table.loc[table["split"] != "test", "pneumonia"] == "1").sum() == 6012
    assert crossing(table) > 100
    assert sizes(benchmark_rsna(rsna, tmp_path / "patient", split="patient", images=False)) == (25184, 1500, 3000)
    assert crossing(table_of(tmp_path / "patient")) == 0
    for split in ("held-out", "held-out-patient"):
        (tmp_path / split).mkdir()
        assert sizes(benchmark_rsna(rsna, tmp_path / split, split=split, images=False)) == (22184, 1500, 3000)
    assert crossing(table_of(tmp_path / "held-out-patient")) == 0


@needs("covidx4")
def test_covidx_has_the_papers_counts(tmp_path):
    root = SHARED / "covidx4"
    paper = benchmark_covidx4(root, tmp_path / "paper", images=False)
    assert sizes(paper) == (13598, 300, 300)
    table = table_of(tmp_path / "paper")
    assert table.groupby("label")["split"].value_counts()["COVID-19"]["test"] == 100
    assert ((table["split"] == "test") & (table["source"] == "")).sum() == 197
    assert table.loc[table["image"].duplicated(keep=False), "split"].nunique() == 1
    assert "normal: rsna 7966;" in paper.notes[0]
    patient = benchmark_covidx4(root, tmp_path / "patient", split="patient", images=False)
    assert sizes(patient) == (13597, 300, 300)  # the file that stands twice is kept once
    assert crossing(table_of(tmp_path / "patient")) == 0


@pytest.fixture(scope="module")
def mura(tmp_path_factory):
    """MURA's four tables with the released numbers of images; their patients and studies are drawn."""
    root = tmp_path_factory.mktemp("MURA-v1.1")
    rng = np.random.default_rng(0)
    for part, images, first in (("train", 36808, 1), ("valid", 3197, 11185)):
        paths, studies, patient = [], [], first
        while len(paths) < images:
            for s in range(1, 1 + int(rng.integers(1, 4))):
                label = int(rng.random() < 0.4)
                sign = "positive" if label else "negative"
                study = f"MURA-v1.1/{part}/XR_WRIST/patient{patient:05d}/study{s}_{sign}/"
                views = min(int(rng.integers(1, 5)), images - len(paths))
                if not views:
                    break
                studies.append((study, label))
                paths += [[f"{study}image{n + 1}.png"] for n in range(views)]
            patient += 1
        trees.write_csv(root / f"{part}_image_paths.csv", paths)
        trees.write_csv(root / f"{part}_labeled_studies.csv", studies)
    return root


def test_mura_has_the_papers_counts(mura, tmp_path):
    for split in ("paper", "patient"):
        benchmark = benchmark_mura(mura, tmp_path / split, split=split, images=False)
        assert sizes(benchmark) == (33078, 3730, 3197)
        assert (crossing(table_of(tmp_path / split)) > 0) == (split == "paper")
        assert benchmark.unit == "patient"
    test = table_of(tmp_path / "paper").query("split == 'test'")
    assert benchmark.counts["test"]["units scored"] == test["patient"].nunique()
