"""A pretrained model at work: every form of image, both spaces, either tower, and the baselines."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convirt
from conftest import draw_shape
from convirt.config import ImageEncoderConfig, PretrainConfig
from convirt.data.imaging.grey import grey_image
from convirt.data.imaging.prepared import read_pixels
from convirt.model import Model, baseline, load
from dicom_files import dicom


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Model:
    return load(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return draw_shape("disc", "left", np.random.default_rng(0), 30, 44)


def test_vectors_are_unit_float32_rows(model: Model, pixels: np.ndarray) -> None:
    v_ND = model.encode_image([pixels, pixels.T, pixels[:20]])
    h_ND = model.encode_image([pixels, pixels.T], space="features")
    u_ND = model.encode_text(["a disc .", "there is a bar on the left side ."])
    k_ND = model.encode_text("a disc .", space="features")
    assert v_ND.shape == (3, model.shared_dim) == (3, 16)
    assert h_ND.shape == (2, model.image_dim)
    assert u_ND.shape == (2, 16)
    assert k_ND.shape == (1, model.text_dim) == (1, 32)
    for vectors in (v_ND, h_ND, u_ND, k_ND):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    raw_ND = model.encode_image([pixels, pixels.T], space="features", normalise=False)
    norms = np.linalg.norm(raw_ND, axis=1, keepdims=True)
    assert not np.allclose(norms, 1)
    np.testing.assert_allclose(raw_ND / norms, h_ND, atol=1e-6)


def test_one_or_many_in_any_batch_give_the_same(model: Model, pixels: np.ndarray) -> None:
    images = [pixels, pixels[::-1].copy(), pixels[:, ::-1].copy(), pixels.T, pixels[:20]]
    many = model.encode_image(images)
    np.testing.assert_allclose(model.encode_image(images, batch_size=2), many, atol=1e-5)
    np.testing.assert_allclose(model.encode_image(iter(images)), many, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([model.encode_image(image) for image in images]), many, atol=1e-5)
    texts = ["disc .", "there is a ring on the right side .", "no noise"]
    np.testing.assert_allclose(model.encode_text(texts, batch_size=1), model.encode_text(texts), atol=1e-5)
    assert model.encode_image([]).shape == (0, 16)
    assert model.encode_text([], space="features").shape == (0, 32)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "PIL L": Image.fromarray,
    "PIL RGB": lambda a: Image.fromarray(a).convert("RGB"),
    "PIL RGBA": lambda a: Image.fromarray(a).convert("RGBA"),
    "PIL LA": lambda a: Image.fromarray(a).convert("LA"),
    "PIL I;16": lambda a: Image.fromarray(a.astype(np.uint16) * 257),
    "PIL I": lambda a: Image.fromarray(a.astype(np.int32) * 257),
    "PIL F": lambda a: Image.fromarray(a.astype(np.float32) / 255),
    "uint8": lambda a: a,
    "uint8 HxWx1": lambda a: a[:, :, None],
    "uint8 HxWx3": lambda a: np.repeat(a[:, :, None], 3, axis=2),
    "uint8 strided": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "uint16": lambda a: a.astype(np.uint16) * 257,
    "uint16 big-endian": lambda a: (a.astype(np.uint16) * 257).astype(">u2"),
    "float32": lambda a: a.astype(np.float32) / 255,
    "float64": lambda a: a / 255,
    "tensor": torch.from_numpy,
    "tensor 1xHxW": lambda a: torch.from_numpy(a)[None],
    "tensor 3xHxW float": lambda a: torch.from_numpy(a / 255).repeat(3, 1, 1),
    "tensor half": lambda a: torch.from_numpy(a / 255).half(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_means_the_same(model: Model, pixels: np.ndarray, form: str) -> None:
    image = FORMS[form](pixels)
    tolerance = 3e-4 if "half" in form else 1e-6
    np.testing.assert_allclose(grey_image(image)[0].numpy(), pixels / 255, atol=tolerance)
    one, several = model.encode_image(image), model.encode_image([image, image])
    assert one.shape == (1, 16)
    assert several.shape == (2, 16)
    np.testing.assert_allclose(one, model.encode_image(pixels), atol=30 * tolerance)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.dcm"])
def test_a_path_is_an_image(model: Model, pixels: np.ndarray, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".dcm":
        path.write_bytes(dicom(pixels.astype("<u2") * 16))
    else:
        Image.fromarray(pixels).save(path, quality=100)
    values = read_pixels(path.read_bytes()).values_HW if path.suffix == ".dcm" else Image.open(path)
    expected = model.encode_image(values)
    for given in (path, str(path), [path, str(path)]):
        vectors = model.encode_image(given)
        assert vectors.shape == (2 if isinstance(given, list) else 1, 16)
        np.testing.assert_allclose(vectors[-1:], expected, atol=1e-3)
    path.write_bytes(b"text")
    with pytest.raises(convirt.InputError, match=f"{name} cannot be used"):
        model.encode_image(path)
    with pytest.raises(convirt.InputError, match=r"none\.png cannot be read"):
        model.encode_image("none.png")


def test_a_model_moves(tiny_run: Path, pixels: np.ndarray) -> None:
    model = load(tiny_run, device="cpu")
    assert model.to("cpu") is model
    assert model.encode_image(pixels).shape == (1, 16)
    if not torch.cuda.is_available():
        with pytest.raises(convirt.InputError, match=r"PyTorch finds no GPU; take 'cpu' or 'auto'"):
            model.to("cuda")
        with pytest.raises(convirt.InputError, match=r"PyTorch finds no GPU"):
            load(tiny_run, device="cuda")


def test_a_batch_is_many_images(model: Model, pixels: np.ndarray) -> None:
    one = model.encode_image(pixels)
    for batch in (
        torch.from_numpy(pixels)[None, None].repeat(4, 1, 1, 1),
        torch.from_numpy(pixels)[None, None].repeat(4, 3, 1, 1),
        np.repeat(np.repeat(pixels[None, :, :, None], 4, axis=0), 3, axis=3),
    ):
        np.testing.assert_allclose(model.encode_image(batch), np.repeat(one, 4, axis=0), atol=1e-5)


def test_colour_becomes_luma() -> None:
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert grey_image(red).unique().tolist() == pytest.approx([0.299])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (["x.png"], r"x\.png cannot be read \(No such file or directory\)"),
        (b"x.png", "takes PIL images"),
        (3, "takes PIL images"),
        (np.full((8, 8), 300.0), r"lie in \[0, 1\], got values from 300"),
        (np.full((8, 8), np.nan), r"lie in \[0, 1\]"),
        (np.zeros((8, 8), dtype=np.int64), "uint8, uint16 or floats"),
        (np.zeros((5, 8, 8), dtype=np.uint8), "list of images"),
        (np.zeros((0, 8), dtype=np.uint8), "two sides"),
        ([np.zeros(8, dtype=np.uint8)], "two sides"),
    ],
)
def test_other_things_are_refused(model: Model, image: Any, message: str) -> None:
    with pytest.raises(convirt.InputError, match=message) as error:
        model.encode_image(image)
    assert "\n" not in str(error.value)


def test_the_view_is_that_of_validation(model: Model, tiny_run: Path, tiny_corpus: Path) -> None:
    from convirt.data.corpora import Corpus, decode
    from convirt.data.loading.loader import ValidationBatches
    from convirt.methods import METHODS
    from convirt.training.checkpoint import read_config, read_tensors
    from convirt.transforms import plain_view

    corpus = Corpus.open(tiny_corpus)
    batch = ValidationBatches(corpus, "val", 16, 16, 0)[0]
    method = METHODS["convirt"](read_config(tiny_run / "best"), folder=tiny_run / "best")
    method.load_state_dict(read_tensors(tiny_run / "best" / "model.safetensors"))
    method.eval()
    with torch.no_grad():
        h_BD, v_BD = method.encode_image(plain_view(batch.images_B1SS, 32))  # type: ignore[operator]
        _, u_BD = method.encode_text(batch.sentences)  # type: ignore[operator]
    first = [decode(corpus.pair(int(i)).images[0]) for i in batch.indices if len(corpus.pair(int(i)).images) == 1]
    rows = [row for row, i in enumerate(batch.indices) if len(corpus.pair(int(i)).images) == 1]
    assert rows
    np.testing.assert_allclose(model.encode_image(first), v_BD[rows].numpy(), atol=1e-5)
    h_ND = model.encode_image(first, space="features", normalise=False)
    np.testing.assert_allclose(h_ND, h_BD[rows].numpy(), atol=1e-4)
    np.testing.assert_allclose(model.encode_text(batch.sentences), u_BD.numpy(), atol=1e-5)


def test_either_tower_alone(model: Model, tiny_run: Path, pixels: np.ndarray) -> None:
    image, text = load(tiny_run, part="image", device="cpu"), load(tiny_run / "last", part="text", device="cpu")
    np.testing.assert_allclose(image.encode_image(pixels), model.encode_image(pixels), atol=1e-6)
    assert text.encode_text("a disc .").shape == (1, 16)
    with pytest.raises(convirt.InputError, match="no text tower"):
        image.encode_text("a disc .")
    with pytest.raises(convirt.InputError, match="no image tower"):
        text.encode_image(pixels)
    assert (image.text_dim, text.image_dim) == (None, None)
    with pytest.raises(convirt.InputError, match="space 'image' is unknown"):
        image.encode_image(pixels, space="image")  # type: ignore[arg-type]
    with pytest.raises(convirt.InputError, match="takes strings, got int"):
        text.encode_text([3])  # type: ignore[list-item]
    with pytest.raises(convirt.InputError, match="takes strings, got NoneType"):
        text.encode_text(["a disc .", None])  # type: ignore[list-item]


def test_a_folder_is_all_that_loading_needs(tiny_run: Path, tmp_path: Path, pixels: np.ndarray, model: Model) -> None:
    """In a process that cannot reach the initial weights, from a folder that was moved."""
    import shutil

    moved = shutil.copytree(tiny_run / "best", tmp_path / "elsewhere")
    config = json.loads((moved / "config.json").read_text())
    config["text_encoder"]["source"] = "/nowhere/at/all"
    config["image_encoder"]["weights"] = "package:not_there"
    (moved / "config.json").write_text(json.dumps(config))
    code = (
        "import sys, numpy as np, convirt\n"
        "model = convirt.load(sys.argv[1], device='cpu')\n"
        "vectors = model.encode_image(np.load(sys.argv[3])), model.encode_text('a disc .')\n"
        "np.save(sys.argv[2], np.concatenate(vectors))"
    )
    np.save(tmp_path / "in.npy", pixels)
    paths = [str(moved), str(tmp_path / "out.npy"), str(tmp_path / "in.npy")]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, *paths], check=True, env=offline, capture_output=True)
    expected = np.concatenate([model.encode_image(pixels), model.encode_text("a disc .")])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(convirt.InputError, match="no such folder"):
        load(tmp_path / "none")
    with pytest.raises(convirt.InputError, match="no checkpoint"):
        load(tmp_path)


def test_a_run_without_an_evaluation_says_so(
    tiny_corpus: Path, tiny_config: Callable[..., PretrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convirt.training.pretrain import Run, pretrain

    monkeypatch.setattr(Run, "fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny_config(), tiny_corpus, tmp_path / "run")
    with pytest.raises(convirt.InputError, match="no best checkpoint yet"):
        load(tmp_path / "run")


def test_baselines_have_the_same_architecture_and_features_alone(model: Model, pixels: np.ndarray) -> None:
    random = baseline("random", model, seed=1, device="cpu")
    again = baseline("random", model.config, seed=1, device="cpu")
    other = baseline("random", model, seed=2, device="cpu")
    h_ND = random.encode_image(pixels, space="features")
    assert h_ND.shape == (1, model.image_dim)
    np.testing.assert_array_equal(h_ND, again.encode_image(pixels, space="features"))
    assert not np.allclose(h_ND, other.encode_image(pixels, space="features"))
    assert random.name == "random"
    assert random.shared_dim is None
    with pytest.raises(convirt.InputError, match="no shared space"):
        random.encode_image(pixels)
    with pytest.raises(convirt.InputError, match="weights is 'random'"):
        baseline("imagenet", model)
    with pytest.raises(convirt.InputError, match="baseline 'best' is unknown"):
        baseline("best", model)  # type: ignore[arg-type]


def test_the_imagenet_baseline_has_the_initial_weights(model: Model, tmp_path: Path, pixels: np.ndarray) -> None:
    from safetensors.torch import save_file

    source = baseline("random", model, seed=7, device="cpu")
    assert source.image_encoder is not None
    tensors = {name: t.contiguous() for name, t in source.image_encoder.backbone.state_dict().items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    name = model.config.image_encoder.name
    weights = ImageEncoderConfig(name=name, weights=str(tmp_path / "weights.safetensors"))
    imagenet = baseline("imagenet", replace(model.config, image_encoder=weights), device="cpu")
    assert imagenet.name == "imagenet"
    expected = source.encode_image(pixels, space="features")
    np.testing.assert_allclose(imagenet.encode_image(pixels, space="features"), expected, atol=1e-6)
