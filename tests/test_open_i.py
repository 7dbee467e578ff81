"""`prepare open-i`: the whole collection with tiny images, over a local server; and reports that mean harm."""

import importlib.util
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convirt.cli import main
from convirt.data.corpora import Corpus
from convirt.data.preparing.options import Options
from convirt.data.sources.open_i import IMAGES, NO_IMAGE, NO_TEXT, REPORTS, prepare_open_i, read_report
from convirt.errors import InputError
from open_i import open_i_reports
from web import Site, cut, serve, status

pytestmark = pytest.mark.timeout(1800)  # half a minute on a machine of its own
TINY = Options(image_size=16, ids="plain")


def png(seed: int) -> bytes:
    """A tiny image, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 6), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def xml(name: str, findings: str = "The lungs are clear.", impression: str = "", images: tuple[str, ...] = ()) -> bytes:
    """A report as Open-i writes it."""
    parents = "".join(f'<parentImage id="{image}"><figureId>F1</figureId></parentImage>' for image in images)
    return (
        f'<?xml version="1.0" encoding="utf-8"?><eCitation><meta type="rr"/><uId id="{name}"/>'
        "<MedlineCitation><Article><Abstract>"
        f'<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Cough</AbstractText>'
        f'<AbstractText Label="FINDINGS">{findings}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{impression}</AbstractText>'
        f"</Abstract></Article></MedlineCitation><MeSH><major>Opacity/lung</major><major>Cough</major>"
        f"<automatic>Opacity</automatic></MeSH>{parents}</eCitation>"
    ).encode()


def tgz(files: dict[str, bytes]) -> bytes:
    """Files as a .tgz archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


SMALL = {
    "ecgen-radiology/1.xml": xml(
        "CXR1", impression="Normal chest.", images=("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001")
    ),
    "ecgen-radiology/2.xml": xml("CXR2", findings="", impression="No acute disease.", images=("CXR2_IM-0652-1001",)),
    "ecgen-radiology/10.xml": xml("CXR10", images=("CXR10_IM-0002-1001",)),
    "CXR1_1_IM-0001-3001.png": png(1),
    "CXR1_1_IM-0001-4001.png": png(2),
    "CXR2_IM-0652-1001.png": png(3),
    "CXR10_IM-0002-1001.png": png(4),
}


def dropped(corpus: Path) -> dict[str, list[dict[str, object]]]:
    audit = json.loads((corpus / "audit.json").read_text())
    return {reason: entry["rows"] for reason, entry in audit["dropped"].items()}


def notes(corpus: Path) -> str:
    return "\n".join(json.loads((corpus / "audit.json").read_text())["notes"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Site]:
    """The collection, downloaded from a server that fails now and then, and its corpus."""
    open_i_reports()  # or skip
    spec = importlib.util.find_spec("torchxrayvision")
    assert spec is not None
    assert spec.origin is not None
    reports = (Path(spec.origin).parent / "data" / "NLMCXR_reports.tgz").read_bytes()
    names = []
    with tarfile.open(fileobj=io.BytesIO(reports)) as tar:
        for entry in tar:
            if entry.isreg():
                file = tar.extractfile(entry)
                assert file is not None
                names += [part.split('"')[0] for part in file.read().decode().split('<parentImage id="')[1:]]
    assert len(names) == 7470
    images = tgz({f"{name}.png": png(number) for number, name in enumerate(names)})
    folder = tmp_path_factory.mktemp("open-i")
    with serve(Site(files={f"/{IMAGES}": images, f"/{REPORTS}": reports})) as site:
        site.trouble = [status(503, {"Retry-After": "0"}), cut(0.7)]
        prepare_open_i(folder / "root", folder / "corpus", download=True, url=site.url, options=TINY)
    return folder / "root", folder / "corpus", site


def test_every_usable_report_gives_a_pair_and_every_other_is_explained(whole: tuple[Path, Path, Site]) -> None:
    _, path, _ = whole
    corpus = Corpus.open(path)
    reports = {f"CXR{number}": report for number, report in open_i_reports().items()}
    usable = {name for name, report in reports.items() if report.text and report.images}
    assert len(reports) == 3955
    assert len(usable) == 3826
    pairs = [corpus.pair(index) for index in range(len(corpus))]
    assert {pair.pair_id for pair in pairs} == usable
    assert {pair.patient_id for pair in pairs} == usable
    explained = {str(row["detail"]) for rows in dropped(path).values() for row in rows}
    assert explained == set(reports) - usable
    assert set(dropped(path)) == {NO_TEXT, NO_IMAGE}
    audit = json.loads((path / "audit.json").read_text())
    assert audit["rows"] == {"total": 7574, "kept": 7426, "repaired": 4, "dropped": 144, "failed": 0}
    for pair in pairs:
        assert len(pair.images) == reports[pair.pair_id].images
        text = reports[pair.pair_id].text.replace("<BR>", " ")  # a line end in one report
        assert pair.text == " ".join(text.split()), pair.pair_id
        assert pair.attributes["indication"] == " ".join(reports[pair.pair_id].indication.split())
    for figure in ("3,955 reports", "28 reports without findings", "104 reports without image", "3,826 pairs"):
        assert figure in notes(path), figure
    assert notes(path).count(": agrees)") == 6


def test_the_download_was_resumed_recorded_and_is_not_repeated(
    whole: tuple[Path, Path, Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, path, site = whole
    asked = [(name, headers.get("range")) for name, headers in site.requests]
    assert [name for name, _ in asked] == [f"/{REPORTS}", f"/{REPORTS}", f"/{REPORTS}", f"/{IMAGES}"]
    assert asked[2][1] is not None
    assert "sha256" in notes(path)
    sums = (root / "SHA256SUMS").read_text()
    assert IMAGES in sums
    assert REPORTS in sums
    (root / "NLMCXR_png").rename(tmp_path / "away")  # fails before anything is unpacked or read
    (root / "SHA256SUMS").write_text(sums.replace(sums[:8], "00000000", 1))
    with pytest.raises(SystemExit):
        main(["prepare", "open-i", "--root", str(root), "--out", str(tmp_path / "c"), "--download", "--url", site.url])
    assert "SHA256SUMS says 00000000" in capsys.readouterr().err
    (root / "SHA256SUMS").write_text(sums)
    (tmp_path / "away").rename(root / "NLMCXR_png")


def test_archives_and_any_usual_layout_give_the_same_corpus(tmp_path: Path) -> None:
    reports = {name: data for name, data in SMALL.items() if name.endswith(".xml")}
    images = {name: data for name, data in SMALL.items() if name.endswith(".png")}
    layouts = {
        "archives": {IMAGES: tgz(images), REPORTS: tgz(reports)},
        "flat": SMALL,
        "folders": {f"{'reports' if name in reports else 'png/NLMCXR'}/{name}": data for name, data in SMALL.items()},
    }
    shown = set()
    for name, files in layouts.items():
        corpus = Corpus.open(prepare_open_i(write(tmp_path / name, files), tmp_path / f"{name}-c", options=TINY))
        shown.add(tuple((pair.text, *(image.encoded for image in pair.images)) for pair in map(corpus.pair, range(3))))
        assert [corpus.pair(index).pair_id for index in range(3)] == ["CXR1", "CXR2", "CXR10"]
        assert corpus.pair(0).text == "The lungs are clear. Normal chest."
        assert corpus.pair(0).attributes == {
            "indication": "Cough",
            "mesh_major": "Opacity/lung; Cough",
            "mesh_automatic": "Opacity",
        }
        assert "3 reports (3,955 in the whole collection: -99.9%)" in notes(corpus.path)
    assert len(shown) == 1


def test_what_is_missing_doubled_or_foreign_is_said(tmp_path: Path) -> None:
    files = {
        **SMALL,
        "ecgen-radiology/3.xml": xml("CXR3", findings="", images=("CXR3_IM-1-1001",)),
        "ecgen-radiology/4.xml": xml("CXR4"),
        "ecgen-radiology/5.xml": xml("CXR5", images=("CXR5_IM-1-1001",)),
        "ecgen-radiology/6.xml": xml("CXR1", images=("CXR1_1_IM-0001-3001",)),
        "ecgen-radiology/7.xml": xml("CXR7", images=("../../etc/passwd", "CXR1_1_IM-0001-3001/../x", "")),
        "ecgen-radiology/8.xml": b"<eCitation>",
        "ecgen-radiology/notes.txt": b"no report",
        "deep/CXR2_IM-0652-1001.png": png(9),
        "stray.png": png(10),
    }
    root = write(tmp_path / "root", files)
    (tmp_path / "CXR5_IM-1-1001.png").write_bytes(png(5))
    (root / "CXR5_IM-1-1001.png").symlink_to(tmp_path / "CXR5_IM-1-1001.png")
    path = prepare_open_i(root, tmp_path / "c", options=Options(image_size=16, ids="plain", max_failures=0.6))
    found = {reason: [row.get("detail", "") for row in rows] for reason, rows in dropped(path).items()}
    assert found[NO_TEXT] == ["CXR3"]
    assert found[NO_IMAGE] == ["CXR4"]
    assert len(found["image not found"]) == 4
    unusable = found["report that cannot be used"]
    assert len(unusable) == 2
    assert "CXR1 stands in ecgen-radiology/1.xml" in str(unusable[0])
    assert str(unusable[1]).startswith("not XML")
    assert len(Corpus.open(path)) == 3
    assert "1 images stand twice; the first of each by path is used" in notes(path)
    assert "1 images are named by no report" in notes(path)


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + level, b"&%c;" % (97 + level) * 10) for level in range(9)
)


@pytest.mark.parametrize(
    "data",
    [
        BOMB + b']><eCitation><uId id="CXR1"/>&j;</eCitation>',
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><eCitation><uId id="CXR1"/>'
        b'<AbstractText Label="FINDINGS">&e;</AbstractText></eCitation>',
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><eCitation><uId id="CXR1"/></eCitation>',
        b'<?xml version="1.0" encoding="utf-16"?><eCitation/>',
        b'<?xml version="1.0" encoding="no-such"?><eCitation/>',
        b"",
        b"\0\0",
        b'<eCitation><uId id="../CXR1"/></eCitation>',
        b"<eCitation><uId/></eCitation>",
        b"<eCitation/>",
        b"<a>" * 200_000,
        xml("CXR1") + b" " * 5_000_000,
    ],
)
def test_xml_that_means_harm_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read_report(data)


def test_mutated_reports_are_read_or_refused() -> None:
    rng = np.random.default_rng(0)
    original = xml("CXR1", impression="Normal chest &amp; heart.", images=("CXR1_1_IM-0001-3001",))
    refused = 0
    for _ in range(500):
        data = bytearray(original[: rng.integers(len(original))] if rng.random() < 0.2 else original)
        for place in rng.integers(0, max(len(data), 1), rng.integers(1, 4)):
            if data:
                data[place] = rng.integers(256)
        try:
            read_report(bytes(data))
        except ValueError:
            refused += 1
    assert 100 < refused < 500


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x.txt": b""}, r"holds no XML report .*put NLMCXR_reports\.tgz or its content there, or add --download"),
        ({"1.xml": SMALL["ecgen-radiology/1.xml"]}, r"holds no PNG image; put NLMCXR_png\.tgz"),
        ({REPORTS: b"<html>"}, r"NLMCXR_reports\.tgz is not a complete \.tgz archive"),
    ],
)
def test_a_root_without_the_collection_is_one_line(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_open_i(write(tmp_path / "root", files), tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path.write_text("") and path])
def test_a_root_that_is_no_folder_is_named(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    make(tmp_path / "root")
    with pytest.raises(InputError, match="is not a folder; --root names"):
        prepare_open_i(tmp_path / "root", tmp_path / "c")


def test_the_command_prepares_the_collection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "root", SMALL)
    main(["prepare", "open-i", "--root", str(root), "--out", str(tmp_path / "c"), "--image-size", "16"])
    assert "Counts beside the published ones" in capsys.readouterr().out
    assert Corpus.open(tmp_path / "c").patient_ids[0] != "CXR1"
