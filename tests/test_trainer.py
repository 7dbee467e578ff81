"""The trainer: the paper's rules, which tensors train, the log, and what a run refuses."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from conftest import read_log, write_corpus
from convirt.config import (
    OBJECTIVES,
    ContrastiveObjective,
    OptimiserConfig,
    PretrainConfig,
    TransformConfig,
    ValidationConfig,
)
from convirt.data.corpora import Corpus
from convirt.data.loading.loader import Batch, TrainingBatches, ValidationBatches
from convirt.errors import InputError
from convirt.methods import METHODS
from convirt.training.logs import Display, duration
from convirt.training.optimiser import PlateauRule, learning_rate
from convirt.training.pretrain import pretrain
from convirt.training.trainer import Trainer, make_fabric, total_steps

Configs = Callable[..., PretrainConfig]


def make_trainer(config: PretrainConfig) -> Trainer:
    return Trainer(METHODS["convirt"](config), config, make_fabric(config))


def test_the_rate_is_halved_after_so_many_evaluations_without_a_fall() -> None:
    rule, config = PlateauRule(), ValidationConfig(patience=3)
    losses = [3.0, 2.0, 2.0, 2.5, 1.9, 2.0, 2.0, 1.95, 2.0, 2.0, 2.0, 1.0]
    bests, factors = [], []
    for number, loss in enumerate(losses):
        bests.append(rule.update(loss, 10 * (number + 1), config))
        factors.append(rule.factor)
    assert bests == [True, True, False, False, True, *[False] * 6, True]
    assert factors == [1] * 7 + [0.5] * 3 + [0.25] * 2
    assert (rule.best, rule.best_step, rule.evaluations) == (1.0, 120, 12)


def test_the_paper_halves_at_the_fifth_straight_evaluation() -> None:
    rule = PlateauRule()
    factors = []
    for number in range(11):
        rule.update(1.0, number, ValidationConfig())
        factors.append(rule.factor)
    assert factors == [1.0] * 5 + [0.5] * 5 + [0.25]


def test_learning_rate_with_warm_up_and_cosine() -> None:
    paper = OptimiserConfig()
    assert [learning_rate(step, paper) for step in (0, 10, 10**6)] == [1e-4] * 3
    assert learning_rate(7, paper, factor=0.25) == pytest.approx(2.5e-5)
    config = OptimiserConfig(learning_rate=1.0, warmup_steps=4, cosine_steps=8)
    expected = [min(1, (step + 1) / 4) * 0.5 * (1 + math.cos(math.pi * min(step, 8) / 8)) for step in range(10)]
    assert [learning_rate(step, config) for step in range(10)] == pytest.approx(expected)
    assert learning_rate(8, config) == 0


def test_the_whole_run_is_bounded_by_steps_and_evaluations(tiny_config: Configs) -> None:
    assert total_steps(PretrainConfig()) == 5000 * 200
    assert total_steps(tiny_config(max_steps=None)) == 20
    assert total_steps(tiny_config(max_steps=7)) == 7


def test_training_changes_exactly_what_the_optimiser_was_given(tiny_config: Configs, tiny_corpus: Path) -> None:
    trainer = make_trainer(tiny_config())
    before = {name: p.detach().clone() for name, p in trainer.method.named_parameters()}
    train = TrainingBatches(Corpus.open(tiny_corpus), 8, 0)
    for step in range(3):
        trainer.train_step(train[step])
    given = {id(p) for group in trainer.optimiser.param_groups for p in group["params"]}
    changed = {name for name, p in trainer.method.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, p in trainer.method.named_parameters() if id(p) in given}
    assert changed == {name for name, p in trainer.method.named_parameters() if p.requires_grad}
    assert any("text_encoder" in name for name in before if name not in changed)


def test_a_step_is_adam_with_l2(tiny_config: Configs, tiny_corpus: Path) -> None:
    optimiser = OptimiserConfig(learning_rate=1e-3, weight_decay=0.1, batch_size=8)
    trainer = make_trainer(tiny_config(optimiser=optimiser))
    parameter = trainer.method.image_projection[0].weight  # type: ignore[union-attr, index]
    before = parameter.detach().double().clone()
    seen: list[torch.Tensor] = []
    parameter.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.double().clone()))
    trainer.train_step(TrainingBatches(Corpus.open(tiny_corpus), 8, 0)[0])
    gradient = seen[0] + 0.1 * before
    expected = before - 1e-3 * gradient / (gradient.abs() + 1e-8)  # the first step of Adam, its biases corrected
    torch.testing.assert_close(parameter.detach().double(), expected, atol=1e-7, rtol=0)
    assert trainer.optimiser.param_groups[0]["betas"] == (0.9, 0.999)


def test_a_step_of_the_text_encoder_has_its_own_rate(tiny_config: Configs, tiny_corpus: Path) -> None:
    optimiser = OptimiserConfig(learning_rate=1e-3, text_learning_rate=1e-5, weight_decay=0.0, batch_size=8)
    trainer = make_trainer(tiny_config(optimiser=optimiser))
    before = {name: p.detach().clone() for name, p in trainer.method.named_parameters()}
    trainer.train_step(TrainingBatches(Corpus.open(tiny_corpus), 8, 0)[0])
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in trainer.method.named_parameters()}
    text = max(value for name, value in moved.items() if name.startswith("text_encoder."))
    rest = max(value for name, value in moved.items() if not name.startswith("text_encoder."))
    # The first step of Adam is as long as the rate.
    assert (text, rest) == (pytest.approx(1e-5, rel=0.05), pytest.approx(1e-3, rel=0.05))


def test_each_step_draws_views_of_its_own(tiny_config: Configs, tiny_corpus: Path) -> None:
    trainer = make_trainer(tiny_config())
    seeds: list[int] = []
    loss = trainer.method.loss

    def watched(batch: Batch, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        seeds.append(generator.initial_seed())
        return loss(batch, generator)

    trainer.method.loss = watched  # type: ignore[assignment, method-assign]
    train = TrainingBatches(Corpus.open(tiny_corpus), 8, 0)
    for step in range(3):
        trainer.train_step(train[step])
    assert len(set(seeds)) == 3


def test_clipping_bounds_the_gradient(tiny_config: Configs, tiny_corpus: Path) -> None:
    optimiser = OptimiserConfig(batch_size=8, clip_norm=1e-3)
    trainer = make_trainer(tiny_config(optimiser=optimiser))
    norms: list[float] = []
    trainer.optimiser.register_step_pre_hook(
        lambda opt, *_: norms.append(
            math.sqrt(sum(float(p.grad.square().sum()) for group in opt.param_groups for p in group["params"]))
        )
    )
    trainer.train_step(TrainingBatches(Corpus.open(tiny_corpus), 8, 0)[0])
    assert norms == [pytest.approx(1e-3, rel=1e-3)]


def test_validation_sees_plain_views_without_dropout_and_leaves_no_trace(
    tiny_config: Configs, tiny_corpus: Path
) -> None:
    trainer = make_trainer(tiny_config(precision="32-true"))
    batches = ValidationBatches(Corpus.open(tiny_corpus), "val", 16, 8, 0)
    state = {name: value.clone() for name, value in trainer.method.state_dict().items()}
    first = trainer.validate(batches)
    assert first == trainer.validate(batches)
    assert all(torch.equal(value, state[name]) for name, value in trainer.method.state_dict().items())
    assert all(p.grad is None for p in trainer.method.parameters())
    by_hand = []
    trainer.method.eval()
    for batch in batches:
        with torch.no_grad():
            by_hand.append(float(trainer.method.loss(batch, None)[0]))
    assert first == {"loss": pytest.approx(sum(by_hand) / 2, rel=1e-6)}


def test_it_learns(tiny_config: Configs, tiny_corpus: Path, tmp_path: Path) -> None:
    gentle = TransformConfig(size=32, crop=(0.9, 1), flip=0, degrees=3, translate=0.02, blur_kernel=3)
    rule = ValidationConfig(every=30, pairs=16, max_evaluations=10)
    config = tiny_config(transform=gentle, validation=rule, max_steps=90, checkpoint_every=90)
    pretrain(config, tiny_corpus, tmp_path / "run")
    losses = [float(row["loss"]) for row in read_log(tmp_path / "run") if row["event"] == "step"]  # type: ignore[arg-type]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_log_metrics_and_folder_of_a_run(tiny_run: Path, tiny_corpus: Path, tiny_config: Configs) -> None:
    rows = read_log(tiny_run)
    steps = [row for row in rows if row["event"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert {"loss", "learning_rate", "pairs_per_s", "repeated_sentences"} <= set(steps[0])
    validations = [row for row in rows if row["event"] == "validation"]
    assert [row["step"] for row in validations] == [5, 10, 12]
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert metrics["best_validation_loss"] == min(row["loss"] for row in validations)
    assert metrics["seeds"] == [0]
    assert metrics["steps"] == 12
    assert metrics["data"]["corpus"] == Corpus.open(tiny_corpus).fingerprint
    assert {"python", "torch", "timm", "transformers", "convirt"} <= set(metrics["versions"])
    assert metrics["pairs_per_s"] > 0
    assert metrics["wall_time_s"] > 0
    assert list((tiny_run / "tensorboard").glob("events.*"))
    assert {"best", "last", "config.json", "log.jsonl", "metrics.json"} <= {p.name for p in tiny_run.iterdir()}


def test_the_best_checkpoint_has_the_lowest_loss(tiny_run: Path, tiny_corpus: Path, tiny_config: Configs) -> None:
    config = tiny_config()
    trainer = make_trainer(config)
    from convirt.training.checkpoint import load_weights, read_tensors

    path = tiny_run / "best" / "model.safetensors"
    load_weights(trainer.method, read_tensors(path), path)
    figures = trainer.validate(ValidationBatches(Corpus.open(tiny_corpus), "val", 16, 8, 0))
    assert figures is not None
    assert figures["loss"] == pytest.approx(
        json.loads((tiny_run / "metrics.json").read_text())["best_validation_loss"], rel=1e-5
    )


def test_the_same_seed_gives_the_same_run(
    tiny_run: Path, tiny_corpus: Path, tiny_config: Configs, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # the caller's random state has no say, and is left alone
    state = torch.get_rng_state()
    again = pretrain(tiny_config(), tiny_corpus, tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), state)
    weights = "last/model.safetensors"
    assert (again / weights).read_bytes() == (tiny_run / weights).read_bytes()
    other = pretrain(tiny_config(seed=1), tiny_corpus, tmp_path / "other")
    assert (other / weights).read_bytes() != (tiny_run / weights).read_bytes()


class Spoilt(METHODS["convirt"]):  # type: ignore[misc]
    """Its loss is no number in step 8."""

    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[torch.Tensor, dict[str, float]]:
        loss, figures = super().loss(batch, generator)
        return (loss * float("nan") if generator is not None and batch.step == 7 else loss), figures


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(
    tiny_corpus: Path, tiny_config: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "spoilt", Spoilt)
    monkeypatch.setitem(OBJECTIVES, "spoilt", ContrastiveObjective)
    with pytest.raises(InputError, match=r"the loss is nan at step 8; .*lower optimiser.learning_rate") as error:
        pretrain(tiny_config(method="spoilt"), tiny_corpus, tmp_path / "run")
    assert "\n" not in str(error.value)
    state = json.loads((tmp_path / "run/last/state.json").read_text())
    assert state["step"] == 6
    assert all(math.isfinite(float(row["loss"])) for row in read_log(tmp_path / "run"))  # type: ignore[arg-type]


def test_weights_that_are_no_numbers_are_never_saved(tiny_config: Configs, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config())
    with torch.no_grad():
        next(iter(trainer.method.parameters_to_train().values())).fill_(float("inf"))
    with pytest.raises(InputError, match="a weight is not finite"):
        trainer.save(tmp_path / "last")
    assert not list(tmp_path.iterdir())


def refused(match: str, config: PretrainConfig, corpus: Path, out: Path, **options: Any) -> None:
    with pytest.raises(InputError, match=match) as error:
        pretrain(config, corpus, out, **options)
    assert "\n" not in str(error.value)


def test_a_run_is_resumed_with_its_own_settings_and_data_only(
    tiny_run: Path, tiny_corpus: Path, tiny_config: Configs, tmp_path: Path
) -> None:
    other = OptimiserConfig(learning_rate=2e-3, batch_size=8)
    changed = tiny_config(optimiser=other)
    refused(r"\(optimiser.learning_rate was 0.001, is now 0.002\)", changed, tiny_corpus, tiny_run, resume=True)
    refused(r"\(seed was 0, is now 5\)", tiny_config(seed=5), tiny_corpus, tiny_run, resume=True)
    corpus = write_corpus(tmp_path / "other", seed=1)
    refused("another corpus", tiny_config(), corpus, tiny_run, resume=True)


def test_a_folder_that_holds_something_is_not_written_over(
    tiny_run: Path, tiny_corpus: Path, tiny_config: Configs, tmp_path: Path
) -> None:
    config = tiny_config()
    refused("holds a run already; add --resume", config, tiny_corpus, tiny_run)
    refused("holds no run to resume", config, tiny_corpus, tmp_path / "nothing", resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    refused("not empty and holds no run", config, tiny_corpus, tmp_path / "full")
    refused("is a file", config, tiny_corpus, tmp_path / "full" / "thesis.txt")
    refused("cannot be written", config, tiny_corpus, tmp_path / "full" / "thesis.txt" / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


def test_what_cannot_be_trained_is_refused_and_nothing_is_left(
    tiny_corpus: Path, tiny_config: Configs, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    config = tiny_config()
    refused("not a prepared corpus", config, tmp_path / "none", out)
    refused("too few for a batch", tiny_config(optimiser=OptimiserConfig(batch_size=64)), tiny_corpus, out)
    refused("validation share", config, write_corpus(tmp_path / "bare", val=0), out)
    with pytest.raises(InputError, match=r"method 'magic' is unknown; known are .*convirt"):
        tiny_config(method="magic")
    refused("needs a GPU", tiny_config(precision="16-mixed"), tiny_corpus, out)
    lost = replace(config.text_encoder, source=str(tmp_path / "lost"))
    refused("no such file or folder", tiny_config(text_encoder=lost), tiny_corpus, out)
    assert not out.exists()


def test_half_precision_trains_too(tiny_config: Configs, tiny_corpus: Path) -> None:
    trainer = make_trainer(tiny_config(precision="bf16-mixed"))
    train = TrainingBatches(Corpus.open(tiny_corpus), 8, 0)
    losses = [trainer.train_step(train[step])["loss"] for step in range(3)]
    assert all(math.isfinite(loss) for loss in losses)
    assert all(p.dtype == torch.float32 for p in trainer.method.parameters())
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in trainer.method.parameters() if p.dim() == 4)


def test_the_bar_shows_loss_speed_and_time_left_in_a_terminal() -> None:
    terminal = io.StringIO()
    with Display(Console(file=terminal, force_terminal=True, width=120), total=10, done=4) as display:
        display.step(5, 1.25, 80.0)
        display.line("step 5: validation loss 1.3")
    said = terminal.getvalue()
    for words in ("5/10", "loss 1.250", "80 pairs/s", "left", "validation loss 1.3"):
        assert words in said


def test_plain_lines_come_now_and_then_without_a_terminal() -> None:
    stream = io.StringIO()
    with Display(Console(file=stream, width=120), total=300, done=0) as display:
        for step in range(300):
            display.step(step + 1, 1.25, 80.0)
    assert stream.getvalue().splitlines() == ["step 300/300  loss 1.250  80 pairs/s  0 s left"]


def test_tensorboard_has_each_step_once_after_a_resume(
    tiny_corpus: Path, tiny_config: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    take_step = Trainer.train_step

    def dies(trainer: Trainer, batch: Batch) -> dict[str, float]:
        if trainer.step == 8:
            raise KeyboardInterrupt
        return take_step(trainer, batch)

    monkeypatch.setattr(Trainer, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny_config(), tiny_corpus, tmp_path / "run")
    monkeypatch.setattr(Trainer, "train_step", take_step)
    pretrain(tiny_config(), tiny_corpus, tmp_path / "run", resume=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("step/loss")] == list(range(1, 13))


def test_durations_for_people() -> None:
    assert [duration(s) for s in (3.4, 75, 7500, 100_000)] == ["3 s", "1 min 15 s", "2 h 05 min", "1 d 3 h"]
