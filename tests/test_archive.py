"""`prepare archive`: from a folder and a table to a corpus, with every row accounted for."""

import hashlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from convirt.data import tables
from convirt.data.corpora import Corpus, decode
from convirt.data.preparing import archive
from convirt.data.preparing.archive import prepare_archive
from convirt.data.preparing.audit import Audit
from convirt.data.preparing.options import Options
from convirt.data.preparing.planning import Columns, plan_pairs
from convirt.data.shards import ShardWriter
from convirt.data.splits import check_patients, given_split, split_by_patient
from convirt.data.tables import read_table
from convirt.errors import InputError
from dicom_files import dicom, texture

DATA = Path(__file__).parents[1].parent / "shared" / "data"
TEXT = "FINDINGS: Heart size is normal. No effusion. IMPRESSION: Normal chest."


def save_image(path: Path, seed: int, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (40, 30), dtype=np.uint8)
    Image.fromarray(values).save(path, **options)


def make_archive(folder: Path, count: int = 20, **columns: list[str]) -> pd.DataFrame:
    """Write `count` images of as many patients; return the table that lists them."""
    names = [f"images/{number:03d}.{'png' if number % 2 else 'jpg'}" for number in range(count)]
    for number, name in enumerate(names):
        save_image(folder / name, number)
    table = pd.DataFrame(
        {
            "image": names,
            "report": [f"{TEXT} Number {number}." for number in range(count)],
            "patient": [f"p{number:03d}" for number in range(count)],
        }
    )
    return table.assign(**columns)


def prepare(folder: Path, content: pd.DataFrame | str | bytes, **options: Any) -> Corpus:
    file = folder / "table.csv"
    if isinstance(content, pd.DataFrame):
        content.to_csv(file, index=False)
    else:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    arguments: dict[str, Any] = {
        "images": folder,
        "table": file,
        "image_column": "image",
        "text_column": "report",
        "patient_column": "patient",
        "out": folder / "corpus",
        **{name: value for name, value in options.items() if name not in vars(Options())},
    }
    shared = {name: value for name, value in options.items() if name in vars(Options())}
    arguments["options"] = Options(**{"image_size": 32, "workers": 1, "ids": "plain", **shared})
    return Corpus.open(prepare_archive(**arguments))


def read_audit(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "corpus" / "audit.json").read_text())


def refused(folder: Path, content: pd.DataFrame | str | bytes, **options: Any) -> str:
    """Prepare, expecting one line of refusal and nothing written; return the line."""
    with pytest.raises(InputError) as caught:
        prepare(folder, content, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert not (folder / "corpus").exists()
    assert not list(folder.glob(".corpus*"))
    return message


def test_the_plain_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = make_archive(tmp_path, view=["PA"] * 20, finding=[f"f{k}" for k in range(20)])
    corpus = prepare(tmp_path, table, view_column="view", keep_columns=("finding",))
    assert len(corpus) == 20
    assert corpus.image_size == 32
    pair = corpus.pair(3)
    assert pair.pair_id == "images/003.png" == pair.images[0].source
    assert pair.patient_id == "p003"
    assert pair.text == "Heart size is normal. No effusion. Normal chest. Number 3."
    assert pair.sentences == ("Heart size is normal.", "No effusion.", "Normal chest.", "Number 3.")
    assert pair.attributes == {"finding": "f3"}
    assert pair.images[0].view == "PA"
    assert all(max(i.height, i.width) == 32 for k in range(20) for i in corpus.pair(k).images)
    assert read_audit(tmp_path)["rows"] == {"total": 20, "kept": 20, "repaired": 0, "dropped": 0, "failed": 0}
    printed = capsys.readouterr().out
    assert "kept as they are" in printed
    assert "train" in printed
    # 10 % of 20 patients each
    assert [len(corpus.indices(split)) for split in ("train", "val", "test")] == [16, 2, 2]


def test_result_does_not_depend_on_workers_place_or_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convirt.data.preparing.prepare._WORTH_WORKERS", 1)
    corpora = []
    for name, workers in (("a", 1), ("b/deeper", 2)):
        folder = tmp_path / name
        table = make_archive(folder, 80)
        (folder / "images" / "004.jpg").write_bytes(b"no image")
        corpora.append(prepare(folder, table, workers=workers))
    contents = [{file.name: file.read_bytes() for file in corpus.path.iterdir()} for corpus in corpora]
    assert contents[0] == contents[1]
    assert len(corpora[0]) == 79


def test_every_row_is_counted(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 30, view=["PA"] * 25 + ["CT"] * 5)
    table.loc[0, "report"] = "No change"
    table.loc[1, "report"] = None
    table.loc[2, "report"] = "... 12 ___"
    table.loc[3, "image"] = "images/none.png"
    table.loc[4, "patient"] = None
    table.loc[5, "image"] = f" {table.image[5]} "
    table = pd.concat([table, table.iloc[[6]]])
    (tmp_path / table.image[7]).write_bytes((tmp_path / table.image[7]).read_bytes()[:-300])
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(tmp_path / table.image[8])
    corpus = prepare(tmp_path, table, where=("view=PA",), max_failures=0.2)
    seen = read_audit(tmp_path)
    assert seen["rows"] == {"total": 31, "kept": 17, "repaired": 2, "dropped": 12, "failed": 3}
    assert len(corpus) == 19
    assert {reason: entry["count"] for reason, entry in seen["dropped"].items()} == {
        "excluded by filter": 5,
        "text shorter than 3 tokens": 1,
        "no text": 1,
        "text without a word": 1,
        "image not found": 1,
        "no patient": 1,
        "truncated or damaged image": 1,
        "same image and text as an earlier row": 1,
    }
    assert seen["dropped"]["image not found"]["rows"] == [{"row": 4, "image": "images/none.png"}]
    assert seen["dropped"]["truncated or damaged image"]["rows"][0]["row"] == 8
    assert seen["dropped"]["text shorter than 3 tokens"]["rows"][0]["detail"] == "No change"
    assert seen["dropped"]["same image and text as an earlier row"]["rows"][0]["row"] == 31
    assert {reason: entry["count"] for reason, entry in seen["repaired"].items()} == {
        "colour made grey": 1,
        "white space around a value removed": 1,
    }


def test_too_many_failures_write_nothing(tmp_path: Path) -> None:
    table = make_archive(tmp_path)
    for name in table.image[:3]:
        (tmp_path / name).write_bytes(b"")
    message = refused(tmp_path, table)
    assert "3 of 20 rows" in message
    assert "row 1, images/000.jpg: empty file" in message
    assert "--max-failures" in message
    assert len(prepare(tmp_path, table, max_failures=0.15)) == 17


@pytest.mark.parametrize(
    "entry", ["../../etc/passwd", "/etc/passwd", "images/../../secret.png", "link.png", "folder/secret.png"]
)
def test_paths_that_lead_out_are_refused_row_by_row(tmp_path: Path, entry: str) -> None:
    root = tmp_path / "archive"
    table = make_archive(root)
    save_image(tmp_path / "secret.png", 1)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    table.loc[0, "image"] = entry
    assert len(prepare(root, table)) == 19
    assert read_audit(root)["dropped"]["path that leads out of the image folder"]["rows"] == [
        {"row": 1, "image": entry}
    ]


def test_a_link_that_comes_after_planning_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "archive"
    table = make_archive(root)
    save_image(tmp_path / "secret.png", 1)
    plan = archive.plan_pairs

    def plan_then_link(*arguments: Any) -> Any:
        plans = plan(*arguments)
        (root / "images/001.png").unlink()
        (root / "images/001.png").symlink_to(tmp_path / "secret.png")
        return plans

    monkeypatch.setattr(archive, "plan_pairs", plan_then_link)
    assert len(prepare(root, table)) == 19
    assert read_audit(root)["dropped"]["path that leads out of the image folder"]["rows"] == [
        {"row": 2, "image": "images/001.png"}
    ]


def test_ids_are_hashed_with_a_salt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVIRT_SALT", raising=False)
    table = make_archive(tmp_path, 20, study=[f"study{k}" for k in range(20)])
    options = {"ids": "hashed", "study_column": "study"}
    plain = prepare(tmp_path, table, out=tmp_path / "plain", study_column="study")
    hashed = prepare(tmp_path, table, out=tmp_path / "hashed", **options)
    again = prepare(tmp_path, table, out=tmp_path / "again", **options)
    assert hashed.patient_ids.tolist() == again.patient_ids.tolist()  # the same table, the same ids
    assert hashed.splits.tolist() == plain.splits.tolist()
    assert len(set(hashed.patient_ids)) == 20
    for k in range(20):
        pair = hashed.pair(k)
        assert re.fullmatch("[0-9a-f]{16}", pair.patient_id)
        assert re.fullmatch("[0-9a-f]{16}", pair.pair_id)
        # Without the salt, nobody finds an id by trying all numbers.
        assert pair.patient_id not in hashlib.sha256(f"p{k:03d}".encode()).hexdigest()
    files = [path.read_bytes() for path in hashed.path.iterdir()]
    assert not [data for data in files if b"p003" in data or b"study3" in data]
    # The default salt is made of the table's hash, which the corpus must not give away.
    digest = hashlib.sha256((tmp_path / "table.csv").read_bytes()).hexdigest().encode()
    assert not [data for data in files if digest in data]
    table.loc[0, "report"] = "Another report of a chest."
    other = prepare(tmp_path, table, out=tmp_path / "other", **options)
    assert not set(other.patient_ids) & set(hashed.patient_ids)
    # A salt of the user's own joins corpora of several tables.
    monkeypatch.setenv("CONVIRT_SALT", "ours")
    one = prepare(tmp_path, table, out=tmp_path / "one", **options)
    two = prepare(tmp_path, table.iloc[::-1], out=tmp_path / "two", **options)
    assert set(one.patient_ids) == set(two.patient_ids) != set(other.patient_ids)
    assert not [path for path in one.path.iterdir() if b"ours" in path.read_bytes()]


def test_sixteen_bits_a_language_and_redaction_reach_the_pairs(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 6)
    deep = np.linspace(0, 4095, 40 * 30).reshape(40, 30).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / table.image[1])
    table["report"] = "HALLAZGOS: Corazón normal. Dr. García, tel. 555-123-4567. CONCLUSIÓN: Tórax normal."
    table["report"] += [f" Número {k}." for k in range(6)]
    corpus = prepare(tmp_path, table, bits=16, language="es", redact=True)
    image = decode(corpus.pair(1).images[0])
    assert str(image.dtype) == "torch.uint16"
    assert len(np.unique(image.numpy())) > 256
    assert "555" not in corpus.pair(0).text
    assert not corpus.pair(0).text.startswith("HALLAZGOS")
    assert any(reason.startswith("identifier masked") for reason in read_audit(tmp_path)["repaired"])
    assert corpus.settings["bits"] == 16
    assert "there is no lexicon 'tlh'" in refused(tmp_path / "b", make_archive(tmp_path / "b", 4), language="tlh")


def test_a_placeholder_image_in_many_rows_is_quick(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 1)
    table = pd.concat([table] * 5000).assign(report=[f"A report, number {k}." for k in range(5000)])
    table.to_csv(tmp_path / "table.csv", index=False)
    source = read_table(tmp_path / "table.csv")
    columns = Columns(image="image", text=("report",), patient="patient")
    plans = plan_pairs(
        source, columns, tmp_path, (), {"seed": 0, "val_share": 0.0, "test_share": 0.0}, Audit(table="", total=5000)
    )
    assert len({plan.pair_id for plan in plans}) == 5000
    assert plans[4999].pair_id == "images/000.jpg#5000"
    assert plans[4999].text == "A report, number 4999."


def test_a_large_table_lies_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_archive(tmp_path, 30)
    small = prepare(tmp_path, table, out=tmp_path / "small")
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 4)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    large = prepare(tmp_path, table, out=tmp_path / "large")
    assert {f.name: f.read_bytes() for f in large.path.iterdir()} == {
        f.name: f.read_bytes() for f in small.path.iterdir()
    }
    assert list((tmp_path / "temporary").iterdir()) == []


def test_paths_inside_are_kept_relative(tmp_path: Path) -> None:
    table = make_archive(tmp_path)
    (tmp_path / "alias.png").symlink_to(tmp_path / "images" / "001.png")
    table.loc[0, "image"] = str(tmp_path / "images" / "000.jpg")
    table.loc[1, "image"] = "alias.png"
    table.loc[2, "image"] = "./images/../images/002.jpg"
    corpus = prepare(tmp_path, table)
    assert [corpus.pair(k).images[0].source for k in range(3)] == ["images/000.jpg", "alias.png", "images/002.jpg"]


@pytest.mark.parametrize("entry", ["a\0b.png", "x" * 5000, "images"])
def test_impossible_paths_are_set_aside(tmp_path: Path, entry: str) -> None:
    table = make_archive(tmp_path)
    table.loc[0, "image"] = entry
    assert len(prepare(tmp_path, table)) == 19
    assert read_audit(tmp_path)["dropped"]["image not found"]["count"] == 1


def test_studies_group_rows(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 6, study=["1", "1", "2", "1", "1", "1"], label=list("xxyzzz"))
    table["patient"] = ["a", "a", "a", "b", "b", "b"]  # studies are numbered anew for each patient
    table["report"] = (
        ["One report here."] * 2 + ["Another report here."] + ["Half of it.", "Half of it.", "Other half."]
    )
    table = pd.concat([table, table.iloc[[1]]])
    corpus = prepare(tmp_path, table, study_column="study", keep_columns=("label",), val_share=0.0, test_share=0.0)
    assert [corpus.pair(k).pair_id for k in range(3)] == ["a/1", "2", "b/1"]
    assert [len(corpus.pair(k).images) for k in range(3)] == [2, 1, 3]
    assert [corpus.pair(k).text for k in range(3)] == [
        "One report here.",
        "Another report here.",
        "Half of it. Other half.",
    ]
    assert corpus.pair(2).attributes == {"label": "z"}
    seen = read_audit(tmp_path)
    assert seen["repaired"]["differing texts of one study joined"]["count"] == 3
    assert seen["dropped"]["same image twice in one pair"]["rows"] == [
        {"row": 7, "image": "images/001.png", "detail": "first in row 2"}
    ]


def test_a_study_survives_the_loss_of_one_image(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 20, study=["s"] * 2 + [f"t{k}" for k in range(18)])
    table.loc[1, "patient"] = table.loc[0, "patient"]
    (tmp_path / table.image[0]).write_bytes(b"broken")
    corpus = prepare(tmp_path, table, study_column="study")
    assert [image.source for image in corpus.pair(0).images] == ["images/001.png"]


def test_one_image_with_two_texts_is_two_pairs(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 5)
    table.loc[1, ["image", "patient"]] = table.loc[0, ["image", "patient"]]
    corpus = prepare(tmp_path, table)
    assert [corpus.pair(k).pair_id for k in range(2)] == ["images/000.jpg", "images/000.jpg#2"]


def test_identical_files_of_two_patients_are_noted(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 6, split=["train", "test", "val", "train", "train", "train"])
    (tmp_path / "images/001.png").write_bytes((tmp_path / "images/000.jpg").read_bytes())
    prepare(tmp_path, table, split_column="split")
    assert read_audit(tmp_path)["notes"] == [
        "identical image files of different patients across splits: images/000.jpg (p000, train), "
        "images/001.png (p001, test)"
    ]


def test_ids_must_be_unique(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 5, id=["a", "b", "c", "b", "e"])
    assert "id 'b' in column 'id' stands in rows 2 and 4" in refused(tmp_path, table, id_column="id")
    table["id"] = list("abcde")
    assert prepare(tmp_path, table, id_column="id").pair(1).pair_id == "b"


def test_given_splits(tmp_path: Path) -> None:
    names = ["train", "Training", "val", "valid", "dev", "validation", "validate", "development", "test", "Test "]
    corpus = prepare(tmp_path, make_archive(tmp_path, 10, split=names), split_column="split")
    assert corpus.splits.tolist() == ["train"] * 2 + ["val"] * 6 + ["test"] * 2
    assert "split 'fold1' is not known" in refused(
        tmp_path / "b", make_archive(tmp_path / "b", 2, split=["train", "fold1"]), split_column="split"
    )


def test_a_patient_in_two_given_splits_is_refused(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 5, split=["train", "train", "test", "dev", "test"])
    table.loc[2, "patient"] = "p000"
    message = refused(tmp_path, table, split_column="split")
    assert "patient 'p000'" in message
    assert "test and train" in message
    assert "--split-column" in message


@pytest.mark.parametrize("spell", [lambda n: f"{n}.0", lambda n: f"00{n}", lambda n: f"{n},0"])
def test_spellings_of_one_patient_are_split_together_and_named(tmp_path: Path, spell: Any) -> None:
    table = make_archive(tmp_path)
    plain = [str(1001 + number // 2) for number in range(20)]
    expected = {(pair.patient_id, pair.split) for pair in pairs_of(prepare(tmp_path, table.assign(patient=plain)))}
    mixed = [spell(name) if number % 2 == 0 else name for number, name in enumerate(plain)]
    corpus = prepare(tmp_path, table.assign(patient=mixed), out=tmp_path / "mixed")
    assert {(pair.patient_id, pair.split) for pair in pairs_of(corpus)} == expected
    audit = json.loads((tmp_path / "mixed" / "audit.json").read_text())
    entry = audit["repaired"]["another spelling of a patient's id"]
    assert entry["count"] == 10
    assert entry["rows"][1]["detail"] == "counted as the patient of row 4"
    assert "10 patients have ids in several spellings; each is one patient" in audit["notes"]


def test_other_spellings_are_not_touched_where_each_patient_has_one(tmp_path: Path) -> None:
    names = [f"00{number}.0" for number in range(20)]
    corpus = prepare(tmp_path, make_archive(tmp_path, patient=names))
    assert sorted(pair.patient_id for pair in pairs_of(corpus)) == sorted(names)
    dealt = split_by_patient(names, seed=0, val_share=0.1, test_share=0.1)
    assert {pair.patient_id: pair.split for pair in pairs_of(corpus)} == dealt


def pairs_of(corpus: Corpus) -> list[Any]:
    return [corpus.pair(place) for place in range(len(corpus))]


def test_a_path_that_is_spelt_otherwise_is_named_by_kind(tmp_path: Path) -> None:
    table = make_archive(tmp_path)
    table.loc[3, "image"] = table.loc[3, "image"].replace("/", "\\")
    prepare(tmp_path, table, max_failures=1)
    (entry,) = read_audit(tmp_path)["dropped"]["image not found"]["rows"]
    assert entry["detail"] == "a file there differs in backslashes"


def test_bad_tables(tmp_path: Path) -> None:
    table = make_archive(tmp_path)
    message = refused(tmp_path, table.rename(columns={"report": "text"}))
    assert "no column 'report'" in message
    assert "image, text, patient" in message
    assert "has no rows" in refused(tmp_path, table.iloc[:0])
    assert "is empty" in refused(tmp_path, "")
    assert "two columns named 'image'" in refused(tmp_path, "image,image\na,b\n")
    assert "never closed" in refused(tmp_path, 'image,report,patient\na.png,"An open quote,p1\nb.png,Text,p2\n')
    assert "cannot be read" in refused(tmp_path, table, table=tmp_path / "none.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    assert "not a readable Parquet" in refused(tmp_path, table, table=tmp_path / "bad.parquet")
    (tmp_path / "bad.csv.gz").write_bytes(b"no gzip")
    assert "not a complete gzip" in refused(tmp_path, table, table=tmp_path / "bad.csv.gz")


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 5)
    table.loc[2, "report"] = "Röntgen of the chest."
    data = table.to_csv(index=False).encode("cp1252")
    message = refused(tmp_path, data)
    assert "line 4: byte 0xf6" in message
    assert "--encoding cp1252" in message
    assert "no text encoding 'klingon'" in refused(tmp_path, data, encoding="klingon")
    assert prepare(tmp_path, data, encoding="cp1252").pair(2).text == "Röntgen of the chest."


def test_rows_that_do_not_fit_are_set_aside(tmp_path: Path) -> None:
    lines = make_archive(tmp_path).to_csv(index=False).splitlines()
    lines[3] += ",one,too,many"
    assert len(prepare(tmp_path, "\n".join(lines) + "\n\n")) == 19
    assert read_audit(tmp_path)["dropped"]["row that does not fit the header"]["rows"] == [
        {"row": 3, "detail": "line 4: 6 cells, the header has 3"}
    ]


def test_kinds_of_tables(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": ["a", "b"], "patient": ["007", None], "number": [12.0, None], "text": ["x, y", "z"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    (tmp_path / "b.csv").write_text("\ufeff" + frame.to_csv(index=False), encoding="utf-8")
    frame.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.csv.gz", "a.tsv", "b.csv", "a.parquet"):
        read = read_table(tmp_path / name).frame
        assert read["patient"].tolist() == ["007", ""], name
        assert read["text"].tolist() == ["x, y", "z"], name
        assert list(read.index) == [1, 2], name
    assert read_table(tmp_path / "a.parquet").frame["number"].tolist() == ["12", ""]


def test_several_text_columns_are_joined(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 3).drop(columns="report").assign(findings="Clear lungs", impression="Normal.")
    pair = prepare(tmp_path, table, text_column="findings,impression").pair(0)
    assert pair.sentences == ("Clear lungs", "Normal.")


def test_bad_options(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 4)
    assert "column=value" in refused(tmp_path, table, where=("view",))
    assert "no column 'view'" in refused(tmp_path, table, where=("view=PA",))
    message = refused(tmp_path, table, where=("patient=x,y",))
    assert "no row" in message
    assert "'p000'" in message
    assert "passes all filters" in refused(tmp_path, table, where=("patient=p000", "patient=p001"))
    assert "is no folder" in refused(tmp_path, table, images=tmp_path / "none")
    assert "max_failures" in refused(tmp_path, table, max_failures=2)
    assert "image_size" in refused(tmp_path, table, image_size=1)
    assert "workers" in refused(tmp_path, table, workers=0)
    assert "val_share" in refused(tmp_path, table, val_share=0.6, test_share=0.5)
    table["report"] = "No change"
    assert "text shorter than 3 tokens (4)" in refused(tmp_path, table)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    table = make_archive(tmp_path, 4)
    prepare(tmp_path, table)
    with pytest.raises(InputError, match="exists already"):
        prepare(tmp_path, table)


def test_a_stop_before_the_first_shard_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_archive(tmp_path, 4)

    def stop(self: ShardWriter, pair: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ShardWriter, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, table)
    assert sorted(os.listdir(tmp_path)) == ["images", "table.csv"]


def test_split_by_patient_is_seeded_and_steady() -> None:
    patients = [f"p{number}" for number in range(1000)]
    split = split_by_patient(patients, seed=0, val_share=0.1, test_share=0.2)
    counts = {name: list(split.values()).count(name) for name in ("train", "val", "test")}
    assert counts == {"train": 700, "val": 100, "test": 200}
    assert split == split_by_patient(reversed(patients), seed=0, val_share=0.1, test_share=0.2)
    assert split != split_by_patient(patients, seed=1, val_share=0.1, test_share=0.2)
    grown = split_by_patient([*patients, "new"], seed=0, val_share=0.1, test_share=0.2)
    assert sum(grown[patient] != split[patient] for patient in patients) <= 2
    few = split_by_patient("abc", seed=0, val_share=0.1, test_share=0.1)
    assert sorted(few.values()) == ["test", "train", "val"]


def test_split_helpers() -> None:
    assert given_split(" DEV ") == "val"
    check_patients([("a", "train"), ("a", "train"), ("b", "test")])
    with pytest.raises(InputError, match="the only such patient"):
        check_patients([("a", "train"), ("a", "val")])


def test_frames_and_windows_of_dicom_files(tmp_path: Path) -> None:
    """With `frame`, every DICOM file must have it; other images have no frames."""
    table = make_archive(tmp_path, 10)
    frames = np.stack([texture(12, seed=seed) for seed in (0, 1, 2)])
    files = {"many.dcm": dicom(frames, NumberOfFrames=3), "one.dcm": dicom(texture(12))}
    files["two.dcm"] = dicom(texture(12), WindowCenter=[900, 2000], WindowWidth=[800, 1500])
    for place, (name, data) in enumerate(files.items()):
        (tmp_path / name).write_bytes(data)
        table.loc[place, "image"] = name

    def made(**options: Any) -> dict[str, dict[str, Any]]:
        out = tmp_path / "-".join(map(str, options.items()))
        corpus = prepare(tmp_path, table, out=out, max_failures=0.5, **options)
        images = [corpus.pair(index).images[0] for index in range(len(corpus))]
        assert {name: corpus.settings[name] for name in options} == options
        return {image.source: json.loads(image.recipe) for image in images if image.source in files}

    assert set(made(window=1)) == {"one.dcm", "two.dcm"}
    first, second = made(frame=1), made(frame=2)
    assert set(first) == set(files)
    assert set(second) == {"many.dcm"}
    assert (first["many.dcm"]["frame"], second["many.dcm"]["frame"]) == (1, 2)
    assert made(window=2)["two.dcm"]["voi"]["center"] == 2000
    for name in ("frame", "window"):
        assert f"--{name} counts from 1" in refused(tmp_path, table, out=tmp_path / "corpus", **{name: 0})


@pytest.mark.parametrize(("unsectioned", "pairs"), [("keep", 10), ("drop", 5)])
def test_reports_without_sections(tmp_path: Path, unsectioned: str, pairs: int) -> None:
    texts = ["FINDINGS: Clear lungs." if number % 2 else "The lungs are clear." for number in range(10)]
    corpus = prepare(tmp_path, make_archive(tmp_path, 10, report=texts), unsectioned=unsectioned)
    assert len(corpus) == pairs
    assert corpus.settings["unsectioned"] == unsectioned


@pytest.mark.skipif(not (DATA / "openi_four").exists(), reason="the four Open-i reports are not beside this checkout")
def test_real_radiographs_with_reports(tmp_path: Path) -> None:
    out = prepare_archive(
        DATA / "openi_four",
        DATA / "openi_four" / "manifest.csv",
        "image",
        "findings,impression",
        "study_id",
        tmp_path / "corpus",
        study_column="study_id",
        options=Options(image_size=128),
    )
    corpus = Corpus.open(out)
    assert len(corpus) == 3
    assert sorted(len(corpus.pair(k).images) for k in range(3)) == [1, 1, 2]
    with Image.open(io.BytesIO(corpus.pair(0).images[0].encoded)) as image:
        assert max(image.size) == 128
        assert np.asarray(image).std() > 20
