"""What a corpus says of people besides its texts: ids, and the paths of source files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

import orthanc
import test_open_i
import trees
from convirt.cli import VERBS, main
from convirt.data.corpora import Corpus
from convirt.data.preparing.archive import prepare_archive
from convirt.data.preparing.identities import Identities, names_patient
from convirt.data.preparing.options import Options
from convirt.errors import InputError
from convirt.inspection.inspect import inspect
from fake_pacs import FakePacs, PacsHandler
from web import serve

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
        ("a/0001001/1.png", "1001", True),
        ("a/1001/1.png", "0001001", True),
        ("a/10010/1.png", "1001", False),
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


def test_spellings_of_one_id_have_one_hash() -> None:
    spellings = ["1001", " 1001", "1001.0", "0001001"]
    assert len({Identities("salt").of("patient", name) for name in spellings}) == 1
    assert len({Identities("salt", as_written=True).of("patient", name) for name in spellings}) == 4  # version 0.1
    assert Identities("salt").of("source", "0001.png") != Identities("salt").of("source", "1.png")
    assert Identities("salt").of("patient", "p7") != Identities("salt").of("patient", "p8")


# A planted name: everywhere in the source, nowhere in what is written or shown.

NAME = ("Zaphod", "Beeblebrox")
FULL = " ".join(NAME)
REPORT = (
    f"INDICATION: Mr. {FULL}, cough.\nFINDINGS: Mr. {FULL} has clear lungs. No effusion.\nIMPRESSION: Normal chest.\n"
    f"Dictated by: Dr. {FULL}"
)
DECODING = {"SpecificCharacterSet", "PhotometricInterpretation", "PixelPresentation", "TransferSyntaxUID"}


def plant(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """Put the name into every text element of the standard that does not steer the decoder, and a private one."""
    for tag, (vr, _, _, _, keyword) in pydicom.datadict.DicomDictionary.items():
        if vr in TEXTS and keyword and keyword not in DECODING | KEYS and tag >> 16 > 7:
            dataset.add_new(tag, vr, SPELT.get(vr, FULL))
    dataset.private_block(0x0011, f"{FULL} INC", create=True).add_new(1, "LO", FULL)
    return dataset


TEXTS = {"PN", "LO", "SH", "ST", "LT", "UT", "CS", "AE", "UC", "UR"}
SPELT = {"PN": "^".join(NAME), "CS": FULL.upper()[:16], "AE": FULL[:16], "SH": FULL[:16], "UR": f"http://{NAME[1]}.org"}
KEYS = {"PatientID", "AccessionNumber", "ValueType", "RelationshipType", "ContinuityOfContent", "VerificationFlag"}
"""What ties objects together: the name may stand in it, but must be one for a patient or a study."""


def film(number: int, **about: str) -> pydicom.FileDataset:
    values = np.random.default_rng(number).integers(0, 4096, (30, 20))
    patient = {"patient": f"{FULL} {number}", "study": f"1.2.{number}", "accession": f"{NAME[1]}{number}", **about}
    dataset = orthanc.image_dataset(values, bits=12, **patient)
    dataset.SOPInstanceUID = f"1.2.{number}.1"
    return plant(dataset)


def archive_of_films(folder: Path) -> list[str]:
    """Films whose paths, headers and table hold the name; some rows fail, one text is too short."""
    rows = []
    for number in range(12):
        path = folder / "films" / FULL / f"{NAME[1]}_{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(path, film(number), enforce_file_format=True)
        if number == 10:
            path.write_bytes(path.read_bytes()[:700] + FULL.encode())
        text = FULL if number == 11 else REPORT
        rows.append((f"{FULL}/{path.name}", text, f"{FULL} {number // 2}", FULL))
    rows += [
        (f"{FULL}/missing.dcm", REPORT, FULL, FULL),
        (f"../{FULL}.dcm", REPORT, FULL, FULL),
        ("", FULL, FULL, FULL),
    ]
    table = folder / "table.csv"
    pd.DataFrame(rows, columns=["image", "report", "patient", "referrer"]).to_csv(table, index=False)
    with table.open("a") as file:
        file.write(f'"{FULL}","{FULL}",{FULL},{FULL},{FULL},{FULL}\n')
    columns = ["--image-column", "image", "--text-column", "report", "--patient-column", "patient"]
    return ["archive", "--images", str(folder / "films"), "--table", str(table), *columns]


def tree_of_mimic(folder: Path) -> list[str]:
    root = folder / FULL / "mimic"
    trees.make_mimic_cxr(root, packed=False, report=lambda study: REPORT + f"\nCase {study}." * (study % 2))
    (path,) = root.glob("*metadata*")
    first, *lines = path.read_text().splitlines()
    foreign = ",".join([FULL] * len(first.split(",")))
    path.write_text(
        "\n".join([first, *(line.replace("CHEST (PA AND LAT)", FULL) for line in lines), foreign, FULL, ""])
    )
    (root / "files" / f"{FULL}.txt").write_text(FULL)
    return ["mimic-cxr", "--root", str(root)]


def tree_of_chexpert(folder: Path) -> list[str]:
    root = folder / FULL / "chexpert"
    names = ("report", "section_findings", "deid_patient_id", "race")
    report, findings, patient, race = map(trees.CHEXPERT_PLUS.index, names)

    def change(row: list[object]) -> None:
        row[report], row[findings], row[race] = REPORT, f"Mr. {FULL} has clear lungs. No effusion.", FULL
        if row[patient] == "patient00003":
            row[patient] = FULL

    trees.make_chexpert_plus(root, change=change)
    return ["chexpert-plus", "--root", str(root)]


def tree_of_open_i(folder: Path) -> list[str]:
    root = folder / FULL / "open-i"
    for number in range(12):
        text = test_open_i.xml(f"CXR{number}", f"Mr. {FULL} has clear lungs.", "Normal chest.", (f"{NAME[1]}{number}",))
        test_open_i.write(root, {f"{FULL}/{number}.xml": text.replace(b"Cough", f"Mr. {FULL} coughs".encode())})
        if number:
            test_open_i.write(root, {f"{FULL}/{NAME[1]}{number}.png": test_open_i.png(number)})
    test_open_i.write(root, {f"{FULL}/90.xml": f"<{NAME[0]}>".encode(), f"{NAME[1]}1.png": test_open_i.png(99)})
    test_open_i.write(root, {f"{NAME[0]}.png": test_open_i.png(98)})
    return ["open-i", "--root", str(root)]


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[list[str]]:
    """A server whose films and reports hold the name in every text."""
    site = FakePacs(page=50)
    for number in range(12):
        about = {"patient": f"{FULL} {number // 2}", "study": f"1.2.{number}", "accession": f"{NAME[1]}{number}"}
        report = orthanc.report_dataset(f"Mr. {FULL} has clear lungs.", "Normal chest.", **about)
        report.SOPInstanceUID = f"1.2.{number}.2"
        for dataset in (film(number, **about), report):
            if number == 3 and dataset is report:
                dataset.ContentSequence[0].ValueType = FULL.upper()[:16]
            site.add(orthanc.write(dataset, tmp_path / "files"))
    site.gone.add("1.2.5.1")
    with serve(site, PacsHandler):
        yield ["dicomweb", "--url", site.url, "--patience", "0.8"]


SOURCES = {
    "archive": archive_of_films,
    "mimic-cxr": tree_of_mimic,
    "chexpert-plus": tree_of_chexpert,
    "open-i": tree_of_open_i,
}


def status_of(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("source", [*SOURCES, "dicomweb"])
@pytest.mark.parametrize("fails", [False, True], ids=["written", "given up"])
def test_a_planted_name_is_nowhere(
    source: str, fails: bool, tmp_path: Path, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--ids hashed --sources hashed --redact`: in no byte that is written, in no line that is shown."""
    arguments = request.getfixturevalue("pacs") if source == "dicomweb" else SOURCES[source](tmp_path / "source")
    work = tmp_path / "work"
    work.mkdir()
    private = ["--ids", "hashed", "--sources", "hashed", "--redact", "--image-size", "32", "--workers", "1"]
    share = "0" if fails and source != "mimic-cxr" else "0.9"
    capfd.readouterr()
    status = status_of(["prepare", *arguments, "--out", str(work / "corpus"), *private, "--max-failures", share])
    said = capfd.readouterr()
    assert status == (2 if share == "0" else 0), said.err
    pulled = work / ".corpus.dicomweb"  # what the server sent, kept until the corpus is there: see --cache
    assert pulled.exists() == (source == "dicomweb" and fails)
    written = {path: path.read_bytes() for path in work.rglob("*") if path.is_file() and pulled not in path.parents}
    if share != "0":
        assert len(Corpus.open(work / "corpus")) > 5
        assert status_of(["inspect", str(work / "corpus"), "--out", str(work / "page")]) == 0
        shown = capfd.readouterr()
        said = type(said)(said.out + shown.out, said.err + shown.err)
        written = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    assert written
    shown_words = (said.out + said.err).replace(str(tmp_path), "")
    for word in NAME:
        assert word.lower() not in shown_words.lower()
        for path, content in written.items():
            for encoding in ("utf-8", "utf-16-le"):
                assert word.lower().encode(encoding) not in content.lower(), path


def test_every_source_is_searched_for_the_name() -> None:
    """A new verb belongs into `SOURCES`; `remake` has no source of its own."""
    verbs = {name.removeprefix("prepare ") for name in VERBS if name.startswith("prepare ")}
    assert verbs == {*SOURCES, "dicomweb", "remake"}
