"""The captioning baselines: what both decoders keep to, whole runs, and that they learn."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import convirt
from conftest import read_log
from convirt.config import ImageEncoderConfig, TransformConfig
from convirt.data.corpora import Corpus
from convirt.data.loading.loader import Batch
from convirt.errors import InputError
from convirt.methods import METHODS
from convirt.methods.captioning import Captioner
from convirt.methods.captioning.vocabulary import UNKNOWN, report_words
from convirt.recipes import RECIPES
from convirt.recipes.captioning import AttentionLSTMObjective, MeshedTransformerObjective
from tiny_captioners import LSTM, METHOD_NAMES, OBJECTIVES, TRANSFORMER, MakeConfig, make_batch, make_captioner


@pytest.fixture
def make(tiny_config: MakeConfig, tiny_corpus: Path) -> Callable[..., Captioner]:
    """Makes a tiny captioner of a method's name."""
    return partial(make_captioner, tiny_config, tiny_corpus)


# Both decoders


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_word_by_word_is_the_same_as_all_at_once(method: str, make: Callable[..., Captioner]) -> None:
    captioner = make(method).eval()
    decoder, grid = captioner.decoder, torch.randn(3, captioner.image_encoder.grid_dim, 2, 2)
    words = torch.randint(4, 9, (3, 7))
    with torch.no_grad():
        at_once = decoder(grid, words)
        logits = at_once[0] if isinstance(at_once, tuple) else at_once
        state = decoder.begin(grid)
        for t in range(7):
            # Rows may be exchanged between hypotheses of an image on the way: here all are their own image's.
            said, state = decoder.step(state.pick(torch.arange(3)), words[:, t])
            torch.testing.assert_close(said, logits[:, t], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_word_does_not_see_those_after_it_and_padding_changes_nothing(
    method: str, make: Callable[..., Captioner]
) -> None:
    captioner = make(method).eval()
    reports: list[tuple[str, ...]] = [("there is a disc .",), ("ring seen .", "noise in the image .")]
    alone = [captioner.loss(make_batch(reports), None)[0].item()]
    inputs, targets = captioner.vocabulary.encode(reports, 20)
    more = torch.nn.functional.pad(inputs, (0, 4)), torch.nn.functional.pad(targets, (0, 4))
    grid = captioner.grid(make_batch(reports).images_B1SS, None)
    alone.append(captioner.score(grid, *more)[0].item())
    assert alone[0] == pytest.approx(alone[1], rel=1e-6)
    changed = inputs.clone()
    changed[:, 3:] = UNKNOWN
    before, after = (captioner.decoder(grid, words) for words in (inputs, changed))
    before, after = (out[0] if isinstance(out, tuple) else out for out in (before, after))
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_tensor_trains_the_encoder_among_them(method: str, make: Callable[..., Captioner]) -> None:
    captioner = make(method, transform=TransformConfig(size=64)).train()  # 2 x 2 places: attention has a choice
    generator = torch.Generator().manual_seed(0)
    for parameter in captioner.decoder.parameters():  # at the start attention is nearly even and learns slowly
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    loss, _ = captioner.loss(make_batch([("there is a disc .",), ("ring seen .", "noise in the image .")]), None)
    loss.backward()
    for name, parameter in captioner.parameters_to_train().items():
        assert parameter.grad is not None, name
        # Added to every key, a bias changes no attention; the last norm of a residual block begins at zero.
        if "key.bias" not in name and "image_encoder" not in name:
            assert parameter.grad.abs().max() > 1e-7, name
    # The grid is what the exported features are the mean of, so that its training is theirs.
    images = torch.rand(2, 1, 32, 32)
    encoder = captioner.image_encoder.eval()
    torch.testing.assert_close(encoder.grid(images).mean(dim=(2, 3)), encoder(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_training_sees_views_that_the_generator_draws(method: str, make: Callable[..., Captioner]) -> None:
    captioner = make(method)
    assert all(module.training for module in captioner.modules())
    captioner.eval()
    batch = make_batch([("there is a disc .",), ("ring seen .",)])
    losses = [captioner.loss(batch, torch.Generator().manual_seed(seed))[0].item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert captioner.loss(batch, None)[0].item() not in losses


@torch.no_grad()
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_evaluation_writes_reports_of_so_many_pairs_and_leaves_no_trace(
    method: str, make: Callable[..., Captioner], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = make(method).eval()
    batches = [make_batch([("there is a disc .",)] * 8), make_batch([("ring seen .",)] * 8)]
    said: list[int] = []
    grids: list[int] = []
    say, grid = captioner.say, captioner.grid
    monkeypatch.setattr(captioner, "say", lambda maps: said.append(len(maps)) or say(maps))
    monkeypatch.setattr(captioner, "grid", lambda *given: grids.append(1) or grid(*given))
    state = {name: tensor.clone() for name, tensor in captioner.state_dict().items()}
    figures = captioner.evaluate(batches)
    assert said == [8, 4]  # decoded = 12
    assert len(grids) == 2  # an image is encoded once for loss and report
    assert figures["loss"] == pytest.approx(np.mean([captioner.loss(batch, None)[0].item() for batch in batches]))
    assert figures == captioner.evaluate(batches)
    assert all(torch.equal(tensor, state[name]) for name, tensor in captioner.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_cider_is_of_the_said_and_the_whole_written_reports(
    method: str, make: Callable[..., Captioner], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = make(method).eval()
    reports: list[tuple[str, ...]] = [("there is a disc .", "noise ."), ("ring seen .",), ("no bar in the image .",)]
    words = [report_words(report) for report in reports]
    monkeypatch.setattr(captioner, "say", lambda maps: words[: len(maps)])
    figures = captioner.evaluate([make_batch(reports)])
    assert figures["cider"] == pytest.approx((10 + 5 + 10) / 3)  # the second has no three words
    assert figures["said_words"] == pytest.approx((5 + 2 + 5) / 3)


def test_what_a_captioner_cannot_be_built_from_is_refused(tiny_config: MakeConfig, tiny_corpus: Path) -> None:
    config = tiny_config(method="caption_lstm", objective=LSTM)
    with pytest.raises(ValueError, match="corpus or a checkpoint folder"):
        METHODS["caption_lstm"](config)
    vit = replace(
        config,
        image_encoder=ImageEncoderConfig(name="test_vit.r160_in1k", weights="random"),
        transform=TransformConfig(size=160),
    )
    with pytest.raises(InputError, match=r"test_vit\.r160_in1k has no spatial feature map"):
        METHODS["caption_lstm"](vit, corpus=Corpus.open(tiny_corpus))


@pytest.mark.parametrize(
    ("objective", "values"),
    [
        (AttentionLSTMObjective, {"beam": 0}),
        (AttentionLSTMObjective, {"min_count": 0}),
        (AttentionLSTMObjective, {"max_words": 1}),
        (AttentionLSTMObjective, {"decoded": 1}),
        (AttentionLSTMObjective, {"hidden_dim": 0}),
        (AttentionLSTMObjective, {"dropout": 1.0}),
        (AttentionLSTMObjective, {"attention_penalty": -1.0}),
        (MeshedTransformerObjective, {"width": 100}),
        (MeshedTransformerObjective, {"layers": 0}),
        (MeshedTransformerObjective, {"memories": -1}),
        (MeshedTransformerObjective, {"dropout": -0.1}),
    ],
)
def test_senseless_settings_are_one_line_that_names_them(objective: type, values: dict[str, object]) -> None:
    (name,) = values
    with pytest.raises(InputError, match=rf"^objective\.{name} [^\n]+{values[name]}$"):
        objective(**values)


def test_the_papers_recipes_hold_the_sources_constants_and_convirts_for_the_rest() -> None:
    paper = RECIPES["paper_chest"]()
    lstm, transformer = RECIPES["paper_caption_lstm"](), RECIPES["paper_caption_transformer"]()
    for recipe, batch_size, warmup in ((lstm, 64, 0), (transformer, 50, 10_000)):  # Xu et al., 4.3; Cornia et al., 4.2
        assert recipe.optimiser == replace(paper.optimiser, batch_size=batch_size, warmup_steps=warmup)
        for part in ("image_encoder", "transform", "validation"):
            assert getattr(recipe, part) == getattr(paper, part)
        assert recipe.image_encoder.weights == "hub"  # ImageNet (ConVIRT, 3.3)
        assert recipe.objective.decoded >= recipe.validation.pairs  # type: ignore[attr-defined]
    assert isinstance(lstm.objective, AttentionLSTMObjective)
    assert lstm.objective.attention_penalty == 1
    # kelvinxu/arctic-captions, evaluate_coco.py
    assert (lstm.objective.word_dim, lstm.objective.hidden_dim, lstm.objective.attention_dim) == (512, 1800, 512)
    assert lstm.objective.dropout == 0.5
    assert isinstance(transformer.objective, MeshedTransformerObjective)
    assert [getattr(transformer.objective, name) for name in ("width", "heads", "layers", "memories")] == [
        512,
        8,
        3,
        40,
    ]
    assert transformer.objective.dropout == 0.1
    assert transformer.objective.beam == 5


def test_the_demos_differ_from_convirts_in_the_objective_alone() -> None:
    convirt_demo = RECIPES["demo"]()
    for method in METHOD_NAMES:
        recipe = RECIPES[f"demo_{method}"]()
        same = ("image_encoder", "transform", "validation", "seed", "max_steps", "checkpoint_every")
        assert all(getattr(recipe, name) == getattr(convirt_demo, name) for name in same)
        assert replace(recipe.optimiser, text_learning_rate=1e-4) == convirt_demo.optimiser


# Whole runs


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_run_by_cider_its_encoder_and_what_is_refused(
    method: str, tiny_config: MakeConfig, tiny_corpus: Path, tmp_path: Path
) -> None:
    from convirt.training.pretrain import pretrain

    config = tiny_config(method=method, objective=OBJECTIVES[method], max_steps=10)
    run = pretrain(config, tiny_corpus, tmp_path / "run")
    rows = [row for row in read_log(run) if row["event"] == "validation"]
    assert [row["step"] for row in rows] == [5, 10]
    best = max(rows, key=lambda row: row["cider"])
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["best_validation_cider"] == best["cider"]
    assert metrics["best_step"] == best["step"]
    assert not [path for path in run.rglob("*") if path.suffix in (".pt", ".pth", ".pkl", ".bin")]
    model = convirt.load(run, part="image")
    features = model.encode_image([np.zeros((40, 30), np.uint8)] * 3, space="features")
    assert features.shape == (3, model.image_dim)
    again = METHODS[method](config, folder=run / "best")
    assert isinstance(again, Captioner)
    with pytest.raises(InputError, match="no shared space"):
        model.encode_image(np.zeros((40, 30), np.uint8))
    with pytest.raises(InputError, match="has no text tower"):
        convirt.load(run, part="text")


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_stopped_run_goes_on_bit_for_bit(
    method: str, tiny_config: MakeConfig, tiny_corpus: Path, tmp_path: Path
) -> None:
    from convirt.training.pretrain import pretrain

    config = tiny_config(method=method, objective=replace(OBJECTIVES[method], dropout=0.1), max_steps=8)
    whole = pretrain(config, tiny_corpus, tmp_path / "whole")
    pretrain(replace(config, max_steps=4), tiny_corpus, tmp_path / "parts")
    parts = pretrain(config, tiny_corpus, tmp_path / "parts", resume=True)
    # The shorter run's end is evaluated too, so the logs differ by that row alone.
    for file in ("model", "optimiser"):
        assert (whole / "last" / f"{file}.safetensors").read_bytes() == (
            parts / "last" / f"{file}.safetensors"
        ).read_bytes()
    kept = [{key: row[key] for key in ("step", "loss")} for row in read_log(parts) if row["event"] == "step"]
    assert kept == [{key: row[key] for key in ("step", "loss")} for row in read_log(whole) if row["event"] == "step"]
    assert (parts / "last" / "vocabulary.json").read_bytes() == (whole / "last" / "vocabulary.json").read_bytes()


def test_the_checkpoint_with_the_highest_cider_is_kept(
    tiny_config: MakeConfig, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convirt.training.pretrain import pretrain

    found = iter([{"loss": 3.0, "cider": 0.2}, {"loss": 2.0, "cider": 0.5}, {"loss": 1.0, "cider": 0.4}])
    monkeypatch.setattr(Captioner, "evaluate", lambda captioner, batches: next(found))
    run = pretrain(tiny_config(method="caption_lstm", objective=LSTM, max_steps=15), tiny_corpus, tmp_path / "run")
    assert json.loads((run / "metrics.json").read_text())["best_step"] == 10


# It learns (64 pairs, at most 300 steps)


def captioned_pairs(count: int) -> Batch:
    """Squares at places of a grid, of several sizes and greys; the report says which: a function of the image."""
    images = torch.zeros(count, 1, 64, 64, dtype=torch.uint8)
    reports: list[tuple[str, ...]] = []
    for number in range(count):
        row, column, size, grey = number % 4, number // 4 % 4, number // 16 % 2, number // 32 % 2
        half = (4, 8)[size]
        y, x = 8 + 16 * row, 8 + 16 * column
        images[number, 0, y - half : y + half, x - half : x + half] = (110, 255)[grey]
        kind = f"there is a {('small', 'large')[size]} {('faint', 'dense')[grey]} opacity"
        where = f"in row {('one', 'two', 'three', 'four')[row]} and column {('one', 'two', 'three', 'four')[column]}"
        reports.append((f"{kind} {where} .", "no other finding ."))
    sentences = [report[0] for report in reports]
    return Batch(images_B1SS=images, sentences=sentences, reports=reports, indices=np.arange(count), step=0)


def floor(captioner: Captioner, batch: Batch) -> float:
    """What no loss of these pairs can be below: the reports are a function of the image, so -log p can be 0.

    Of the LSTM's penalty, a report of C words and L places leaves (C - L)^2 / L at least.
    """
    if not isinstance(captioner.objective, AttentionLSTMObjective):
        return 0.0
    places = captioner.grid(batch.images_B1SS[:1], None)[0, 0].numel()
    lengths = [len(report_words(report)) + 1 for report in batch.reports]
    return captioner.objective.attention_penalty * sum((c - places) ** 2 / places for c in lengths) / sum(lengths)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_it_overfits_and_says_what_it_has_learnt(
    method: str, tiny_config: MakeConfig, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = captioned_pairs(64)
    objectives = {
        "caption_lstm": replace(LSTM, word_dim=64, hidden_dim=128, attention_dim=64, max_words=24, decoded=64),
        "caption_transformer": replace(TRANSFORMER, width=64, heads=4, feed_forward=128, max_words=24, decoded=64),
    }
    monkeypatch.setattr(Corpus, "reports", lambda corpus, split: iter(batch.reports))
    changes = {"objective": objectives[method], "transform": TransformConfig(size=64)}
    captioner = make_captioner(tiny_config, tiny_corpus, method, **changes)
    lowest = floor(captioner, batch)
    optimiser = torch.optim.Adam(captioner.parameters(), lr=2e-3)
    captioner.train()
    first = last = 0.0
    for step in range(300):
        loss, _ = captioner.loss(batch, None)
        last = loss.item()
        first = last if step == 0 else first
        if last - lowest < 0.005 * (first - lowest):
            break
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(captioner.parameters(), 1.0)
        optimiser.step()
    assert first - last >= 0.9 * (first - lowest)
    with torch.no_grad():
        figures = captioner.eval().evaluate([batch])
    assert figures["cider"] >= 5
