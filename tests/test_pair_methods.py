"""Contrastive-Binary, CLIP, MedCLIP and the masked language model: what they compute, what trains, runs and models."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import read_log
from convirt import load
from convirt.config import OBJECTIVES, PretrainConfig, ProjectionConfig, ValidationConfig
from convirt.data.corpora import Corpus
from convirt.data.loading.export import export
from convirt.data.loading.loader import DecoupledBatches, TrainingBatches, read_ahead
from convirt.data.loading.streaming import StreamedCorpus
from convirt.errors import InputError
from convirt.methods import CLIP, METHODS, ContrastiveBinary, MaskedLanguageModel, MedCLIP, Method, SigLIP
from convirt.objectives import (
    binary_pair_loss,
    draw_fakes,
    scaled_contrastive_loss,
    semantic_matching_loss,
    sigmoid_pair_loss,
)
from convirt.recipes import RECIPES
from convirt.training.optimiser import build_optimiser
from convirt.training.plan import count_parameters
from convirt.training.pretrain import pretrain
from convirt.transforms import plain_view
from test_convirt_method import make_batch, make_sentences

MakeConfig = Callable[..., PretrainConfig]
NAMES = ("contrastive_binary", "clip", "siglip", "medclip", "masked_language_model")
LINEAR = ProjectionConfig(dim=16, linear=True, bias=False)


@pytest.fixture
def config_of(tiny_config: MakeConfig) -> Callable[..., PretrainConfig]:
    """Makes a tiny configuration of a method."""

    def make(name: str, **changes: Any) -> PretrainConfig:
        config = tiny_config(method=name, objective=OBJECTIVES[name]())
        if name == "masked_language_model":
            text_encoder = replace(config.text_encoder, frozen_layers=0, freeze_embeddings=False)
            return replace(config, text_encoder=text_encoder, **changes)
        return replace(config, **{"projection": LINEAR, **changes})

    return make


@pytest.mark.parametrize("name", NAMES)
def test_every_trained_parameter_gets_a_gradient_and_no_other(name: str, config_of: MakeConfig) -> None:
    method = METHODS[name](config_of(name)).train()
    loss, figures = method.loss(make_batch(make_sentences(8, 0)), torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.ndim == 0
    assert all(math.isfinite(figure) for figure in figures.values())
    given = {key for key, parameter in method.named_parameters() if parameter.grad is not None}
    assert given == set(method.parameters_to_train())
    counted = count_parameters(method)
    assert sum(map(sum, counted.values())) == sum(parameter.numel() for parameter in method.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_validation_draws_nothing_and_changes_nothing(name: str, config_of: MakeConfig) -> None:
    method = METHODS[name](config_of(name)).eval()
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    batch, state = make_batch(make_sentences(8, 0)), torch.random.get_rng_state()
    first, again = method.loss(batch, None)[0], method.loss(batch, None)[0]
    assert torch.equal(first, again)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(tensor, before[key]) for key, tensor in method.state_dict().items())
    drawn = [method.loss(batch, torch.Generator().manual_seed(seed))[0].item() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_cut_in_two_is_the_run_of_one_piece(
    name: str, config_of: MakeConfig, tiny_corpus: Path, tmp_path: Path
) -> None:
    """tests/test_resume.py stops ConVIRT at any moment; here the state of each method is what matters."""
    config = config_of(name, max_steps=8, validation=ValidationConfig(every=4, pairs=16, patience=1))
    whole = pretrain(config, tiny_corpus, tmp_path / "whole")
    parts = pretrain(replace(config, max_steps=4), tiny_corpus, tmp_path / "parts")
    pretrain(config, tiny_corpus, parts, resume=True)
    for file in ("last/model.safetensors", "last/optimiser.safetensors", "best/model.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    assert [row["step"] for row in read_log(parts) if row["event"] == "step"] == list(range(1, 9))


# Groups of parameters


def test_clip_decays_weights_alone(config_of: MakeConfig) -> None:
    """Radford et al. 2021, 2.5: no decay of gains and biases; the temperature has none either."""
    config = config_of("clip")
    config = replace(config, optimiser=replace(config.optimiser, weight_decay=0.2, text_learning_rate=1e-4))
    method = CLIP(config)
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    trained: list[str] = []
    for group in build_optimiser(method, config.optimiser).param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            trained.append(name)
            assert group["weight_decay"] == (0.2 if parameter.ndim > 1 else 0.0), name
            assert group["rate_share"] == pytest.approx(0.1 if name.startswith("text_encoder.") else 1.0), name
    assert sorted(trained) == sorted(method.parameters_to_train())
    assert "temperature.log_scale" in trained


def test_the_masked_language_model_decays_weights_alone(config_of: MakeConfig) -> None:
    """As google-research/bert, `optimization.py`."""
    config = config_of("masked_language_model")
    method = MaskedLanguageModel(config)
    shapes = {id(parameter): parameter.ndim for parameter in method.parameters()}
    groups = build_optimiser(method, replace(config.optimiser, weight_decay=0.01)).param_groups
    assert {group["weight_decay"] for group in groups} == {0.0, 0.01}
    for group in groups:
        assert all((shapes[id(one)] > 1) == (group["weight_decay"] > 0) for one in group["params"])


@pytest.mark.parametrize("name", ["convirt", "contrastive_binary"])
def test_convirts_penalty_excepts_nothing(name: str, config_of: MakeConfig) -> None:
    config = config_of(name)
    groups = build_optimiser(METHODS[name](config), config.optimiser).param_groups
    assert {group["weight_decay"] for group in groups} == {config.optimiser.weight_decay}


# What the losses are of


def encodings(method: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Projections of plain views and sentences, by hand."""
    views = plain_view(batch.images_B1SS, method.config.transform.size)
    v = method.image_projection(method.image_encoder(views))
    return v, method.text_projection(method.text_encoder(method.text_encoder.tokenize(batch.sentences)))


def test_clip_is_its_equation_on_projections(config_of: MakeConfig) -> None:
    method = CLIP(config_of("clip")).eval()
    batch = make_batch(make_sentences(6, 1))
    loss, figures = method.loss(batch, None)
    torch.testing.assert_close(loss, scaled_contrastive_loss(*encodings(method, batch), torch.tensor(1 / 0.07)))
    assert figures["scale"] == pytest.approx(1 / 0.07)
    assert "image_to_text_accuracy" in figures


def test_siglip_is_its_equation_on_projections(config_of: MakeConfig) -> None:
    method = SigLIP(config_of("siglip")).eval()
    batch = make_batch(make_sentences(6, 1))
    loss, figures = method.loss(batch, None)
    torch.testing.assert_close(
        loss, sigmoid_pair_loss(*encodings(method, batch), torch.tensor(10.0), torch.tensor(-10.0))
    )
    assert (figures["scale"], figures["bias"]) == (pytest.approx(10), -10)
    assert "image_to_text_accuracy" in figures


def test_the_scale_is_learned_and_never_exceeds_100(config_of: MakeConfig) -> None:
    method = CLIP(config_of("clip")).train()
    batch = make_batch(make_sentences(6, 1))
    with torch.no_grad():
        method.temperature.log_scale.fill_(10.0)
    assert method.eval().loss(batch, None)[1]["scale"] == pytest.approx(100)
    assert method.temperature.log_scale.item() == 10.0  # validation changes nothing
    loss, figures = method.train().loss(batch, torch.Generator())
    assert figures["scale"] == pytest.approx(100)
    assert method.temperature.log_scale.item() == pytest.approx(math.log(100))
    loss.backward()
    gradient = method.temperature.log_scale.grad
    assert gradient is not None
    assert gradient.item() != 0  # so that it can come back from the bound


def test_contrastive_binary_is_its_equation_on_projections(config_of: MakeConfig) -> None:
    method = ContrastiveBinary(config_of("contrastive_binary")).eval()
    batch = make_batch(make_sentences(6, 1))
    v, u = encodings(method, batch)
    fakes = draw_fakes(batch.sentences, torch.Generator().manual_seed(3))
    real = torch.stack([method.pair_head(v[i : i + 1], u[i : i + 1])[0] for i in range(6)])
    fake = torch.stack([method.pair_head(v[i : i + 1], u[fakes[i] : fakes[i] + 1])[0] for i in range(6)])
    # The views draw nothing here, so that the generator comes to the fakes as it was.
    method.draw_views = lambda images, generator: plain_view(images, 32)  # type: ignore[method-assign]
    loss, figures = method.loss(batch, torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss, binary_pair_loss(real, fake))
    assert figures["real_accuracy"] == pytest.approx((real > 0).double().mean().item())
    assert figures["fake_accuracy"] == pytest.approx((fake < 0).double().mean().item())
    assert figures["equal_fakes"] == 0
    assert method.loss(make_batch(["a ."] * 4), None)[1]["equal_fakes"] == 1


def test_the_head_scores_all_pairs_as_it_scores_each(config_of: MakeConfig) -> None:
    head = ContrastiveBinary(config_of("contrastive_binary")).pair_head
    v, u = torch.randn(5, 16), torch.randn(3, 16)
    every = head.all_pairs(v, u)
    assert every.shape == (5, 3)
    for i in range(5):
        for j in range(3):
            torch.testing.assert_close(every[i, j], head(v[i : i + 1], u[j : j + 1])[0])


REPORTS = [
    ("there is a pneumothorax .", "no edema ."),
    ("the heart is enlarged .", "possible edema ."),
    ("the lungs are clear .",),
    ("rib fracture .", "there is a pneumothorax ."),
]


def test_medclip_is_its_equation_on_findings(config_of: MakeConfig) -> None:
    """The image has the findings of its own report, a text those of its own sentence."""
    method = MedCLIP(config_of("medclip")).eval()
    sentences = ["no edema .", "there is a pneumothorax .", "the heart is enlarged .", "possible edema ."]
    batch = replace(make_batch(sentences), reports=REPORTS)
    names = method.lexicon.classes
    of_images = [{"Pneumothorax"}, {"Cardiomegaly", "Edema"}, {"No Finding"}, {"Fracture", "Pneumothorax"}]
    of_texts = [{"No Finding"}, {"Pneumothorax"}, {"Cardiomegaly"}, {"Edema"}]
    images, texts = (
        torch.tensor([[float(name in has) for name in names] for has in rows]) for rows in (of_images, of_texts)
    )
    loss, figures = method.loss(batch, None)
    expected = semantic_matching_loss(*encodings(method, batch), images, texts, torch.tensor(1 / 0.07))
    torch.testing.assert_close(loss, expected)
    assert figures["normal_images"] == 0.25
    assert figures["normal_texts"] == 0.25
    assert figures["target_entropy"] < loss.item()


def test_doubt_counts_as_the_objective_says(config_of: MakeConfig) -> None:
    config = config_of("medclip")
    half = MedCLIP(replace(config, objective=replace(config.objective, uncertain=0.5)))
    vector = half.findings([("possible edema .",)])[0]
    assert vector[half.lexicon.classes.index("Edema")] == 0.5


def test_medclip_keeps_its_lexicon_in_the_checkpoint(config_of: MakeConfig, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("no_finding = 'none'\n[findings.disc]\nmentions = ['disc']\n")
    config = config_of("medclip")
    config = replace(config, objective=replace(config.objective, lexicon=str(path)))
    method = MedCLIP(config)
    assert method.lexicon.classes == ("disc", "none")
    (tmp_path / "kept").mkdir()
    method.save_architecture(tmp_path / "kept")
    path.unlink()
    assert MedCLIP(config, folder=tmp_path / "kept").lexicon.classes == ("disc", "none")
    with pytest.raises(InputError, match="no findings lexicon"):
        MedCLIP(config)
    path.write_text("[findings.disc]\nmentions = ['disc']\n")
    with pytest.raises(InputError, match="no_finding"):
        MedCLIP(config)


# Decoupled sampling (MedCLIP, section 3.1)


def rows_of(batch: Any) -> tuple[Any, ...]:
    return batch.images_B1SS.tolist(), batch.sentences, batch.reports, batch.indices.tolist()


def test_sentences_come_from_another_permutation(tiny_corpus: Path) -> None:
    corpus = Corpus.open(tiny_corpus)
    decoupled, paired = DecoupledBatches(corpus, 8, 3), TrainingBatches(corpus, 8, 3)
    text_pairs: list[int] = []
    for step in range(5):
        mixed, own = decoupled[step], paired[step]
        assert torch.equal(mixed.images_B1SS, own.images_B1SS)
        assert mixed.reports == own.reports
        assert mixed.indices.tolist() == own.indices.tolist()
        texts = decoupled.texts.epoch(0)[step]
        text_pairs += texts.tolist()
        assert sum(texts == own.indices) <= 3
        for index, sentence in zip(texts, mixed.sentences, strict=True):
            assert sentence in corpus.pair(int(index)).sentences
        assert rows_of(decoupled[step]) == rows_of(mixed)
    assert sorted(text_pairs) == sorted(corpus.indices("train"))  # in an epoch each pair gives one sentence


def test_decoupled_batches_do_not_depend_on_processes_or_streaming(tiny_corpus: Path, tmp_path: Path) -> None:
    export(tiny_corpus, tmp_path / "parquet", shard_mib=0.01)
    address = str(tmp_path / "parquet")
    assert len(np.unique(StreamedCorpus.open(address).shards)) > 4
    for place, opened in ((tiny_corpus, Corpus.open), (address, StreamedCorpus.open)):
        with read_ahead(DecoupledBatches(opened(place), 8, 3), range(12), 2) as ahead:  # type: ignore[operator]
            in_processes = [rows_of(batch) for batch in ahead]
        corpus = opened(place)  # type: ignore[operator]
        batches = DecoupledBatches(corpus, 8, 3)
        alone = [rows_of(batches[step]) for step in range(12)]
        assert alone == in_processes
        for step, (_, sentences, _, _) in enumerate(alone):
            texts = batches.texts.epoch(step // 5)[step % 5]
            assert all(s in corpus.pair(int(i)).sentences for i, s in zip(texts, sentences, strict=True))


def test_medclip_trains_on_them_and_others_do_not(tiny_corpus: Path, config_of: MakeConfig) -> None:
    corpus = Corpus.open(tiny_corpus)
    assert isinstance(MedCLIP.training_batches(corpus, config_of("medclip")), DecoupledBatches)
    assert not isinstance(CLIP.training_batches(corpus, config_of("clip")), DecoupledBatches)


# Masked language model


def test_no_image_is_decoded_for_it(tiny_corpus: Path, config_of: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_: object) -> None:
        raise AssertionError("an image is decoded")

    monkeypatch.setattr("convirt.data.loading.loader.decode", decode)
    config = config_of("masked_language_model")
    corpus = Corpus.open(tiny_corpus)
    batches = MaskedLanguageModel.training_batches(corpus, config)
    validation = MaskedLanguageModel.validation_batches(corpus, config)
    assert batches[0].images_B1SS.shape == (8, 1, 0, 0)
    assert validation[0].images_B1SS.shape == (8, 1, 0, 0)
    monkeypatch.undo()
    assert batches[0].reports == TrainingBatches(corpus, 8, config.seed)[0].reports


def test_long_reports_are_seen_whole_over_time(config_of: MakeConfig) -> None:
    """A stretch of a report that is longer than the encoder takes; another one when drawn anew."""
    method = MaskedLanguageModel(config_of("masked_language_model"))
    report = tuple(f"{word} is seen ." for word in ("disc", "bar", "cross", "ring", "noise", "left", "right", "image"))
    seen: set[str] = set()
    for seed in range(30):
        pieces, real, words = method.tokenize([report, ("no disc .",)], torch.Generator().manual_seed(seed))
        assert pieces.shape[1] <= method.text_encoder.max_tokens == 16
        assert words[1].sum() == 3
        assert real[1].sum() == 5
        assert not (words & ~real).any()
        seen |= set(method.tokenizer.convert_ids_to_tokens(pieces[0][words[0]]))
    assert seen == set(" ".join(report).split())


def test_its_text_encoder_is_where_another_run_starts(
    config_of: MakeConfig, tiny_config: MakeConfig, tiny_corpus: Path, tmp_path: Path
) -> None:
    run = pretrain(config_of("masked_language_model", max_steps=5), tiny_corpus, tmp_path / "language")
    model = load(run)
    assert model.image_encoder is None
    assert model.encode_text(["disc seen ."], space="features").shape == (1, 32)
    with pytest.raises(InputError, match="no image tower"):
        model.encode_image(np.zeros((8, 8)))
    with pytest.raises(InputError, match="no image tower"):
        load(run, part="image")
    base = tiny_config()
    for source in (run, run / "best", run / "last"):
        started = METHODS["convirt"](replace(base, text_encoder=replace(base.text_encoder, source=str(source))))
        expected = load(run if source.name != "last" else source).text_encoder.state_dict()
        own = started.text_encoder.state_dict()  # type: ignore[union-attr]
        assert own.keys() == expected.keys()
        assert all(torch.equal(own[name], expected[name]) for name in own)
        frozen = {name for name, p in started.named_parameters() if "text_encoder" in name and not p.requires_grad}
        assert len(frozen) == 5 + 2 * 16  # the run's own settings hold: embeddings and two layers
    random = replace(base, text_encoder=replace(base.text_encoder, source=str(run), weights="random"))
    assert not torch.equal(
        METHODS["convirt"](random).state_dict()["text_encoder.model.embeddings.word_embeddings.weight"],
        expected["model.embeddings.word_embeddings.weight"],
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "corpus.json").write_text("{}")
    with pytest.raises(InputError, match="without a checkpoint that holds a text encoder"):
        METHODS["convirt"](replace(base, text_encoder=replace(base.text_encoder, source=str(other))))
    (run / "best" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="cannot read the weights"):
        METHODS["convirt"](replace(base, text_encoder=replace(base.text_encoder, source=str(run))))


# Models


def test_the_head_is_loaded_and_matches(config_of: MakeConfig, tiny_corpus: Path, tmp_path: Path) -> None:
    run = pretrain(config_of("contrastive_binary", max_steps=5), tiny_corpus, tmp_path / "run")
    model = load(run)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 40), dtype=np.uint8) for _ in range(5)]
    texts = ["there is a disc .", "no ring .", "noise seen ."]
    logits = model.match(images, texts, batch_size=2)
    assert logits.shape == (5, 3)
    assert logits.dtype == np.float32
    assert model.pair_head is not None
    v = torch.from_numpy(model.encode_image(images, normalise=False))
    u = torch.from_numpy(model.encode_text(texts, normalise=False))
    expected = [[model.pair_head(v[i : i + 1], u[j : j + 1]).item() for j in range(3)] for i in range(5)]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert model.match([], texts).shape == (0, 3)
    assert load(run, part="image").pair_head is None
    with pytest.raises(InputError, match="no head that matches pairs"):
        load(run, part="image").match_vectors(v.numpy(), u.numpy())


@pytest.mark.parametrize("name", ["clip", "medclip"])
def test_the_learned_temperature_is_the_models(
    name: str, config_of: MakeConfig, tiny_corpus: Path, tmp_path: Path
) -> None:
    run = pretrain(config_of(name, max_steps=5), tiny_corpus, tmp_path / "run")
    model = load(run)
    assert model.temperature != pytest.approx(0.07, rel=1e-6)
    assert model.temperature == pytest.approx(0.07, rel=0.05)
    assert model.pair_head is None
    assert model.shared_dim == 16


# What is refused


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("contrastive_binary", {"projection": ProjectionConfig()}, "--projection.linear"),
        ("clip", {"projection": ProjectionConfig(linear=True)}, "--projection.no-bias"),
        ("clip", {"projection": ProjectionConfig(bias=False)}, "--projection.linear"),
        ("medclip", {"projection": ProjectionConfig()}, "--projection.linear"),
    ],
)
def test_projections_of_another_kind_are_refused(
    name: str, changes: dict[str, Any], message: str, config_of: MakeConfig
) -> None:
    with pytest.raises(InputError, match=message):
        METHODS[name](config_of(name, **changes))


def test_a_frozen_language_model_is_refused(tiny_config: MakeConfig) -> None:
    name = "masked_language_model"
    with pytest.raises(InputError, match=r"--text-encoder\.frozen-layers 0"):
        METHODS[name](tiny_config(method=name, objective=OBJECTIVES[name]()))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("contrastive_binary", {"hidden": 0}, "objective.hidden must be at least 1, got 0"),
        ("clip", {"initial_temperature": 0.0}, "objective.initial_temperature must be positive, got 0.0"),
        ("clip", {"initial_temperature": 0.001}, "objective.largest_scale"),
        ("clip", {"largest_scale": float("inf")}, "objective.largest_scale"),
        ("medclip", {"uncertain": 1.5}, r"objective.uncertain must lie in \[0, 1\], got 1.5"),
        ("masked_language_model", {"share": 0.0}, r"objective.share must lie in \(0, 1\], got 0.0"),
    ],
)
def test_senseless_constants_are_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OBJECTIVES[name](**values)


# Recipes


def test_the_papers_constants() -> None:
    """ConVIRT 3.3; Radford et al. 2021, 2.3 to 2.5, tables 18 and 19; RyanWangZf/MedCLIP; google-research/bert."""
    clip, medclip = RECIPES["paper_clip"](), RECIPES["paper_medclip"]()
    assert asdict(clip.objective) == {"initial_temperature": 0.07, "largest_scale": 100.0}
    assert (clip.optimiser.kind, clip.optimiser.weight_decay, clip.optimiser.warmup_steps) == ("adamw", 0.2, 2000)
    assert (clip.max_epochs, clip.projection.dim, clip.projection.linear, clip.projection.bias) == (
        32,
        1024,
        True,
        False,
    )
    assert (clip.transform.flip, clip.transform.degrees, clip.transform.jitter_probability) == (0, 0, 0)
    assert medclip.optimiser.learning_rate == 5e-5
    assert (medclip.optimiser.weight_decay, medclip.optimiser.batch_size, medclip.max_epochs) == (1e-4, 100, 10)
    assert (medclip.projection.dim, medclip.projection.linear, medclip.projection.bias) == (512, True, False)
    assert (medclip.optimiser.clip_norm, medclip.text_encoder.max_tokens) == (1.0, 77)
    assert medclip.optimiser.warmup_steps == medclip.optimiser.cosine_from == medclip.optimiser.cosine_steps // 10
    assert medclip.transform.scale == (0.8, 1.1)
    assert (medclip.transform.brightness, medclip.transform.degrees, medclip.transform.translate) == (
        (0.8, 1.2),
        10,
        0.0625,
    )
    binary, chest = RECIPES["paper_contrastive_binary"](), RECIPES["paper_chest"]()
    for part in ("image_encoder", "text_encoder", "transform", "optimiser", "validation"):
        assert getattr(binary, part) == getattr(chest, part)
    assert binary.projection == replace(chest.projection, linear=True)
    language = RECIPES["paper_masked_language_model"]()
    assert asdict(language.objective) == {"share": 0.15}
    assert (language.optimiser.kind, language.optimiser.weight_decay, language.optimiser.clip_norm) == (
        "adamw",
        0.01,
        1.0,
    )
    assert (language.optimiser.learning_rate, language.optimiser.batch_size) == (5e-5, 32)
    assert (language.optimiser.warmup_steps, language.max_steps, language.text_encoder.max_tokens) == (
        10_000,
        150_000,
        128,
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_demos_budget_is_the_demos(name: str) -> None:
    demo, own = RECIPES["demo"](), RECIPES[f"demo_{name}"]()
    assert own.method == name
    assert own.validation == demo.validation
    assert own.image_encoder == demo.image_encoder
    assert own.optimiser.cosine_steps == demo.optimiser.cosine_steps
    assert own.optimiser.batch_size <= demo.optimiser.batch_size
    departures = {"target_temperature": 0.1} if name == "medclip" else {}
    assert json.loads(json.dumps(asdict(own)))["objective"] == asdict(OBJECTIVES[name]()) | departures
    assert issubclass(METHODS[name], Method)


def test_a_method_is_entered_with_its_title_its_objective_and_recipes() -> None:
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    for name, method in METHODS.items():
        assert OBJECTIVES[name] is method.objective_class
        recipes = {recipe().method for key, recipe in RECIPES.items() if key.startswith(("paper", "demo_"))}
        assert name in recipes
