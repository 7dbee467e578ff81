"""Repetition and leakage: planted copies are found, by each of their kinds, and nothing else is."""

import gzip
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from convirt import cli
from convirt.data.preparing.archive import prepare_archive
from convirt.data.preparing.identities import Identities, default_salt, table_mark
from convirt.data.preparing.options import Options
from convirt.errors import InputError
from convirt.inspection import near_images
from convirt.inspection.appearance import measure
from convirt.inspection.banding import Candidates, Shortlist
from convirt.inspection.naming import Naming, Salt, check_salt_from, compare_naming, known_salts
from convirt.inspection.near_images import find_near_images
from convirt.inspection.near_texts import LEAST, bands, find_near_texts, hash_text, words
from convirt.inspection.repeats import (
    Items,
    cross,
    find_repeats,
    find_shared,
    is_judged,
    is_leak,
    patients_across,
    split_masks,
)
from pictures import SIZE, Row, gamma, innocent_rows, jpeg, padded, picture, record, resized, write_rows


def run(*arguments: object) -> dict[str, Any]:
    """Run `convirt inspect` and read what it wrote."""
    out = Path(str(arguments[arguments.index("--out") + 1]))
    cli.main(["inspect", *map(str, arguments)])
    return json.loads((out / "inspect.json").read_text())


# --- pieces ----------------------------------------------------------------------------------------------------------


def test_candidates_are_all_pairs_that_share_a_band():
    bands_BN = np.random.default_rng(0).integers(0, 12, (4, 90)).astype(np.uint32)
    found = {tuple(pair) for pairs in Candidates(bands_BN) for pair in pairs.tolist()}
    naive = {(a, b) for a, b in itertools.combinations(range(90), 2) if (bands_BN[:, a] == bands_BN[:, b]).any()}
    assert found == naive


def test_a_crowded_bucket_costs_little_and_is_counted():
    search = Candidates(np.zeros((2, 5000), np.uint32), most=10)
    assert sum(len(pairs) for pairs in search) < 2 * 10 * 5000
    assert search.cut == 2


def test_a_shortlist_keeps_the_likeliest_however_many_come():
    rng = np.random.default_rng(4)
    shortlist = Shortlist(most=50)
    scores: dict[tuple[int, int], float] = {}
    for _ in range(40):
        pairs = np.sort(rng.integers(0, 60, (100, 2)), axis=1)
        values = (pairs[:, 0] * 61 + pairs[:, 1]).astype(np.float32) * 7919 % 3721  # of the pair alone
        scores.update(zip(map(tuple, pairs.tolist()), values.tolist(), strict=True))
        shortlist.add(pairs, values)
    best = sorted(scores, key=lambda pair: -scores[pair])[:50]
    assert shortlist.pairs() == sorted(best)
    assert shortlist.dropped >= len(scores) - 50


def test_repeats_splits_and_patients_against_loops():
    rng = np.random.default_rng(1)
    keys, splits = rng.integers(0, 40, 200).astype(np.uint64), rng.integers(0, 3, 200).astype(np.uint8)
    patients = rng.integers(0, 30, 200).astype(np.uint64)
    items = Items(split_N=splits, patient_N=patients)
    repeats = find_repeats(keys, items)
    groups = {int(key): np.flatnonzero(keys == key) for key in set(keys.tolist()) - {0}}
    groups = {key: places for key, places in groups.items() if len(places) > 1}
    assert {tuple(members) for members in repeats.members} == {tuple(places) for places in groups.values()}
    assert repeats.across_splits == sum(len(set(splits[places])) > 1 for places in groups.values())
    assert repeats.across_patients == sum(len(set(patients[places]) - {0}) > 1 for places in groups.values())
    assert repeats.surplus == sum(len(places) - 1 for places in groups.values())
    several = {p for p in set(patients.tolist()) - {0} if len(set(splits[patients == p])) > 1}
    assert patients_across(items)[0] == len(several)
    masks = split_masks(keys, splits)
    assert all(masks[n] == sum(1 << s for s in set(splits[keys == keys[n]].tolist())) for n in range(200))


def test_shared_keys_against_loops():
    rng = np.random.default_rng(2)
    first, second = (rng.integers(0, 50, 60).astype(np.uint64) for _ in range(2))
    shared = find_shared(first, second)
    common = (set(first.tolist()) & set(second.tolist())) - {0}
    assert shared.second == sum(int(key) in common for key in second)
    assert shared.first == sum(int(key) in common for key in first)
    assert all(first[a] == second[b] != 0 for a, b in shared.pairs_P2)
    nothing = find_shared(first, np.zeros(5, np.uint64))
    assert (nothing.first, nothing.second, len(nothing.pairs_P2)) == (0, 0, 0)


def jaccard(first: str, second: str) -> float:
    """Share of common three-word shingles, by sets."""
    sets = [{tuple(text.split()[n : n + 3]) for n in range(len(text.split()) - 2)} for text in (first, second)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_near_texts_are_those_with_common_shingles():
    rng = np.random.default_rng(3)
    vocabulary = [f"word{number}" for number in range(400)]
    texts = [" ".join(rng.choice(vocabulary, 40)) for _ in range(150)]
    for number in range(0, 60, 2):  # one word more, one less, ten others
        parts = texts[number].split()
        changes = [[*parts, "added"], parts[1:], [*parts[:10], *rng.choice(vocabulary, 10), *parts[20:]]]
        texts.append(" ".join(changes[number % 3]))
    found = find_near_texts(np.stack([bands(text) for text in texts], axis=1), lambda place: texts[place])
    wanted = {
        (a, b)
        for a, b in itertools.combinations(range(len(texts)), 2)
        if set(texts[a].split()) & set(texts[b].split()) and jaccard(texts[a], texts[b]) >= LEAST
    }
    assert len(wanted) == 20
    assert {tuple(pair) for pair in found.pairs_P2.tolist()} == wanted
    for (a, b), share in zip(found.pairs_P2, found.alike_P, strict=True):
        assert share == pytest.approx(jaccard(texts[a], texts[b]))


def test_case_and_punctuation_do_not_make_another_text():
    assert hash_text("No pneumothorax.  Clear LUNGS!") == hash_text("no Pneumothorax clear lungs")
    assert hash_text("no pneumothorax") != hash_text("pneumothorax no")
    assert words("T4, L1-L2 está") == ["t4", "l1", "l2", "está"]
    assert bands("far too short") is None


ALTERED = {
    "compressed": jpeg,
    "tone curve": gamma,
    "smaller": lambda pixels: resized(resized(pixels, 48, 40), *pixels.shape),
    "squashed": lambda pixels: resized(pixels, 96, 96),
    "padded": padded,
    "windowed": lambda pixels: np.clip((pixels.astype(float) - 40) * 255 / 175, 0, 255).astype(np.uint8),
    "noisy": lambda pixels: np.clip(pixels + np.random.default_rng(9).normal(0, 5, pixels.shape), 0, 255).astype("u1"),
}


@pytest.mark.parametrize("altered", ALTERED)
def test_a_copy_is_found_among_others_however_it_was_altered(altered):
    pictures = [picture(seed) for seed in range(120)]
    pictures += [ALTERED[altered](picture(seed)) for seed in range(0, 60, 3)]
    records = [record(pixels) for pixels in pictures]
    seen = [measure(image) for image in records]
    groups = np.array([item.pixels for item in seen], np.uint64)
    near = find_near_images(np.concatenate([item.coarse for item in seen]), groups, records.__getitem__)
    wanted = {(seed, 120 + number) for number, seed in enumerate(range(0, 60, 3))}
    found = {tuple(pair) for pair in near.pairs_P2.tolist()}
    assert found <= wanted, "a pair that is no copy"
    assert len(found) >= 19


def test_measures_look_past_depth_and_see_pixels():
    eight = picture(1)
    sixteen = record(eight.astype(np.uint16) * 257)
    assert np.abs(measure(sixteen).coarse.astype(int) - measure(record(eight)).coarse).max() <= 1
    assert measure(sixteen).mean == pytest.approx(measure(record(eight)).mean)
    changed = eight.copy()
    changed[0, 0] ^= 1
    assert measure(record(changed)).pixels != measure(record(eight)).pixels
    assert measure(record(eight, source="other name")).pixels == measure(record(eight)).pixels
    half = np.zeros((SIZE, SIZE), np.uint8)
    half[:, : SIZE // 4] = 255
    assert (measure(record(half)).black, measure(record(half)).saturated) == (0.75, 0.25)


def test_blank_pictures_and_few_of_them_are_no_trouble():
    blank = [record(np.full((SIZE, 80), value, np.uint8)) for value in (0, 0, 7)]
    seen = [measure(image) for image in blank]
    for count in (0, 1, 3):
        coarse = np.concatenate([item.coarse for item in seen])[: 2 * count]
        near = find_near_images(coarse, np.arange(count, dtype=np.uint64), blank.__getitem__)
        assert len(near.pairs_P2) == len(near.doubtful_P2) == 0
    two = [record(picture(5)), record(jpeg(picture(5)))]
    coarse = np.concatenate([measure(image).coarse for image in two])
    assert len(find_near_images(coarse, np.array([1, 2], np.uint64), two.__getitem__).pairs_P2) == 1


def test_a_small_cache_changes_nothing(monkeypatch):
    records = [record(jpeg(picture(seed // 4), 50 + 15 * (seed % 4))) for seed in range(80)]
    coarse = np.concatenate([measure(image).coarse for image in records])
    groups = np.arange(80, dtype=np.uint64)
    whole = find_near_images(coarse, groups, records.__getitem__)
    monkeypatch.setattr(near_images, "_CACHED", 2)
    again = find_near_images(coarse, groups, records.__getitem__)
    assert np.array_equal(whole.pairs_P2, again.pairs_P2)
    assert len(whole.pairs_P2) == 20 * 6


@pytest.mark.parametrize(
    ("first", "second", "salt", "possible", "said"),
    [
        (Naming(kind="plain"), Naming(kind="plain"), None, True, "--distinct-patients"),
        (Naming(kind="plain"), Naming(kind="unknown"), None, False, "--patient-column"),
        (Naming(kind="hashed", mark="m"), Naming(kind="hashed", mark="m"), None, True, "same salt"),
        (Naming(kind="hashed", mark="m"), Naming(kind="hashed", mark="n"), None, False, "different salts"),
        (Naming(kind="hashed"), Naming(kind="hashed"), None, False, "different salts"),
        (Naming(kind="hashed", mark=Identities("s").mark()), Naming(kind="plain"), "s", True, "CONVIRT_SALT"),
        (Naming(kind="plain"), Naming(kind="hashed", mark=Identities("s").mark()), "s", True, "CONVIRT_SALT"),
        (Naming(kind="hashed", mark=Identities("s", as_written=True).mark()), Naming(kind="plain"), "s", True, "SALT"),
        (
            Naming(kind="hashed", mark=Identities("s", as_written=True).mark()),
            Naming(kind="hashed", mark=Identities("s").mark()),
            "s",
            False,
            "by version 0.1, which hashed spellings apart",
        ),
        (Naming(kind="hashed", mark=Identities("s").mark()), Naming(kind="plain"), "t", False, "CONVIRT_SALT"),
        (Naming(kind="hashed", mark=Identities("s").mark()), Naming(kind="plain"), None, False, "CONVIRT_SALT"),
    ],
)
def test_patients_are_compared_only_where_ids_mean_the_same(first, second, salt, possible, said):
    comparison = compare_naming(first, second, [Salt(value=salt, origin="CONVIRT_SALT")] if salt else [])
    assert comparison.possible == possible
    assert said in comparison.note
    hashed_first = comparison.hash_first is not None
    assert hashed_first == (possible and (first.kind, second.kind) == ("plain", "hashed"))


# --- the whole verb --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    """A corpus of 90 pairs that share nothing."""
    return write_rows(tmp_path_factory.mktemp("clean") / "clean", innocent_rows(90))


def test_a_clean_corpus_is_clean(clean, tmp_path, capsys):
    audit = run(clean, "--out", tmp_path, "--strict")
    within = audit["within"]
    for name in ("files", "pixels", "reports"):
        assert within[name]["groups"] == 0
    assert within["near_images"]["pairs"] == within["patients_across_splits"] == 0
    assert audit["verdict"]["leak"] is False
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("No leakage found across its splits")


LONG = "heart size is normal . lungs show a calcified granuloma in the left apex , stable . spine is curved ."
PLANTS = {
    "patients": Row(pixels=picture(900), patient="person-0", split="test"),
    "files": Row(pixels=picture(901), patient="other", split="test", content="leaky-0.png"),
    "pixels": Row(pixels=picture(0), patient="other", split="test"),
    "near": Row(pixels=jpeg(gamma(picture(0))), patient="other", split="test"),
    "texts": Row(pixels=picture(902), patient="other", split="test", text=LONG),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_each_kind_of_leak_across_splits_is_found(plant, tmp_path, capsys):
    rows = innocent_rows(60)
    rows[0].text, rows[0].source = LONG, "leaky-0.png"
    rows.append(PLANTS[plant])
    corpus = write_rows(tmp_path / "leaky", rows)
    is_leak = plant != "texts"
    if is_leak:
        with pytest.raises(SystemExit) as stopped:
            run(corpus, "--out", tmp_path / "out", "--strict")
        assert stopped.value.code == 1
    audit = run(corpus, "--out", tmp_path / "out")  # without --strict the exit is quiet
    within = audit["within"]
    counts = {
        "patients": within["patients_across_splits"],
        "files": within["files"]["across_splits"],
        "pixels": within["pixels"]["across_splits"],
        "near": within["near_images"]["across_splits"],
        "texts": within["reports"]["across_splits"],
    }
    assert counts == {name: int(name == plant) for name in counts}
    assert audit["verdict"]["leak"] == is_leak
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("LEAKAGE across its splits: 1 " if is_leak else "No leakage found")


def test_a_copy_inside_a_split_is_no_leak(tmp_path):
    rows = [*innocent_rows(60), Row(pixels=picture(0), patient="other", split="train")]
    audit = run(write_rows(tmp_path / "c", rows), "--out", tmp_path / "out", "--strict")
    pixels = audit["within"]["pixels"]
    assert (pixels["groups"], pixels["across_splits"], pixels["across_patients"]) == (1, 0, 1)
    assert pixels["listed"] == [[{"row": 0, "split": "train"}, {"row": 60, "split": "train"}]]


def test_near_copies_of_a_group_count_for_all_its_splits(tmp_path):
    # Two equal pictures in different splits, and a near-duplicate beside the first: it too joins the splits.
    rows = [*innocent_rows(60), Row(pixels=picture(0), patient="other", split="test")]
    rows.append(Row(pixels=jpeg(picture(0)), patient="third", split="train"))
    near = run(write_rows(tmp_path / "c", rows), "--out", tmp_path / "out")["within"]["near_images"]
    assert (near["pairs"], near["across_splits"], near["across_patients"]) == (1, 1, 1)


@pytest.mark.parametrize("plant", PLANTS)
def test_each_kind_of_leak_between_two_is_found(plant, tmp_path, capsys):
    rows = innocent_rows(60)
    rows[0].text, rows[0].source = LONG, "leaky-0.png"
    first = write_rows(tmp_path / "first", rows)
    second = write_rows(tmp_path / "second", [*innocent_rows(40, first=300, splits=("test",)), PLANTS[plant]])
    audit = run(first, "--against", second, "--out", tmp_path / "out")
    shared = audit["against"]["shared"]
    assert {name: shared[name]["second"] for name in PLANTS} == {name: int(name == plant) for name in PLANTS}
    assert audit["against"]["verdict"]["leak"] == (plant != "texts")
    assert shared[plant]["by_split"] == [{"first": "train", "second": "test", "count": 1, "leak": True}]
    place = shared[plant]["listed"][0]
    assert (place["first_row"], place["second_row"]) == (0, 40)
    assert shared["texts"]["telling"] == int(plant == "texts")
    assert audit["verdict"]["leak"] is False
    verdict = "LEAKAGE between the two: 1 " if plant != "texts" else "No leakage found between the two"
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith(verdict)


def test_equal_ids_of_different_people_can_be_left_out(tmp_path):
    first = write_rows(tmp_path / "first", innocent_rows(30))
    second = write_rows(tmp_path / "second", [Row(pixels=picture(500 + n), patient=f"person-{n}") for n in range(30)])
    assert run(first, "--against", second, "--out", tmp_path / "out")["against"]["shared"]["patients"]["second"] == 30
    audit = run(first, "--against", second, "--distinct-patients", "--out", tmp_path / "out", "--strict")
    assert "patients" not in audit["against"]["shared"]
    assert audit["against"]["patients_compared"] is False


def test_plain_ids_of_a_table_meet_hashed_ones_of_a_corpus_by_the_salt(tmp_path, monkeypatch):
    identities = Identities("a secret")
    rows = innocent_rows(20)
    for row in rows:
        row.patient = identities.of("patient", row.patient)
    settings = {"ids": "hashed", "ids_mark": identities.mark()}
    corpus = write_rows(tmp_path / "corpus", rows, settings)
    (tmp_path / "images").mkdir()
    for number in range(10):
        Image.fromarray(picture(700 + number)).save(tmp_path / "images" / f"{number}.png")
    frame = pd.DataFrame({"image": [f"{n}.png" for n in range(10)], "who": [f"person-{n * 3}" for n in range(10)]})
    frame.to_csv(tmp_path / "table.csv", index=False)
    command = (corpus, "--against", tmp_path / "table.csv", "--against-images", tmp_path / "images")
    command = (*command, "--patient-column", "who", "--out", tmp_path / "out")
    monkeypatch.delenv("CONVIRT_SALT", raising=False)
    assert run(*command)["against"]["patients_compared"] is False
    monkeypatch.setenv("CONVIRT_SALT", "a secret")
    assert run(*command)["against"]["shared"]["patients"]["second"] == 7  # 0, 3 ... 18 of 27


def shared_rows(first: str, second: str) -> tuple[list[Row], list[Row]]:
    """Rows of two collections, each with all splits: person 0 and their picture are in these of the two."""
    rows = innocent_rows(45)
    others = [*innocent_rows(45, first=300), Row(pixels=picture(0), patient="person-0", split=second)]
    rows[0].split = first
    return rows, others


WAYS = list(itertools.product(("train", "val", "test"), repeat=2))


@pytest.mark.parametrize(("first", "second"), WAYS)
def test_a_leak_leads_from_training_into_testing(first, second, tmp_path, capsys):
    rows, others = shared_rows(first, second)
    corpus, bench = write_rows(tmp_path / "corpus", rows), write_rows(tmp_path / "bench", others)
    command = (corpus, "--against", bench, "--out", tmp_path / "out", "--strict")
    leaks = (first, second) in (("train", "val"), ("train", "test"), ("val", "test"))
    if leaks:
        with pytest.raises(SystemExit) as stopped:
            run(*command)
        assert stopped.value.code == 1
    else:
        run(*command)
    against = json.loads((tmp_path / "out" / "inspect.json").read_text())["against"]
    assert against["verdict"]["leak"] == leaks
    table = {(row["first"], row["second"]): row for row in against["crossings"]}
    assert list(table) == WAYS
    for way, row in table.items():
        assert [row[kind] for kind in ("patients", "pixels")] == [int(way == (first, second))] * 2
        assert row["files"] == row["near"] == 0
    assert table[first, second]["leak"] == leaks
    said = capsys.readouterr().out
    assert ("harmless" in said) != leaks
    last = said.strip().splitlines()[-1]
    found = f"1 patients of the other side; 1 images with the same pixels ({first} into {second} of the other)"
    assert last.startswith(f"LEAKAGE between the two: {found}" if leaks else "No leakage found between the two")
    page = (tmp_path / "out" / "inspect.html").read_text()
    assert ('<td class="left bad">leakage</td>' in page) == leaks
    assert ('<td class="left">harmless</td>' in page) != leaks


def test_a_side_without_splits_counts_whole(tmp_path):
    folder = write_table(tmp_path / "bench", 6)
    command = (folder / "table.csv", "--images", folder, "--against", folder / "table.csv", "--out", tmp_path / "out")
    against = run(*command, "--patient-column", "patient")["against"]
    assert against["verdict"]["leak"] is True
    assert against["verdict"]["line"].startswith("LEAKAGE between the two: 6 patients")
    assert [(row["first"], row["second"], row["pixels"]) for row in against["crossings"]] == [("", "", 6)]


def test_crossings_against_loops():
    rng = np.random.default_rng(5)
    keys, others = rng.integers(0, 30, 80).astype(np.uint64), rng.integers(0, 30, 70).astype(np.uint64)
    splits, theirs = rng.integers(0, 3, 80).astype(np.uint8), rng.integers(0, 3, 70).astype(np.uint8)
    names = ["train", "val", "test"]
    own = np.uint64(1) << theirs.astype(np.uint64)
    found = cross(find_shared(keys, others), split_masks(keys, splits), own)
    where = {int(key): {names[s] for s in splits[keys == key]} for key in set(keys.tolist()) - {0}}
    for a, first in enumerate(names):
        for b in range(3):
            naive = sum(theirs[n] == b and first in where.get(int(others[n]), ()) for n in range(70))
            assert found.count(a, b) == naive
    bad = {"train": (), "val": ("train",), "test": ("train", "val")}
    leaks = sum(any(s in bad[names[theirs[n]]] for s in where.get(int(others[n]), ())) for n in range(70))
    assert found.leaks(names, names) == leaks > 0


def test_splits_of_other_names_count_whole():
    leaks = (("", ""), ("fold 1", "fold 1"), ("", "test"), ("train", ""), ("val", ""))
    harmless = (("test", ""), ("", "train"), ("test", "fold 1"))
    assert [is_leak(*way) for way in leaks + harmless] == [True] * 5 + [False] * 3
    assert is_judged(["train"], ["test"])
    assert not is_judged(["train", "test"], ["train"])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A table, a corpus that was prepared from it as the README says, and a benchmark built of the same table."""
    folder = write_table(tmp_path_factory.mktemp("prepared"))
    frame = pd.read_csv(folder / "table.csv")
    frame["report"] = [f"there is finding number {n} in the left lung ." for n in range(len(frame))]
    frame.to_csv(folder / "source.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CONVIRT_SALT", raising=False)
        columns = ["--text-column", "report", "--patient-column", "patient", "--split-column", "split"]
        source = ["--images", folder, "--table", folder / "source.csv", "--image-column", "image"]
        cli.main(["prepare", "archive", *map(str, source), *columns, "--out", str(folder / "corpus")])
    return folder


def against_table(folder: Path, table: Path) -> tuple[object, ...]:
    columns = ("--patient-column", "patient", "--split-column", "split")
    return (folder / "corpus", "--against", table, "--against-images", folder, *columns)


def test_hashed_ids_are_compared_with_the_table_they_come_from(prepared, tmp_path, monkeypatch):
    monkeypatch.delenv("CONVIRT_SALT", raising=False)
    against = run(*against_table(prepared, prepared / "source.csv"), "--out", tmp_path)["against"]
    assert against["patients_compared"] is True
    assert "the table that both come from" in against["patients_note"]
    assert against["shared"]["patients"]["second"] == 12
    digest = hashlib.sha256((prepared / "source.csv").read_bytes()).hexdigest()
    bench = {"format": 1, "name": "b", "split": {"name": "s"}, "root": str(prepared), "sources": {"source.csv": digest}}
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "benchmark.json").write_text(json.dumps(bench))
    (tmp_path / "bench" / "table.csv").write_text((prepared / "table.csv").read_text())
    against = run(prepared / "corpus", "--against", tmp_path / "bench", "--out", tmp_path / "out")["against"]
    assert against["shared"]["patients"]["second"] == 12


def test_hashed_ids_are_compared_by_the_table_that_is_named(prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CONVIRT_SALT", raising=False)
    frame = pd.read_csv(prepared / "table.csv")
    frame = frame[frame["split"] == "train"].iloc[:4].assign(split="train")
    frame.to_csv(tmp_path / "other.csv", index=False)  # images of train in train: no leak, but who knows the patients
    command = (*against_table(prepared, tmp_path / "other.csv"), "--out", tmp_path / "out")
    with_salt = run(*command, "--salt-from", prepared / "source.csv")["against"]
    assert with_salt["shared"]["patients"]["second"] == 4
    without = run(*command)["against"]
    assert without["patients_compared"] is False
    assert "PATIENTS WERE NOT COMPARED: ids are hashed on one side only; give --salt-from" in without["verdict"]["line"]
    assert "NOT COMPARED" in capsys.readouterr().out.strip().splitlines()[-1]
    monkeypatch.setenv(cli.DEBUG, "1")
    with pytest.raises(InputError, match="name the table it was made from"):
        run(*command, "--salt-from", tmp_path / "other.csv")


def test_strict_says_when_patients_were_not_compared(tmp_path, monkeypatch):
    monkeypatch.delenv("CONVIRT_SALT", raising=False)
    settings = {"ids": "hashed", "ids_mark": Identities("gone").mark()}
    corpus = write_rows(tmp_path / "corpus", innocent_rows(30), settings)
    other = write_rows(tmp_path / "other", innocent_rows(30, first=300))
    command = (corpus, "--against", other, "--out", tmp_path / "out", "--strict")
    with pytest.raises(SystemExit) as stopped:
        run(*command)
    assert stopped.value.code == 3
    line = run(*command, "--distinct-patients")["against"]["verdict"]["line"]
    assert line.endswith("Patients were not compared: ids of the two sides name different people.")


def test_a_packed_table_gives_the_salt_of_what_it_holds(tmp_path):
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(b"image,patient"))
    salts = {salt.value for salt in known_salts(tmp_path / "table.csv.gz")}
    contents = ((tmp_path / "table.csv.gz").read_bytes(), b"image,patient")
    assert {default_salt(hashlib.sha256(content).hexdigest()) for content in contents} <= salts


def test_a_salt_of_ones_own_is_named_as_the_reason(tmp_path):
    (tmp_path / "table.csv").write_text("image\n")
    digest = hashlib.sha256(b"image\n").hexdigest()
    corpus = Naming(kind="hashed", mark=Identities("own").mark(), table_mark=table_mark(digest))
    salts = known_salts(tmp_path / "table.csv")
    with pytest.raises(InputError, match="with a CONVIRT_SALT of its own"):
        check_salt_from(tmp_path / "table.csv", salts, corpus)
    with pytest.raises(InputError, match="no ids are hashed here"):
        check_salt_from(tmp_path / "table.csv", salts, Naming(kind="plain"))
    with pytest.raises(InputError, match="cannot be read"):
        known_salts(tmp_path / "missing.csv")


def write_table(folder: Path, rows: int = 12) -> Path:
    """A labelled table with images of source size; the last image of test is a train image under another name."""
    (folder / "images").mkdir(parents=True)
    for number in range(rows):
        pixels = picture(0 if number == rows - 1 else number, 384, 320)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    splits = ["train"] * (rows - 3) + ["test"] * 3
    frame = pd.DataFrame(
        {"image": [f"images/{n}.png" for n in range(rows)], "patient": [f"p{n}" for n in range(rows)], "split": splits}
    )
    frame.to_csv(folder / "table.csv", index=False)
    return folder


def test_a_table_and_a_benchmark_can_be_inspected(tmp_path):
    folder = write_table(tmp_path / "bench")
    columns = ("--patient-column", "patient", "--split-column", "split")
    audit = run(folder / "table.csv", "--images", folder, *columns, "--out", tmp_path / "table")
    assert [(row["split"], row["pairs"], row["patients"]) for row in audit["splits"]] == [
        ("train", 9, 9),
        ("test", 3, 3),
    ]
    assert audit["within"]["files"]["across_splits"] == audit["within"]["pixels"]["across_splits"] == 1
    about = {"format": 1, "name": "mine", "split": {"name": "official"}, "root": str(folder)}
    (folder / "benchmark.json").write_text(json.dumps(about))
    again = run(folder, "--out", tmp_path / "folder")
    assert again["within"] == audit["within"]
    assert again["about"]["benchmark"] == "mine"


def test_an_unreadable_image_is_counted_and_nothing_is_read_outside_the_root(tmp_path):
    folder = write_table(tmp_path / "inside" / "bench")
    (folder / "images" / "1.png").write_bytes(b"no image")
    (folder / "images" / "2.png").unlink()
    Image.fromarray(picture(3)).save(tmp_path / "secret.png")
    (folder / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    frame = pd.read_csv(folder / "table.csv")
    frame.loc[3, "image"] = "../../../secret.png"
    frame.loc[4, "image"] = "images/link.png"
    frame.loc[5, "image"] = "images/\x00.png"
    frame.to_csv(folder / "table.csv", index=False)
    audit = run(folder / "table.csv", "--images", folder / "images" / "..", "--out", tmp_path / "out")
    assert audit["unreadable"] == 5
    said = "5 of 12 images could not be read and were not compared."
    assert audit["verdict"]["line"].endswith(said)
    assert audit["pixels"]["images"] == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing"], "is not a prepared corpus, a benchmark folder or a table"),
        (["table.csv"], "--images"),
        (["table.csv", "--images", "nowhere"], "there is no image folder"),
        (["table.csv", "--images", ".", "--image-column", "file"], "no column 'file'"),
        (["table.csv", "--images", ".", "--out", "table.csv"], "is a file"),
        (["broken"], "damaged benchmark"),
    ],
)
def test_mistakes_are_one_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("image\na.png\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "benchmark.json").write_text("{}")
    monkeypatch.setenv(cli.DEBUG, "1")
    with pytest.raises(InputError) as raised:
        cli.main(["inspect", *arguments])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_not_one_readable_image_is_a_mistake(tmp_path, monkeypatch):
    folder = write_table(tmp_path / "bench")
    monkeypatch.setenv(cli.DEBUG, "1")
    command = (folder / "table.csv", "--images", folder / "images", "--out", tmp_path / "out")
    with pytest.raises(InputError, match=r"none of the 12 images of bench can be read below .*check --images"):
        run(*command)
    assert not (tmp_path / "out" / "inspect.html").exists()


def test_a_column_of_splits_that_was_not_named_is_pointed_at(tmp_path):
    folder = write_table(tmp_path / "bench")
    verdict = run(folder / "table.csv", "--images", folder, "--out", tmp_path / "out")["verdict"]
    assert verdict["line"] == "No splits were compared: if column 'split' holds them, give --split-column."
    unnamed = run(folder / "table.csv", "--images", folder, "--split-column", "split", "--out", tmp_path / "out")
    assert "PATIENTS WERE NOT COMPARED: none are named (--patient-column)" in unnamed["verdict"]["line"]
    assert unnamed["verdict"]["unchecked"] is True


@pytest.mark.parametrize("ids", ["plain", "hashed"])
@pytest.mark.parametrize("spelt", ["{}.0", "000{}", "{},0", "{}.00"])
def test_strict_finds_patients_under_another_spelling(tmp_path, monkeypatch, ids, spelt):
    """What a spreadsheet or pandas made of numbers: other images, the same five patients."""
    monkeypatch.setenv("CONVIRT_SALT", "one for both")
    rng = np.random.default_rng(0)
    corpora = []
    for side, spell in (("here", "{}"), ("there", spelt)):
        folder = tmp_path / side
        (folder / "images").mkdir(parents=True)
        rows = []
        for number in range(5):
            Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
            rows.append((f"{number}.png", f"The lungs of {side} case {number} are clear.", spell.format(2001 + number)))
        pd.DataFrame(rows, columns=["image", "report", "patient"]).to_csv(folder / "table.csv", index=False)
        options = Options(image_size=32, ids=ids)
        columns = (folder / "images", folder / "table.csv", "image", "report", "patient")
        corpora.append(prepare_archive(*columns, folder / "corpus", options=options))
    first, second = corpora
    with pytest.raises(SystemExit) as end:
        run(first, "--against", second, "--out", tmp_path / "out", "--strict")
    assert end.value.code == 1
    audit = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert audit["against"]["shared"]["patients"]["first"] == 5
