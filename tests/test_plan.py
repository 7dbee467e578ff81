"""`--dry-run`: the plan of a run, and nothing written."""

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from convirt.config import OptimiserConfig, PretrainConfig
from convirt.data.corpora import Corpus
from convirt.data.loading.loader import TrainingBatches, ValidationBatches
from convirt.errors import InputError
from convirt.methods import METHODS
from convirt.training import trainer
from convirt.training.plan import count_parameters, make_plan
from convirt.training.pretrain import pretrain
from convirt.training.trainer import Trainer, make_fabric


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    tiny_corpus: Path, tiny_config: Callable[..., PretrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "one"
    assert pretrain(tiny_config(), tiny_corpus, out, dry_run=True) == out
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().out
    for words in (
        "image encoder",
        "text projection",
        "frozen",
        "12, 5 an epoch",
        "3 of 16 pairs",
        "steps 3 to 5",
        " to ",
        "GiB",
    ):
        assert words in said


def test_what_both_towers_lack_is_said_at_once(
    tiny_corpus: Path, tiny_config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    config = tiny_config()
    config = replace(
        config,
        image_encoder=replace(config.image_encoder, weights="/no/such/weights.pth"),
        text_encoder=replace(config.text_encoder, source="/no/such/bert"),
    )
    with pytest.raises(InputError, match=r"/no/such/weights\.pth; and no such file or folder: /no/such/bert"):
        pretrain(config, tiny_corpus, tmp_path / "run", dry_run=True)


def test_a_run_that_ends_before_its_cosine_says_so(
    tiny_corpus: Path, tiny_config: Callable[..., PretrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(max_steps=6, optimiser=OptimiserConfig(batch_size=8, cosine_from=5, cosine_steps=12))
    pretrain(config, tiny_corpus, tmp_path / "run", dry_run=True)
    assert "the run ends after 6 steps, but its learning rate falls from step 5 to 12" in capsys.readouterr().out
    shares = replace(config, optimiser=replace(config.optimiser, cosine_from=0.5, cosine_steps=1.0))
    run = pretrain(shares, tiny_corpus, tmp_path / "run")
    kept = json.loads((run / "config.json").read_text())["optimiser"]
    assert (kept["cosine_from"], kept["cosine_steps"]) == (3, 6)
    assert "ends after" not in capsys.readouterr().out
    pretrain(shares, tiny_corpus, run, resume=True)


def test_the_plan_counts_what_is_there(tiny_corpus: Path, tiny_config: Callable[..., PretrainConfig]) -> None:
    config, corpus = tiny_config(), Corpus.open(tiny_corpus)
    method = METHODS["convirt"](config)
    counted = count_parameters(method)
    assert sum(map(sum, counted.values())) == sum(p.numel() for p in method.parameters())
    assert counted["image_encoder"][1] == 0
    frozen = sum(p.numel() for p in method.text_encoder.parameters() if not p.requires_grad)  # type: ignore[union-attr]
    assert counted["text_encoder"][1] == frozen > 0
    plan = make_plan(
        Trainer(method, config, make_fabric(config)),
        TrainingBatches(corpus, 8, 0),
        ValidationBatches(corpus, "val", 16, 8, 0),
    )
    assert (plan.steps, plan.steps_per_epoch, plan.evaluations, plan.validation_pairs) == (12, 5, 3, 16)
    assert plan.seconds == pytest.approx(12 * plan.seconds_per_step + 3 * plan.seconds_per_evaluation)
    assert plan.seconds_per_step > 0
    assert 10**7 < plan.memory < 10**11


def test_the_allocator_is_told_where_it_can_be(monkeypatch):
    assert trainer.keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(trainer.platform, "libc_ver", lambda: ("", ""))
    assert trainer.keep_freed_memory() is False
