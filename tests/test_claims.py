"""Claims: one owner at a time, released, taken over from the dead, and never from the living."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from convirt.analysis.studies import claims
from convirt.analysis.studies.claims import Claim, Lost


def test_one_owner_at_a_time_and_again_after_release(tmp_path):
    with Claim.take(tmp_path / "cell") as first:
        assert Claim.take(tmp_path / "cell") is None
        first.check()
    with Claim.take(tmp_path / "cell") as second:
        assert second.number == 2
    assert sorted(path.name for path in (tmp_path / "cell").iterdir()) == ["claim-0001.json", "claim-0002.json"]


def _try(folder, barrier, queue):
    barrier.wait()
    claim = Claim.take(folder)
    queue.put(claim is not None)
    barrier.wait()  # all live until all have tried


def test_of_many_processes_one_wins(tmp_path):
    spawn = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    count = 8
    barrier, queue = spawn.Barrier(count), spawn.Queue()
    processes = [spawn.Process(target=_try, args=(tmp_path / "cell", barrier, queue)) for _ in range(count)]
    for process in processes:
        process.start()
    won = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(won) == 1


def test_who_comes_second_loses_though_both_saw_it_free(tmp_path, monkeypatch):
    with Claim.take(tmp_path / "cell"):
        monkeypatch.setattr(claims, "_latest", lambda folder: (0, None))  # looked before the other had written
        assert Claim.take(tmp_path / "cell") is None
        monkeypatch.undo()


def test_a_killed_owner_is_taken_over_at_once(tmp_path):
    code = "import sys, time; from pathlib import Path; from convirt.analysis.studies.claims import Claim\n"
    code += "claim = Claim.take(Path(sys.argv[1])); claim.__enter__(); print('mine', flush=True); time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "cell")], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "mine\n"
    assert Claim.take(tmp_path / "cell") is None
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    claim = Claim.take(tmp_path / "cell")
    assert claim is not None
    assert claim.number == 2


def elsewhere(folder, *, silent_for):
    """A claim of another machine, last touched so many seconds ago."""
    folder.mkdir()
    path = folder / "claim-0001.json"
    path.write_text(json.dumps({"machine": "elsewhere", "process": 1, "birth": None}))
    os.utime(path, (time.time() - silent_for,) * 2)
    return path


def test_another_machines_claim_dies_by_silence_alone(tmp_path):
    elsewhere(tmp_path / "fresh", silent_for=50)
    assert Claim.take(tmp_path / "fresh", expiry=100) is None
    elsewhere(tmp_path / "silent", silent_for=150)
    assert Claim.take(tmp_path / "silent", expiry=100).number == 2


def test_a_number_given_to_another_process_is_not_taken_for_the_owner(tmp_path):
    (tmp_path / "cell").mkdir()
    about = {"machine": claims._machine(), "process": os.getpid(), "birth": "1"}  # this number, born at another time
    (tmp_path / "cell" / "claim-0001.json").write_text(json.dumps(about))
    assert Claim.take(tmp_path / "cell") is not None


def test_a_claim_that_is_just_being_written_counts(tmp_path):
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "claim-0001.json").write_text("")
    assert Claim.take(tmp_path / "cell") is None


def test_an_owner_that_slept_too_long_stops_and_leaves_the_new_one_alone(tmp_path):
    told = []
    claim = Claim.take(tmp_path / "cell", expiry=0.5, on_lost=lambda: told.append(True))
    with claim:
        (tmp_path / "cell" / "claim-0002.json").write_text("{}")
        deadline = time.monotonic() + 10
        while not told and time.monotonic() < deadline:
            time.sleep(0.02)
        assert told
        with pytest.raises(Lost, match="another process has taken over"):
            claim.check()
    assert "released" not in (tmp_path / "cell" / "claim-0001.json").read_text()
    assert (tmp_path / "cell" / "claim-0002.json").read_text() == "{}"


def test_an_owner_keeps_its_claim_fresh(tmp_path):
    with Claim.take(tmp_path / "cell", expiry=0.5) as claim:
        old = time.time() - 1000
        os.utime(claim.path, (old, old))
        deadline = time.monotonic() + 10
        while claim.path.stat().st_mtime < old + 500 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert claim.path.stat().st_mtime > old + 500
