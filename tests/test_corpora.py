"""Corpora on disk: written whole or not at all, mapped, and the same everywhere."""

import errno
import io
import json
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import write_pairs
from convirt.data import corpora
from convirt.data.corpora import Corpus, decode
from convirt.data.records import ImageRecord, Pair
from convirt.data.shards import SCHEMA, ShardWriter
from convirt.errors import InputError


def image(seed: int, height: int = 32, width: int = 24, dtype: str = "uint8", **options: Any) -> ImageRecord:
    values = np.random.default_rng(seed).integers(0, 2**8 if dtype == "uint8" else 2**16, (height, width), dtype=dtype)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", **options)
    return ImageRecord(encoded=buffer.getvalue(), height=height, width=width, source=f"{seed}.png", view="PA")


def pair(number: int, **values: Any) -> Pair:
    split = ("train", "train", "val", "test")[number % 4]
    default: dict[str, Any] = {
        "pair_id": f"s{number}",
        "patient_id": f"p{number}",
        "split": split,
        "images": tuple(image(10 * number + k) for k in range(1 + number % 2)),
        "sentences": ("No effusion.", f"Sentence {number}, with ümlaut."),
        "text": f"No effusion. Sentence {number}, with ümlaut.",
        "attributes": {"finding": "none"},
    }
    return Pair(**{**default, **values})


def write(out: Path, pairs: Iterable[Pair], **options: Any) -> Corpus:
    return Corpus.open(write_pairs(out, pairs, image_size=32, **options))


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    pairs = [pair(number) for number in range(150)]
    corpus = write(tmp_path / "corpus", pairs, settings={"a": 1})
    assert len(corpus) == 150
    assert [corpus.pair(index) for index in (0, 1, 77, 149)] == [pairs[index] for index in (0, 1, 77, 149)]
    assert corpus.patient_ids.tolist() == [item.patient_id for item in pairs]
    assert corpus.image_size == 32
    assert corpus.settings == {"a": 1}
    for split in ("train", "val", "test"):
        indices = corpus.indices(split)
        assert indices.dtype == np.int64
        assert indices.tolist() == [k for k, item in enumerate(pairs) if item.split == split]
    assert corpus.column_lengths("images").tolist() == [len(item.images) for item in pairs]
    with pytest.raises(InputError, match="no split 'dev'"):
        corpus.indices("dev")


def test_decode_returns_grey_tensors() -> None:
    shown = decode(image(3))
    assert shown.shape == (1, 32, 24)
    assert shown.dtype == torch.uint8
    deep = decode(image(3, dtype="uint16"))
    assert deep.dtype == torch.uint16
    assert int(deep.to(torch.int32).max()) > 255


def test_the_datasets_library_maps_it_and_columns_need_no_images(tmp_path: Path) -> None:
    write(tmp_path / "corpus", [pair(number) for number in range(100)])
    rows = datasets.load_from_disk(str(tmp_path / "corpus"))
    assert len(rows) == 100
    assert [Path(file["filename"]).name for file in rows.cache_files] == ["data-00000.arrow"]  # mapped, not copied
    corpus = Corpus.open(tmp_path / "corpus")
    # Wipe the images in the file under the map: if a column needed them, it would change or fail.
    arrow = tmp_path / "corpus" / "data-00000.arrow"
    data = arrow.read_bytes()
    assert data.count(b"\x89PNG") > 100
    arrow.write_bytes(data.replace(b"\x89PNG", b"gone"))
    assert Corpus.open(tmp_path / "corpus").patient_ids.tolist() == corpus.patient_ids.tolist()


def test_schema_and_information_are_those_of_the_datasets_library(tmp_path: Path) -> None:
    write(tmp_path / "corpus", [pair(0)])
    rows = datasets.load_from_disk(str(tmp_path / "corpus"))
    assert SCHEMA.equals(rows.features.arrow_schema, check_metadata=True)
    rows.info.write_to_directory(str(tmp_path))
    assert json.loads((tmp_path / "dataset_info.json").read_text()) == json.loads(
        (tmp_path / "corpus" / "dataset_info.json").read_text()
    )


def test_it_crosses_processes(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", [pair(number) for number in range(5)])
    copied = pickle.loads(pickle.dumps(corpus))
    assert copied.pair(3) == corpus.pair(3)
    assert len(pickle.dumps(corpus)) < 20_000


def test_same_pairs_give_the_same_bytes(tmp_path: Path) -> None:
    pairs = [pair(number) for number in range(70)]
    write(tmp_path / "one", pairs)
    write(tmp_path / "elsewhere" / "two", pairs)
    assert files(tmp_path / "one") == files(tmp_path / "elsewhere" / "two")


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    pairs = [pair(number) for number in range(4)]
    first = write(tmp_path / "first", pairs, settings={"where": "here"})
    recoded = [replace(p, images=tuple(replace(i, encoded=recode(i)) for i in p.images)) for p in pairs]
    assert recoded != pairs
    assert write(tmp_path / "recoded", recoded).fingerprint == first.fingerprint  # same pixels, other PNG bytes
    changes: list[dict[str, Any]] = [
        {"text": "Other."},
        {"split": "test"},
        {"patient_id": "p9"},
        {"sentences": ("No effusion.",)},
        {"attributes": {}},
        {"images": (image(99),)},
    ]
    prints = {first.fingerprint}
    for number, change in enumerate(changes):
        changed = write(tmp_path / f"changed{number}", [replace(pairs[0], **change), *pairs[1:]])
        prints.add(changed.fingerprint)
    prints.add(write(tmp_path / "turned", pairs[::-1]).fingerprint)
    assert len(prints) == len(changes) + 2


def recode(record: ImageRecord) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(record.encoded)) as opened:
        opened.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def test_shards_are_parted_and_read_as_one(tmp_path: Path) -> None:
    pairs = [pair(number) for number in range(300)]
    corpus = write(tmp_path / "corpus", pairs, each=90)
    assert len(list((tmp_path / "corpus").glob("data-*.arrow"))) == 4
    assert corpus.pair(299) == pairs[299]
    assert corpus.patient_ids.tolist() == [item.patient_id for item in pairs]
    assert corpus.fingerprint == write(tmp_path / "one", pairs).fingerprint


# --- one shard


def write_shard(path: Path, pairs: Iterable[Pair]) -> None:
    with ShardWriter(path, image_size=32) as shard:
        for item in pairs:
            shard.add(item)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (pair(7, split="dev"), "split 'dev'"),
        (pair(7, images=()), "at least one image"),
        (pair(7, sentences=()), "at least one image and one sentence"),
        (pair(7, images=(image(1, 30, 30),)), "larger side 32"),
        (pair(7, images=(replace(image(1), height=30),)), "larger side 32"),
    ],
)
def test_bad_pairs_are_refused_and_leave_nothing(tmp_path: Path, bad: Pair, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_shard(tmp_path / "shard", [pair(0), bad])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def pairs() -> Iterator[Pair]:
        yield from (pair(number) for number in range(100))
        raise error

    with pytest.raises(error):
        write_shard(tmp_path / "shard", pairs())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pairs", [1, 100])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    def full(self: ShardWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "_flush", full)
    with pytest.raises(OSError, match="No space left"):
        write_shard(tmp_path / "shard", [pair(number) for number in range(pairs)])
    assert list(tmp_path.iterdir()) == []


def test_a_shard_appears_when_it_is_whole(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shard", image_size=32) as shard:
        shard.add(pair(0))
        assert not (tmp_path / "shard").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]
    assert shard.counts == {"pairs": 1, "pairs_train": 1, "images": 1, "sentences": 2}


# --- opening


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a prepared corpus"):
        Corpus.open(tmp_path)
    with pytest.raises(InputError, match="is not a prepared corpus"):
        Corpus.open(tmp_path / "missing")


@pytest.mark.parametrize("damage", ["json", "keys", "format", "shard cut", "shard gone", "state gone", "count"])
def test_a_damaged_corpus_is_refused(tmp_path: Path, damage: str) -> None:
    write(tmp_path / "corpus", [pair(number) for number in range(100)])
    about = tmp_path / "corpus" / "corpus.json"
    arrow = tmp_path / "corpus" / "data-00000.arrow"
    values = json.loads(about.read_text())
    if damage == "json":
        about.write_text("{")
    elif damage == "keys":
        about.write_text('{"format": 1}')
    elif damage == "format":
        about.write_text(json.dumps({**values, "format": 99}))
    elif damage == "count":
        about.write_text(json.dumps({**values, "counts": {**values["counts"], "pairs": 99}}))
    elif damage == "shard cut":
        arrow.write_bytes(arrow.read_bytes()[: arrow.stat().st_size // 2])
    elif damage == "shard gone":
        arrow.unlink()
    elif damage == "state gone":
        (tmp_path / "corpus" / "state.json").unlink()
    with pytest.raises(InputError) as caught:
        Corpus.open(tmp_path / "corpus")
    assert "\n" not in str(caught.value)
    assert "convirt prepare archive" in str(caught.value)


# --- checks before use


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("damage", ["settings", "catalogue.arrow", "state.json", "data-00000.arrow"])
def test_a_changed_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, small: bool) -> None:
    monkeypatch.setattr(corpora, "_SOON_HASHED", 2**28 if small else 0)
    write(tmp_path / "corpus", [pair(number) for number in range(100)]).check(whole=True)
    name = "corpus.json" if damage == "settings" else damage
    path = tmp_path / "corpus" / name
    if damage == "settings":
        path.write_text(path.read_text().replace('"settings": {}', '"settings": {"bits": 8}'))
    elif damage == "state.json":
        path.write_text(path.read_text() + " ")
    else:  # a bit that no size tells of: of a patient's id, and of a pixel
        data = bytearray(path.read_bytes())
        data[data.index(b"p42") if damage == "catalogue.arrow" else data.index(b"IDAT") + 40] ^= 1
        path.write_bytes(data)
    changed = Corpus.open(tmp_path / "corpus")
    if not small and damage.startswith("data"):
        changed.check()  # too large to be hashed unasked
        with pytest.raises(InputError, match=r"data-00000\.arrow is not what was written"):
            changed.check(whole=True)
        return
    with pytest.raises(InputError, match=rf"{name} is not what was written \(its sha256 differs\); prepare"):
        changed.check()


def test_a_corpus_of_an_earlier_version_is_known_by_its_fingerprint_alone(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", [pair(number) for number in range(10)])
    (tmp_path / "corpus" / "catalogue.arrow").unlink()
    about = tmp_path / "corpus" / "corpus.json"
    values = {name: value for name, value in json.loads(about.read_text()).items() if name not in ("files", "sha256")}
    about.write_text(json.dumps(values))
    Corpus.open(corpus.path).check(whole=True)
    about.write_text(json.dumps({**values, "fingerprint": "0" * 64}))
    Corpus.open(corpus.path).check()
    with pytest.raises(InputError, match=r"has another fingerprint than its corpus\.json says"):
        Corpus.open(corpus.path).check(whole=True)
