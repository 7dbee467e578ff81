"""Strike each long verb at random moments, give the same command again, and compare the end with an undisturbed run.

    python benchmarks/faults.py [--verbs prepare pretrain classify study reproduce] [--faults kill ...] [--moments 20]

Everything runs on a small phantom archive, with the demo's two small models, on a file system of its own (`tmpfs`, so
that root rights are needed for `full` and `read-only`). The faults, taken in turn:

    kill        SIGKILL to the command and its workers
    worker      SIGKILL to one worker process
    full        the disk of the output is full until the command ends
    read-only   it is mounted read-only until then
    vanish      the folder of images, or a shard of the corpus, is moved away until then
    cut         one image, or shard, is cut to its half until then
    clock       the clock jumps by 400 days, forward and later back (libfaketime, Debian package `faketime`)

After a fault the command ends by itself or goes on; then the same command is given until it succeeds. If it ends before
it was struck, it begins again in a new folder. Exit status 1: an end differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

COMMAND = "from convirt.cli import main; main()"
SMALL = ["--optimiser.batch-size", "8", "--transform.size", "64", "--validation.pairs", "8"]
FINETUNING = [
    "--settings",
    "finetuned",
    "--fractions",
    "1",
    "--seeds",
    "3",
    "--max-epochs",
    "2",
    "--max-steps",
    "4",
    "--resamples",
    "50",
]
TIMES = ("seconds", "pairs_per_s", "time", "versions", "memory", "out")


@dataclass(frozen=True)
class Verb:
    """One long verb: its command, and what has to be the same in the end."""

    arguments: Callable[[Path], Sequence[str]]
    """Of the command, for an output folder."""
    result: Callable[[Path], Any]
    """What is compared."""
    patched: str = ""
    """Python that runs before the command: makes a scale smaller."""


def without_times(value: Any) -> Any:
    """Nested values without what differs from run to run by its nature."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not any(word in key for word in TIMES)}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def figures(folder: Path) -> dict[str, Any]:
    """Rows and comparisons of every metrics.json below a folder, and the arrays beside them."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("metrics.json")):
        content = json.loads(path.read_text())
        kept = {key: content[key] for key in ("rows", "comparisons", "steps", "best") if key in content}
        found[str(path.relative_to(folder))] = without_times(kept)
        if (arrays := path.with_name("predictions.npz")).is_file():
            with np.load(arrays) as loaded:
                found[str(arrays.relative_to(folder))] = {name: loaded[name].tobytes() for name in loaded.files}
    assert found, f"no metrics.json below {folder}"
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(folder: Path) -> dict[str, Any]:
    """The best weights of a run, and its figures."""
    return {"best": (folder / "best" / "model.safetensors").read_bytes(), **figures(folder)}


def verbs(base: Path) -> dict[str, Verb]:
    """The long verbs on the archive, corpus and run in `base`."""
    archive, corpus, run_folder = base / "archive", base / "corpus", base / "out" / "run"
    table = ["--table", str(archive / "labels.csv"), "--images", str(archive / "images")]
    table += ["--label-columns", "cardiomegaly,edema", "--patient-column", "patient_id"]
    study = base / "study.toml"
    study.write_text(
        f'recipe = "demo"\ncorpus = "{corpus}"\n[overrides]\nmax_steps = 6\noptimiser.batch_size = 8\n'
        "transform.size = 64\nvalidation.pairs = 8\nvalidation.every = 3\ncheckpoint_every = 2\n"
        '[cells.a]\nseed = 1\n[cells.b]\nseed = 2\n[tasks.classify]\ntable = "archive/labels.csv"\n'
        'images = "archive/images"\nlabel_columns = ["cardiomegaly", "edema"]\npatient_column = "patient_id"\n'
    )

    def pretrain(out: Path) -> list[str]:
        resume = ["--resume"] if (out / "config.json").is_file() else []
        steps = ["--max-steps", "24", "--validation.every", "6", "--checkpoint-every", "2", "--workers", "2"]
        return ["pretrain", "demo", "--corpus", str(corpus), "--out", str(out), *SMALL, *steps, *resume]

    return {
        "prepare": Verb(lambda out: prepare_command(archive, out), contents),
        "pretrain": Verb(pretrain, run),
        "classify": Verb(lambda out: ["classify", str(run_folder), *table, *FINETUNING, "--out", str(out)], figures),
        "study": Verb(lambda out: ["study", str(study), "--out", str(out)], figures),
        "reproduce": Verb(
            lambda out: ["reproduce", "table2", "--scale", "small", "--out", str(out)], figures, REPRODUCE
        ),
    }


REPRODUCE = """
from convirt.reproduce import small
small.PATIENTS, small.LABELLED, small.STEPS, small.FINETUNING_STEPS = 300, 60, 4, 4
"""
"""Makes the small scale of `reproduce` smaller still."""


def prepare_command(archive: Path, out: Path) -> list[str]:
    """`convirt prepare archive` on the phantom archive."""
    columns = ["--image-column", "image", "--text-column", "report", "--patient-column", "patient_id"]
    columns += ["--split-column", "split", "--study-column", "study_id"]
    places = ["--images", str(archive / "images"), "--table", str(archive / "reports.csv"), "--out", str(out)]
    return [
        "prepare",
        "archive",
        *places,
        *columns,
        "--ids",
        "plain",
        "--image-size",
        "96",
        "--workers",
        "2",
        "--max-failures",
        "0",
    ]


class Place:
    """A small file system for the outputs, and what the faults do to it and to the inputs."""

    SIZE = 2 * 2**30

    def __init__(self, base: Path, rng: random.Random) -> None:
        self.base, self.rng = base, rng
        self.out = base / "out"
        self.out.mkdir()
        self.clock = base / "clock"
        self.clock.write_text("+0")
        self._mounted = self._mount("-t", "tmpfs", "-o", f"size={self.SIZE}", "tmpfs")

    def _mount(self, *options: str) -> bool:
        return subprocess.run(["mount", *options, str(self.out)], capture_output=True).returncode == 0

    def close(self) -> None:
        """Unmount the file system."""
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.out)], check=False)

    def kill(self, process: subprocess.Popen[bytes]) -> Callable[[], object]:
        os.killpg(process.pid, signal.SIGKILL)
        return int

    def worker(self, process: subprocess.Popen[bytes]) -> Callable[[], object] | None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = children.read_text().split() if children.exists() else []
        if not workers:
            return None
        os.kill(int(self.rng.choice(workers)), signal.SIGKILL)
        return int

    def full(self, process: subprocess.Popen[bytes]) -> Callable[[], object] | None:
        if not self._mounted:
            return None
        filler = self.out / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(2**16))
            except OSError:
                pass
        return filler.unlink

    def read_only(self, process: subprocess.Popen[bytes]) -> Callable[[], object] | None:
        for _ in range(200):  # it is refused while a file is being written
            if self._mounted and self._mount("-o", "remount,ro"):
                return lambda: self._mount("-o", "remount,rw")
            time.sleep(0.01)
        return None

    def vanish(self, process: subprocess.Popen[bytes]) -> Callable[[], object]:
        path = self._input()
        path = path.parent if path.suffix == ".png" else path
        away = path.with_name(f"{path.name}.away")
        path.rename(away)
        return lambda: away.rename(path)

    def cut(self, process: subprocess.Popen[bytes]) -> Callable[[], object]:
        path = self._input()
        whole = path.with_name(f"{path.name}.whole")
        path.rename(whole)
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        return lambda: whole.rename(path)

    def jump(self, process: subprocess.Popen[bytes]) -> Callable[[], object]:
        self.clock.write_text(self.rng.choice(("+400d", "-400d")))
        return lambda: self.clock.write_text("+0")

    def _input(self) -> Path:
        prepares = (self.base / "striking").read_text() == "prepare"
        folder, pattern = (self.base / "archive" / "images", "*.png") if prepares else (self.base / "corpus", "data-*")
        return self.rng.choice(sorted(folder.glob(pattern)))


FAULTS: dict[str, Callable[[Place, "subprocess.Popen[bytes]"], Callable[[], object] | None]] = {
    "kill": Place.kill,
    "worker": Place.worker,
    "full": Place.full,
    "read-only": Place.read_only,
    "vanish": Place.vanish,
    "cut": Place.cut,
    "clock": Place.jump,
}
"""Name -> strikes a running command; gives what heals it, or nothing if it could not strike."""

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def start(verb: Verb, out: Path, clock: Path | None = None) -> subprocess.Popen[bytes]:
    """The command in a process group of its own, perhaps by the clock that a file sets."""
    code = f"{verb.patched}\n{COMMAND}"
    log = (out.parent.parent / f"{out.name}.log").open("ab")
    command = [sys.executable, "-c", code, *verb.arguments(out)]
    faked = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    faked |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    environment = {**os.environ, **faked} if clock else None
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)


def finish(verb: Verb, out: Path) -> float:
    """Run the command to its end; gives the seconds that it took."""
    began, process = time.monotonic(), start(verb, out)
    if process.wait():
        raise SystemExit(f"{out.name} failed:\n{(out.parent.parent / f'{out.name}.log').read_text()[-2000:]}")
    return time.monotonic() - began


def try_verb(name: str, verb: Verb, place: Place, faults: Sequence[str], moments: int) -> bool:
    """Whether every command that was struck and given again ends as an undisturbed one."""
    (place.base / "striking").write_text(name)
    whole = place.out / f"{name}-whole"
    seconds = finish(verb, whole)
    expected = verb.result(whole)
    shutil.rmtree(whole)
    done: Counter[str] = Counter()
    same: Counter[str] = Counter()
    tries = runs = 0
    out = place.out / f"{name}-0"
    while done.total() < moments and tries < 6 * moments:
        fault = faults[done.total() % len(faults)]
        tries += 1
        process = start(verb, out, place.clock if fault == "clock" and FAKETIME.exists() else None)
        try:
            process.wait(timeout=place.rng.uniform(0.3, 1.0) * max(seconds, 2))
            heal = None  # it ended before
        except subprocess.TimeoutExpired:
            heal = FAULTS[fault](place, process)
            process.wait(timeout=600)
        if heal is not None:
            heal()
            done[fault] += 1
        print(f"{name} {fault}: {'struck, ' * (heal is not None)}status {process.returncode}", flush=True)
        if place.rng.random() < 0.5 or process.returncode == 0 or done.total() == moments:
            if name != "prepare" or not out.exists():  # struck between its end and its exit, it has nothing left to do
                finish(verb, out)
            if not (equal := verb.result(out) == expected):
                print(f"{name} {fault}: DIFFERENT")
            same[fault] += equal and heal is not None
            runs += 1
            shutil.rmtree(out)
            out = place.out / f"{name}-{runs}"
        elif heal is not None:
            same[fault] += 1  # the same run goes on; a difference would show at its end
    struck = ", ".join(f"{fault} {count}" for fault, count in done.items())
    ends = same.total() == done.total()
    print(f"{name}: struck {done.total()} times ({struck}) in {runs} runs of {seconds:.0f} s undisturbed; ", end="")
    print("each end the same" if ends else "DIFFERENT")
    return ends and done.total() == moments


def main() -> None:
    """Try the verbs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", nargs="+", default=["prepare", "pretrain", "classify", "study", "reproduce"])
    parser.add_argument("--faults", nargs="+", default=["kill"], choices=FAULTS)
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base, rng = Path(folder), random.Random(asked.seed)
        first = ["phantom", "--out", str(base / "archive"), "--patients", "600", "--size", "96"]
        for arguments in (first, prepare_command(base / "archive", base / "corpus")):
            subprocess.run([sys.executable, "-c", COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
        place = Place(base, rng)
        try:
            known = verbs(base)
            if {"classify", "study"} & set(asked.verbs):
                finish(known["pretrain"], base / "out" / "run")
            same = [try_verb(name, known[name], place, asked.faults, asked.moments) for name in asked.verbs]
        finally:
            place.close()
    raise SystemExit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
