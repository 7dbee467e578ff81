"""Images made again from their sources and recipes: the same bits as preparing afresh."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import uid

from conftest import write_pairs
from convirt.data.corpora import Corpus, decode
from convirt.data.imaging.pixels import Unreadable
from convirt.data.imaging.prepared import prepare_bytes
from convirt.data.loading.loader import ValidationBatches
from convirt.data.preparing.archive import prepare_archive
from convirt.data.preparing.options import Options
from convirt.data.preparing.remaking import prepare_remake, remake
from convirt.data.records import Pair
from convirt.errors import InputError
from dicom_files import bare, compressed, dicom, jpeg_lossless, lut, ramp, sequence, texture


def raster(values: np.ndarray, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, form, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return raster(np.repeat(texture(8, height=900, width=700)[..., None], 3, axis=2), "JPEG", exif=exif)


FILES: dict[str, bytes] = {
    "grey.png": raster(texture(8, height=300, width=200), "PNG"),
    "deep.png": raster(texture(12, height=300, width=200), "PNG"),
    "large.jpg": raster(texture(8, height=1300, width=1100), "JPEG"),
    "turned.jpg": turned(),
    "window.dcm": dicom(texture(12), WindowCenter=[900, 2000], WindowWidth=[800, 1500]),
    "range.dcm": dicom(ramp(-900, 1500, "<i2", (60, 50)), bits=16, PixelPaddingValue=-900),
    "lut.dcm": dicom(texture(12), VOILUTSequence=sequence(lut([x * x // 4096 for x in range(4096)], 0, 12))),
    "inverted.dcm": dicom(texture(12), PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=5),
    "lossless.dcm": compressed(jpeg_lossless(texture(12), 12, 1), texture(12), uid.JPEGLosslessSV1),
    "bare.dcm": bare(dicom(texture(12))),
    "frames.dcm": dicom(np.stack([texture(12), texture(12, seed=1)]), NumberOfFrames=2),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("size", [32, 200])
def test_remade_bit_for_bit(name: str, bits: Any, size: int) -> None:
    options: dict[str, Any] = {"source": name, "suffix": Path(name).suffix, "view": "PA"}
    options |= {"frame": 2} if name == "frames.dcm" else {"window": 2} if name == "window.dcm" else {}
    kept, _ = prepare_bytes(FILES[name], image_size=64, **options)
    fresh, _ = prepare_bytes(FILES[name], image_size=size, bits=bits, **options)
    assert remake(kept, FILES[name], image_size=size, bits=bits) == fresh
    assert decode(fresh).dtype.itemsize == bits // 8
    # Both ways: the recipe does not wear out.
    assert remake(fresh, FILES[name], image_size=64) == kept


def test_the_recipe_is_followed_not_decided_anew() -> None:
    kept, _ = prepare_bytes(FILES["window.dcm"], source="a", image_size=40)
    recipe = json.loads(kept.recipe)
    recipe["voi"] = {"function": "RANGE", "low": 0.0, "high": 4095.0}
    changed = remake(replace(kept, recipe=json.dumps(recipe)), FILES["window.dcm"], image_size=40, bits=16)
    expected = np.rint(texture(12) / np.float32(4095) * 65535)
    assert np.abs(decode(changed)[0].numpy().astype(int) - expected).max() <= 1


def test_a_source_that_has_changed_is_refused() -> None:
    kept, _ = prepare_bytes(FILES["grey.png"], source="a", image_size=40)
    with pytest.raises(Unreadable, match="source file that has changed"):
        remake(kept, FILES["deep.png"], image_size=80)


def archive(folder: Path) -> Path:
    folder.mkdir()
    names = [name for name in FILES if name != "frames.dcm"] * 3
    rows = []
    for number, name in enumerate(names):
        (folder / f"{number}-{name}").write_bytes(FILES[name])
        rows.append((f"{number}-{name}", f"The lungs are clear. No effusion, case {number}.", f"p{number}"))
    pd.DataFrame(rows, columns=["image", "report", "patient"]).to_csv(folder / "table.csv", index=False)
    return folder


def prepared(images: Path, out: Path, **options: Any) -> Corpus:
    return Corpus.open(
        prepare_archive(images, images / "table.csv", "image", "report", "patient", out, options=Options(**options))
    )


def test_a_corpus_is_made_again_as_afresh(tmp_path: Path) -> None:
    images = archive(tmp_path / "images")
    first = prepared(images, tmp_path / "first", image_size=64, max_failures=0)
    fresh = prepared(images, tmp_path / "fresh", image_size=96, bits=16)
    again = Corpus.open(prepare_remake(first.path, images, tmp_path / "again", image_size=96, bits=16))
    assert again.fingerprint == fresh.fingerprint != first.fingerprint
    assert [again.pair(index) for index in range(len(again))] == [fresh.pair(index) for index in range(len(fresh))]
    assert {decode(again.pair(index).images[0]).dtype.itemsize for index in range(len(again))} == {2}
    assert again.settings["remade"]["fingerprint"] == first.fingerprint


def test_changed_missing_and_outside_sources_are_named(tmp_path: Path) -> None:
    images = archive(tmp_path / "images")
    first = prepared(images, tmp_path / "first", image_size=64)
    sources = sorted(image.source for index in range(len(first)) for image in first.pair(index).images)
    (images / sources[0]).write_bytes(FILES["deep.png"] + b" ")
    (images / sources[1]).unlink()
    secret = tmp_path / "secret.png"
    (images / sources[2]).rename(secret)
    (images / sources[2]).symlink_to(secret)
    with pytest.raises(InputError, match="3 of 30 rows cannot be used"):
        prepare_remake(first.path, images, tmp_path / "again", image_size=96, max_failures=0.05)
    assert not (tmp_path / "again").exists()
    again = Corpus.open(prepare_remake(first.path, images, tmp_path / "again", image_size=96, max_failures=0.5))
    assert len(again) == 27
    dropped = json.loads((again.path / "audit.json").read_text())["dropped"]
    reasons = ("source file that has changed", "file that cannot be opened", "path that leads out of the image folder")
    assert {dropped[reason]["rows"][0]["image"] for reason in reasons} == set(sources[:3])


def test_a_batch_of_both_depths_has_one_scale(tmp_path: Path) -> None:
    """Pairs of 8 and of 16 bits side by side: no image is 255 times as bright as its neighbour."""
    data = FILES["deep.png"]
    pairs = []
    for number in range(8):
        image, _ = prepare_bytes(data, source="a", image_size=40, bits=16 if number % 2 else 8)
        values = {"pair_id": f"{number}", "patient_id": f"{number}", "split": "val"}
        pairs.append(Pair(**values, images=(image,), sentences=("One sentence.",), text="One sentence."))
    write_pairs(tmp_path / "mixed", pairs)
    batch = ValidationBatches(Corpus.open(tmp_path / "mixed"), "val", 8, 8, seed=0)[0]
    means = batch.images_B1SS.mean(dim=(1, 2, 3))
    assert batch.images_B1SS.max() <= 1
    assert means.std() < 0.002 < means.mean()


def test_settings_stay_true(tmp_path: Path) -> None:
    images = archive(tmp_path / "images")
    first = prepared(images, tmp_path / "first", image_size=64, redact=True, seed=3, language="es", unsectioned="keep")
    again = Corpus.open(prepare_remake(first.path, images, tmp_path / "again", image_size=96, bits=16, max_failures=0))
    new = {name: again.settings[name] for name in ("image_size", "bits", "max_failures")}
    assert new == {"image_size": 96, "bits": 16, "max_failures": 0}
    old = {name: value for name, value in first.settings.items() if name not in (*new, "versions")}
    assert {name: again.settings[name] for name in old} == old
    assert old["ids"] == "hashed"
    assert old["ids_mark"]
    remade = again.settings["remade"]
    assert (remade["image_size"], remade["bits"], remade["fingerprint"]) == (64, 8, first.fingerprint)
    same = Corpus.open(prepare_remake(again.path, images, tmp_path / "same"))
    assert (same.fingerprint, same.image_size, same.settings["bits"]) == (again.fingerprint, 96, 16)
    back = Corpus.open(prepare_remake(again.path, images, tmp_path / "back", image_size=64, bits=8))
    assert back.fingerprint == first.fingerprint
    assert back.settings["remade"]["remade"] == remade


def test_hidden_sources_are_one_clear_line(tmp_path: Path) -> None:
    images = archive(tmp_path / "images")
    first = prepared(images, tmp_path / "first", image_size=64, sources="hashed")
    with pytest.raises(InputError, match="hides the paths of its source files") as error:
        prepare_remake(first.path, images, tmp_path / "again", image_size=96)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "again").exists()


def test_a_size_whose_memory_cannot_be_had_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"image_size 100000 would take 37.3 GiB .* choose at most 10000"):
        Options(image_size=100_000)
