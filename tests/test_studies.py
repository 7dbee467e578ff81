"""Studies: definitions, grids of tiny runs, takeover, failed cells, scores against the loss."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import draw_shape
from convirt.analysis.studies import study as study_module
from convirt.analysis.studies.correlation import spearman
from convirt.analysis.studies.definition import TABLE5, cells_of, override, tasks_of
from convirt.analysis.studies.loss_study import loss_study
from convirt.analysis.studies.study import study
from convirt.errors import InputError
from convirt.jobs import hold
from convirt.recipes import RECIPES
from convirt.training.pretrain import pretrain


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Images of a disc or a bar with a table that serves classification and retrieval."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        shape = ("disc", "bar")[i % 2]
        Image.fromarray(draw_shape(shape, "left", rng)).save(folder / f"{i}.png")
        rows.append((f"{i}.png", f"p{i // 2}", ("train", "val", "test")[i // 20], shape))
    pd.DataFrame(rows, columns=["image", "patient", "split", "shape"]).to_csv(folder / "table.csv", index=False)
    return folder


def tasks(shapes):
    common = f'table = "{shapes}/table.csv"\nimages = "{shapes}"\nlabel_column = "shape"\npatient_column = "patient"\n'
    common += 'resamples = 20\ndevice = "cpu"\n'
    return (
        f"[tasks.classify]\n{common}fractions = [0.5]\nseeds = 1\n"
        f'[tasks.retrieve]\n{common}split_column = "split"\nks = [5, 10]\n'
    )


@pytest.fixture
def definition(tmp_path, shapes, tiny_corpus, tiny_config, monkeypatch):
    """A study of two cells of a tiny recipe."""
    monkeypatch.setitem(RECIPES, "tiny", lambda: tiny_config(max_steps=4))
    text = f'recipe = "tiny"\ncorpus = "{tiny_corpus}"\n{tasks(shapes)}'
    text += '[cells.default]\n[cells."tau 1"]\nobjective.temperature = 1.0\n"optimiser.batch_size" = 4\n'
    (tmp_path / "study.toml").write_text(text)
    return tmp_path / "study.toml"


def test_a_grid_is_run_once_and_collected(definition, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    study(definition, out=out)
    printed = capsys.readouterr().out
    config = json.loads((out / "tau-1" / "run" / "config.json").read_text())
    assert (config["objective"]["temperature"], config["optimiser"]["batch_size"]) == (1.0, 4)
    assert json.loads((out / "default" / "run" / "config.json").read_text())["objective"]["temperature"] == 0.1
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0].startswith("| cell | state | validation | linear, 50 % of labels, AUC | image-image, Precision@10")
    assert [line.split(" | ")[0:2] for line in lines[2:]] == [["| default", "done"], ["| tau 1", "done"]]
    assert "| tau 1 | done |" in printed
    table = pd.read_csv(out / "table.csv")
    row = json.loads((out / "tau-1" / "retrieve" / "metrics.json").read_text())["rows"]
    found = next(r for r in row if r["metric"] == "precision@10")
    assert table["image-image, Precision@10"][1] == pytest.approx(found["mean"])
    monkeypatch.setattr(study_module, "pretrain", lambda *args, **kwargs: pytest.fail("trained again"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")}
    study(definition, out=out)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")}


def test_an_interrupted_cell_goes_on_and_a_busy_one_is_left_alone(definition, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    whole = study_module.pretrain
    calls = []

    def interrupted(config, corpus, run, *, resume):
        calls.append((run.parent.name, resume))
        if len(calls) == 1:
            whole(config, corpus, run, resume=resume)
            (run / "metrics.json").unlink()
            raise KeyboardInterrupt
        return whole(config, corpus, run, resume=resume)

    monkeypatch.setattr(study_module, "pretrain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study(definition, out=out)
    study(definition, out=out, collect=True)
    assert "| default | pretraining | - |" in capsys.readouterr().out
    with hold(out / "tau-1"):
        study(definition, out=out)
    assert calls == [("default", False), ("default", True)]
    assert "tau 1: another process is at work" in capsys.readouterr().out
    study(definition, out=out)
    assert calls[2:] == [("tau-1", False)]
    assert "| tau 1 | done |" in capsys.readouterr().out


def test_an_array_job_names_its_cell(definition, tmp_path, capsys):
    with pytest.raises(InputError, match="has no cell 'tau 2'; its cells are default, tau 1"):
        study(definition, out=tmp_path / "out", cell="tau 2")
    study(definition, out=tmp_path / "out", cell="tau 1")
    said = capsys.readouterr().out
    assert "| tau 1 | done |" in said
    assert "| default | not begun |" in said
    assert "table.md and table.csv" in said
    # That another job's cell failed is not this job's failure.
    (tmp_path / "out" / "default").mkdir()
    (tmp_path / "out" / "default" / "failed.json").write_text('{"error": "the loss is nan"}')
    study(definition, out=tmp_path / "out", cell="tau 1")
    with pytest.raises(InputError, match="1 of 1 cells failed"):
        study(definition, out=tmp_path / "out", cell="default")


def test_a_cell_that_another_process_just_finished_is_not_trained_again(definition, tmp_path, monkeypatch):
    out = tmp_path / "out"
    study(definition, out=out, cell="default")
    monkeypatch.setattr(study_module, "pretrain", lambda *args, **kwargs: pytest.fail("trained again"))
    seen = iter([False, True])
    monkeypatch.setattr(study_module, "_is_done", lambda *args: next(seen))
    study(definition, out=out, cell="default")


def test_a_failed_cell_is_told_and_the_others_go_on(definition, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    whole = study_module.pretrain

    def failing(config, corpus, run, *, resume):
        if config.objective.temperature == 0.1:
            raise InputError("the loss is nan")
        return whole(config, corpus, run, resume=resume)

    monkeypatch.setattr(study_module, "pretrain", failing)
    with pytest.raises(InputError, match=r"1 of 2 cells failed, the first is 'default' \(the loss is nan\)"):
        study(definition, out=out)
    assert "| tau 1 | done |" in capsys.readouterr().out
    monkeypatch.setattr(study_module, "pretrain", whole)
    with pytest.raises(InputError, match="1 of 2 cells failed"):
        study(definition, out=out)
    study(definition, out=out, retry=True)
    assert "| default | done |" in capsys.readouterr().out


def test_another_configuration_in_the_same_folder_is_refused(definition, tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "pretrain", lambda *args, **kwargs: (_ for _ in ()).throw(InputError("stop")))
    with pytest.raises(InputError, match="cells failed"):
        study(definition, out=tmp_path / "out")
    definition.write_text(definition.read_text().replace("temperature = 1.0", "temperature = 2.0"))
    with pytest.raises(InputError, match=r"with other settings \(config.objective.temperature was 1.0, is now 2.0\)"):
        study(definition, out=tmp_path / "out", retry=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('recipe = "tiny"', 'recipe = "huge"', "unknown recipe 'huge'"),
        ("[tasks.classify]", "[tasks.guess]", "unknown task 'guess'"),
        ("seeds = 1", "seed = 1", "tasks.classify has no argument 'seed'"),
        ("seeds = 1", "seeds = true", "tasks.classify.seeds cannot be True"),
        ("fractions = [0.5]", "fractions = ['all']", "fractions cannot be"),
        ("objective.temperature", "objective.heat", "there is no setting 'objective.heat'"),
        ("objective.temperature = 1.0", "objective = 1.0", "there is no setting 'objective'"),
        ("objective.temperature = 1.0", "objective.temperature = -1.0", "temperature must be positive"),
        ('[cells."tau 1"]', '[cells."Default!"]', "two cells would share the folder 'default'"),
        ("corpus =", "korpus =", "unknown key 'korpus'"),
        ("recipe", "recipe [", "no TOML"),
    ],
)
def test_bad_definitions_are_refused(definition, tmp_path, old, new, message):
    assert old in definition.read_text()
    definition.write_text(definition.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        study(definition, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_grid_of_table_5(tmp_path):
    cells = cells_of({"recipe": "paper_chest", "grid": "table5"}, tmp_path / "study.toml")
    configs = {cell.name: cell.config for cell in cells}
    assert list(configs) == list(TABLE5)
    assert [config.objective.temperature for config in configs.values()] == [0.1, 0.01, 1.0, 0.1, 0.1, 0.1]
    assert [config.optimiser.batch_size for config in configs.values()] == [32, 32, 32, 16, 128, 32]
    assert [config.projection.linear for config in configs.values()] == [False] * 5 + [True]


def test_override_keeps_what_it_does_not_name():
    base = RECIPES["paper_chest"]()
    changed = override(base, {"validation.every": 7}, "here")
    assert changed.validation.every == 7
    assert changed == override(changed, {}, "here")
    assert override(changed, {"validation.every": base.validation.every}, "here") == base


def test_paths_of_tasks_are_relative_to_the_file(tmp_path):
    found = tasks_of({"tasks": {"classify": {"table": "b/rsna"}}}, tmp_path / "deep" / "tasks.toml")
    assert found.arguments["classify"]["table"] == tmp_path / "deep" / "b" / "rsna"
    assert found.arguments["classify"]["fractions"] == (0.01,)  # as in figure 5 and table 5


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory, tiny_corpus, tiny_config):
    """A run that kept each of its four checkpoints."""
    out = tmp_path_factory.mktemp("kept") / "kept"
    return pretrain(tiny_config(max_steps=20, keep_every=1), tiny_corpus, out)


def test_checkpoints_are_kept_along_the_run(kept_run, tmp_path, tiny_corpus, tiny_config):
    from convirt.model import load

    assert sorted(path.name for path in (kept_run / "checkpoints").iterdir()) == [
        f"step-{step:06d}" for step in (5, 10, 15, 20)
    ]
    first, last = (load(kept_run / "checkpoints" / name, part="image") for name in ("step-000005", "step-000020"))
    image = np.zeros((8, 8), np.uint8)
    assert not np.allclose(first.encode_image(image), last.encode_image(image))
    every_second = pretrain(tiny_config(max_steps=20, keep_every=2), tiny_corpus, tmp_path / "run")
    assert [path.name for path in sorted((every_second / "checkpoints").iterdir())] == ["step-000010", "step-000020"]


def test_scores_against_the_loss(kept_run, shapes, tmp_path, monkeypatch):
    (tmp_path / "tasks.toml").write_text(tasks(shapes))
    out = tmp_path / "out"
    results = loss_study(kept_run, tmp_path / "tasks.toml", out=out)
    points = pd.read_csv(out / "points.csv")
    log = [json.loads(line) for line in (kept_run / "log.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in log if row["event"] == "validation"}
    assert list(points["step"]) == [5, 10, 15, 20]
    assert list(points["validation_loss"]) == pytest.approx([losses[step] for step in points["step"]])
    for row in results.rows:
        expected = spearman(list(-points["validation_loss"]), list(points[row["task"]]))
        assert row["mean"] == pytest.approx(expected.rho, nan_ok=True)
        assert row["n_test"] == 4
    assert {row["task"] for row in results.rows} == {"linear, 50 % of labels, AUC", "image-image, Precision@10"}
    assert (out / "loss-study.png").stat().st_size > 5000
    shutil.rmtree(out / "step-000010" / "retrieve")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("step-*/*/metrics.json")}
    assert loss_study(kept_run, tmp_path / "tasks.toml", out=out).rows == results.rows
    after = {path: path.stat().st_mtime_ns for path in out.rglob("step-*/*/metrics.json")}
    assert set(after) - set(before) == {out / "step-000010" / "retrieve" / "metrics.json"}
    assert all(after[path] == when for path, when in before.items())
    (tmp_path / "tasks.toml").write_text(tasks(shapes).replace("0.5", "1.0"))
    with pytest.raises(InputError, match=r"holds a study with other settings \(tasks.classify.fractions was"):
        loss_study(kept_run, tmp_path / "tasks.toml", out=out)


def test_a_run_without_kept_checkpoints_is_refused(tiny_run, shapes, tmp_path):
    (tmp_path / "tasks.toml").write_text(tasks(shapes))
    with pytest.raises(InputError, match="kept 0 checkpoints, fewer than 4"):
        loss_study(tiny_run, tmp_path / "tasks.toml", out=tmp_path / "out")
    with pytest.raises(InputError, match=r"no readable log\.jsonl"):
        loss_study(tmp_path, tmp_path / "tasks.toml", out=tmp_path / "out")


def test_rank_correlation_by_hand():
    x, y = [3.0, 1.0, 4.0, 1.5, 5.0, 9.0], [2.0, 7.0, 1.0, 8.0, 2.0, 8.0]
    rank_x = [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]
    rank_y = [sum(b < a for b in y) + (sum(b == a for b in y) + 1) / 2 for a in y]
    mean = sum(rank_x) / 6
    over = sum((a - mean) * (b - mean) for a, b in zip(rank_x, rank_y, strict=True))
    below = math.sqrt(sum((a - mean) ** 2 for a in rank_x) * sum((b - mean) ** 2 for b in rank_y))
    found = spearman(x, y)
    assert found.rho == pytest.approx(over / below)
    half = 1.959963984540054 * math.sqrt((1 + found.rho**2 / 2) / 3)
    assert found.low == pytest.approx(math.tanh(math.atanh(found.rho) - half))
    assert found.high == pytest.approx(math.tanh(math.atanh(found.rho) + half))


def test_rank_correlation_at_its_limits():
    perfect = spearman(range(8), range(8))
    assert perfect.rho == pytest.approx(1)
    assert perfect.high == 1
    assert 0.5 < perfect.low < 1
    reverse = spearman(range(8), range(8, 0, -1))
    assert (reverse.rho, reverse.low, reverse.high) == pytest.approx((-1, -1, -perfect.low))
    assert math.isnan(spearman([1, 2, 3, 4], [5, 5, 5, 5]).rho)
    assert math.isnan(spearman([1, 2, 3], [1, 2, 4]).low)
    assert math.isnan(spearman([], []).rho)
