"""Index and search: nothing lost or double, exact results under any filter, what is left out and why."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import write_pairs
from convirt.cli import main
from convirt.config import PretrainConfig
from convirt.data.corpora import Corpus, decode
from convirt.data.records import Pair
from convirt.errors import InputError
from convirt.model import Model, load
from convirt.search import index as indexing
from convirt.search.index import Index, index_corpus, look, weights_of
from convirt.search.query import Filter, Query, SearchOptions, parse_query
from convirt.search.searching import ALIKE, Hit, Searcher, _differences
from convirt.training.pretrain import pretrain

pytest.importorskip("faiss")
pytest.importorskip("bm25s")


def described(corpus: Path) -> list[Pair]:
    """The pairs of the tiny corpus, each with a sex, an age and a date, and images with the hash of their file."""
    source = Corpus.open(corpus)

    def hashed(pair: Pair) -> tuple[Any, ...]:
        return tuple(replace(i, sha256=hashlib.sha256(i.encoded).hexdigest()) for i in pair.images)

    return [
        replace(
            source.pair(number),
            images=hashed(source.pair(number)),
            attributes={"Sex": "FM"[number % 2], "age": str(20 + number), "Study Date": f"2024{1 + number % 12:02d}15"},
        )
        for number in range(len(source))
    ]


@pytest.fixture(scope="module")
def pairs(tiny_corpus: Path) -> list[Pair]:
    return described(tiny_corpus)


@pytest.fixture(scope="module")
def made(tiny_run: Path, pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    size = Corpus.open(tiny_corpus_of(tiny_run, pairs, folder)).image_size
    assert size > 0
    index_corpus(tiny_run, folder / "corpus", folder / "index")
    return folder / "index"


def tiny_corpus_of(run: Path, pairs: list[Pair], folder: Path, name: str = "corpus") -> Path:
    largest = max(max(image.height, image.width) for image in pairs[0].images)
    return write_pairs(folder / name, iter(pairs), image_size=largest)


@pytest.fixture(scope="module")
def searcher(made: Path) -> Searcher:
    index = Index.open(made)
    return Searcher(index, index.model())


def found(searcher: Searcher, query: Query, image: Path | None = None, **options: Any) -> list[Hit]:
    return searcher.search(query, image, SearchOptions(**options)).hits


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Model:
    return load(tiny_run, device="cpu")


def test_the_index_holds_every_image_with_its_own_vector(made: Path, pairs: list[Pair], model: Model) -> None:
    index = Index.open(made)
    images = [image for pair in pairs for image in pair.images]
    assert index.rows.column("source").to_pylist() == [image.source for image in images]
    assert index.vectors_ND.dtype == np.float16
    expected = model.encode_image(decode(image).numpy()[0] for image in images)
    np.testing.assert_allclose(index.vectors_ND.astype(np.float32), expected, atol=1e-3)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_what_was_cut_off_goes_on_and_nothing_is_double(
    tiny_run: Path, pairs: list[Pair], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(indexing, "PAIRS_A_PART", 10)
    corpus = tiny_corpus_of(tiny_run, pairs, tmp_path)
    write, parts = indexing._write_part, []

    def dying(*arguments: Any) -> None:
        parts.append(arguments)
        if len(parts) > at:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(indexing, "_write_part", dying)
    with pytest.raises(KeyboardInterrupt):
        index_corpus(tiny_run, corpus, tmp_path / "index")
    monkeypatch.setattr(indexing, "_write_part", write)
    index_corpus(tiny_run, corpus, tmp_path / "index")
    again, whole = Index.open(tmp_path / "index"), Index.open(made)
    assert again.rows.equals(whole.rows)
    np.testing.assert_allclose(again.vectors_ND.astype(np.float32), whole.vectors_ND.astype(np.float32), atol=2e-3)
    assert len(list((tmp_path / "index" / "parts").iterdir())) == -(-len(pairs) // 10)


def test_added_changed_removed_and_back(tiny_run: Path, pairs: list[Pair], tmp_path: Path) -> None:
    def indexed(some: list[Pair], name: str, **options: Any) -> dict[str, int]:
        counts = index_corpus(tiny_run, tiny_corpus_of(tiny_run, some, tmp_path, name), tmp_path / "index", **options)
        there = Index.open(tmp_path / "index").rows.column("pair_id").to_pylist()
        assert sorted(there) == sorted(pair.pair_id for pair in expected for _ in pair.images)
        return {what: count for what, count in counts.items() if count}

    expected = pairs[:20]
    assert indexed(pairs[:20], "a") == {"added": 20}
    assert indexed(pairs[:20], "b") == {"there": 20}
    expected = pairs[:30]
    assert indexed(pairs[10:30], "c") == {"there": 10, "added": 10}
    changed = [replace(pairs[5], text="Another report.", sentences=("Another report.",)), *pairs[6:30]]
    assert indexed(changed, "d") == {"there": 24, "changed": 1}
    assert "Another report." in Index.open(tmp_path / "index").rows.column("text").to_pylist()
    expected = changed
    assert indexed(changed, "e", prune=True) == {"there": 25, "removed": 5}
    expected = pairs[:30]
    assert indexed(pairs[:30], "f") == {"added": 5, "there": 24, "changed": 1}  # as it was before
    assert "Another report." not in Index.open(tmp_path / "index").rows.column("text").to_pylist()


def test_another_model_is_refused(
    made: Path, pairs: list[Pair], tmp_path: Path, tiny_config: Callable[..., PretrainConfig], tiny_corpus: Path
) -> None:
    pretrain(replace(tiny_config(), seed=7, max_steps=2), tiny_corpus, tmp_path / "other")
    with pytest.raises(InputError, match="other weights than"):
        Index.open(made).model(tmp_path / "other")
    with pytest.raises(InputError, match="made with another model"):
        index_corpus(tmp_path / "other", tiny_corpus, made)
    with pytest.raises(InputError, match="is no index; make one with"):
        Index.open(tmp_path)
    with pytest.raises(InputError, match="name it with --run"):
        Index.open(made).model(tmp_path / "gone")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("right effusion", Query(words="right effusion")),
        ("effusion -edema", Query(words="effusion", unwanted=("edema",))),
        ('-"large heart" normal', Query(words="normal", unwanted=("large heart",))),
        ("view:PA,AP x", Query(words="x", filters=(Filter(key="view", values=("pa", "ap")),))),
        ("-split:train", Query(filters=(Filter(key="split", values=("train",), out=True),))),
        ("date:2024..", Query(filters=(Filter(key="date", low="2024"),))),
        ("age:..40", Query(filters=(Filter(key="age", high="40"),))),
        ('view:"PA erect"', Query(filters=(Filter(key="view", values=("pa erect",)),))),
        ("cough -fever sex:F", Query(words="cough", unwanted=("fever",), filters=(Filter(key="sex", values=("f",)),))),
        ("at 3:45 left-sided", Query(words="at 3:45 left-sided")),
    ],
)
def test_what_is_typed_is_taken_apart(text: str, query: Query) -> None:
    assert parse_query(text) == query


@pytest.mark.parametrize(
    ("filter_", "value", "fits"),
    [
        ("date:2024..", "20240315", True),
        ("date:2025..", "20240315", False),
        ("date:..2024", "20241231", True),
        ("date:202403..202404", "20240430", True),
        ("date:2024-03..", "2024-03-15", True),
        ("age:9..40", "20", True),
        ("age:9..40", "041", False),
        ("age:9..40", "", False),
        ("age:9..40", "041Y", False),
        ("age:9..40", "018M", False),
        ("age:..2", "018M", True),
        ("age:9..40", "young", False),
        ("date:2024..", "next year", False),
        ("date:..202403", "2024-03-31", True),
        ("sex:f", "F", True),
    ],
)
def test_ranges_and_values(filter_: str, value: str, fits: bool) -> None:
    assert parse_query(filter_).filters[0].fits(value) == fits


@pytest.mark.parametrize("wrong", ["age:..", "view:,"])
def test_a_filter_without_a_value_is_one_line(wrong: str) -> None:
    with pytest.raises(InputError, match="write"):
        parse_query(wrong)


@pytest.mark.parametrize("filters", ["", "sex:F", "age:30..33", "-split:train study_date:202403..202405", "age:25"])
def test_results_are_exact_whatever_the_filter_leaves(
    searcher: Searcher, pairs: list[Pair], model: Model, filters: str
) -> None:
    text = "there is a bar on the left side ."
    query = parse_query(f"{filters}")
    hits = found(searcher, replace(query, words=text), k=5, by="vectors", group="none", everything=True)
    wanted = model.encode_text(text)[0]
    keep = [pair for pair in pairs if all(_fits(pair, one) for one in query.filters)]
    vectors = {pair.pair_id: model.encode_image(decode(i).numpy()[0] for i in pair.images) for pair in keep}
    best = {name: float((some.astype(np.float16).astype(np.float32) @ wanted).max()) for name, some in vectors.items()}
    expected = sorted(best, key=lambda name: -best[name])[:5]
    assert len(hits) == min(5, len(keep))
    np.testing.assert_allclose([hit.score for hit in hits], [best[name] for name in expected], atol=2e-3)


def _fits(pair: Pair, one: Filter) -> bool:
    values = {"_".join(name.lower().split()): value for name, value in pair.attributes.items()} | {"split": pair.split}
    return one.fits(values.get(one.key, "")) != one.out


def test_an_unknown_filter_names_what_is_known(searcher: Searcher) -> None:
    with pytest.raises(InputError, match="no image of this index has 'modality'; known are age, patient, sex, split"):
        found(searcher, parse_query("disc modality:CT"))


def test_an_images_own_patient_is_left_out(searcher: Searcher, pairs: list[Pair], tmp_path: Path) -> None:
    image = pairs[3].images[0]
    path, copy = tmp_path / "query.png", tmp_path / "copy.png"
    path.write_bytes(image.encoded)
    Image.open(path).save(copy, compress_level=0)
    assert copy.read_bytes() != path.read_bytes()
    assert found(searcher, Query(), copy, k=1, everything=True)[0].patient == pairs[3].patient_id  # an unknown file
    answer = searcher.search(Query(), path, SearchOptions(k=50, everything=True))
    hits = answer.hits
    own = sum(pair.patient_id == pairs[3].patient_id for pair in pairs)
    assert answer.left_out == {"of the image's own patient": own}
    assert hits
    assert pairs[3].patient_id not in {hit.patient for hit in hits}
    shown = found(searcher, Query(), path, k=50, everything=True, own_patient=True)
    assert shown[0].study == pairs[3].pair_id


def test_each_study_or_patient_once_and_near_duplicates_folded(searcher: Searcher) -> None:
    everything = found(searcher, Query(words="disc"), k=1000, group="none", by="vectors", everything=True)
    by_patient = found(searcher, Query(words="disc"), k=1000, group="patient", by="vectors", everything=True)
    assert len({hit.study for hit in everything}) == len(everything)
    assert len({hit.patient for hit in by_patient}) == len(by_patient)
    by_study = found(searcher, Query(words="disc"), k=1000, by="vectors", everything=True)
    assert len(by_study) + sum(hit.folded for hit in by_study) == len(everything)


def test_a_look_survives_brightness_and_not_another_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 200, (60, 50)).astype(np.uint8)
    other = np.random.default_rng(1).integers(0, 200, (60, 50)).astype(np.uint8)
    assert _differences(look(picture), look((picture * 1.2).astype(np.uint8))) <= ALIKE
    assert _differences(look(picture), look(picture.astype(np.uint16) * 257)) <= ALIKE
    assert _differences(look(picture), look(other)) > 16


def test_words_find_reports_that_vectors_do_not(searcher: Searcher, pairs: list[Pair]) -> None:
    word = pairs[0].text.split()[-2]
    hits = found(searcher, Query(words=word), by="words", k=5)
    assert hits
    assert all(word.lower() in texts_of(pairs, hit.study).lower() for hit in hits)
    assert found(searcher, Query(words="xyzzy"), by="words") == []
    both = found(searcher, Query(words=word), k=5, everything=True)
    assert any("vectors" in hit.by and "words" in hit.by for hit in both)


def texts_of(pairs: list[Pair], study: str) -> str:
    return next(pair.text for pair in pairs if pair.pair_id == study)


def test_unwanted_words_draw_away(searcher: Searcher, model: Model) -> None:
    plain = found(searcher, Query(words="disc"), k=1000, by="vectors", group="none", everything=True)
    drawn = found(
        searcher, Query(words="disc", unwanted=("ring",)), k=1000, by="vectors", group="none", everything=True
    )
    ring = model.encode_text("ring")[0]
    vectors = {hit.study: hit for hit in plain}
    assert {hit.study for hit in drawn} == set(vectors)
    index = searcher.index
    names = index.rows.column("pair_id").to_pylist()

    def likeness(hits: list[Any]) -> float:
        rows = [names.index(hit.study) for hit in hits[:10]]
        return float((index.vectors_ND[rows].astype(np.float32) @ ring).mean())

    assert likeness(drawn) < likeness(plain)


def test_nothing_good_enough_is_an_answer(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    hits = found(searcher, Query(words="disc"), by="vectors", k=1000)
    assert all(hit.percentile is not None and hit.percentile >= 95 for hit in hits)
    monkeypatch.setitem(searcher.index.about, "chance", {"text": [2.0] * 101, "image": [2.0] * 101})
    answer = searcher.search(Query(words="disc"), options=SearchOptions(by="vectors"))
    assert (answer.hits, list(answer.left_out)) == ([], ["no better than chance"])


def test_scores_are_those_of_the_vectors_however_a_result_was_found(searcher: Searcher, model: Model) -> None:
    """A result that words alone found has its own score too; of mixed queries no percentile is known."""
    hits = found(searcher, Query(words="there is a ring"), k=1000, everything=True)
    wanted = model.encode_text("there is a ring")[0]
    rows = searcher.index.rows.column("pair_id").to_pylist()
    for hit in hits:
        own = [row for row, name in enumerate(rows) if name == hit.study]
        best = float((searcher.index.vectors_ND[own].astype(np.float32) @ wanted).max())
        assert hit.score == pytest.approx(best, abs=1e-3)
        assert hit.percentile is not None
    mixed = found(searcher, Query(words="disc", unwanted=("ring",)), k=3)
    assert [hit.percentile for hit in mixed] == [None] * 3
    assert all(hit.score is None for hit in found(searcher, Query(words="ring"), by="words"))


def test_a_change_that_was_cut_off_leaves_no_pair_twice(
    tiny_run: Path, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the new part, before the old one was noted as gone; until it goes on, the index is not searched."""
    index = tmp_path / "index"
    index_corpus(tiny_run, tiny_corpus_of(tiny_run, pairs[:10], tmp_path, "a"), index)
    changed = [replace(pairs[5], text="Another report.", sentences=("Another report.",)), *pairs[:5], *pairs[6:10]]
    corpus = tiny_corpus_of(tiny_run, changed, tmp_path, "b")
    write = indexing._write_part

    def dying(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(indexing, "_write_part", dying)
    with pytest.raises(KeyboardInterrupt):
        index_corpus(tiny_run, corpus, index)
    monkeypatch.setattr(indexing, "_write_part", write)
    with pytest.raises(InputError, match="give the same `convirt index` again"):
        Index.open(index)
    assert index_corpus(tiny_run, corpus, index)["changed"] == 1
    there = Index.open(index).rows.column("pair_id").to_pylist()
    assert sorted(there) == sorted(pair.pair_id for pair in changed for _ in pair.images)
    assert len(Searcher(Index.open(index), load(tiny_run, device="cpu"))._first_P) == 10


def test_embedding_a_corpus_and_a_folder(
    tiny_run: Path, pairs: list[Pair], tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tiny_corpus_of(tiny_run, pairs[:8], tmp_path)
    main(["embed", str(tiny_run), "--corpus", str(corpus), "--text", "--out", str(tmp_path / "v.parquet")])
    table = pq.read_table(tmp_path / "v.parquet")
    rows = table.to_pylist()
    sentences = [sentence for pair in pairs[:8] for sentence in pair.sentences]
    found = np.array([row["vector"] for row in rows if row["kind"] == "sentence"], dtype=np.float32)
    np.testing.assert_allclose(found, model.encode_text(sentences), atol=1e-3)
    assert sum(row["kind"] == "image" for row in rows) == sum(len(pair.images) for pair in pairs[:8])
    about = json.loads(table.schema.metadata[b"convirt"])
    assert about == {"run": tiny_run.name, "weights": weights_of(tiny_run), "space": "shared"}
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "film").write_bytes(pairs[0].images[0].encoded)
    (folder / "notes.txt").write_text("no image")
    capsys.readouterr()
    main(["embed", str(tiny_run), "--images", str(folder), "--space", "features", "--out", str(tmp_path / "f.parquet")])
    said = capsys.readouterr().out
    assert "1 images" in said
    assert "1 files left out, not a PNG, JPEG or DICOM file: notes.txt" in said
    (row,) = pq.read_table(tmp_path / "f.parquet").to_pylist()
    np.testing.assert_allclose(row["vector"], model.encode_image(folder / "film", space="features")[0], atol=1e-3)
    (folder / "film").unlink()
    with pytest.raises(SystemExit):
        main(["embed", str(tiny_run), "--images", str(folder), "--out", str(tmp_path / "g.parquet")])
    assert "nothing to embed in" in capsys.readouterr().err
    assert not (tmp_path / "g.parquet").exists()


def test_the_verbs(
    tiny_run: Path,
    pairs: list[Pair],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    corpus, index = tiny_corpus_of(tiny_run, pairs, tmp_path), tmp_path / "index"
    main(["index", str(tiny_run), str(corpus), "--out", str(index)])
    images = sum(len(pair.images) for pair in pairs)
    said = f"{images} images, vectors of 16 numbers in half precision; pairs: {len(pairs)} added"
    assert said in capsys.readouterr().out
    main(["search", str(index), "--text", "disc sex:F", "--k", "3", "--everything", "--as-json"])
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == images
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    main(["search", str(index), "--text", "disc", "--k", "2", "--everything"])
    assert "closest sentence" in " ".join(capsys.readouterr().out.split())
    main(["search", str(index), "--text", "disc age:1000.."])
    assert "no image passes the filters, or holds the words" in " ".join(capsys.readouterr().out.split())
    for wrong, message in (([], "nothing to look for"), (["--text", "x", "--k", "0"], "k must be at least 1")):
        with pytest.raises(SystemExit) as end:
            main(["search", str(index), *wrong])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
