"""Shared fixtures: a tiny corpus, tiny encoders, and a configuration that trains them in seconds."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convirt.atomic import atomic_folder, write_json
from convirt.config import (
    ImageEncoderConfig,
    OptimiserConfig,
    PretrainConfig,
    ProjectionConfig,
    TextEncoderConfig,
    TransformConfig,
    ValidationConfig,
)
from convirt.data.records import ImageRecord, Pair
from convirt.data.shards import Fingerprint, ShardWriter, shard_name, write_about, write_catalogue

SHAPES = ("disc", "bar", "cross", "ring")
SIDES = ("left", "right")
SIZE = 40
"""Larger side of the tiny corpus' images, pixels."""
WORDS = ["there", "is", "a", "no", "in", "the", "image", "noise", "only", "seen", "on", "side", *SHAPES, *SIDES, "."]


def draw_shape(shape: str, side: str, rng: np.random.Generator, height: int = 32, width: int = SIZE) -> np.ndarray:
    """A bright shape on noise, uint8 [height, width]."""
    y, x = np.mgrid[:height, :width]
    y, x = y - height / 2, x - width * (0.3 if side == "left" else 0.7)
    distance = np.hypot(x, y)
    mask = {
        "disc": distance < 7,
        "ring": (distance > 5) & (distance < 9),
        "bar": (np.abs(x) < 3) & (np.abs(y) < 12),
        "cross": ((np.abs(x) < 2) | (np.abs(y) < 2)) & (distance < 9),
    }[shape]
    return np.clip(rng.normal(60, 20, (height, width)) + 150 * mask, 0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> ImageRecord:
    """Pixels as the record of a prepared image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return ImageRecord(encoded=buffer.getvalue(), height=pixels.shape[0], width=pixels.shape[1])


def write_pairs(
    out: Path,
    pairs: Iterable[Pair],
    *,
    image_size: int = SIZE,
    settings: dict[str, Any] | None = None,
    audit: Any = None,
    each: int = 10**6,
) -> Path:
    """Write pairs as a corpus, in the way in which preparation writes what its workers have made.

    Args:
        out: Folder to create.
        pairs: The pairs, at hand or generated.
        image_size: Larger side of every image, in pixels.
        settings: How the pairs were prepared, kept in `corpus.json`.
        audit: The content of `audit.json`.
        each: Pairs in a shard.
    """
    names, patients, counts, fingerprint = [], set(), Counter(), Fingerprint(image_size)
    left = iter(pairs)
    with atomic_folder(out) as folder:
        while some := list(islice(left, each)):
            names.append(shard_name(len(names)))
            with ShardWriter(folder / names[-1], image_size=image_size) as shard:
                for pair in some:
                    shard.add(pair)
            patients |= {pair.patient_id for pair in some}
            counts += shard.counts
            fingerprint.update(shard.digests)
        write_catalogue(folder, names)
        write_about(
            folder,
            shards=names,
            image_size=image_size,
            fingerprint=fingerprint.hexdigest(),
            counts={**counts, "patients": len(patients)},
            settings=settings or {},
        )
        write_json(folder / "audit.json", audit or {})
    return out


def write_corpus(out: Path, *, train: int = 40, val: int = 16, test: int = 8, seed: int = 0) -> Path:
    """A corpus of noise and shapes with short sentences; studies have 1 to 3 images, patients 1 to 3 studies."""
    return write_pairs(out, _draw_pairs(["train"] * train + ["val"] * val + ["test"] * test, seed))


def _draw_pairs(splits: Sequence[str], seed: int) -> Iterator[Pair]:
    rng = np.random.default_rng(seed)
    patient, left = 0, 0
    for index, split in enumerate(splits):
        if left == 0 or (index and splits[index - 1] != split):
            patient, left = patient + 1, int(rng.integers(1, 4))
        left -= 1
        shape, side = str(rng.choice(SHAPES)), str(rng.choice(SIDES))
        images = []
        for _ in range(int(rng.integers(1, 4))):
            pixels = draw_shape(shape, side, rng)
            images.append(png(pixels.T.copy() if index % 3 == 0 else pixels))
        sentences = (f"there is a {shape} on the {side} side .", f"{shape} seen .", "noise in the image .")
        sentences = sentences[: int(rng.integers(1, 4))]
        yield Pair(
            pair_id=f"pair{index}",
            patient_id=f"patient{patient}",
            split=split,
            images=tuple(images),
            sentences=sentences,
            text=" ".join(sentences),
            attributes={"shape": shape},
        )


def write_bert(folder: Path, words: Sequence[str] = WORDS, **changes: object) -> Path:
    """A BERT with four layers of 32 numbers and random weights, in Hugging Face format, with a WordPiece vocabulary.

    Args:
        folder: Where to write it.
        words: Words of the vocabulary that are one piece each; others are spelled.
        changes: Other settings of its configuration.
    """
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        **{
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 32,
            **changes,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


def make_config(bert: Path, **changes: object) -> PretrainConfig:
    """A configuration that trains tiny encoders on 32-pixel views, eight pairs a step."""
    config = PretrainConfig(
        recipe="tiny",
        image_encoder=ImageEncoderConfig(name="test_resnet.r160_in1k", weights="random"),
        text_encoder=TextEncoderConfig(source=str(bert), frozen_layers=2, max_tokens=16),
        projection=ProjectionConfig(dim=16),
        transform=TransformConfig(size=32, blur_kernel=5, blur_sigma=(0.1, 0.8)),
        optimiser=OptimiserConfig(learning_rate=1e-3, batch_size=8),
        validation=ValidationConfig(every=5, pairs=16, patience=2, max_evaluations=4),
        max_steps=12,
        checkpoint_every=3,
        device="cpu",
    )
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a corpus of 40 training, 16 validation and 8 test pairs."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "tiny")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny BERT in Hugging Face format."""
    return write_bert(tmp_path_factory.mktemp("bert") / "tiny")


@pytest.fixture(scope="session")
def tiny_config(tiny_bert: Path) -> Callable[..., PretrainConfig]:
    """Makes tiny configurations: `tiny_config(max_steps=3)`."""
    return lambda **changes: make_config(tiny_bert, **changes)


@pytest.fixture(scope="session")
def tiny_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path, tiny_config: Callable[..., PretrainConfig]
) -> Path:
    """Folder of a finished tiny run of 12 steps; not to be changed."""
    from convirt.training.pretrain import pretrain

    return pretrain(tiny_config(), tiny_corpus, tmp_path_factory.mktemp("runs") / "tiny")


def read_log(run: Path) -> list[dict[str, object]]:
    """The rows of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
