"""`prepare chexpert-plus` on small trees with the exact file names and columns of CheXpert Plus."""

import gzip
from pathlib import Path
from typing import Any

import pytest

import trees
from convirt.data.corpora import Corpus
from convirt.data.preparing.options import Options
from convirt.data.sources.chexpert_plus import prepare_chexpert_plus
from trees import audit_of

COLUMN = {name: number for number, name in enumerate(trees.CHEXPERT_PLUS)}


def prepare(root: Path, out: Path, *, max_failures: float = 0.1, seed: int = 0, **arguments: Any) -> Corpus:
    options = Options(image_size=24, ids="plain", workers=1, max_failures=max_failures, seed=seed)
    return Corpus.open(prepare_chexpert_plus(root, out, options=options, **arguments))


def refused(root: Path, out: Path, **arguments: Any) -> str:
    return trees.refused(prepare, root, out, **arguments)


def write_table(root: Path, rows: list[list[object]]) -> None:
    trees.write_csv(root / "df_chexpert_plus_240401.csv", trees.CHEXPERT_PLUS, rows)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten patients with two studies each; not to be changed."""
    root = tmp_path_factory.mktemp("chexpert")
    trees.make_chexpert_plus(root)
    return root


def test_official_split(tree: Path, tmp_path: Path) -> None:
    corpus = prepare(tree, tmp_path / "corpus", keep_columns=["race"])
    assert corpus.splits.tolist() == ["train"] * 18 + ["val"] * 2
    pair = corpus.pair(0)
    assert (pair.pair_id, pair.patient_id) == ("patient00001/study1", "patient00001")
    folder = "PNG/PNG/train/patient00001/study1"
    assert [image.source for image in pair.images] == [f"{folder}/view1_frontal.png", f"{folder}/view2_lateral.png"]
    assert [image.view for image in pair.images] == ["PA", "Lateral"]
    assert pair.sentences == (
        "The lungs of patient 1 are clear, study 1.",
        "No effusion.",
        'NO ACUTE DISEASE, "STABLE".',
    )
    assert pair.attributes == {"sex": "Male", "age": "21", "race": "Other", "view": "PA; Lateral"}
    assert corpus.pair(1).attributes["view"] == "AP"
    audit = audit_of(corpus)
    assert (audit["rows"]["total"], audit["rows"]["kept"]) == (30, 30)
    assert "30 images listed (223,462 in CheXpert Plus: -100.0%)" in audit["notes"][0]


@pytest.mark.parametrize(
    ("images", "suffix"), [("", ".jpg"), ("PNG", ".png"), ("CheXpert-v1.0", ".jpg"), ("DICOM/DICOM", ".dcm")]
)
def test_folders_and_formats(tmp_path: Path, images: str, suffix: str) -> None:
    write = trees.write_dcm if suffix == ".dcm" else trees.write_jpg
    trees.make_chexpert_plus(tmp_path / "tree", 3, images=images, suffix=suffix, write=write)
    corpus = prepare(tmp_path / "tree", tmp_path / "corpus")
    assert len(corpus) == 6
    source = f"train/patient00001/study1/view1_frontal{suffix}"
    assert corpus.pair(0).images[0].source == (f"{images}/{source}" if images else source)


def test_a_table_elsewhere_and_paths_with_a_prefix(tree: Path, tmp_path: Path) -> None:
    def prefix(row: list[object]) -> None:
        row[COLUMN["path_to_image"]] = f"CheXpert-v1.0/{row[COLUMN['path_to_image']]}"

    table = trees.make_chexpert_plus(tmp_path / "tables", write=None, change=prefix)
    corpus = prepare(tree / "PNG", tmp_path / "a", table=table)
    assert corpus.pair(0).images[0].source.startswith("PNG/train/patient00001/")
    assert len(corpus) == 20


def test_png_is_preferred(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    trees.make_chexpert_plus(root, 3, images="DICOM", suffix=".dcm", write=trees.write_dcm)
    trees.make_chexpert_plus(root, 2, images="PNG")
    trees.make_chexpert_plus(root, 3, write=None)
    corpus = prepare(root, tmp_path / "corpus")
    suffixes = [Path(corpus.pair(k).images[0].source).suffix for k in range(6)]
    assert suffixes == [".png", ".png", ".dcm", ".dcm", ".dcm", ".dcm"]


def test_texts(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    trees.make_chexpert_plus(root)
    report = "NARRATIVE:\nChest.\n\nIMPRESSION:\nThe heart is large."
    cells: list[dict[str, object]] = [
        {"section_findings": "", "section_impression": "Only an impression here."},
        {"section_findings": "nan", "section_impression": "NaN", "report": report},
        {"section_findings": "", "section_impression": "", "report": "No headings at all."},
        {"section_findings": "", "section_impression": "", "report": ""},
        {"section_findings": "Clear.", "section_impression": ""},
        {"section_findings": "INDICATION: this is no heading here.", "section_impression": ""},
    ]
    write_table(root, [trees.chexpert_plus_row(k + 1, 1, 1, **given) for k, given in enumerate(cells)])
    corpus = prepare(root, tmp_path / "corpus")
    assert [corpus.pair(k).sentences for k in range(4)] == [
        ("Only an impression here.",),
        ("The heart is large.",),
        ("No headings at all.",),
        ("INDICATION: this is no heading here.",),
    ]
    assert {reason: entry["count"] for reason, entry in audit_of(corpus)["dropped"].items()} == {
        "no text": 1,
        "text shorter than 3 tokens": 1,
    }


def test_differing_texts_of_a_study(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    trees.make_chexpert_plus(root)
    empty = {"section_findings": "", "section_impression": "", "report": ""}
    write_table(
        root,
        [
            trees.chexpert_plus_row(1, 1, 1, **empty),
            trees.chexpert_plus_row(1, 1, 2, section_findings="The first text there is."),
            trees.chexpert_plus_row(2, 1, 1),
            trees.chexpert_plus_row(2, 1, 2, section_findings="Another text than before."),
        ],
    )
    corpus = prepare(root, tmp_path / "corpus")
    assert corpus.pair(0).sentences[0] == "The first text there is."
    assert corpus.pair(1).sentences[0] == "The lungs of patient 2 are clear, study 1."
    assert audit_of(corpus)["repaired"]["differing texts of one study, the first kept"]["count"] == 1


def test_split_by_patient(tree: Path, tmp_path: Path) -> None:
    corpus = prepare(tree, tmp_path / "a", split="patient", val_share=0.3, test_share=0.2)
    parts = {split: set(corpus.patient_ids[corpus.indices(split)]) for split in ("train", "val", "test")}
    assert {split: len(patients) for split, patients in parts.items()} == {"train": 5, "val": 3, "test": 2}
    assert len(set.union(*parts.values())) == 10
    in_train = "patient00010" in parts["train"]
    assert any("CheXpert's usual test set" in note for note in audit_of(corpus)["notes"]) == in_train
    again = prepare(tree, tmp_path / "b", split="patient", val_share=0.3, test_share=0.2, seed=1)
    assert again.splits.tolist() != corpus.splits.tolist()
    assert "val_share" in refused(tree, tmp_path / "c", split="patient", val_share=1.0)


def test_filters(tree: Path, tmp_path: Path) -> None:
    corpus = prepare(tree, tmp_path / "a", where=["frontal_lateral=Frontal", "sex=Male"])
    assert len(corpus) == 10
    assert audit_of(corpus)["dropped"]["excluded by filter"]["count"] == 20
    assert "passes the filter" in refused(tree, tmp_path / "b", where=["sex=Other"])


def test_hostile_and_broken_rows(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    trees.make_chexpert_plus(root)
    trees.write_jpg(tmp_path / "secret.jpg", 1)
    row = trees.chexpert_plus_row
    path = "train/patient00001/study1/view1_frontal.jpg"
    outside = root / "PNG/PNG/train/patient00003/study1/view1_frontal.png"
    outside.unlink()
    outside.symlink_to(tmp_path / "secret.jpg")
    write_table(
        root,
        [
            row(1, 1, 1),
            row(1, 1, 1),
            row(1, 1, 1, path_to_image="../../secret.jpg"),
            row(1, 1, 1, path_to_image="/etc/passwd"),
            row(1, 1, 1, path_to_image="train/patient00001/study1/../../../../secret.jpg"),
            row(1, 1, 1, path_to_image=f"../../elsewhere/{path}"),
            row(1, 1, 1, deid_patient_id="patient00002"),
            row(1, 1, 1, deid_patient_id=""),
            row(7, 9, 1),
            row(3, 1, 1),
            ["too", "few"],
        ],
    )
    corpus = prepare(root, tmp_path / "corpus", max_failures=0.8)
    dropped = {
        reason: [entry["row"] for entry in found["rows"]] for reason, found in audit_of(corpus)["dropped"].items()
    }
    assert dropped == {
        "same image twice in one pair": [2, 6],
        "path that is not CheXpert's": [3, 4, 5],
        "path that does not fit the patient": [7, 8],
        "image not found": [9, 10],
        "row that does not fit the header": [11],
    }
    assert len(corpus) == 1


def test_tables_that_cannot_be_used(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    assert "is not a folder" in refused(tmp_path / "none", out)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "--table" in refused(empty, out)
    table = tree / "df_chexpert_plus_240401.csv"
    assert "no folder train/" in refused(empty, out, table=table)
    packed = empty / f"{table.name}.gz"
    packed.write_bytes(gzip.compress(table.read_bytes()))
    assert "unpacked" in refused(empty, out)
    (empty / "df_chexpert_plus_1.csv").write_text("path_to_image,report\na,b\n")
    assert "no column 'path_to_dcm'" in refused(empty, out)
    trees.make_chexpert_plus(tmp_path / "bad", 3, change=lambda row: row.__setitem__(COLUMN["split"], "fold1"))
    assert "split 'fold1' is not known" in refused(tmp_path / "bad", out)
    moved = [trees.chexpert_plus_row(1, 1, 1), trees.chexpert_plus_row(1, 2, 1, split="valid")]
    moved[1][COLUMN["path_to_image"]] = "train/patient00001/study2/view1_frontal.jpg"
    trees.make_chexpert_plus(tmp_path / "moved", 3)
    write_table(tmp_path / "moved", moved)
    message = refused(tmp_path / "moved", out)
    assert "is in the given splits train and val" in message
    assert "choose --split patient" in message
    assert len(prepare(tmp_path / "moved", out, split="patient", val_share=0.0)) == 2


def test_a_table_that_changes_meanwhile(tmp_path: Path) -> None:
    from convirt.data.imaging.pixels import Unreadable
    from convirt.data.preparing.audit import Audit
    from convirt.data.sources.chexpert_plus import TableReports, plan_chexpert_plus, report_table
    from convirt.data.sources.studies import StudyPlan

    root = tmp_path / "tree"
    path = trees.make_chexpert_plus(root, 3)
    table = report_table(root, None, (), ())
    plans, _ = plan_chexpert_plus(root, table, Audit(table="", total=0))
    last = plans[-1]
    assert isinstance(last, StudyPlan)
    assert "patient 3" in TableReports.of(table).read(last.place)[0]
    path.write_text("path_to_image\nx\n")
    with pytest.raises(Unreadable, match="report not found"):
        TableReports.of(table).read(last.place)


def test_the_command(tree: Path, tmp_path: Path) -> None:
    from convirt.cli import run_verb

    out = tmp_path / "corpus"
    options = ["--split", "patient", "--val-share", "0.5", "--where", "ap_pa=AP,PA", "--image-size", "16"]
    run_verb(["prepare", "chexpert-plus", "--root", str(tree), "--out", str(out), *options])
    corpus = Corpus.open(out)
    assert len(corpus.indices("val")) == 10
    assert not {name for name in corpus.patient_ids if name.startswith("patient")}
