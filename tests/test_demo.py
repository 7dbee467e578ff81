"""The demo, small: every stage by the public functions, resumed, refused, and its page."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from convirt import demo as demo_module
from convirt.demo import SCALES, Scale, configuration, demo
from convirt.errors import InputError


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCALES, "small", Scale(patients=700, steps=4, evaluations=2))
        patch.setattr(demo_module, "FRACTIONS", (0.1, 0.5))
        demo(out)
    return out


def test_the_demo_leaves_figures_of_three_encoders_and_a_page(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {row["method"] for row in metrics["rows"]} == {"random", "imagenet", "convirt"}
    assert {row["fraction"] for row in metrics["rows"] if row["head"]} == {0.1, 0.5}
    assert {row["task"] for row in metrics["rows"] if not row["head"]} == {"image-image", "text-image"}
    assert all(row["ci_low"] <= row["mean"] <= row["ci_high"] for row in metrics["rows"])
    assert metrics["pretraining"]["steps"] == 4
    page = (finished / "report.html").read_text()
    assert page.count('<div class="search">') == 8
    assert all(page.count(heading) == 1 for heading in ("before and after</h2>", "Where a linear model looks</h2>"))
    assert {row["metric"] for row in metrics["analysis"]["tsne"]["rows"]} == {"purity@10", "silhouette"}
    assert {row["method"] for row in metrics["analysis"]["saliency"]["rows"]} == {"random", "imagenet", "convirt"}
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_a_second_call_repeats_nothing(finished, monkeypatch, capsys):
    monkeypatch.setitem(SCALES, "small", Scale(patients=700, steps=4, evaluations=2))
    before = {path: path.stat().st_mtime_ns for path in (finished / "convirt").rglob("*") if path.is_file()}
    demo(finished)
    assert capsys.readouterr().out.count("(done before)") == 7
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_stage_whose_folder_was_removed_is_made_again(finished, monkeypatch, capsys):
    monkeypatch.setitem(SCALES, "small", Scale(patients=700, steps=4, evaluations=2))
    monkeypatch.setattr(demo_module, "FRACTIONS", (0.1, 0.5))
    before = json.loads((finished / "retrieve" / "metrics.json").read_text())["rows"]
    shutil.rmtree(finished / "retrieve")
    demo(finished)
    assert capsys.readouterr().out.count("(done before)") == 6
    assert json.loads((finished / "retrieve" / "metrics.json").read_text())["rows"] == before


def test_other_settings_and_strange_folders_are_refused(finished, tmp_path):
    with pytest.raises(InputError, match="other settings"):
        demo(finished, seed=5)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a demo"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_demo_of_an_older_version_is_refused_and_left_alone(tmp_path):
    about = {"scale": asdict(SCALES["small"]), "archive_seed": 0, "seed": 0, "version": "0.1.0"}
    (tmp_path / "demo.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r'other settings .version was "0.1.0"'):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]
    assert json.loads((tmp_path / "demo.json").read_text()) == about


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_module, "EXTRA", ("no_such_package",))
    with pytest.raises(InputError, match=r"pip install 'convirt\[demo\]'"):
        demo(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", SCALES)
def test_the_schedule_fits_the_scale(name):
    scale = SCALES[name]
    config = configuration(scale, seed=3)
    assert config.seed == 3
    assert config.validation.every * config.validation.max_evaluations == scale.steps
    assert config.optimiser.cosine_steps == scale.steps
