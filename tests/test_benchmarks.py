"""Benchmark folders: what is read of each data set, how it is split, and one line for what cannot be."""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import benchmark_trees as trees
from convirt.data.benchmarks.chexpert import benchmark_chexpert, benchmark_chexpert8x200, uncertain_policies
from convirt.data.benchmarks.covidx4 import benchmark_covidx4
from convirt.data.benchmarks.files import leading_out
from convirt.data.benchmarks.folder import open_benchmark
from convirt.data.benchmarks.mura import benchmark_mura
from convirt.data.benchmarks.retrieval_set import make_retrieval_set
from convirt.data.benchmarks.rsna import benchmark_rsna
from convirt.data.benchmarks.splits import Asked, Sizes, SplitRule, crossing_patients, draw_groups, split_rows
from convirt.data.benchmarks.table import benchmark_table
from convirt.errors import InputError


def table_of(folder):
    return pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)


def parts_of_patients(table):
    return table.groupby("patient")["split"].nunique()


def refused(message, call, *arguments, **options):
    with pytest.raises(InputError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_groups_are_drawn_whole_exactly_and_whatever_their_order():
    groups = [f"p{i % 700}" for i in range(1000)]  # 300 patients of two images, 400 of one
    for seed in range(5):
        drawn = draw_groups(groups, 137, seed=seed, purpose="val")
        assert drawn.sum() == 137
        chosen = {group for group, taken in zip(groups, drawn, strict=True) if taken}
        assert drawn.tolist() == [group in chosen for group in groups]
        backwards = draw_groups(groups[::-1], 137, seed=seed, purpose="val")
        assert backwards[::-1].tolist() == drawn.tolist()
    both = [draw_groups(groups, 500, seed=0, purpose=purpose) for purpose in ("val", "test")]
    assert 100 < (both[0] & both[1]).sum() < 400


def test_a_rule_keeps_parts_apart():
    rng = np.random.default_rng(0)
    patients = [f"p{i}" for i in rng.integers(0, 300, 1000)]
    images = [f"{i}.png" for i in range(1000)]
    released = ["test" if i % 5 == 0 else "train" for i in range(1000)]
    sizes = Sizes(train=700, val=100, test=200)
    for rule, crossing in (
        (SplitRule(group="image", sizes=sizes, exact=True), True),
        (SplitRule(group="patient", sizes=sizes, test="pooled"), False),
        (SplitRule(group="patient", sizes=sizes, test="drawn"), False),
        (SplitRule(group="patient", sizes=sizes), False),
    ):
        parts = split_rows(images, patients, released, rule, Asked(seed=3))
        assert (crossing_patients(patients, parts) > 0) == crossing
        assert set(parts) >= {"train", "val", "test"}
        if rule.exact or rule.test == "pooled":
            assert [(parts == part).sum() for part in ("train", "val", "test")] == [700, 100, 200]
    with pytest.raises(InputError, match="needs 800 training and 200 test images, the source has 799 and 200"):
        split_rows(
            images[:-1], patients[:-1], released[:-1], SplitRule(group="image", sizes=sizes, exact=True), Asked()
        )


def test_rsna_labels_images_not_rows(tmp_path):
    root = trees.rsna(tmp_path / "rsna")
    benchmark = benchmark_rsna(root, tmp_path / "b", split="images", val_images=8)
    table = table_of(tmp_path / "b")
    assert benchmark.kind == "binary"
    assert {part: count["images"] for part, count in benchmark.counts.items()} == {"train": 32, "val": 8, "test": 16}
    assert table["image"].is_unique
    assert (table["pneumonia"] == "1").sum() == 14 + 6
    assert set(table.loc[table["split"] == "test", "image"].str.split("/").str[0]) == {"stage_2_test_images"}
    assert parts_of_patients(table).max() > 1  # NIH patients, of whom image splits know nothing
    assert any("patients have images in more than one part" in note for note in benchmark.notes)
    benchmark_rsna(root, tmp_path / "p", split="patient", val_images=8, test_images=16)
    table = table_of(tmp_path / "p")
    assert parts_of_patients(table).max() == 1
    assert table["split"].value_counts().to_dict() == {"train": 32, "val": 8, "test": 16}
    assert {name.split("/")[0] for name in table["image"]} == {"stage_2_train_images", "stage_2_test_images"}
    assert set(table["patient"]) <= {f"{i:08d}" for i in range(40)}


def test_rsna_without_test_labels_or_mapping(tmp_path):
    root = trees.rsna(tmp_path / "rsna", test_labels=False, mapping=False)
    refused("labels of the stage 2 test images .*held-out", benchmark_rsna, root, tmp_path / "b")
    refused("needs NIH patients", benchmark_rsna, root, tmp_path / "b", split="patient")
    refused("needs NIH patients", benchmark_rsna, root, tmp_path / "b", split="held-out-patient")
    held_out = benchmark_rsna(root, tmp_path / "b", split="held-out", val_images=5, test_images=8)
    assert [held_out.counts[part]["images"] for part in ("train", "val", "test")] == [27, 5, 8]
    assert any("every image counts as a patient" in note for note in held_out.notes)
    assert set(table_of(tmp_path / "b")["image"].str.split("/").str[0]) == {"stage_2_train_images"}


def annotations(root, groups):
    """RSNA's annotations of the test images: boxes on images, the other classes on studies."""
    mapping = json.loads((root / "pneumonia-challenge-dataset-mappings_2018.json").read_text())
    rows = []
    for i, entry in enumerate(entry for entry in mapping if entry["subset_img_id"].endswith("test")):
        study = {"StudyInstanceUID": entry["StudyInstanceUID"]}
        if i % 3 == 0:
            rows += [{**study, "SOPInstanceUID": entry["SOPInstanceUID"], "labelId": "op"}] * 2
        else:
            rows += [{**study, "labelId": "n"}, {**study, "labelId": "reader"}]
    names = [{"id": "op", "name": "Lung Opacity"}, {"id": "n", "name": "Normal"}]
    content = {"labelGroups": [{"name": name, "labels": names} for name in groups], "datasets": [{"annotations": rows}]}
    (root / "pneumonia-challenge-annotations-adjudicated-kaggle_2018.json").write_text(json.dumps(content))


def test_rsna_test_labels_from_the_published_annotations(tmp_path):
    root = trees.rsna(tmp_path / "rsna")
    benchmark_rsna(root, tmp_path / "a", split="images")
    (root / "stage_2_test_labels.csv").unlink()
    annotations(root, ["Calculated"])
    benchmark_rsna(root, tmp_path / "b", split="images")
    first, second = (table_of(tmp_path / name).sort_values("image", ignore_index=True) for name in "ab")
    assert first.equals(second)
    annotations(root, ["Team 1"])
    refused("no annotation in the group `Calculated`", benchmark_rsna, root, tmp_path / "c", split="images")
    shutil.rmtree(root / "stage_2_test_images")
    refused("add stage_2_sample_submission", benchmark_rsna, root, tmp_path / "c", split="images", images=False)


def test_rsna_bad_tables(tmp_path):
    root = trees.rsna(tmp_path / "rsna")
    labels = root / "stage_2_train_labels.csv"
    good = labels.read_text()
    for text, message in (
        (good.replace(",1\n", ",0\n", 1), "has Target 0 in one row and 1 in another"),
        (good.replace(",1\n", ",2\n", 1), "Target is '2'"),
        (good.replace("Target", "target"), "no column 'Target'"),
        (good + "x,1\n", "does not fit the header"),
        ("", "is empty"),
    ):
        labels.write_text(text)
        refused(message, benchmark_rsna, root, tmp_path / "b", split="images")
    labels.write_text(good)
    mapping = root / "pneumonia-challenge-dataset-mappings_2018.json"
    entries = json.loads(mapping.read_text())
    for text, message in (
        ("[", "is no JSON"),
        ("{}", "every entry must have subset_img_id and img_id"),
        (json.dumps(entries[1:]), "1 images are not in the mapping"),
    ):
        mapping.write_text(text)
        refused(message, benchmark_rsna, root, tmp_path / "b", split="images")
    refused("there is no stage_2_train_labels.csv", benchmark_rsna, tmp_path, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_chexpert_uncertain_labels(tmp_path):
    root = trees.chexpert(tmp_path / "chexpert")
    found = {}
    for policy in ("ones", "zeros", "ignore", "per-class"):
        benchmark = benchmark_chexpert(root, tmp_path / policy, split="images", uncertain=(policy,))
        found[policy] = table_of(tmp_path / policy)["Consolidation"].value_counts().to_dict()
        assert any("Consolidation" in note for note in benchmark.notes)
    uncertain = found["ignore"][""]
    assert uncertain == 12 * 2 - 6  # every fifth patient, but not where the image is positive
    assert found["ones"]["1"] - found["zeros"]["1"] == uncertain == found["zeros"]["0"] - found["ignore"]["0"]
    assert found["per-class"] == found["zeros"]
    assert uncertain_policies(["per-class", "Edema=zeros"])["Edema"] == "zeros"
    assert uncertain_policies(["ignore,Pleural Effusion=ones"])["Pleural Effusion"] == "ones"
    refused("'maybe' is no policy", uncertain_policies, ["maybe"])
    refused("'Fracture' is no class", uncertain_policies, ["Fracture=ones"])
    table = table_of(tmp_path / "ones")
    assert list(table.columns[:3]) == ["image", "patient", "split"]
    assert table["image"].str.startswith(("train/", "valid/")).all()
    assert set(table.loc[table["split"] == "test", "image"].str[:5]) == {"valid"}


def test_chexpert_without_the_retrieval_lists(tmp_path):
    root = trees.chexpert(tmp_path / "chexpert")
    lists, rows = trees.lists_8x200(tmp_path / "lists", tmp_path / "unused")
    refused("need the lists", benchmark_chexpert, root, tmp_path / "b", split="no-8x200")
    call = (root, tmp_path / "b")
    refused("24 of 24 images", benchmark_chexpert, *call, split="no-8x200", lists=lists, images=False)
    train = pd.read_csv(root / "train.csv", dtype=str)
    sibling = [row[:] for row in rows]
    for row in sibling:
        row[0] = row[0].replace("study1", "study2")
    merged = pd.concat([train, pd.DataFrame([*rows, *sibling], columns=train.columns)])
    merged.drop_duplicates("Path", keep="last").to_csv(root / "train.csv", index=False)
    options = {"lists": lists, "images": False, "val_images": 20}
    benchmark_chexpert(root, tmp_path / "images", split="images", images=False, val_images=20)
    whole = table_of(tmp_path / "images").set_index("image")["split"]
    by_image = benchmark_chexpert(root, tmp_path / "i", split="no-8x200", **options)
    table = table_of(tmp_path / "i").set_index("image")["split"]
    listed = {row[0].partition("/")[2] for row in rows}
    assert set(whole.index) - set(table.index) == listed
    assert table.equals(whole[table.index])  # the others stay where they are
    assert any(note.startswith("24 images are taken out") for note in by_image.notes)
    by_patient = benchmark_chexpert(root, tmp_path / "p", split="no-8x200-patient", **options)
    table = table_of(tmp_path / "p")
    assert not set(table["patient"]) & {name.split("/")[1] for name in listed}
    assert parts_of_patients(table).max() == 1
    assert any(note.startswith("48 images are taken out") for note in by_patient.notes)


def test_covidx_keeps_the_repeated_file_in_one_part(tmp_path):
    root = trees.covidx4(tmp_path / "covid")
    for seed in range(4):
        benchmark = benchmark_covidx4(root, tmp_path / f"{seed}", split="images", val_images=12, seed=seed)
        table = table_of(tmp_path / f"{seed}")
        assert table["split"].value_counts().to_dict() == {"train": 49, "test": 15, "val": 12}
        assert table.loc[table["image"] == "train/1.png", "split"].nunique() == 1
    assert benchmark.protocol.select_on == "accuracy"
    assert benchmark.protocol.learning_rate == 1e-3
    assert benchmark.protocol.fractions == (0.1, 1.0)
    assert "class and source are confounded" in benchmark.notes[0]
    assert "normal: rsna 26" in benchmark.notes[0]
    assert "not said for 5" in benchmark.notes[0]
    by_patient = benchmark_covidx4(root, tmp_path / "p", split="patient", val_images=12)
    table = table_of(tmp_path / "p")
    assert table["image"].is_unique
    assert parts_of_patients(table).max() == 1
    assert any("its first row alone is kept" in note for note in by_patient.notes)


def test_covidx_bad_lines_are_named(tmp_path):
    root = trees.covidx4(tmp_path / "covid")
    for line in ("1 2.png", "1 2.png influenza", "1 2.png normal rsna more"):
        (root / "test_COVIDx4.txt").write_text(f"1 1.png normal\n{line}\n")
        refused("line 2: .* is not `patient file class", benchmark_covidx4, root, tmp_path / "b", split="images")
    (root / "test_COVIDx4.txt").write_text("1 ../../x.png normal\n")
    refused("lead out of", benchmark_covidx4, root, tmp_path / "b", split="images", images=False, val_images=5)


def test_mura_units(tmp_path):
    root = trees.mura(tmp_path / "MURA-v1.1")
    by_patient = benchmark_mura(root, tmp_path / "p", split="images")
    table = table_of(tmp_path / "p")
    test = table[table["split"] == "test"]
    assert (by_patient.unit, set(table["unit"] == table["patient"])) == ("patient", {True})
    assert by_patient.counts["test"]["units scored"] == test["patient"].nunique() == 10
    assert any(note.startswith("1 test patients have both") for note in by_patient.notes)
    by_study = benchmark_mura(root, tmp_path / "s", split="patient", unit="study")
    table = table_of(tmp_path / "s")
    assert by_study.counts["test"]["units scored"] == 15
    assert table.groupby("unit")["abnormal"].nunique().max() == 1  # a study has one label
    assert parts_of_patients(table).max() == 1
    assert set(table["bone"]) == {"elbow", "hand", "wrist"}
    assert benchmark_mura(root, tmp_path / "i", split="images", unit="image").unit is None


def test_mura_bad_tables(tmp_path):
    root = trees.mura(tmp_path / "MURA-v1.1", images=False)
    refused("118 of 118 images are missing .*--no-images", benchmark_mura, root, tmp_path / "b", split="images")
    studies, paths = root / "train_labeled_studies.csv", root / "train_image_paths.csv"
    good, good_paths = studies.read_text(), paths.read_text()
    for text, message in (
        ("\n".join(good.splitlines()[1:]), "is not in train_labeled_studies.csv"),
        (good.replace(",1", ",2", 1), "label '2' must be 0 or 1"),
        (good.replace(",1", "", 1), "has not 2 values"),
    ):
        studies.write_text(text)
        refused(message, benchmark_mura, root, tmp_path / "b", split="images", images=False)
    studies.write_text(good)
    paths.write_text(good_paths + good_paths.splitlines()[0] + "\n")
    refused("stands in several rows", benchmark_mura, root, tmp_path / "b", split="images", images=False)
    paths.write_text("MURA-v1.1/train/image1.png\n")
    refused("is not PART/XR_BONE", benchmark_mura, root, tmp_path / "b", split="images", images=False)


def test_8x200_lists_are_held_against_train_csv(tmp_path):
    root = tmp_path / "chexpert"
    lists, rows = trees.lists_8x200(tmp_path / "lists", root)
    trees.write_csv(root / "train.csv", rows, (*trees.COLUMNS, *trees.LABELS))
    benchmark = benchmark_chexpert8x200(root, tmp_path / "b", lists=lists)
    table = table_of(tmp_path / "b")
    assert table.groupby(["role", "label"]).size().to_dict() == {
        (role, label): count for role, count in (("candidate", 6), ("query", 2)) for label in trees.CATEGORIES
    }
    assert benchmark.queries is not None
    assert pd.read_csv(benchmark.queries)["label"].value_counts().tolist() == [5, 5, 5]
    edema = trees.LABELS.index("Edema") + 5
    for cell, message in (("1.0", "not positive in Fracture alone"), ("-1.0", "not positive in Fracture alone")):
        changed = [row[:] for row in rows]
        changed[10][edema] = cell
        trees.write_csv(root / "train.csv", changed, (*trees.COLUMNS, *trees.LABELS))
        refused(message, benchmark_chexpert8x200, root, tmp_path / "c", lists=lists)
    trees.write_csv(root / "train.csv", rows[1:], (*trees.COLUMNS, *trees.LABELS))
    refused("1 listed images are not in train.csv", benchmark_chexpert8x200, root, tmp_path / "c", lists=lists)
    query = lists / "text-retrieval" / "query.csv"
    query.write_text(query.read_text().replace("Edema", "Mass"))
    refused("category 'Mass' has no candidate", benchmark_chexpert8x200, root, tmp_path / "c", lists=lists)


def write_table(folder, rows=60):
    folder.mkdir(exist_ok=True)
    frame = pd.DataFrame(
        {
            "file": [f"{i}.png" for i in range(rows)],
            "case": [f"c{i // 2}" for i in range(rows)],
            "finding": [("a", "b", "")[i % 3] for i in range(rows)],
            "x": [str(i % 2) for i in range(rows)],
            "part": [("train", "dev", "test")[(i // 2) % 3] for i in range(rows)],
        }
    )
    for i in range(rows):
        trees.write_image(folder / f"{i}.png", i % 3, i)
    frame.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def test_any_table_by_its_own_split_or_a_drawn_one(tmp_path):
    table = write_table(tmp_path / "a")
    options = {"image_column": "file", "patient_column": "case"}
    own = benchmark_table(
        tmp_path / "a", table, tmp_path / "own", label_column="finding", split_column="part", **options
    )
    assert (own.name, own.kind, own.split) == ("table", "single-label", "official")
    assert sum(count["images"] for count in own.counts.values()) == 40  # rows without a class are left out
    drawn = benchmark_table(tmp_path / "a", table, tmp_path / "drawn", label_columns=("x",), **options)
    assert (drawn.kind, drawn.split) == ("binary", "patient")
    assert [drawn.counts[part]["images"] for part in ("train", "val", "test")] == [48, 6, 6]
    assert parts_of_patients(table_of(tmp_path / "drawn")).max() == 1
    for extra, message in (
        ({}, "name either one label column"),
        ({"label_column": "finding", "split": "official"}, "name its column"),
        ({"label_columns": ("finding",)}, "holds 'a'; use 1, 0 or nothing"),
        ({"label_columns": ("split",)}, "no column 'split'"),
        ({"label_columns": ("x", "x")}, "'x' is named twice"),
        ({"label_column": "part", "split_column": "finding"}, "is not known"),
        ({"label_column": "finding", "val_images": 60}, "cannot draw 60 val images"),
    ):
        refused(message, benchmark_table, tmp_path / "a", table, tmp_path / "b", **options, **extra)


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(tmp_path):
    root = trees.mura(tmp_path / "MURA-v1.1", images=False)
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        benchmark_mura(root, tmp_path / name, split="images", images=False, seed=seed)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert contents[0]["lists/val.txt"] != contents[2]["lists/val.txt"]
    assert contents[0]["lists/test.txt"] == contents[2]["lists/test.txt"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_lists_are_saved_with_the_hash_that_stands_beside_scores(tmp_path):
    root = trees.mura(tmp_path / "MURA-v1.1", images=False)
    benchmark = benchmark_mura(root, tmp_path / "b", split="images", images=False)
    table = table_of(tmp_path / "b")
    for part, digest in benchmark.lists.items():
        content = (tmp_path / "b" / "lists" / f"{part}.txt").read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert content.decode().splitlines() == table.loc[table["split"] == part, "image"].tolist()


def test_saved_fractions_are_nested_and_stratified(tmp_path):
    root = trees.mura(tmp_path / "MURA-v1.1", train=300, images=False)
    benchmark = benchmark_mura(root, tmp_path / "b", split="images", images=False)
    train = table_of(tmp_path / "b").query("split == 'train'")
    share = (train["abnormal"] == "1").mean()
    assert set(benchmark.subsets) == {(fraction, seed) for fraction in (0.01, 0.1) for seed in range(5)}
    for seed in range(5):
        small, large = benchmark.subsets[0.01, seed], benchmark.subsets[0.1, seed]
        assert set(small) < set(large)
        assert len(large) == pytest.approx(0.1 * len(train), abs=1)
        assert (train["abnormal"].to_numpy()[large] == "1").mean() == pytest.approx(share, abs=0.02)
    assert benchmark.subsets[0.1, 0].tolist() != benchmark.subsets[0.1, 1].tolist()


def test_a_changed_or_damaged_benchmark_is_refused(tmp_path):
    root = trees.mura(tmp_path / "MURA-v1.1", images=False)
    built = tmp_path / "b"
    benchmark_mura(root, built, split="images", images=False)
    refused("exists already", benchmark_mura, root, built, split="images", images=False)
    refused("is no benchmark", open_benchmark, root)
    about = json.loads((built / "benchmark.json").read_text())
    for name in ("table.csv", "fractions.json", "lists/val.txt"):
        good = (built / name).read_bytes()
        (built / name).write_bytes(good.replace(b"1", b"2", 1))
        refused(f"{name} was changed since", open_benchmark, built)
        (built / name).write_bytes(good)
    for changes, message in (
        ({"format": 9}, "has benchmark format 9"),
        ({"files": {"../MURA-v1.1/train_image_paths.csv": "0"}}, "names a file outside"),
        ({"files": {"none.csv": "0"}}, "damaged benchmark"),
        ({"protocol": {"speed": 1}}, "damaged benchmark"),
        ({"split": None}, "damaged benchmark"),
    ):
        (built / "benchmark.json").write_text(json.dumps({**about, **changes}))
        refused(message, open_benchmark, built)
    (built / "benchmark.json").write_text("{")
    refused("is damaged", open_benchmark, built)


def test_images_that_are_missing_or_lead_out_are_counted(tmp_path):
    root = trees.mura(tmp_path / "MURA-v1.1")
    first = (root / "train_image_paths.csv").read_text().splitlines()[0].partition("/")[2]
    (root / first).unlink()
    refused("1 of 118 images are missing", benchmark_mura, root, tmp_path / "b", split="images")
    outside = tmp_path / "outside.png"
    trees.write_image(outside, 0, 0)
    (root / first).symlink_to(outside)
    refused("1 of 118 images lead out of", benchmark_mura, root, tmp_path / "b", split="images", images=False)
    (root / first).unlink()
    folder = (root / first).parent
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    folder.symlink_to(moved)
    refused("images lead out of", benchmark_mura, root, tmp_path / "b", split="images", images=False)
    (root / "valid_labeled_studies.csv").rename(tmp_path / "valid.csv")
    (root / "valid_labeled_studies.csv").symlink_to(tmp_path / "valid.csv")
    refused("there is no valid_labeled_studies.csv", benchmark_mura, root, tmp_path / "b", split="images")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    root = trees.mura(tmp_path / "MURA-v1.1", images=False)

    def full(_):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused("no space left", benchmark_mura, root, tmp_path / "b", split="images", images=False)
    assert [path.name for path in tmp_path.iterdir()] == ["MURA-v1.1"]


def retrieval_table(folder, patients=80):
    """Images of four labels: exclusive ones, some with two labels, some uncertain; two images a patient."""
    rows = []
    for i in range(2 * patients):
        labels = {"a": "0", "b": "", "c": "0", "d": "0"}
        labels["abc"[i % 3]] = "1"
        if i % 10 == 9:
            labels["d"] = "1" if i % 20 == 9 else "-1"
        rows.append({"image": f"{i}.png", "patient": f"p{i // 2}", **labels})
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def test_a_retrieval_set_is_drawn_as_the_paper_drew_its_own(tmp_path):
    table = retrieval_table(tmp_path / "r")
    options = {"categories": ("a,b", "c"), "candidates": 20, "preselected": 10, "queries": 4, "images": False}
    arguments = (tmp_path / "r", table)
    first = make_retrieval_set(*arguments, tmp_path / "s", ("a", "b", "c,d"), patient_column="patient", **options)
    drawn = table_of(tmp_path / "s")
    source = pd.read_csv(table, dtype=str, keep_default_na=False).set_index("image")
    assert drawn.groupby(["role", "label"]).size().unique().tolist() == [20, 4]
    for row in drawn.itertuples():
        labels = source.loc[row.image, list("abcd")]
        assert labels[row.label] == "1"
        assert set(labels.drop(row.label)) <= {"0", ""}  # neither positive nor uncertain
    assert drawn["image"].is_unique
    assert any("no expert" in note for note in first.notes)
    preselected = pd.read_csv(tmp_path / "s" / "preselected.csv", dtype=str, keep_default_na=False)
    candidates = set(drawn.loc[drawn["role"] == "candidate", "image"])
    assert preselected.groupby("label").size().tolist() == [10, 10, 10]
    assert not set(preselected["image"]) & candidates
    options["exclude"] = "patient"
    make_retrieval_set(
        *arguments, tmp_path / "t", ("a", "b", "c", "d"), patient_column="patient", **options | {"candidates": 10}
    )
    roles = table_of(tmp_path / "t").groupby("role")["patient"].agg(set)
    assert not roles["query"] & roles["candidate"]


def test_a_retrieval_set_of_a_column_of_classes(tmp_path):
    rows = [(f"{i}.png", f"p{i // 2}", ("mass", "cyst", "")[i % 3]) for i in range(120)]
    table = trees.write_csv(tmp_path / "classes.csv", rows, ("image", "patient", "finding"))
    options = {"patient_column": "patient", "candidates": 20, "preselected": 10, "queries": 4, "images": False}
    make_retrieval_set(tmp_path, table, tmp_path / "s", label_column="finding", **options)
    drawn = table_of(tmp_path / "s")
    assert drawn.groupby(["label", "role"]).size().to_dict() == {
        (label, role): count for label in ("cyst", "mass") for role, count in (("candidate", 20), ("query", 4))
    }
    given = dict(zip((row[0] for row in rows), (row[2] for row in rows), strict=True))
    assert all(given[row.image] == row.label for row in drawn.itertuples())
    refused("either one label column", make_retrieval_set, tmp_path, table, tmp_path / "t", **options)


def test_a_relative_root_holds_from_every_folder(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    rows = [(f"{i}.png", f"p{i}", "ab"[i % 2]) for i in range(40)]
    table = trees.write_csv(tmp_path / "in" / "t.csv", rows, ("image", "patient", "finding"))
    monkeypatch.chdir(tmp_path)
    call = {"label_column": "finding", "patient_column": "patient", "images": False}
    benchmark = benchmark_table(Path("in"), table, tmp_path / "b", **call)
    assert benchmark.root == tmp_path / "in"


def test_an_experts_choice_and_text_queries(tmp_path):
    table = retrieval_table(tmp_path / "r")
    labels = ("a", "b", "c", "d")
    options = {"categories": labels[:3], "candidates": 20, "preselected": 10, "queries": 4, "images": False}
    make_retrieval_set(tmp_path / "r", table, tmp_path / "s", labels, patient_column="patient", **options)
    chosen = tmp_path / "chosen.csv"
    frame = pd.read_csv(tmp_path / "s" / "preselected.csv", dtype=str, keep_default_na=False)
    frame["keep"] = frame.groupby("label").cumcount().ge(6).map({True: "1", False: ""})
    frame.to_csv(chosen, index=False)
    texts = trees.write_csv(tmp_path / "q.csv", [("x of a sort", "a"), ("c and b", "b"), ("C", "c")], ("text", "label"))
    call = (tmp_path / "r", table, tmp_path / "t", labels)
    options["patient_column"] = "patient"
    kept = make_retrieval_set(*call, **options, chosen=chosen, texts=texts)
    drawn = table_of(tmp_path / "t")
    assert set(drawn.loc[drawn["role"] == "query", "image"]) == set(frame.loc[frame["keep"] == "1", "image"])
    assert not any("no expert" in note for note in kept.notes)
    assert any("'c and b' of b also names c" in note for note in kept.notes)
    shutil.rmtree(tmp_path / "t")
    frame.loc[frame["label"] == "a", "keep"] = ""
    frame.to_csv(chosen, index=False)
    refused("0 images of 'a' are kept, 4 are needed", make_retrieval_set, *call, **options, chosen=chosen)
    refused("not among the preselected", make_retrieval_set, *call, **options | {"seed": 1}, chosen=chosen)
    refused("images left for 200 candidates", make_retrieval_set, *call, **options | {"candidates": 200})
    refused("at least two label columns", make_retrieval_set, *call[:3], ("a",), patient_column="patient")
    refused("'e' is not among", make_retrieval_set, *call, **options | {"categories": ("e",)})
    refused("1 <= queries <= preselected", make_retrieval_set, *call, **options | {"queries": 11})
    trees.write_csv(texts, [("x", "e")], ("text", "label"))
    refused("'e' is no category", make_retrieval_set, *call, **options, texts=texts)
    assert not (tmp_path / "t").exists()


def test_hostile_files_give_one_line(tmp_path):
    covid, mura, rsna = (tmp_path / name for name in ("covid", "MURA-v1.1", "rsna"))
    trees.covidx4(covid)
    trees.mura(mura, images=False)
    trees.rsna(rsna)
    builds = {
        covid / "train_COVIDx4.txt": (benchmark_covidx4, covid),
        mura / "train_image_paths.csv": (benchmark_mura, mura),
        mura / "valid_labeled_studies.csv": (benchmark_mura, mura),
        rsna / "stage_2_train_labels.csv": (benchmark_rsna, rsna),
        rsna / "pneumonia-challenge-dataset-mappings_2018.json": (benchmark_rsna, rsna),
    }
    rng = np.random.default_rng(0)
    for path, (build, root) in builds.items():
        good = path.read_bytes()
        noise = rng.integers(0, 256, 500, dtype=np.uint8).tobytes()
        bad = [
            b"",
            b"\x00" * 90,
            noise,
            good[:-7] + b"\xff\xfe",
            b"[" * 100_000,
            good[: len(good) // 2] + b'"',
            b"\n\n",
        ]
        bad += [good.replace(b"train", b"../..", 1), good.replace(b"image", b"x" * 5000), b"a/" * 3000 + b"\n"]
        for content in bad:
            path.write_bytes(content)
            with contextlib.suppress(InputError):  # what is left may still be a whole, smaller data set
                build(root, tmp_path / "b", split="images", images=False)
                shutil.rmtree(tmp_path / "b")
            assert not (tmp_path / "b").exists()
        path.write_bytes(good)


def test_paths_that_no_file_system_takes_lead_out(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "inner").symlink_to("inside")
    (tmp_path / "outer").symlink_to("/etc")
    inside = ["inside/a.png", "./inside//a.png", "inner/a.png", "none/a.png", "loop/a.png", "x" * 5000]
    outside = ["", "/etc/passwd", "../a.png", "inside/../../a.png", "a\0b", "a/" * 2000 + "b", "outer/passwd", "outer"]
    assert leading_out([*inside, *outside], tmp_path) == outside


@pytest.mark.parametrize("spell", [lambda name: f"{name}.0", lambda name: f"0{name}"])
def test_spellings_of_one_patient_or_class_are_drawn_together(tmp_path, capsys, spell):
    plain = [str(100 + number // 2) for number in range(40)]
    mixed = [spell(name) if number % 2 == 0 else name for number, name in enumerate(plain)]
    classes = [("a", "b")[number // 2 % 2] for number in range(40)]
    made = {}
    for name, patients in {"plain": plain, "mixed": mixed}.items():
        labels = ["A", *classes[1:]] if name == "mixed" else classes
        frame = pd.DataFrame({"image": [f"{n}.png" for n in range(40)], "who": patients, "kind": labels})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        options = {"label_column": "kind", "patient_column": "who", "images": False}
        made[name] = benchmark_table(tmp_path, tmp_path / f"{name}.csv", tmp_path / name, **options)
    assert made["mixed"].table.read_bytes() == made["plain"].table.read_bytes()
    assert "20 patients have ids in several spellings; each is one patient" in made["mixed"].notes
    assert "'A' as 'a'" in capsys.readouterr().err
