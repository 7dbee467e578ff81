"""`convirt inspect`: counts that can be counted by hand, a page that fetches nothing, and a form that tells nothing."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import write_pairs
from convirt import cli
from convirt.data.records import Pair
from convirt.errors import InputError
from convirt.inspection import page
from convirt.inspection.findings import distribution, order_splits, spread, token_bands
from convirt.inspection.inspect import inspect
from convirt.inspection.survey import age_band
from pictures import SIZE, Row, innocent_rows, picture, record, write_rows

SECRET = "zebrafish"
HOSTILE = "<script>alert('report')</script> & \"quotes\""


def inspected(*arguments: object) -> tuple[dict[str, Any], str]:
    """Run the verb; what its two files hold."""
    out = Path(str(arguments[arguments.index("--out") + 1]))
    cli.main(["inspect", *map(str, arguments)])
    assert sorted(path.name for path in out.iterdir()) == ["inspect.html", "inspect.json"]
    return json.loads((out / "inspect.json").read_text()), (out / "inspect.html").read_text()


@pytest.fixture(scope="module")
def telling(tmp_path_factory) -> Path:
    """A corpus with something of everything, and `zebrafish` wherever the data could show."""
    rows = innocent_rows(40)
    for number, row in enumerate(rows):
        row.patient = f"{SECRET}-{number // 2}"
        row.split = ("train", "val", "test")[number // 2 % 3]
        row.source = f"{SECRET}/{number}.png"
        row.attributes = {"Age": ("54.0", "061Y", "97", "", "006M")[number % 5], "sex": "FM?"[number % 3]}
        row.text = f"Common sentence about the {SECRET}. Own words number w{number} of Dr. {SECRET.title()} {HOSTILE}."
    rows.append(Row(pixels=picture(0), patient=f"{SECRET}-copy", split="test", text="Call 555-123-4567 on 3/4/2012."))
    entry = {"row": 7, "image": f"{SECRET}.png", "detail": SECRET}
    audit = {
        "rows": {"total": 44, "kept": 41, "repaired": 0, "dropped": 3, "failed": 1},
        "dropped": {"no text": {"count": 3, "rows": [entry]}},
        "repaired": {},
        "notes": [f"identical image files: {SECRET}"],
    }
    return write_rows(tmp_path_factory.mktemp("telling") / f"{SECRET}-corpus", rows, audit=audit)


class Tags(HTMLParser):
    """Collects the tags and the addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def test_the_page_shows_everything_and_fetches_nothing(telling, tmp_path):
    audit, html = inspected(telling, "--out", tmp_path)
    tags = Tags()
    tags.feed(html)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(tags.tags)
    assert tags.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in tags.addresses)
    assert "http" not in re.sub(r"http-equiv", "", html)
    assert "url(" not in html
    assert "default-src 'none'" in html
    assert "&lt;script&gt;" in html
    assert "Do not hand this page on" in html
    assert audit["shows_data"] is True
    assert f"{SECRET}-corpus" in html
    assert "dropped: no text" in html
    assert f"row 7 {SECRET}.png" in html
    assert "same pixels: row 0, train and row 40, test" in html
    assert "LEAKAGE across its splits: 1 pictures" in html


def test_without_images_neither_file_tells_anything(telling, tmp_path, capsys):
    audit, html = inspected(telling, "--no-images", "--out", tmp_path, "--against", telling)
    text = (tmp_path / "inspect.json").read_text()
    said = capsys.readouterr().out.replace(str(tmp_path), "")
    for place in (html, text, said):
        assert SECRET not in place.lower()
        assert "555" not in place
        assert "own words" not in place.lower()
    assert "base64" not in html
    assert "<img" not in html
    assert "Counts alone." in html
    assert audit["shows_data"] is False
    assert audit["source"]["dropped"] == [{"reason": "no text", "count": 3, "examples": [{"row": 7}]}]
    kinds = {row["kind"]: row["count"] for row in audit["identifiers"]["kinds"]}
    assert (kinds["PHONE"], kinds["DATE"]) == (1, 1)


def test_counts_are_those_of_the_corpus(telling, tmp_path):
    audit, _ = inspected(telling, "--out", tmp_path)
    by_split = {row["split"]: row for row in audit["splits"]}
    assert list(by_split) == ["train", "val", "test"]
    assert {name: row["pairs"] for name, row in by_split.items()} == {"train": 14, "val": 14, "test": 13}
    assert {name: row["patients"] for name, row in by_split.items()} == {"train": 7, "val": 7, "test": 7}
    assert audit["images_per_pair"] == {"1": 41}
    assert audit["ages"] == {"0-9": 8, "50-59": 8, "60-69": 8, "90+": 8}
    assert audit["sexes"] == {"female": 14, "male": 13, "other": 13}
    assert audit["views"] == {"PA": 41}
    assert audit["pixels"]["source_bits"] == {"8": 41}
    assert audit["pixels"]["source_sizes"] == [{"height": 4 * SIZE, "width": 320, "images": 41}]
    assert sum(audit["pixels"]["histograms"]["mean"]) == 41
    assert sum(audit["tokens_per_sentence"].values()) == sum(row["sentences"] for row in audit["splits"])
    assert audit["within"]["pixels"]["across_patients"] == 1
    names = next(row for row in audit["identifiers"]["kinds"] if row["kind"] == "NAME")
    assert names["texts"] == 40
    assert len(names["examples"]) == 5
    assert all(SECRET.title() not in example["text"] for example in names["examples"])
    assert audit["identifiers"]["cannot_find"]


def test_equal_sentences_in_a_batch_against_a_simulation(tmp_path):
    rows = innocent_rows(30, splits=("train",))
    for number, row in enumerate(rows):
        row.text = "one that all have." + (f" only number {number} has this." if number % 3 else "")
    audit, _ = inspected(write_rows(tmp_path / "c", rows), "--out", tmp_path / "out")
    found = audit["sentences"]
    assert (found["sentences"], found["distinct"], found["repeated"]) == (50, 21, 30)
    assert found["most_common"][0] == {"count": 30, "share_of_draws": round(20 / 30, 5), "text": "one that all have ."}
    rng = np.random.default_rng(0)
    sentences = [[part for part in row.text.split(".") if part.strip()] for row in rows]
    meets = []
    for _ in range(400):
        drawn = [rng.choice(sentences[number]) for number in rng.integers(0, 30, 32)]
        counts = Counter(drawn)
        meets.append(np.mean([counts[sentence] > 1 for sentence in drawn]))
    assert found["pairs_with_an_equal_sentence_in_their_batch"] == pytest.approx(np.mean(meets), abs=0.01)


def test_studies_of_many_images_and_sixteen_bits(tmp_path):
    out = tmp_path / "corpus"
    pairs = []
    for number in range(9):
        pixels = [picture(10 * number + image).astype(np.uint16) * 257 for image in range(1 + number % 3)]
        images = tuple(record(one, source=f"{number}-{place}.png") for place, one in enumerate(pixels))
        text = f"there are {number} images in this one ."
        values: dict[str, Any] = {"pair_id": str(number), "patient_id": str(number), "split": "train"}
        pairs.append(Pair(**values, images=images, sentences=(text,), text=text))
    write_pairs(out, pairs, image_size=SIZE)
    audit, html = inspected(out, "--out", tmp_path / "out")
    assert audit["images_per_pair"] == {"1": 3, "2": 3, "3": 3}
    assert audit["pixels"]["images"] == 18
    assert 0.2 < audit["pixels"]["intensity"]["mean"]["mean"] < 0.6
    assert html.count("data:image/jpeg") == 18
    assert audit["verdict"]["line"].startswith("One split only")


def test_the_same_corpus_gives_the_same_files(telling, tmp_path):
    first, second = (inspected(telling, "--out", tmp_path / name) for name in ("a", "b"))
    assert first == second


def test_a_second_call_replaces_the_first(telling, tmp_path):
    inspected(telling, "--out", tmp_path)
    audit, _ = inspected(telling, "--out", tmp_path, "--no-images")
    assert audit["shows_data"] is False


def test_the_page_lies_beside_the_corpus_unless_told_otherwise(tmp_path, monkeypatch):
    corpus = write_rows(tmp_path / "corpus", innocent_rows(6))
    before = sorted(path.name for path in corpus.iterdir())
    monkeypatch.chdir(corpus)
    cli.main(["inspect", "."])
    assert (tmp_path / "corpus-inspect" / "inspect.html").is_file()
    assert sorted(path.name for path in corpus.iterdir()) == before


def test_a_folder_that_cannot_be_written_is_named_before_the_work(telling, tmp_path, monkeypatch):
    monkeypatch.setenv(cli.DEBUG, "1")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another --out"):
        cli.main(["inspect", str(telling), "--out", str(tmp_path / "file" / "out")])


def test_a_corpus_without_an_audit_of_its_rows_is_fine(tmp_path):
    corpus = write_rows(tmp_path / "corpus", innocent_rows(6))
    for damaged in ("{}", "[]", "no json"):
        (corpus / "audit.json").write_text(damaged)
        audit, _ = inspected(corpus, "--out", tmp_path / "out")
        assert audit["source"] == {}


@pytest.mark.parametrize(
    ("age", "band"),
    [("54", "50-59"), ("54.0", "50-59"), ("054Y", "50-59"), ("006M", "0-9"), ("89", "80-89"), ("90", "90+"),
     ("129", "90+"), ("130", "other"), ("-1", "other"), ("old", "other"), ("nan", "other"), ("10 ", "10-19")],
)  # fmt: skip
def test_ages_in_bands(age, band):
    assert age_band(age) == band


def test_small_summaries():
    assert order_splits(["test", "odd", "train"]) == ["train", "test", "odd"]
    assert distribution(np.array([1, 1, 3, 12, 13, 400])) == {"1": 2, "3": 1, "12": 1, "13+": 2}
    assert token_bands(Counter({1: 2, 5: 1, 6: 4, 50: 1, 51: 1, 300: 1})) == {"1-5": 3, "6-10": 4, "46-50": 1, "51+": 2}
    assert spread(np.array([])) == {}
    assert spread(np.array([1.0, 2.0, 6.0]))["median"] == 2.0
    assert [bar["width"] for bar in page.bars({"a": 2, "b": 4})] == [50, 100]
    assert page.bars({}) == []
    assert [column["height"] for column in page.columns([0, 1, 4])] == [0, 25, 100]


def test_a_corpus_that_has_changed_is_called_damaged(tmp_path, capsys):
    rows = innocent_rows(12)
    rows[3].text = "The seventh rib is fractured."
    corpus = write_rows(tmp_path / "corpus", rows)
    audit, html = inspected(corpus, "--strict", "--out", tmp_path / "whole")
    about = json.loads((corpus / "corpus.json").read_text())
    assert audit["integrity"]["intact"] is True
    assert audit["integrity"]["found"] == about["fingerprint"]
    assert "Intact: its content has the fingerprint" in html
    assert "Intact: its content has the fingerprint" in capsys.readouterr().out
    shard = corpus / "data-00000.arrow"
    data, place = shard.read_bytes(), shard.read_bytes().rindex(rows[3].text.encode()[:12])
    shard.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    audit, html = inspected(corpus, "--no-images", "--out", tmp_path / "changed")
    assert audit["integrity"]["intact"] is False
    assert "DAMAGED" in html
    assert str(tmp_path) not in html
    with pytest.raises(SystemExit, match="4"):
        inspected(corpus, "--strict", "--out", tmp_path / "changed")
    assert f"corpus.json says {about['fingerprint'][:16]}; prepare it again" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="4"):  # the other side as well
        inspected(write_rows(tmp_path / "b", rows[:6]), "--against", corpus, "--strict", "--out", tmp_path / "changed")
    assert "the other: DAMAGED" in capsys.readouterr().out


def test_changed_settings_are_damage_too(tmp_path):
    corpus = write_rows(tmp_path / "corpus", innocent_rows(4))
    about = corpus / "corpus.json"
    about.write_text(about.read_text().replace('"format": 1', '"note": 1, "format": 1'))
    audit, _ = inspected(corpus, "--out", tmp_path / "out")
    assert audit["integrity"]["line"].startswith(f"DAMAGED: {about} is not what was written")


def test_a_run_is_not_taken_for_a_damaged_corpus(tiny_run, tmp_path):
    with pytest.raises(InputError, match="is a run, not a corpus; give the folder of a corpus"):
        inspect(tiny_run, out=tmp_path / "o")
