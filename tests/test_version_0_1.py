"""What version 0.1 wrote still opens: corpus, export, benchmark, run, fine-tuned encoder, results.

`data/version-0.1` was written by the last commit before the rebuilding (fbbe364): 36 images of two shapes, a run of
four steps with a random `test_efficientnet` and a random BERT of four layers.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convirt
from convirt.data.benchmarks.folder import open_benchmark

OLD = Path(__file__).parent / "data" / "version-0.1"


def pictures() -> list[Image.Image]:
    return [Image.open(OLD / "images" / f"{number:02d}.png") for number in range(4)]


def test_an_old_run_gives_the_same_vectors() -> None:
    model, expected = convirt.load(OLD / "run"), np.load(OLD / "vectors.npz")
    np.testing.assert_allclose(model.encode_image(pictures()), expected["images"], atol=1e-4)
    np.testing.assert_allclose(model.encode_image(pictures(), space="features"), expected["features"], atol=1e-4)
    sentences = ["there is a disc on the left side .", "bar seen ."]
    np.testing.assert_allclose(model.encode_text(sentences), expected["texts"], atol=1e-4)


def test_an_old_fine_tuned_encoder_gives_the_same_features() -> None:
    model, expected = convirt.load(OLD / "finetuned" / "best", part="image"), np.load(OLD / "vectors.npz")
    np.testing.assert_allclose(model.encode_image(pictures(), space="features"), expected["tuned"], atol=1e-4)


def test_an_old_benchmark_opens() -> None:
    benchmark = open_benchmark(OLD / "benchmark")
    assert benchmark.kind == "single-label"
    assert benchmark.labels == ("label",)


@pytest.mark.parametrize("kind", ["corpus", "export"])
def test_old_pairs_train_a_new_run(kind: str, tmp_path: Path) -> None:
    from convirt.cli import main

    shutil.copytree(OLD / kind, tmp_path / kind)
    settings = json.loads((OLD / "run" / "config.json").read_text())
    assert settings["text_encoder"]["max_tokens"] == 16
    main(
        [
            "pretrain",
            "demo_simclr",
            "--corpus",
            str(tmp_path / kind),
            "--out",
            str(tmp_path / "run"),
            "--max-steps",
            "2",
            "--image-encoder.name",
            "test_efficientnet.r160_in1k",
            "--image-encoder.weights",
            "random",
            "--transform.size",
            "32",
            "--optimiser.batch-size",
            "4",
            "--validation.every",
            "2",
            "--validation.pairs",
            "8",
            "--device",
            "cpu",
        ]
    )
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 2
