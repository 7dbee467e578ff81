"""Preparing shard by shard: the same corpus whoever makes it, and whatever is killed on the way."""

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import drawn_pairs
from conftest import write_pairs
from convirt.data.corpora import Corpus
from convirt.data.imaging.pixels import Unreadable
from convirt.data.preparing import prepare as preparing
from convirt.data.preparing import unfinished
from convirt.data.preparing.pairs import PairContent, PairPlan
from convirt.data.preparing.unfinished import work_folder
from convirt.data.shards import ShardWriter
from convirt.errors import InputError
from drawn_pairs import content, kill, make_plans, prepare, read

PAIRS = 120


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "PAIRS_PER_SHARD", 10)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a corpus that was made in one go, in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "PAIRS_PER_SHARD", 10)
        return content(prepare(make_plans(PAIRS), tmp_path_factory.mktemp("whole") / "corpus", workers=1))


def refusal(plans: list[Any], out: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        prepare(plans, out, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)


def test_every_row_is_in_the_audit_and_every_other_in_the_corpus(whole: dict[str, bytes], tmp_path: Path) -> None:
    audit = json.loads(whole["audit.json"])
    about = json.loads(whole["corpus.json"])
    rows = [line.split(",") for line in whole["audit.csv"].decode().splitlines()[1:]]
    fates = Counter(fate for _, fate, *_ in rows)
    assert len({(row, fate) for row, fate, *_ in rows}) == len(rows)
    assert fates["failed"] == audit["rows"]["failed"] > 20
    assert fates["failed"] + fates["dropped"] == audit["rows"]["dropped"]
    assert fates["repaired"] == audit["rows"]["repaired"] > 20
    assert audit["rows"]["total"] - audit["rows"]["dropped"] == about["counts"]["images"]
    assert len([name for name in whole if name.startswith("data-")]) == PAIRS / 10
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
    corpus = Corpus.open(tmp_path)
    # Written pair by pair, cut elsewhere: the same content.
    pairs = (corpus.pair(index) for index in range(len(corpus)))
    again = json.loads(
        (write_pairs(tmp_path / "again", pairs, image_size=drawn_pairs.SIZE) / "corpus.json").read_text()
    )
    assert again["fingerprint"] == corpus.fingerprint
    assert again["counts"] == about["counts"]


def test_processes_make_the_same_corpus(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_WORTH_WORKERS", 1)
    assert content(prepare(make_plans(PAIRS), tmp_path / "corpus", workers=2)) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra `ray`)")
@pytest.mark.filterwarnings("ignore")  # Ray's own, which change from version to version
def test_ray_makes_the_same_corpus(whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert content(prepare(make_plans(PAIRS), tmp_path / "corpus", workers=2, engine="ray")) == whole


def test_ray_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'convirt[ray]'" in refusal(make_plans(20), tmp_path / "corpus", engine="ray")
    assert list(tmp_path.iterdir()) == []


def test_killed_at_ten_random_moments_it_goes_on(whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    pieces = work_folder(out) / "pieces"
    rng = random.Random(0)
    finished: dict[str, int] = {}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for number in range(10):
        workers = 2 if number in (3, 7) else 1
        command = [sys.executable, drawn_pairs.__file__, str(out), str(PAIRS), str(workers), "0.02"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        # The first kills may come before there is a shard, the later ones ever farther in.
        while len(list(pieces.glob("*.json"))) < number and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.2)
        assert process.poll() is None
        process.kill()
        process.wait()
        assert not out.exists()
        # An orphan may still end its shard; it must have gone before the stamps are compared.
        time.sleep(0.5 if workers == 2 else 0)
        now = {path.name: path.stat().st_mtime_ns for path in pieces.glob("*.json")}
        assert {name: now.get(name) for name in finished} == finished  # what was finished is not made again
        finished = now
    assert 8 <= len(finished) < PAIRS / 10
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert content(out) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


class Dead(BaseException):
    """What stands for a kill inside this process."""


def test_killed_at_any_rename_it_goes_on(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.replace
    calls: Counter[str] = Counter()

    def dying(at: float, after: bool, source: Any, target: Any) -> None:
        calls["now"] += 1
        if after:
            rename(source, target)
        if calls["now"] == at:
            raise Dead
        if not after:
            rename(source, target)

    monkeypatch.setattr(os, "replace", partial(dying, math.inf, True))
    prepare(make_plans(PAIRS), tmp_path / "undisturbed")
    renames = calls["now"]
    assert renames > 2 * PAIRS // 10
    for after in (False, True):
        for at in (1, 2, 3, 4, renames - 2, renames - 1, renames):
            out = tmp_path / f"{at}{after}" / "corpus"
            calls.clear()
            monkeypatch.setattr(os, "replace", partial(dying, at, after))
            with pytest.raises(Dead):
                prepare(make_plans(PAIRS), out)
            monkeypatch.setattr(os, "replace", rename)
            assert content(prepare(make_plans(PAIRS), out)) == whole, (at, after)
            assert [path.name for path in out.parent.iterdir()] == ["corpus"]


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch, plans: list[Any], out: Path, **options: Any) -> None:
    """Prepare until so many shards are finished, and be stopped there."""
    original = preparing._judge
    seen: list[int] = []

    def judge(*arguments: Any) -> None:
        seen.append(1)
        if len(seen) > count:
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_judge", judge)
        with pytest.raises(KeyboardInterrupt):
            prepare(plans, out, **options)


def test_only_what_is_unfinished_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "corpus"
    log = tmp_path / "log"
    log.mkdir()
    stop_after(4, monkeypatch, make_plans(PAIRS), out, reads=partial(read, log=log))
    (work_folder(out) / "corpus" / ".data-00009.arrow.x.part").write_bytes(b"left by a kill")
    (work_folder(out) / "corpus" / "data-00010.arrow").write_bytes(b"a shard whose piece did not come")
    damaged = work_folder(out) / "corpus" / "data-00001.arrow"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    # The number of workers, and how many failures are borne, may change.
    prepare(make_plans(PAIRS), out, reads=partial(read, log=log), workers=1, max_failures=0.6)
    (lines,) = [path.read_text().split() for path in log.iterdir()]
    again = [name for name, times in Counter(lines).items() if times > 1]
    assert again == [f"s{number}" for number in range(10, 20)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 32}, "image_size was 16, is now 32"),
        ({"bits": 16}, "bits was 8, is now 16"),
        ({"ids": "plain"}, 'ids was "hashed", is now "plain"'),
        ({"redact": True}, "redact was false, is now true"),
        ({"plans": make_plans(PAIRS - 1)}, "other rows, texts, images or splits"),
    ],
)
def test_unfinished_work_of_another_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    out = tmp_path / "corpus"
    stop_after(2, monkeypatch, make_plans(PAIRS), out)
    arguments = {"plans": make_plans(PAIRS), "out": out, **change}
    refused = refusal(**arguments)
    assert message in refused
    assert str(work_folder(out)) in refused
    assert "remove that folder to start afresh" in refused


def test_another_salt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "corpus"
    stop_after(2, monkeypatch, make_plans(PAIRS), out)
    monkeypatch.setenv("CONVIRT_SALT", "another")
    assert "another salt" in refusal(make_plans(PAIRS), out)
    assert 'another"' not in (work_folder(out) / "stamp.json").read_text()


def test_two_commands_at_once_are_kept_apart(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    stamp = {"a": 1}
    with unfinished.Unfinished.claim(out, stamp):  # noqa: SIM117
        with pytest.raises(InputError, match="another process is writing"), unfinished.Unfinished.claim(out, stamp):
            pass


def test_too_many_failures_keep_the_shards_that_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "corpus"
    plans = make_plans(40, bad=False) + make_plans(PAIRS)[40:]
    message = refusal(plans, out, max_failures=0.02)
    assert "row 63, bad63.png: truncated or damaged image" in message
    assert "more than --max-failures 0.02" in message
    listed = (tmp_path / "corpus-failures.csv").read_text().splitlines()
    assert listed[0] == "row,fate,reason,image,detail"
    assert any(line.startswith("63,failed,") for line in listed[1:])
    kept = {path.stem for path in (work_folder(out) / "pieces").iterdir()}
    assert kept == {"00000", "00001", "00002", "00003"}
    log = tmp_path / "log"
    log.mkdir()
    prepare(plans, out, max_failures=0.5, reads=partial(read, log=log))
    (lines,) = [path.read_text().split() for path in log.iterdir()]
    assert lines == [f"s{number}" for number in range(40, PAIRS)]


def test_failures_of_a_shard_that_was_finished_late_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may write its shard after the command has given up: its failures must not make the next one give up."""

    def no_image(plan: PairPlan) -> PairContent:
        raise Unreadable("file that cannot be opened")

    def give_up(*_: object) -> None:
        raise InputError("too many failures")

    out, plans = tmp_path / "corpus", make_plans(PAIRS, bad=False)
    judge = preparing._judge
    monkeypatch.setattr(preparing, "_judge", give_up)
    with pytest.raises(InputError, match="too many failures"):
        prepare(plans, out, reads=no_image)
    monkeypatch.setattr(preparing, "_judge", judge)
    assert len(list((work_folder(out) / "pieces").iterdir())) == 1
    undisturbed = content(prepare(plans, tmp_path / "undisturbed", max_failures=0))
    assert content(prepare(plans, out, max_failures=0)) == undisturbed


def test_a_process_that_dies_of_a_file_costs_no_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    monkeypatch.setattr(preparing, "_WORTH_WORKERS", 1)
    out = tmp_path / "corpus"
    prepare(make_plans(PAIRS), out, reads=partial(kill, once=tmp_path / "once"), workers=2)
    assert (tmp_path / "once").exists()
    assert content(out) == whole


def test_a_process_that_always_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_WORTH_WORKERS", 1)
    assert "a worker process was killed" in refusal(make_plans(30), tmp_path / "corpus", reads=kill, workers=2)


def test_ctrl_c_ends_the_workers(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, drawn_pairs.__file__, str(out), "1000", "2", "0.05"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pieces = work_folder(out) / "pieces"
    deadline = time.monotonic() + 300
    while not list(pieces.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    count = len(list(pieces.glob("*.json")))
    time.sleep(0.5)
    assert len(list(pieces.glob("*.json"))) == count > 0
    assert not list((work_folder(out) / "corpus").glob(".*.part"))


def test_ids_of_pairs_are_unique(tmp_path: Path) -> None:
    plans = make_plans(5)
    assert "pair id 's1' occurs twice" in refusal([*plans, plans[1]], tmp_path / "corpus")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    written = []
    flush = ShardWriter._flush

    def full(self: ShardWriter) -> None:
        if len(written) > 2:
            raise OSError(code, "No space left on device")
        written.append(self.path)
        flush(self)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "_flush", full)
        assert "is full; what is finished is kept" in refusal(make_plans(PAIRS), tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()
    corpus = work_folder(tmp_path / "corpus") / "corpus"
    assert len(list(corpus.iterdir())) == len(written) == 3


def test_nothing_left_leaves_nothing(tmp_path: Path) -> None:
    plans = [plan for plan in make_plans(PAIRS) if plan.text == "Normal"]
    assert "text shorter than 3 tokens (" in refusal(plans, tmp_path / "corpus")
    assert "no pair of drawn is left" in refusal([], tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


def test_spellings_that_lead_from_split_to_split_are_named(tmp_path: Path) -> None:
    """Whoever dealt the splits: a source that knows a patient by the written id is found out."""
    plans = [
        replace(
            plan, patient=("1001", "1001.0", f"p{number}")[min(number, 2)], split=("train", "test", "val")[number % 3]
        )
        for number, plan in enumerate(make_plans(12, bad=False))
    ]
    out = prepare(plans, tmp_path / "corpus")
    notes = json.loads((out / "audit.json").read_text())["notes"]
    assert "1 patients stand in several splits, under several spellings of their ids" in notes
