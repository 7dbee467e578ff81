"""`--dry-run`: the plan of a run, and nothing written."""

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from convirt.config import PretrainConfig
from convirt.data.corpora import Corpus
from convirt.data.loading.loader import TrainingBatches, ValidationBatches
from convirt.methods import METHODS
from convirt.training import memory
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
        "GiB",
    ):
        assert words in said


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
    assert memory.keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    assert memory.keep_freed_memory() is False
