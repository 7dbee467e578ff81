"""Corpora that stream: the export, the order, whoever reads, and servers that fail."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from conftest import read_log, write_corpus
from convirt import cli
from convirt.config import PretrainConfig, ValidationConfig
from convirt.data.corpora import Corpus
from convirt.data.loading import remote
from convirt.data.loading.export import export
from convirt.data.loading.loader import Batch, TrainingBatches, ValidationBatches, read_ahead
from convirt.data.loading.remote import Cache, Remote
from convirt.data.loading.sampling import Schedule, arrange_stream, number_patients
from convirt.data.loading.streaming import StreamedCorpus, open_corpus
from convirt.data.shards import sealed
from convirt.errors import InputError
from convirt.training.pretrain import pretrain
from file_server import FileServer, serving
from stopping import train


def in_order_of(corpus: StreamedCorpus, disk: Corpus) -> Corpus:
    """The corpus on disk, visited in the order in which it streams."""
    disk = Corpus.open(disk.path)
    disk.shards = corpus.shards
    return disk


SHARD_MIB = 0.03
"""About a dozen pairs of the tiny corpus."""


def same(one: Batch, two: Batch) -> bool:
    return (
        torch.equal(one.images_B1SS, two.images_B1SS)
        and one.sentences == two.sentences
        and np.array_equal(one.indices, two.indices)
        and one.step == two.step
    )


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(write_corpus(tmp_path_factory.mktemp("disk") / "corpus", train=400, val=64))


@pytest.fixture(scope="module")
def exported(disk: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(export(disk.path, str(tmp_path_factory.mktemp("web") / "corpus"), shard_mib=SHARD_MIB))


@pytest.fixture
def server(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    with serving(exported.parent) as served:
        yield served


# --- the export


def test_an_export_holds_the_corpus(disk: Corpus, exported: Path) -> None:
    corpus = open_corpus(exported)
    assert isinstance(corpus, StreamedCorpus)
    assert len(corpus) == len(disk)
    assert (corpus.fingerprint, corpus.image_size, corpus.settings) == (
        disk.fingerprint,
        disk.image_size,
        disk.settings,
    )
    assert all(corpus.pair(index) == disk.pair(index) for index in range(0, len(disk), 7))
    for split in ("train", "val", "test"):
        assert np.array_equal(corpus.indices(split), disk.indices(split))
    for name in ("images", "sentences"):
        assert np.array_equal(corpus.column_lengths(name), disk.column_lengths(name))
    # Patients are numbered in the order of their ids, so that either corpus is arranged alike.
    assert np.array_equal(corpus.patient_ids, number_patients(disk.patient_ids))
    with pytest.raises(InputError, match="no split 'dev'"):
        corpus.indices("dev")


def test_shards_are_bounded_and_hold_whole_patients_of_one_split(disk: Corpus, exported: Path) -> None:
    about = json.loads((exported / "corpus.json").read_text())
    shards = open_corpus(exported).shards
    sizes = disk.image_bytes()
    assert len(about["shards"]) == len(np.unique(shards)) > 30
    for number, file in enumerate(about["shards"]):
        members = np.flatnonzero(shards == number)
        assert len(members) == file["pairs"]
        assert sizes[members].sum() <= SHARD_MIB * 2**20
        assert set(disk.splits[members]) == {file["split"]}
        data = (exported / file["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
    for patient in set(disk.patient_ids):
        assert len(set(shards[disk.patient_ids == patient])) == 1
    # Whatever order the source had, that of the shards has nothing of it.
    train = disk.indices("train")
    assert abs(spearmanr(train, shards[train])[0]) < 0.2


def test_one_pair_larger_than_a_shard_has_one_of_its_own(disk: Corpus, tmp_path: Path) -> None:
    export(disk.path, str(tmp_path / "out"), shard_mib=0.01)
    about = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert min(file["pairs"] for file in about["shards"]) >= 1
    assert sum(file["pairs"] for file in about["shards"]) == len(disk)


def test_an_interrupted_export_goes_on(disk: Corpus, exported: Path, tmp_path: Path, monkeypatch) -> None:
    out, written = tmp_path / "out", []
    write = Remote.write

    def failing(self: Remote, name: str, data: bytes) -> None:
        if len(written) in (5, 12):
            written.append("")
            raise KeyboardInterrupt
        written.append(name)
        write(self, name, data)

    monkeypatch.setattr(Remote, "write", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            export(disk.path, str(out), shard_mib=SHARD_MIB)
        with pytest.raises(InputError, match=r"no corpus\.json"):
            open_corpus(out)
    # What a service that is not atomic leaves of a file that was cut off.
    torn = out / written[3]
    torn.write_bytes(torn.read_bytes()[:100])
    export(disk.path, str(out), shard_mib=SHARD_MIB)
    shards = [name for name in written if name[:5] in ("train", "val-0", "test-")]
    assert sorted(name for name in shards if shards.count(name) > 1) == [torn.name] * 2
    assert {f.name: f.read_bytes() for f in out.iterdir()} == {f.name: f.read_bytes() for f in exported.iterdir()}
    before = len(written)
    export(disk.path, str(out), shard_mib=SHARD_MIB)  # nothing is left to do
    assert {name.partition("-")[0] for name in written[before:]} <= {"index.parquet", "audit.json", "corpus.json"}


def test_an_export_is_verified(disk: Corpus, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(disk.path, str(out), shard_mib=SHARD_MIB, verify=True)
    shard = sorted(out.glob("train-*"))[2]
    data = shard.read_bytes()
    shard.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    with pytest.raises(InputError, match=rf"{shard.name} cannot be read.*sha256 differs"):
        export(disk.path, str(out), shard_mib=SHARD_MIB, verify=True)


def test_nothing_is_exported_over_anything(disk: Corpus, tiny_corpus: Path, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(notes\.txt\)"):
        export(disk.path, str(tmp_path / "taken"))
    with pytest.raises(InputError, match="holds another corpus"):
        export(tiny_corpus, str(exported))
    with pytest.raises(InputError, match="shard-mib"):
        export(disk.path, str(tmp_path / "out"), shard_mib=0)
    with pytest.raises(InputError, match="not a prepared corpus"):
        export(tmp_path, str(tmp_path / "out"))


@pytest.mark.parametrize("place", ["ftp2://host/x", "http://127.0.0.1:9/x", "", "s3://", "https://[::1/x"])
def test_places_that_cannot_be_written_to_are_one_line(disk: Corpus, place: str, monkeypatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    with pytest.raises(InputError) as caught:
        export(disk.path, place)
    assert "\n" not in str(caught.value)
    assert place in str(caught.value)
    if place:
        with pytest.raises(InputError):
            Remote(place).read("corpus.json")


# --- the order


@pytest.mark.parametrize(("pairs", "batch_size", "shards"), [(50_000, 32, 400), (50_000, 256, 400), (900, 8, 5)])
def test_the_streamed_order(pairs: int, batch_size: int, shards: int) -> None:
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(pairs), np.minimum(rng.geometric(0.4, pairs), 12))[:pairs]
    shard = np.arange(pairs) * shards // pairs
    arranged = arrange_stream(7 + np.arange(pairs), patients, shard, batch_size, np.random.default_rng(0)) - 7
    batches = pairs // batch_size
    assert arranged.shape == (batches, batch_size)
    assert len(np.unique(arranged)) == arranged.size
    met = np.sort(patients[arranged], axis=1)
    assert not (met[:, 1:] == met[:, :-1]).any()
    # Storage order says nothing about when a pair is visited, and a batch comes from many shards.
    flat = arranged.ravel()
    assert abs(spearmanr(flat, np.arange(len(flat)))[0]) < (0.15 if shards > 10 else 0.5)
    spread = np.mean([len(np.unique(row)) for row in shard[arranged]])
    assert spread > (20 if shards > 100 else 4)
    again = arrange_stream(7 + np.arange(pairs), patients, shard, batch_size, np.random.default_rng(0)) - 7
    assert np.array_equal(arranged, again)


def test_leftovers_change_and_a_large_patient_is_spread_as_far_as_possible() -> None:
    indices, shard = np.arange(103), np.arange(103) // 10
    left = {
        tuple(np.setdiff1d(indices, arrange_stream(indices, indices, shard, 8, np.random.default_rng(seed))))
        for seed in range(20)
    }
    assert len(left) > 15
    for size, most in ((8, 1), (15, 3)):  # of 12 batches; three of the 15 are left out first
        patients = np.where(indices < size, 0, indices)
        for seed in range(10):
            arranged = arrange_stream(indices, patients, shard, 8, np.random.default_rng(seed))
            assert max((patients[batch] == 0).sum() for batch in arranged) <= most
            assert (patients[arranged] == 0).sum() <= 12


def test_a_schedule_says_what_is_needed_when() -> None:
    schedule = Schedule(np.array([[4, 4], [4, 9], [9, 1], [1, 1], [7, 7]]))
    assert [schedule.at(place, ahead=1).tolist() for place in range(5)] == [[4, 9], [4, 9, 1], [9, 1, 7], [1, 7], [7]]
    assert Schedule(np.empty((0, 2), dtype=np.int64)).at(0).tolist() == []


# --- reading


def test_streamed_batches_are_those_of_the_disk_in_the_same_order(disk: Corpus, exported: Path) -> None:
    corpus = open_corpus(exported)
    streamed, mapped = TrainingBatches(corpus, 8, 5), TrainingBatches(in_order_of(corpus, disk), 8, 5)
    assert all(same(streamed[step], mapped[step]) for step in (0, 1, 49, 50, 51, 163, 7))
    one = ValidationBatches(corpus, "val", 30, 8, seed=0)
    two = ValidationBatches(in_order_of(corpus, disk), "val", 30, 8, 0)
    assert len(one) == len(two) == 3
    assert all(same(*both) for both in zip(one, two, strict=True))


def test_each_pair_is_visited_once_an_epoch(disk: Corpus, exported: Path) -> None:
    train = TrainingBatches(open_corpus(exported), 7, seed=1)
    for epoch in range(3):
        steps = range(epoch * 57, (epoch + 1) * 57)
        with read_ahead(train, steps, 0) as batches:
            visited = np.concatenate([batch.indices for batch in batches])
        assert len(np.unique(visited)) == 57 * 7 == len(visited)
        assert set(visited.tolist()) <= set(disk.indices("train").tolist())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_workers_read_the_same_batches(server: FileServer, disk: Corpus, workers: int, seed: int) -> None:
    corpus = open_corpus(f"{server.url}/corpus")
    expected = TrainingBatches(in_order_of(corpus, disk), 8, seed)
    with read_ahead(TrainingBatches(corpus, 8, seed), range(40, 75), workers) as batches:
        read = list(batches)
    assert [batch.step for batch in read] == list(range(40, 75))
    assert all(same(batch, expected[batch.step]) for batch in read)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_processes_share_the_batches_and_the_shards(disk: Corpus, exported: Path, parts: int) -> None:
    corpus = open_corpus(exported)
    train, whole = TrainingBatches(corpus, 8, 0), TrainingBatches(corpus, 8, 0)
    for step in (0, 3, 60):
        rows = [train.read(step, part, parts) for part in range(parts)]
        assert torch.equal(torch.cat([row.images_B1SS for row in rows]), whole[step].images_B1SS)
        assert [s for row in rows for s in row.sentences] == whole[step].sentences
        assert np.concatenate([row.indices for row in rows]).tolist() == whole[step].indices.tolist()
    # Only shards that lie where two lanes meet are read twice.
    assert corpus.shards is not None
    cuts = [8 * part // parts for part in range(parts + 1)]
    read = [np.unique(corpus.shards[train.epoch(0)[:, first:last]]) for first, last in pairwise(cuts)]
    assert sum(map(len, read)) <= len(np.unique(corpus.shards[disk.indices("train")])) + parts - 1


def test_the_same_order_again_after_a_stop_at_bounded_cost(server: FileServer, disk: Corpus) -> None:
    train = TrainingBatches(open_corpus(f"{server.url}/corpus"), 8, 0)
    with read_ahead(train, range(40), 0) as batches:
        whole = list(batches)
    server.asked.clear()
    resumed = TrainingBatches(open_corpus(f"{server.url}/corpus"), 8, 0)
    assert same(resumed[33], whole[33])
    asked = sum(count for name, count in server.asked.items() if name.startswith("train"))
    assert asked <= 3 * 8 + 4  # lanes' windows and what is fetched ahead, not what went before
    with read_ahead(resumed, range(33, 40), 0) as batches:
        assert all(same(*both) for both in zip(batches, whole[33:], strict=True))


def test_memory_is_bounded_and_each_shard_is_read_once(tmp_path: Path) -> None:
    many = write_corpus(tmp_path / "many", train=2000, val=2, test=2)
    with serving(tmp_path) as server:
        export(many, str(tmp_path / "out"), shard_mib=0.025)
        corpus = open_corpus(f"{server.url}/out")
        assert isinstance(corpus, StreamedCorpus)
        train = TrainingBatches(corpus, 4, 0)
        shards = len(np.unique(corpus.shards[train.indices]))
        assert shards >= 200
        most = 0
        for step in range(train.steps_per_epoch - 10):
            train[step]
            most = max(most, corpus.held())
        assert most <= 4 * 3 + 4  # lanes' windows, and what is fetched ahead
        asked = [count for name, count in server.asked.items() if name.startswith("train")]
        assert sum(asked) <= shards + 3  # once, but for those in which two lanes meet


def test_pairs_may_be_read_at_random_too(disk: Corpus, exported: Path) -> None:
    corpus = open_corpus(exported)
    assert isinstance(corpus, StreamedCorpus)
    for index in np.random.default_rng(0).permutation(len(corpus))[:60]:
        assert corpus.pair(int(index)).pair_id == f"pair{index}"
        assert corpus.held() <= 5


@pytest.mark.parametrize("what", ["a picture", "a word"])
def test_a_damaged_corpus_is_not_exported(disk: Corpus, tmp_path: Path, what: str) -> None:
    """Exported, it would have fresh hashes, and nobody would ever notice."""
    copy = tmp_path / "corpus"
    shutil.copytree(disk.path, copy)
    shard = sorted(copy.glob("data-*.arrow"))[0]
    content = bytearray(shard.read_bytes())
    if what == "a picture":
        start = content.index(b"IDAT") + 12
        content[start : start + 40] = bytes(40)
    else:
        word = disk.pair(0).sentences[0].encode()
        start = content.index(word)
        content[start : start + 3] = b"Zzz"
    shard.write_bytes(content)
    with pytest.raises(InputError, match="damaged") as error:
        export(copy, str(tmp_path / "out"))
    assert "\n" not in str(error.value)
    assert str(copy) in str(error.value)
    assert not (tmp_path / "out" / "corpus.json").exists()


def test_a_streamed_corpus_crosses_processes(exported: Path) -> None:
    corpus = open_corpus(exported)
    corpus.pair(0)
    assert pickle.loads(pickle.dumps(corpus)).pair(3) == corpus.pair(3)


_READ = """
import os, sys, time
from convirt.data.loading.streaming import open_corpus
before = len(os.listdir("/proc/self/task"))
corpus = open_corpus(sys.argv[1])
assert sum(1 for _ in corpus.reports("val")) and corpus.pair(0)
deadline = time.monotonic() + 20
while (more := len(os.listdir("/proc/self/task")) - before) and time.monotonic() < deadline:
    time.sleep(0.01)  # those that fetch end by themselves, Arrow's never do
print(more)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted where Linux lists them")
def test_reading_leaves_no_thread_of_arrow_that_could_abort_the_process_at_exit(exported: Path) -> None:
    """Such a thread, if it lets go of Python's memory while the interpreter ends, calls std::terminate."""
    done = subprocess.run([sys.executable, "-c", _READ, str(exported)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "0", "")


# --- servers


@pytest.mark.timeout(60)
def test_a_forked_reader_does_not_wait_for_shards_that_its_parent_was_fetching(server: FileServer) -> None:
    """The thread that fetches them is not there after the fork: nobody would ever deliver."""
    corpus = open_corpus(f"{server.url}/corpus")
    assert isinstance(corpus, StreamedCorpus)
    for shard in set(corpus.shards.tolist()):
        corpus._held[shard] = Future()
    with read_ahead(TrainingBatches(corpus, 8, 0), range(2), 1) as batches:
        assert [batch.step for batch in batches] == [0, 1]
    assert not any(promise.done() for promise in corpus._held.values())


def test_what_passes_is_asked_for_again(server: FileServer, disk: Corpus, caplog) -> None:
    server.faults["*"] = [503, "cut", 500, 429]
    shard = sorted(server.root.glob("corpus/train-*"))[3].name
    server.faults[shard] = ["flip", "cut", 503]
    corpus = open_corpus(f"{server.url}/corpus")
    expected = TrainingBatches(in_order_of(corpus, disk), 8, 0)
    with read_ahead(TrainingBatches(corpus, 8, 0), range(50), 0) as batches:
        assert all(same(batch, expected[batch.step]) for batch in batches)
    assert server.asked[shard] >= 4
    assert "503" in caplog.text


def test_a_busy_server_is_given_the_time_that_it_asks_for(server: FileServer, monkeypatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    server.faults["corpus.json"], server.retry_after = [429, 503], "7"
    Remote(f"{server.url}/corpus").read("corpus.json")
    server.faults["corpus.json"], server.retry_after = [429, 500], "86400"
    Remote(f"{server.url}/corpus").read("corpus.json")
    assert waits == [7, 7, 60, 0.02]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("fault", "said", "asked"),
    [
        ([404, "forever"], "is missing", 2),
        ([403, "forever"], "may not be read", 2),
        ([410, "forever"], "cannot be read", 2),
        (["flip", "forever"], "in 7 attempts: its content is not what was exported", 14),
        ([503, "forever"], "in 7 attempts: .*503", 14),
    ],
)
def test_what_does_not_pass_is_one_line(
    server: FileServer, workers: int, fault: list[int | str], said: str, asked: int
) -> None:
    shard = sorted(server.root.glob("corpus/train-*"))[3].name
    server.faults[shard] = fault
    train = TrainingBatches(open_corpus(f"{server.url}/corpus"), 8, 0)
    with (
        pytest.raises(InputError, match=rf"/corpus/{shard} {said}|/corpus/{shard} cannot be read {said}") as caught,
        read_ahead(train, range(50), workers) as batches,
    ):
        list(batches)
    assert "\n" not in str(caught.value)
    assert server.asked[shard] <= asked


@pytest.mark.parametrize("damage", ["kind", "format", "index", "name", "counts", "json", "cut", "gone", "changed"])
def test_a_damaged_export_is_refused(exported: Path, tmp_path: Path, damage: str) -> None:
    import shutil

    out = tmp_path / "corpus"
    shutil.copytree(exported, out)
    about = json.loads((out / "corpus.json").read_text())
    if damage == "kind":
        about.pop("kind")
    elif damage == "format":
        about["format"] = 9
    elif damage == "index":
        (out / "index.parquet").write_bytes(b"PAR1")
    elif damage == "name":
        about["shards"][0]["file"] = "../../secret"
    elif damage == "counts":
        about["shards"][0]["pairs"] += 1
    elif damage == "gone":
        about.pop("shards")
    elif damage == "changed":
        about["shards"][0]["sha256"] = "0" * 64
    if damage not in ("changed", "cut"):
        about = sealed(about)
    text = "{" if damage == "json" else json.dumps(about)
    (out / "corpus.json").write_text(text[:-30] if damage == "cut" else text)
    with pytest.raises(InputError) as caught:
        open_corpus(out)
    assert str(out) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_secrets_stay_out_of_addresses_and_of_messages() -> None:
    for place in (
        "https://user:hunter2@host/corpus",
        "https://host/corpus?sig=hunter2",
        "cached::https://u:hunter2@h/c",
    ):
        with pytest.raises(InputError, match="credentials belong into the environment") as caught:
            open_corpus(place)
        assert "hunter2" not in str(caught.value)


def test_a_cache_is_bounded_and_spares_the_server(server: FileServer, tmp_path: Path, monkeypatch) -> None:
    def read() -> int:
        server.asked.clear()
        with read_ahead(TrainingBatches(open_corpus(f"{server.url}/corpus"), 8, 0), range(40), 0) as batches:
            list(batches)
        return sum(count for name, count in server.asked.items() if name.startswith("train"))

    without = read()
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "cache"))
    assert read() == without
    assert read() == 0
    kept = list((tmp_path / "cache").iterdir())
    assert {oct(path.stat().st_mode & 0o777) for path in kept} == {"0o600"}
    kept[0].write_bytes(b"damaged")
    assert read() <= 1
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "small"))
    monkeypatch.setenv(remote.CACHE_GIB, str(200_000 / 2**30))
    assert read() == without
    assert 100_000 < sum(path.stat().st_size for path in (tmp_path / "small").iterdir()) <= 200_000
    assert 0 < read() <= without
    monkeypatch.setenv(remote.CACHE_GIB, "much")
    with pytest.raises(InputError, match="CONVIRT_CACHE_GIB must be a positive number"):
        read()


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1000)
    names = [hashlib.sha256(bytes([value]) * 300).hexdigest() for value in range(4)]
    for value in range(3):
        cache.put(names[value], bytes([value]) * 300)
        os.utime(tmp_path / "cache" / names[value], (value, value))
    assert cache.get(names[0]) is not None
    cache.put(names[3], bytes([3]) * 300)
    assert [cache.get(name) is not None for name in names] == [True, False, True, True]
    cache.put("0" * 64, bytes(2000))  # larger than all of it
    assert len(list((tmp_path / "cache").iterdir())) <= 3


def test_object_storage(disk: Corpus, monkeypatch, tmp_path: Path) -> None:
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "for-tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    service = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*service.get_host_and_port()))
        boto3.client("s3").create_bucket(Bucket="archive")
        export(disk.path, "s3://archive/chest", shard_mib=SHARD_MIB, verify=True)
        corpus = open_corpus("s3://archive/chest")
        expected = TrainingBatches(in_order_of(corpus, disk), 8, 0)
        for workers in (0, 2):
            with read_ahead(TrainingBatches(corpus, 8, 0), range(6), workers) as batches:
                assert all(same(batch, expected[batch.step]) for batch in batches)
        # The processes that were forked have left the connections of this one alone.
        assert corpus.pair(5) == disk.pair(5)
        with pytest.raises(InputError, match=r"s3://archive/other/corpus\.json is missing"):
            open_corpus("s3://archive/other")
        with pytest.raises(InputError, match=r"cannot be written.*bucket does not exist"):
            export(disk.path, "s3://nobody/chest")
    finally:
        service.stop()


def test_memory_filesystem(disk: Corpus) -> None:
    export(disk.path, "memory://house/corpus", shard_mib=SHARD_MIB)
    assert open_corpus("memory://house/corpus").pair(5) == disk.pair(5)


# --- training


@pytest.fixture
def config(tiny_config: Callable[..., PretrainConfig]) -> PretrainConfig:
    rule = ValidationConfig(every=6, pairs=32, patience=1, max_evaluations=20)
    return tiny_config(max_steps=14, checkpoint_every=4, validation=rule)


def weights(run: Path) -> list[bytes]:
    return [(run / part / "model.safetensors").read_bytes() for part in ("last", "best")]


def test_stopped_and_resumed_streaming_is_bit_identical(
    config: PretrainConfig, server: FileServer, tmp_path: Path
) -> None:
    place = f"{server.url}/corpus"
    # All in processes of one thread: another number of threads adds up in another order.
    assert train(config, place, tmp_path / "whole") == 0
    server.faults["*"] = [503, "cut"]
    assert train(config, place, tmp_path / "parts", "killed after a step", 5) == -9
    assert train(replace(config, workers=2, max_steps=9), place, tmp_path / "parts") == 0
    assert train(replace(config, workers=1), place, tmp_path / "parts") == 0
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    steps = [row["step"] for row in read_log(tmp_path / "parts") if row["event"] == "step"]
    assert steps == list(range(1, 15))


def test_streamed_from_a_folder_or_a_server_or_mapped_trains_the_same(
    config: PretrainConfig, server: FileServer, disk: Corpus, exported: Path, tmp_path: Path, monkeypatch
) -> None:
    pretrain(config, f"{server.url}/corpus", tmp_path / "web")
    pretrain(config, exported, tmp_path / "folder")
    monkeypatch.setattr(
        "convirt.data.loading.streaming.open_corpus", lambda _: in_order_of(StreamedCorpus.open(str(exported)), disk)
    )
    pretrain(config, disk.path, tmp_path / "disk")
    assert weights(tmp_path / "web") == weights(tmp_path / "folder") == weights(tmp_path / "disk")


def test_a_run_is_not_resumed_in_another_order(
    config: PretrainConfig, disk: Corpus, exported: Path, tmp_path: Path
) -> None:
    pretrain(replace(config, max_steps=2), exported, tmp_path / "run")
    with pytest.raises(InputError, match="visits them in another order"):
        pretrain(config, disk.path, tmp_path / "run", resume=True)
    pretrain(replace(config, max_steps=3), exported, tmp_path / "run", resume=True)


def test_the_commands(disk: Corpus, tmp_path: Path, capsys, monkeypatch, tiny_bert: Path) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    cli.main(["export", str(disk.path), "--out", str(tmp_path / "web"), "--shard-mib", "0.05"])
    assert f"wrote {len(disk)} pairs in " in capsys.readouterr().out
    settings = ["--image-encoder.name", "test_resnet.r160_in1k", "--image-encoder.weights", "random"]
    settings += ["--text-encoder.source", str(tiny_bert), "--text-encoder.frozen-layers", "2", "--max-steps", "2"]
    settings += ["--text-encoder.max-tokens", "16", "--optimiser.batch-size", "8", "--device", "cpu"]
    with serving(tmp_path) as server:
        pretrained = ["pretrain", "demo", "--corpus", f"{server.url}/web", "--out", str(tmp_path / "run"), *settings]
        cli.main(pretrained)
        with pytest.raises(SystemExit):
            cli.main(
                ["pretrain", "demo", "--corpus", f"{server.url}/nothing", "--out", str(tmp_path / "r2"), *settings]
            )
    error = capsys.readouterr().err
    assert error == f"convirt: error: {server.url}/nothing/corpus.json is missing; " + error.partition("; ")[2]
    assert json.loads((tmp_path / "run" / "corpus.json").read_text())["path"] == f"{server.url}/web"
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 2


def test_other_shards_of_the_same_corpus_are_refused_and_leftovers_go(
    disk: Corpus, exported: Path, tmp_path: Path, monkeypatch
) -> None:
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    with pytest.raises(InputError, match=r"holds this corpus in \d+ other shards \(another --shard-mib\)"):
        export(disk.path, str(exported), shard_mib=2 * SHARD_MIB)
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    with monkeypatch.context() as patch:  # an unfinished one with larger shards
        patch.setattr("convirt.data.loading.export._finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export(disk.path, str(tmp_path / "out"), shard_mib=2 * SHARD_MIB)
    assert list((tmp_path / "out").glob("train-*"))
    export(disk.path, str(tmp_path / "out"), shard_mib=SHARD_MIB)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "out" / "corpus.json").write_text('{"shards": 3}')
    with pytest.raises(InputError, match="holds a damaged export; remove it"):
        export(disk.path, str(tmp_path / "out"), shard_mib=SHARD_MIB)


def test_a_changed_corpus_is_noticed_before_a_run(
    config: PretrainConfig, disk: Corpus, exported: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("convirt.data.corpora._SOON_HASHED", 0)
    shutil.copytree(disk.path, tmp_path / "corpus")
    shard = tmp_path / "corpus" / "data-00000.arrow"
    data = shard.read_bytes()
    shard.write_bytes(data[:-2000] + bytes([data[-2000] ^ 1]) + data[-1999:])
    with pytest.raises(InputError, match=r"data-00000\.arrow is not what was written"):
        pretrain(config, tmp_path / "corpus", tmp_path / "run", verify=True)
    about = tmp_path / "corpus" / "corpus.json"
    about.write_text(about.read_text().replace('"pairs_val": 64', '"pairs_val": 65'))
    with pytest.raises(InputError, match=r"corpus\.json is not what was written \(its sha256 differs\)"):
        pretrain(config, tmp_path / "corpus", tmp_path / "run")
    shutil.copytree(exported, tmp_path / "web")
    shard = sorted((tmp_path / "web").glob("train-*"))[-1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + b"?")
    with pytest.raises(InputError, match=rf"{shard.name} cannot be read: its content is not what was exported"):
        pretrain(config, tmp_path / "web", tmp_path / "run", verify=True)
    shard.write_bytes(data[:-1])
    with pytest.raises(InputError, match=rf"{shard.name} has {len(data) - 1} bytes, should have {len(data)}"):
        pretrain(config, tmp_path / "web", tmp_path / "run")
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name} is missing; export the corpus anew"):
        pretrain(config, tmp_path / "web", tmp_path / "run")
    assert not (tmp_path / "run").exists()
