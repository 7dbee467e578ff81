"""`prepare mimic-cxr` on small trees with the exact file names and columns of MIMIC-CXR-JPG 2.0.0."""

import csv
import gzip
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import trees
from convirt.data.corpora import Corpus
from convirt.data.imaging.pixels import Unreadable
from convirt.data.preparing.audit import Audit
from convirt.data.sources import mimic_cxr
from convirt.data.sources.counts import Figure, compare, notes
from convirt.data.sources.mimic_cxr import MIMIC_DEFAULTS, prepare_mimic_cxr
from convirt.data.sources.rows import MAX_CELL, StreamedTable, read_cells
from convirt.data.sources.texts import MAX_REPORT, FolderTexts, ZipTexts
from convirt.errors import InputError
from trees import audit_of

METADATA = "mimic-cxr-2.0.0-metadata.csv"


def prepare(root: Path, out: Path, **arguments: Any) -> Corpus:
    own = {name: arguments.pop(name) for name in ("seed", "max_failures", "unsectioned") if name in arguments}
    options = replace(MIMIC_DEFAULTS, image_size=24, ids="plain", workers=1, **own)
    return Corpus.open(prepare_mimic_cxr(root, out, options=options, **arguments))


def refused(root: Path, out: Path, **arguments: Any) -> str:
    return trees.refused(prepare, root, out, **arguments)


def change_table(path: Path, change: Callable[[list[list[str]]], None]) -> None:
    """Change the rows of a table in place, the header first among them."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with opened(path, "wt", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty studies of ten patients; not to be changed."""
    root = tmp_path_factory.mktemp("mimic")
    trees.make_mimic_cxr(root)
    return root


@pytest.fixture
def own_tree(tree: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(tree, tmp_path / "tree"))


def test_official_split(tree: Path, tmp_path: Path) -> None:
    corpus = prepare(tree, tmp_path / "corpus", labels="chexpert")
    ids = trees.mimic_ids(20)
    assert len(corpus) == 20
    assert corpus.splits.tolist() == [{"validate": "val"}.get(split, split) for *_, split in ids]
    for index, (patient, study, names, _) in enumerate(ids):
        pair = corpus.pair(index)
        folder = f"files/p10/p{patient}/s{study}"
        assert (pair.pair_id, pair.patient_id) == (f"s{study}", f"p{patient}")
        assert [image.source for image in pair.images] == [f"{folder}/{name}.jpg" for name in names]
        assert [image.view for image in pair.images] == ["PA", "LATERAL", ""][: len(names)]
        assert pair.sentences == (
            f"The lungs are clear in study {study}.",
            "No pleural effusion is seen.",
            "No acute cardiopulmonary process.",
        )
        assert pair.attributes["view"] == ("PA" if len(names) == 1 else "PA; LATERAL")
        assert pair.attributes[trees.CHEXPERT_LABELS[study % 14]] == "1.0"
        assert len(pair.attributes) == 2
    rows = audit_of(corpus)["rows"]
    assert (rows["total"], rows["kept"]) == (36, 36)


def test_sex_and_age_from_mimic_iv(tree: Path, tmp_path: Path) -> None:
    patients = [patient for patient, *_ in trees.mimic_ids(20)]
    columns = ("subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod")
    rows = [(patients[0], "F", 52, 2178, "2014 - 2016", ""), (patients[2], "M", "", 2180, "", "")]
    trees.write_csv(tmp_path / "patients.csv.gz", columns, rows)
    corpus = prepare(tree, tmp_path / "corpus", patients=tmp_path / "patients.csv.gz")
    assert corpus.pair(0).attributes == {"sex": "F", "age": "54", "view": "PA"}
    assert corpus.pair(2).attributes == {"sex": "M", "view": "PA; LATERAL"}
    assert corpus.pair(4).attributes == {"view": "PA; LATERAL"}
    assert "no column 'gender'" in refused(tree, tmp_path / "b", patients=tree / "mimic-cxr-2.0.0-split.csv.gz")


def test_unpacked_tables_and_reports_give_the_same_corpus(tree: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    trees.make_mimic_cxr(unpacked, packed=False)
    elsewhere = tmp_path / "elsewhere"
    with zipfile.ZipFile(tree / "mimic-cxr-reports.zip") as archive:
        archive.extractall(elsewhere / "mimic-cxr-reports")
    first = prepare(tree, tmp_path / "a")
    bare = Path(shutil.copytree(tree, tmp_path / "bare"))
    (bare / "mimic-cxr-reports.zip").unlink()
    assert "--reports" in refused(bare, tmp_path / "none")
    for number, (root, reports) in enumerate(
        (
            (unpacked, None),
            (bare, elsewhere),
            (bare, elsewhere / "mimic-cxr-reports"),
            (bare, elsewhere / "mimic-cxr-reports" / "files"),
            (bare, tree / "mimic-cxr-reports.zip"),
        )
    ):
        assert prepare(root, tmp_path / f"b{number}", reports=reports).fingerprint == first.fingerprint


def test_dicom_where_there_is_no_jpg(tmp_path: Path) -> None:
    trees.make_mimic_cxr(tmp_path / "tree", 5, suffix=".dcm", write=trees.write_dcm)
    corpus = prepare(tmp_path / "tree", tmp_path / "corpus")
    assert corpus.pair(4).images[2].source.endswith(".dcm")
    assert "9 images are read from DICOM, for want of a .jpg" in audit_of(corpus)["notes"]


def test_the_record_list_of_mimic_cxr_alone(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    ids = trees.make_mimic_cxr(root, 5, suffix=".dcm", write=trees.write_dcm)
    (root / f"{METADATA}.gz").unlink()
    trees.write_csv(
        root / "cxr-record-list.csv.gz",
        ("subject_id", "study_id", "dicom_id", "path"),
        ((p, s, d, f"files/p10/p{p}/s{s}/{d}.dcm") for p, s, names, _ in ids for d in names),
    )
    corpus = prepare(root, tmp_path / "corpus", split="paper", val_pairs=1)
    assert len(corpus) == 5
    assert corpus.pair(0).attributes == {}


def test_validation_pairs_of_the_paper(tree: Path, tmp_path: Path) -> None:
    corpus = prepare(tree, tmp_path / "a", split="paper", val_pairs=6)
    assert [len(corpus.indices(split)) for split in ("train", "val", "test")] == [14, 6, 0]
    shared = set(corpus.patient_ids[corpus.indices("train")]) & set(corpus.patient_ids[corpus.indices("val")])
    assert shared
    assert f"split paper: {len(shared)} patients have pairs both in train and in val" in audit_of(corpus)["notes"]
    assert prepare(tree, tmp_path / "b", split="paper", val_pairs=6).splits.tolist() == corpus.splits.tolist()
    assert prepare(tree, tmp_path / "c", split="paper", val_pairs=6, seed=1).splits.tolist() != corpus.splits.tolist()
    grown = prepare(tree, tmp_path / "d", split="paper", val_pairs=7)
    assert set(corpus.indices("val")) < set(grown.indices("val"))


def test_validation_pairs_are_counted_after_short_reports(tmp_path: Path) -> None:
    trees.make_mimic_cxr(tmp_path / "tree", report=lambda s: "FINDINGS: Clear." if s % 2 else trees.mimic_report(s))
    for split in ("paper", "patient"):
        corpus = prepare(tmp_path / "tree", tmp_path / split, split=split, val_pairs=4)
        assert len(corpus) == 10
        assert len(corpus.indices("val")) == 4


def test_reports_without_sections(tmp_path: Path) -> None:
    plain = "AP CHEST, 5:17 A.M.  The lungs are clear."
    trees.make_mimic_cxr(tmp_path / "tree", 10, report=lambda s: plain if s % 2 else trees.mimic_report(s))
    corpus = prepare(tmp_path / "tree", tmp_path / "a", split="paper", val_pairs=3)
    assert len(corpus) == 5
    assert len(corpus.indices("val")) == 3
    audit = audit_of(corpus)
    assert audit["dropped"]["neither Findings nor Impression"]["count"] == 9
    assert audit["rows"]["failed"] == 0
    assert len(prepare(tmp_path / "tree", tmp_path / "b", unsectioned="keep")) == 10


def test_validation_by_patient(tree: Path, tmp_path: Path) -> None:
    corpus = prepare(tree, tmp_path / "corpus", split="patient", val_pairs=6)
    train, val = (set(corpus.patient_ids[corpus.indices(split)]) for split in ("train", "val"))
    assert len(corpus.indices("val")) == 6
    assert not train & val
    assert "split patient: 0 patients have pairs both in train and in val" in audit_of(corpus)["notes"]


def test_too_many_validation_pairs(tree: Path, tmp_path: Path) -> None:
    for split in ("paper", "patient"):
        assert "--val-pairs" in refused(tree, tmp_path / "corpus", split=split)
        assert "--val-pairs" in refused(tree, tmp_path / "corpus", split=split, val_pairs=20)


def test_views(tree: Path, tmp_path: Path) -> None:
    corpus = prepare(tree, tmp_path / "a", where=["ViewPosition=PA"])
    assert {image.view for k in range(20) for image in corpus.pair(k).images} == {"PA"}
    assert audit_of(corpus)["dropped"]["excluded by filter"]["count"] == 16
    assert len(corpus) == 20
    lateral = prepare(tree, tmp_path / "b", where=["ViewPosition=LATERAL,"])
    assert len(lateral) == 12
    assert "ViewPosition=XX" in refused(tree, tmp_path / "c", where=["ViewPosition=XX"])
    assert "no column 'View'" in refused(tree, tmp_path / "c", where=["View=PA"])


def test_what_is_missing_is_counted(own_tree: Path, tmp_path: Path) -> None:
    ids = trees.mimic_ids(20)
    (patient, study, names, _), (other_patient, other, *_) = ids[1], ids[19]
    (own_tree / f"files/p10/p{patient}/s{study}/{names[0]}.jpg").unlink()
    with zipfile.ZipFile(own_tree / "mimic-cxr-reports.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    del texts[f"files/p10/p{other_patient}/s{other}.txt"]
    texts["files/p10/p10000099/s59999999.txt"] = "FINDINGS: of a study without images."
    trees.write_reports(own_tree, texts)
    corpus = prepare(own_tree, tmp_path / "corpus", max_failures=0.2)
    audit = audit_of(corpus)
    assert audit["dropped"]["image not found"]["rows"][0]["image"].endswith(f"{names[0]}.jpg")
    assert audit["dropped"]["no report of the study"]["count"] == 3
    assert audit["rows"]["failed"] == 4
    assert f"1 reports are of studies without an image in {METADATA}.gz; they are left out" in audit["notes"]
    assert len(corpus) == 19
    assert len(corpus.pair(1).images) == 1
    assert "image not found" in refused(own_tree, tmp_path / "strict", max_failures=0.0)


def test_counts_are_set_beside_the_published(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = prepare(tree, tmp_path / "corpus")
    (note,) = audit_of(corpus)["notes"]
    assert note.startswith("counts unlike the published: 36 images listed (377,110 in MIMIC-CXR-JPG 2.0.0: -100.0%)")
    assert "20 pairs (about 217,000 in ConVIRT, section 3.1: -100.0%)" in note
    assert "Counts beside the published ones" in capsys.readouterr().out


def test_comparison() -> None:
    figures = (
        Figure(what="pairs", count="pairs", published=217_000, source="paper", about=0.0025),
        Figure(what="images a pair", count="images/pairs", published=1.7, source="paper", about=0.03),
        Figure(what="studies", count="studies", published=227_835, source="release"),
        Figure(what="unknown", count="unknown", published=1, source="release"),
    )
    said = notes(compare(figures, {"pairs": 217_400, "images": 369_580, "studies": 227_827}))
    assert said == [
        "counts unlike the published: 227,827 studies (227,835 in release: -8)",
        "counts as published: 217,400 pairs (about 217,000 in paper: agrees); "
        "1.7 images a pair (about 1.7 in paper: agrees)",
    ]
    assert notes(compare(figures, {"pairs": 0, "images": 0}))


def test_published_figures_are_consistent() -> None:
    figures = {figure.what: figure.published for figure in (*mimic_cxr.FIGURES, *mimic_cxr.OFFICIAL)}
    parts = sum(figures[f"images listed for {split}"] for split in ("train", "val", "test"))
    assert figures["images listed"] == parts
    assert round(figures["images listed"] / figures["pairs"], 1) == figures["images a pair"]


def test_tables_that_cannot_be_used(own_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    assert "is not a folder" in refused(tmp_path / "none", out)
    split = own_tree / "mimic-cxr-2.0.0-split.csv.gz"
    change_table(split, lambda rows: rows[1].__setitem__(3, "test"))
    assert "patient 'p10000032' is in the given splits" in refused(own_tree, out)
    change_table(split, lambda rows: rows[1].__setitem__(3, "fold1"))
    assert "split 'fold1' is not known" in refused(own_tree, out)
    split.unlink()
    assert "--split paper" in refused(own_tree, out)
    (own_tree / "mimic-cxr-2.0.0-negbio.csv").touch()
    assert "no column" in refused(own_tree, out, labels="negbio", split="paper", val_pairs=2)
    metadata = own_tree / f"{METADATA}.gz"
    metadata.write_bytes(metadata.read_bytes()[:-20])
    assert "copy it again" in refused(own_tree, out, split="paper", val_pairs=2)
    metadata.write_bytes(b"no gzip")
    assert "copy it again" in refused(own_tree, out, split="paper", val_pairs=2)
    metadata.unlink()
    assert "has neither mimic-cxr-2.0.0-metadata.csv.gz" in refused(own_tree, out)


def test_a_root_beside_the_right_one_is_answered_with_the_right_one(own_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    right = tmp_path / "deep" / "mimic-cxr-jpg" / "2.0.0"
    right.parent.mkdir(parents=True)
    own_tree.rename(right)
    for wrong in (right.parent, right.parent.parent, right / "files"):
        assert refused(wrong, out).endswith(f"metadata.csv.gz is in {right}: give --root {right}")
    (tmp_path / "empty").mkdir()
    assert "put the tables of MIMIC-CXR-JPG beside" in refused(tmp_path / "empty", out)
    missing = tmp_path / "reports.zip"
    said = refused(right, out, reports=missing)
    assert said == (
        f"--reports {missing} does not exist; give the path of mimic-cxr-reports.zip, or of the folder that it was "
        "unpacked to"
    )
    (right / "files").rename(tmp_path / "elsewhere")
    assert "has no folder files/ with the images" in refused(right, out)


def test_patients_without_a_split_are_set_aside(own_tree: Path, tmp_path: Path) -> None:
    change_table(own_tree / "mimic-cxr-2.0.0-split.csv.gz", lambda rows: rows.__delitem__(slice(1, 4)))
    corpus = prepare(own_tree, tmp_path / "corpus")
    assert audit_of(corpus)["dropped"]["no split given for the patient"]["count"] == 3


def test_hostile_rows(own_tree: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    trees.write_jpg(secret, 1)
    patient, study, names, _ = trees.mimic_ids(1)[0]

    def change(rows: list[list[str]]) -> None:
        good = rows[1]
        for dicom, subject, number in (
            ("../../../../../secret", str(patient), str(study)),
            ("..", str(patient), str(study)),
            ("a/b", str(patient), str(study)),
            (names[0], "../../..", str(study)),
            (names[0], str(patient), "5000000٠"),
            ("", "", ""),
            (names[0], "10000099", str(study)),
            (names[0], str(patient), str(study)),
        ):
            rows.append([dicom, subject, number, *good[3:]])
        rows.append(["too", "few"])

    change_table(own_tree / f"{METADATA}.gz", change)
    corpus = prepare(own_tree, tmp_path / "corpus", max_failures=0.5, split="paper", val_pairs=2)
    dropped = audit_of(corpus)["dropped"]
    assert dropped["ids that are not MIMIC-CXR's"]["count"] == 6
    assert [row["row"] for row in dropped["image not found"]["rows"]] == [43]
    assert dropped["same image twice in one pair"]["rows"][0]["detail"] == "first in row 1"
    assert dropped["row that does not fit the header"]["rows"][0]["detail"] == "2 cells, the header has 12"
    assert len(corpus) == 20


def test_a_study_of_two_patients(own_tree: Path, tmp_path: Path) -> None:
    _, study, _, _ = trees.mimic_ids(1)[0]
    trees.write_jpg(own_tree / f"files/p10/p10000099/s{study}/aaaa.jpg", 1)
    change_table(own_tree / f"{METADATA}.gz", lambda rows: rows.append(["aaaa", "10000099", str(study), *rows[1][3:]]))
    corpus = prepare(own_tree, tmp_path / "corpus", split="paper", val_pairs=2)
    assert audit_of(corpus)["dropped"]["study of two patients"]["count"] == 1
    assert len(corpus.pair(0).images) == 1


def test_links_out_of_the_root(own_tree: Path, tmp_path: Path) -> None:
    ids = trees.mimic_ids(3)
    outside = tmp_path / "outside"
    for patient, study, names, _ in ids:
        folder = own_tree / f"files/p10/p{patient}/s{study}"
        shutil.copytree(folder, outside / folder.name)
        if study == ids[0][1]:
            shutil.rmtree(folder)
            folder.symlink_to(outside / folder.name)
        else:
            image = folder / f"{names[0]}.jpg"
            image.unlink()
            image.symlink_to(outside / folder.name / image.name)
    corpus = prepare(own_tree, tmp_path / "corpus", max_failures=0.5)
    assert audit_of(corpus)["dropped"]["image not found"]["count"] == 3
    reports = own_tree / "mimic-cxr-reports.zip"
    reports.rename(outside / "reports.zip")
    reports.symlink_to(outside / "reports.zip")
    assert "leads out of" in refused(own_tree, tmp_path / "b")
    assert len(prepare(own_tree, tmp_path / "c", reports=outside / "reports.zip", max_failures=0.5)) == len(corpus)


def zip_texts(path: Path) -> dict[str, str | Unreadable]:
    """Read every report of an archive; what cannot be read as its reason."""
    texts = ZipTexts(path=path, levels=(r"p(\d{8})", r"s(?P<study>\d{8})\.txt"))
    found: dict[str, str | Unreadable] = {}
    for match, place in texts.listing():
        try:
            found[match["study"]] = texts.read(place)
        except Unreadable as error:
            found[match["study"]] = error.reason
    return found


def test_members_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "reports.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("files/p10/p10000001/s50000001.txt", "One, “quoted”.")
        archive.writestr("mimic/files/p10/p10000001/s50000002.txt", "Two.")
        archive.writestr("../p10000001/s50000003.txt", "Out.")
        archive.writestr("/p10000001/s50000004.txt", "Out.")
        archive.writestr("files\\..\\p10000001/s50000005.txt", "Out.")
        archive.writestr("files/p10/p10000001/s50000006.txt", bytes(50 * MAX_REPORT))
        archive.writestr("files/p10/p10000001/s50000007.txt", "Stored.", compress_type=zipfile.ZIP_STORED)
        archive.writestr("files/p10/p10000001/s50000008.txt", "LZMA.", compress_type=zipfile.ZIP_LZMA)
        archive.writestr("files/p10/p10000001/s50000009.txt.bak", "Not a report.")
        archive.writestr("files/p10/p10000001/s50000010.txt", "Café".encode("latin-1"))
    assert zip_texts(path) == {
        "50000001": "One, “quoted”.",
        "50000002": "Two.",
        "50000006": "report too large",
        "50000007": "Stored.",
        "50000008": "report that cannot be unpacked",
        "50000010": "Caf\ufffd",
    }


def test_a_zip_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    path = tmp_path / "reports.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p10000001/s50000001.txt", bytes(200 * 2**20))
    data = path.read_bytes()
    true, lie = (200 * 2**20).to_bytes(4, "little"), (100).to_bytes(4, "little")
    assert true in data
    path.write_bytes(data.replace(true, lie))
    assert zip_texts(path) == {"50000001": "damaged report"}


def test_damaged_archives(tree: Path, own_tree: Path, tmp_path: Path) -> None:
    path = own_tree / "mimic-cxr-reports.zip"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "not a complete zip archive" in refused(own_tree, tmp_path / "a")
    path.write_bytes(b"")
    assert "not a complete zip archive" in refused(own_tree, tmp_path / "a")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "x")
    assert "holds no report" in refused(own_tree, tmp_path / "a")
    spoiled = bytearray(data)
    spoiled[60:64] = b"\xff\xff\xff\xff"
    path.write_bytes(spoiled)
    corpus = prepare(own_tree, tmp_path / "b")
    assert audit_of(corpus)["dropped"]["damaged report"]["count"] == 1


def test_reports_twice_in_an_archive(own_tree: Path, tmp_path: Path) -> None:
    patient, study, *_ = trees.mimic_ids(1)[0]
    with zipfile.ZipFile(own_tree / "mimic-cxr-reports.zip", "a") as archive:
        archive.writestr(f"again/files/p10/p{patient}/s{study}.txt", "FINDINGS: This is the later one.")
    corpus = prepare(own_tree, tmp_path / "corpus")
    assert corpus.pair(0).sentences == ("This is the later one.",)
    assert "1 reports stand twice in mimic-cxr-reports.zip; the last of each is taken" in audit_of(corpus)["notes"]


def test_report_files_that_cannot_be_used(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    ids = trees.make_mimic_cxr(root, packed=False)
    paths = [root / f"files/p10/p{patient}/s{study}.txt" for patient, study, *_ in ids]
    paths[0].write_bytes(bytes(MAX_REPORT + 1))
    (tmp_path / "outside.txt").write_text("FINDINGS: Nobody should read this.")
    paths[1].unlink()
    paths[1].symlink_to(tmp_path / "outside.txt")
    paths[2].write_text("")
    corpus = prepare(root, tmp_path / "corpus", max_failures=0.5)
    dropped = audit_of(corpus)["dropped"]
    assert {reason: entry["count"] for reason, entry in dropped.items()} == {
        "report too large": 1,
        "no report of the study": 2,
        "no text": 2,
    }
    texts = FolderTexts(path=root, levels=("x",))
    with pytest.raises(Unreadable, match="leads out"):
        texts.read(("../outside.txt",))
    with pytest.raises(Unreadable, match="cannot be opened"):
        texts.read(("files/none.txt",))


def test_streamed_tables(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [
        '1,"two\nlines, ""quoted""",é',
        "",
        " 2 ,x,y",
        "3,too few",
        '4,"' + "x" * (MAX_CELL + 1) + '",z',
        "5,\udcff,z",
    ]
    path.write_bytes("\ufeffa, b ,c\r\n".encode() + "\r\n".join(rows).encode("utf-8", "surrogateescape"))
    table = StreamedTable(path, ["c", "a"])
    assert table.header == ("a", "b", "c")
    seen = list(table)
    assert [row.cells for row in seen] == [("é", "1"), ("y", "2"), (), (), ()]
    assert [row.problem for row in seen[2:]] == [
        "2 cells, the header has 3",
        f"field larger than field limit ({MAX_CELL})",
        "a byte that is not UTF-8",
    ]
    assert read_cells(path, seen[0].place) == ["1", 'two\nlines, "quoted"', "é"]
    assert read_cells(path, seen[1].place) == [" 2 ", "x", "y"]
    packed = tmp_path / "table.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    again = StreamedTable(packed, ["c", "a"])
    assert [(row.number, row.cells) for row in again] == [(row.number, row.cells) for row in seen]
    assert again.sha256 == table.sha256
    path.write_bytes(b"a,b\n1,2\n3")
    with pytest.raises(Unreadable, match="shorter"):
        read_cells(path, seen[0].place)
    audit = Audit(table="table.csv", total=0)
    assert [row.number for row in StreamedTable(path, ["a"]).fitting(audit)] == [1]
    assert audit.total == 2


def test_streamed_tables_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"

    def said(content: bytes, **arguments: Any) -> str:
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            list(StreamedTable(path, ["a"], **arguments))
        return str(caught.value)

    assert "no column 'a'" in said(b"")
    assert "no rows" in said(b"a,b\n")
    assert "never closed" in said(b'a,b\n1,"2\n3,4\n')
    assert "is not CSV" in said(b"a\rb,c\n1,2\n")
    assert "two columns named 'a'" in said(b"a,a\n1,2\n")
    assert "line of more than" in said(b"a" * (17 * 2**20))
    assert "must read" in said(b"a,b\n1,2\n", where=["a"])
    assert "no row of table.csv passes" in said(b"a,b\n1,2\n", where=["a=2"])
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        StreamedTable(path, ["a"])


def test_memory_of_a_plan_does_not_hold_texts(tree: Path) -> None:
    table = mimic_cxr.image_table(tree)
    texts = mimic_cxr.find_reports(tree, None)
    plans, _ = mimic_cxr.plan_mimic_cxr(tree, table, texts, Audit(table="", total=0), splits=None)
    assert {plan.text for plan in plans} == {""}
    assert len({id(row.attributes) for plan in plans for row in plan.rows}) == 1


def test_the_command(tree: Path, tmp_path: Path) -> None:
    from convirt.cli import run_verb

    out = tmp_path / "corpus"
    options = ["--split", "paper", "--val-pairs", "3", "--where", "ViewPosition=PA", "--image-size", "16"]
    run_verb(["prepare", "mimic-cxr", "--root", str(tree), "--out", str(out), *options])
    corpus = Corpus.open(out)
    assert len(corpus.indices("val")) == 3
    assert corpus.image_size == 16
    assert not set(corpus.patient_ids) & {f"p{patient}" for patient, *_ in trees.mimic_ids(20)}
