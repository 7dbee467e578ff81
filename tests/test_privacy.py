"""What a corpus says of people besides its texts: ids, and the paths of source files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from convirt.data.corpora import Corpus
from convirt.data.preparing.archive import prepare_archive
from convirt.data.preparing.identities import names_patient
from convirt.data.preparing.options import Options
from convirt.errors import InputError
from convirt.inspection.inspect import inspect

PATIENTS = 8


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Images below folders that are named like patients, as in MIMIC-CXR; one file is missing."""
    rows = []
    rng = np.random.default_rng(0)
    for number in range(PATIENTS):
        patient = f"1000{number:04d}"
        name = f"p10/p{patient}/s5/x.png" if number % 2 else f"other/{number}.png"
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        if number:
            Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path / "images" / name)
        rows.append((name, "The lungs are clear.", patient))
    pd.DataFrame(rows, columns=["image", "report", "patient"]).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path


def prepare(tree: Path, name: str, **options: Any) -> Corpus:
    shared = Options(image_size=32, max_failures=0.5, **options)
    table = tree / "table.csv"
    return Corpus.open(
        prepare_archive(tree / "images", table, "image", "report", "patient", tree / name, options=shared)
    )


def sources(corpus: Corpus) -> list[str]:
    return [image.source for index in range(len(corpus)) for image in corpus.pair(index).images]


@pytest.mark.parametrize(
    ("source", "patient", "named"),
    [
        ("files/p10/p10000032/s50414267/x.jpg", "10000032", True),
        ("files/p10/p100000321/x.jpg", "10000032", False),
        ("train/patient00001/study1/view1.jpg", "patient00001", True),
        ("train/patient00001/study1/view1.jpg", "00001", True),
        ("a/SMITH_J/1.png", "SMITH", True),
        ("a/SMITHSON/1.png", "SMITH", False),
        ("a/12/12.png", "12", False),
        ("a/(b)/1.png", "(b)", True),
        ("a/1.png", "", False),
    ],
)
def test_paths_that_name_a_patient(source: str, patient: str, named: bool) -> None:
    assert names_patient(source, patient) == named


def test_plain_paths_are_kept_and_counted(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = prepare(tree, "corpus")
    assert "p10/p10000003/s5/x.png" in sources(corpus)
    assert corpus.settings["sources_with_patient"] == PATIENTS // 2
    notes = json.loads((corpus.path / "audit.json").read_text())["notes"]
    assert any(note.startswith("4 of 7 images keep a source path with the id of their patient") for note in notes)
    page = inspect(corpus.path, out=tree / "page", no_images=True)
    assert "4 source paths hold the id of their patient" in " ".join(capsys.readouterr().out.split())
    assert "source paths hold the id" in page.read_text()
    assert json.loads((tree / "page" / "inspect.json").read_text())["about"]["sources_with_patient"] == 4


def test_plain_ids_are_no_surprise(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = prepare(tree, "corpus", ids="plain")
    assert json.loads((corpus.path / "audit.json").read_text())["notes"] == []
    inspect(corpus.path, out=tree / "page", no_images=True)
    assert "although ids are hashed" not in capsys.readouterr().out


def test_hashed_paths_leave_nothing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, corpus = prepare(tree, "plain"), prepare(tree, "corpus", sources="hashed")
    assert len(set(sources(corpus))) == PATIENTS - 1
    assert all(len(source) == 16 and int(source, 16) >= 0 for source in sources(corpus))
    assert sources(prepare(tree, "again", sources="hashed")) == sources(corpus)
    assert corpus.patient_ids.tolist() == plain.patient_ids.tolist()
    assert corpus.settings["sources_with_patient"] == 0
    (dropped,) = json.loads((corpus.path / "audit.json").read_text())["dropped"]["image not found"]["rows"]
    assert dropped["row"] == 1
    written = b"".join(path.read_bytes() for path in corpus.path.iterdir())
    assert b"x.png" not in written
    assert b"other/" not in written
    assert not any(f"1000{number:04d}".encode() in written for number in range(PATIENTS))
    capsys.readouterr()
    inspect(corpus.path, out=tree / "page", no_images=True)
    assert "although ids are hashed" not in capsys.readouterr().out


def test_paths_hashed_beside_plain_ids_are_refused() -> None:
    with pytest.raises(InputError, match="hides nothing"):
        Options(ids="plain", sources="hashed")
    with pytest.raises(InputError, match="sources must be"):
        Options(sources="none")  # type: ignore[arg-type]
