"""`convirt reproduce`: the paper's figures, cells done once, tables in four forms, the order of the methods."""

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from convirt.data.benchmarks.retrieval_set import make_retrieval_set
from convirt.data.benchmarks.table import benchmark_table
from convirt.errors import InputError
from convirt.jobs import Held, Job, hold
from convirt.reproduce import small
from convirt.reproduce.estimates import Pace
from convirt.reproduce.filling import Figure, Filled
from convirt.reproduce.inputs import read_inputs
from convirt.reproduce.ordering import agreements, in_words
from convirt.reproduce.reproduce import reproduce
from convirt.reproduce.tables import PAPER_TASKS, paper_figure, paper_figures, paper_tables
from convirt.reproduce.writing import as_csv, as_html, latex, markdown

TABLES = paper_tables(tuple(PAPER_TASKS.values()))
CLASSES = ("edema", "fracture", "pneumonia")


# What the paper reports


def test_the_papers_figures_are_those_of_its_tables() -> None:
    """Read off tables 1 to 3 for a second time, one cell in each corner and some between."""
    read = {
        ("table1a", "random", "rsna", 0.01): 55.0,
        ("table1a", "convirt", "mura", 1.0): 87.6,
        ("table1a", "caption_lstm", "covidx4", 0.1): 84.5,
        ("table1a", "contrastive_binary", "chexpert", 0.1): 85.6,
        ("table1b", "random", "rsna", 0.01): 71.9,
        ("table1b", "convirt", "mura", 1.0): 89.0,
        ("table1b", "caption_transformer", "covidx4", 1.0): 92.3,
        ("table2", "convirt", "text-image", 50): 48.8,
        ("table2", "convirt_supervised", "image-image", 5): 56.8,
        ("table2", "contrastive_binary", "text-image", 5): 15.5,
        ("table3", "simclr", "chexpert", 0.01): 77.4,
        ("table3", "moco", "image-image", 10): 20.6,
    }
    for key, value in read.items():
        assert paper_figures()[key] == value, key
    assert len(paper_figures()) == 6 * 11 * 2 + (7 + 3) * 3 + 4 * 3


def test_what_the_sources_do_not_have_stays_empty() -> None:
    retrieval = {column.title: column for column in TABLES["table2"].columns}
    for method in ("imagenet", "caption_lstm", "convirt_supervised", "clip"):
        assert paper_figure(TABLES["table2"], method, retrieval["text-image P@10"]) is None
    assert not [key for key in paper_figures() if key[2] == "covidx4" and key[3] == 0.01]
    assert "COVIDx 1 %" not in [column.title for column in TABLES["table1a"].columns]


def test_every_figure_of_the_paper_has_its_cell() -> None:
    shown = {
        (table.name, method, column.paper, column.key)
        for table in TABLES.values()
        for method in table.methods
        for column in table.columns
        if paper_figure(table, method, column) is not None
    }
    assert shown == set(paper_figures())


# Order


def filled(**ours: float | None) -> Filled:
    """Table 3 with our figures of RSNA and no others, each with an interval of two points."""
    table = TABLES["table3"]
    figures = {}
    for method in table.methods:
        for column in table.columns:
            mean = ours.get(method) if column.task == "rsna" else None
            figures[method, column.title] = Figure(
                mean=mean,
                spread=None if mean is None else 0.5,
                low=None if mean is None else mean - 1,
                high=None if mean is None else mean + 1,
                paper=paper_figure(table, method, column),
            )
    return Filled(table=table, methods=table.methods, figures=figures)


def test_the_same_order_differs_nowhere() -> None:
    (found,) = agreements(filled(imagenet=50, simclr=60, moco=70, convirt=80))
    assert (found.rho, found.low, found.high) == (1, 1, 1)
    assert (found.methods, found.compared, found.differing) == (4, 6, ())


def test_a_pair_the_other_way_round_is_named_with_how_sure_it_is() -> None:
    (found,) = agreements(filled(imagenet=50, simclr=70, moco=60, convirt=80))
    assert found.rho == pytest.approx(1 - 6 * 2 / (4 * 15))  # two ranks are off by one
    assert found.differing == (
        "MoCo v2 86.6 above SimCLR 86.3 in the paper, here 60.0 and 70.0 (more than the intervals allow)",
    )
    (close,) = agreements(filled(imagenet=50, simclr=60.5, moco=60, convirt=80))
    assert "within the intervals" in close.differing[0]
    assert close.low <= close.rho < close.high  # the two change places in the draws
    (reverse,) = agreements(filled(imagenet=80, simclr=70, moco=60, convirt=50))
    assert reverse.rho == -1
    assert len(reverse.differing) == 6


def test_too_few_methods_are_not_ranked() -> None:
    assert agreements(filled(imagenet=50, convirt=80)) == []
    assert "too few" in in_words(filled(), [])[0]


def test_the_words_give_totals_and_each_difference() -> None:
    table = filled(imagenet=50, simclr=70, moco=60, convirt=80)
    lines = in_words(table, agreements(table))
    assert "1 of 6 comparisons differ" in lines[0]
    assert any(line.strip().startswith("- MoCo v2 86.6 above SimCLR") for line in lines)


# Forms


def test_each_form_has_ours_and_the_papers() -> None:
    table = filled(imagenet=50.04, convirt=80)
    text = markdown(table, "REDUCED: so", ["line"])
    assert "**REDUCED: so**" in text
    assert "| ConVIRT | 80.0 ± 0.5 (90.7) | - (85.9) | - (42.9) |" in text
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    (row,) = [row for row in rows if row["method"] == "imagenet" and row["column"] == "RSNA 1 %"]
    assert (row["mean"], row["ci_low"], row["paper"]) == ("50.04", "49.04", "82.8")
    tex = latex(table, "REDUCED: so")
    assert tex.startswith("% REDUCED")
    assert tex.count(r"\\") == 5
    assert r"80.0 $\pm$ 0.5 {\scriptsize\textcolor{gray}{90.7}}" in tex
    assert r"RSNA 1 \%" in tex
    page = as_html(table, "REDUCED: <so>", ["a < b"])
    assert "REDUCED: &lt;so&gt;" in page
    assert '80.0 ± 0.5 <span class="paper">90.7</span>' in page
    assert "http" not in page


def test_the_page_lists_what_differs_below_its_column() -> None:
    page = as_html(filled(convirt=80), None, ["Table: two", "- A: rho 1", "  - x < y", "  - z", "- B: rho 2"])
    below = "<p>Table: two</p>\n<ul><li>A: rho 1\n<ul><li>x &lt; y\n<li>z\n</ul><li>B: rho 2\n</ul>"
    assert below in page
    assert "in grey the paper" in page


# Cells


def cell(calls: list[str], value: dict[str, Any], **changes: Any) -> Job:
    def work(folder: Path) -> None:
        print("said")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(value))
        calls.append(json.dumps(value))
        if value.get("breaks"):
            raise KeyboardInterrupt

    return replace(Job(name="kind/one", work=work, inputs=lambda: value, seconds=1, log=True), **changes)


def test_a_cell_is_done_once_for_the_same_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    first = cell(calls, {"a": 1})
    assert not first.done(tmp_path)
    first.run(tmp_path)
    assert first.done(tmp_path)
    assert cell(calls, {"a": 1}).done(tmp_path)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "kind" / "one.log").read_text() == "said\n"
    other = cell(calls, {"a": 2})
    assert not other.done(tmp_path)
    (tmp_path / "kind/one/leftover").touch()
    other.run(tmp_path)
    assert not (tmp_path / "kind/one/leftover").exists()
    assert other.done(tmp_path)
    assert not first.done(tmp_path)


def test_a_broken_off_cell_is_not_done(tmp_path: Path) -> None:
    broken = cell([], {"breaks": True})
    with pytest.raises(KeyboardInterrupt):
        broken.run(tmp_path)
    assert not broken.done(tmp_path)


def test_a_result_that_was_removed_is_made_again(tmp_path: Path) -> None:
    calls: list[str] = []
    job = cell(calls, {"a": 1})
    job.run(tmp_path)
    shutil.rmtree(tmp_path / "kind" / "one")
    assert not job.done(tmp_path)
    job.run(tmp_path)
    assert len(calls) == 2


def test_half_a_result_of_other_inputs_is_never_taken_for_done(tmp_path: Path) -> None:
    calls: list[str] = []
    cell(calls, {"a": 1}).run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cell(calls, {"a": 2, "breaks": True}).run(tmp_path)
    assert not cell(calls, {"a": 1}).done(tmp_path)


def test_a_removal_that_was_cut_off_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = cell([], {"a": 1})
    job.run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            job.discard(tmp_path)
    (tmp_path / "kind/one/leftover").touch()
    assert not job.done(tmp_path)
    job.run(tmp_path)
    assert not (tmp_path / "kind/one/leftover").exists()


def test_the_work_may_hold_its_own_folder_and_a_second_process_is_refused(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        with hold(folder):
            folder.mkdir()
        with pytest.raises(Held):
            cell([], {}).run(tmp_path)

    cell([], {}, work=work).run(tmp_path)


def test_a_pretraining_of_other_settings_is_not_thrown_away(tmp_path: Path) -> None:
    cell([], {"a": 1}, keep=True).run(tmp_path)
    with pytest.raises(InputError, match="other settings or data"):
        cell([], {"a": 2}, keep=True).run(tmp_path)
    assert (tmp_path / "kind/one/metrics.json").exists()


def test_a_cell_whose_inputs_are_yet_to_be_made_is_not_done(tmp_path: Path) -> None:
    def missing() -> dict[str, Any]:
        raise FileNotFoundError

    assert not cell([], {}, inputs=missing).done(tmp_path)


def test_estimates_count_images_and_steps() -> None:
    pace = Pace(image=0.001, trained=0.01, memory=0)
    assert pace.encoding(500) == pytest.approx(1.0)
    # 1,000 images, 150 steps of 64: 96 s of training, and about ten validations of 100.
    seconds = pace.finetuning(1000, 200, 1, (1.0,), 150)
    assert seconds == pytest.approx(3 + 2.4 + 96 + 1 + 1 + 1.1, abs=1)
    # 10 images: an epoch is four steps, so 80 of the 150 steps are left to the schedule.
    assert pace.finetuning(1000, 200, 1, (0.01,), 150) == pytest.approx(3 + 2.4 + 8 + 2.1 + 1, abs=1)


# The verb


def write_images(folder: Path) -> None:
    """Grey by class, 40 patients with three images each."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(40):
        for number, name in enumerate(CLASSES):
            pixels = np.clip(rng.normal(60 + 60 * number, 15, (24, 24)), 0, 255).astype(np.uint8)
            image = f"{patient}-{number}.png"
            Image.fromarray(pixels).save(folder / image)
            split = "train" if patient < 20 else "val" if patient < 25 else "test"
            labels = {label: int(label == name) for label in CLASSES}
            rows.append({"image": image, "patient": f"p{patient}", "split": split, **labels})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> dict[str, list[str]]:
    """Options for a run of ConVIRT, a benchmark in the place of CheXpert, and a retrieval set."""
    folder = tmp_path_factory.mktemp("given")
    write_images(folder)
    table, labels = folder / "table.csv", CLASSES
    benchmark_table(
        folder, table, folder / "chexpert", label_columns=labels, patient_column="patient", split_column="split"
    )
    texts = folder / "texts.csv"
    rows = [{"text": f"{name} seen .", "label": name} for name in CLASSES for _ in range(2)]
    pd.DataFrame(rows).to_csv(texts, index=False)
    make_retrieval_set(
        folder,
        table,
        folder / "list",
        labels,
        patient_column="patient",
        candidates=6,
        preselected=4,
        queries=2,
        texts=texts,
    )
    benchmarks = [f"chexpert={folder / 'chexpert'}", f"chexpert8x200={folder / 'list'}"]
    return {"runs": [f"convirt={tiny_run}"], "benchmarks": benchmarks}


def test_a_reproduction_is_planned_made_and_not_made_again(
    given: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    reproduce(["table1a", "table2"], out=out, device="cpu", dry_run=True, **given)
    assert not out.exists()
    plan = capsys.readouterr().out
    assert all(word in plan for word in ("linear", "retrieval", "supervised", "GiB", "time left"))
    # The tiny encoder began with random weights, so that there is no ImageNet beside it: three cells, the rest is made.
    with pytest.raises(InputError, match=r"3 of 11 cells failed, the first is baselines/imagenet: .*'random'"):
        reproduce(["table1a", "table2"], out=out, device="cpu", **given)
    said = capsys.readouterr().out
    assert "Table 2: zero-shot retrieval" in said
    for name in ("table1a", "table2"):
        assert {path.suffix for path in out.glob(f"{name}.*")} == {".md", ".csv", ".tex", ".html"}
    table = pd.read_csv(out / "table1a.csv").set_index(["method", "column"])
    ours = json.loads((out / "cells/linear/chexpert/convirt/metrics.json").read_text())["rows"]
    (row,) = [r for r in ours if r["metric"] == "auc" and r["fraction"] == 0.1 and r["method"] != "metadata"]
    assert table.loc[("convirt", "CheXpert 10 %"), "mean"] == pytest.approx(100 * row["mean"], rel=1e-3)
    assert table.loc[("convirt", "CheXpert 10 %"), "paper"] == 86.8
    assert math.isnan(table.loc[("convirt", "RSNA 10 %"), "mean"])
    assert math.isnan(table.loc[("caption_lstm", "CheXpert 10 %"), "mean"])
    retrieval = pd.read_csv(out / "table2.csv").set_index(["method", "column"])["mean"]
    # A random guess, in which no query finds its own patient.
    assert retrieval["random", "image-image P@5"] == pytest.approx(100 / 3, abs=1)
    for method in ("convirt", "convirt_supervised", "convirt_supervised_without_list"):
        assert 0 <= retrieval[method, "image-image P@5"] <= 100
    tested = pd.read_csv(out / "table2.csv").set_index(["method", "column"])
    row = tested.loc["convirt_supervised", "image-image P@5"]
    difference = retrieval["convirt", "image-image P@5"] - retrieval["convirt_supervised", "image-image P@5"]
    assert row["difference"] == pytest.approx(difference, abs=0.02)
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert 0 < row["p"] <= row["p_holm"] <= 1
    assert math.isnan(tested.loc[("random", "image-image P@5"), "p"])  # a guess has no scores
    assert not math.isnan(
        pd.read_csv(out / "table1a.csv").set_index(["method", "column"])["p"]["random", "CheXpert 10 %"]
    )
    assert math.isnan(retrieval["convirt_supervised", "text-image P@5"])
    assert math.isnan(retrieval["imagenet", "image-image P@5"])
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.job.json")}
    with pytest.raises(InputError, match="3 of 11"):
        reproduce(["table1a", "table2"], out=out, device="cpu", **given)
    assert made == {path: path.stat().st_mtime_ns for path in out.rglob("*.job.json")}
    assert "[3/3]" in capsys.readouterr().out


def test_the_small_scale_says_that_it_is_reduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce(["table1a", "table1b", "table2", "table3"], out=tmp_path / "out", scale="small", dry_run=True)
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("REDUCED")
    for part in ("data", "pretraining", "finetuned", "retrieval"):
        assert part in said
    assert not (tmp_path / "out").exists()


def test_the_small_scale_gives_every_method_the_same_steps_and_batches() -> None:
    methods = ("caption_transformer", "caption_lstm", "contrastive_binary", "simclr", "moco", "convirt")
    configs = [small.configuration(method) for method in (*methods, "clip", "medclip")]
    assert {(c.validation.every * c.validation.max_evaluations, c.optimiser.batch_size) for c in configs} == {
        (small.STEPS, 32)
    }
    assert len({(c.image_encoder, c.transform.size) for c in configs}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tables": []}, "name at least one table"),
        ({"tables": ["table4"]}, "unknown table 'table4'"),
        ({"tables": ["table1a"]}, "no run is given"),
        ({"tables": ["table1a"], "runs": ["convirt"]}, "write NAME=FOLDER"),
        ({"tables": ["table1a"], "runs": ["convert=x"]}, "unknown name 'convert'"),
        ({"tables": ["table1a"], "runs": ["convirt=/nowhere"]}, "is no folder"),
        ({"tables": ["table1a"], "scale": "small", "runs": ["convirt=/nowhere"]}, "makes its own data"),
        ({"tables": ["figure5"], "scale": "small"}, "has no small scale"),
        ({"tables": ["table1a"], "inputs": Path("nowhere.toml")}, "cannot be read"),
    ],
)
def test_unusable_arguments_are_refused_in_one_line(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        reproduce(arguments.pop("tables"), out=tmp_path / "out", **arguments)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_figures_say_what_they_lack(given: dict[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keep-every"):
        reproduce(["figure5"], out=tmp_path / "out", device="cpu", **given)
    with pytest.raises(InputError, match="table5"):
        reproduce(["table5"], out=tmp_path / "out", device="cpu", **given)
    with pytest.raises(InputError, match="figure3 needs the retrieval set"):
        reproduce(["figure3"], out=tmp_path / "out", runs=given["runs"], benchmarks=given["benchmarks"][:1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("runs = 3", "must be a section"),
        ("[run]\n", "unknown section 'run'"),
        ("[runs\n", "no TOML"),
        ("[table5]\ncorpus = 'x'\n", "needs corpus and recipe"),
        ("[benchmarks]\nrsna = 'nowhere'\n", "is no folder"),
    ],
)
def test_an_unusable_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "inputs.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_inputs(path, (), (), "cpu")


def test_paths_of_a_file_are_relative_to_it_and_options_come_first(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    path = tmp_path / "inputs.toml"
    path.write_text("[runs]\nconvirt = 'one'\nmoco = 'one'\n")
    inputs = read_inputs(path, [f"moco={tmp_path / 'two'}"], (), "cpu")
    assert inputs.runs == {"convirt": tmp_path / "one", "moco": tmp_path / "two"}
