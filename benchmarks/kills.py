"""Kill each long verb at random moments, give the same command again, and compare the end with an undisturbed run.

    python benchmarks/kills.py [--verbs prepare pretrain classify study reproduce] [--kills 10] [--seed 0]

Everything runs on a small phantom archive in a temporary folder, with the demo's two small models. A command is killed
by SIGKILL (with its worker processes) after a random time, until it has been killed so often. If it ends before, it
begins again in a new folder. Exit status 1: an end differs.
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
    archive, corpus, run_folder = base / "archive", base / "corpus", base / "run"
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
        steps = ["--max-steps", "24", "--validation.every", "6", "--checkpoint-every", "2"]
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
    return ["prepare", "archive", *places, *columns, "--ids", "plain", "--image-size", "96"]


def start(verb: Verb, out: Path) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    code = f"{verb.patched}\n{COMMAND}"
    log = (out.parent / f"{out.name}.log").open("ab")
    command = [sys.executable, "-c", code, *verb.arguments(out)]
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finish(verb: Verb, out: Path) -> float:
    """Run the command to its end; gives the seconds that it took."""
    began, process = time.monotonic(), start(verb, out)
    if process.wait():
        raise SystemExit(f"{out.name} failed:\n{(out.parent / f'{out.name}.log').read_text()[-2000:]}")
    return time.monotonic() - began


def try_verb(name: str, verb: Verb, base: Path, kills: int, rng: random.Random) -> bool:
    """Whether every killed and continued command ends as an undisturbed one."""
    whole = base / f"{name}-whole"
    seconds = finish(verb, whole)
    expected, left, number, same = verb.result(whole), kills, 0, True
    while left:
        out, number = base / f"{name}-{number}", number + 1
        while left:
            process = start(verb, out)
            try:
                process.wait(timeout=rng.uniform(0.3, 1.0) * max(seconds / 2, 2))
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                left -= 1
        if name != "prepare" or not out.exists():  # killed between its end and its exit, it has nothing left to do
            finish(verb, out)
        same &= verb.result(out) == expected
        shutil.rmtree(out)
    print(f"{name}: killed {kills} times in {number} runs of {seconds:.0f} s; {'the same' if same else 'DIFFERENT'}")
    return same


def main() -> None:
    """Try the verbs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", nargs="+", default=["prepare", "pretrain", "classify", "study", "reproduce"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base, rng = Path(folder), random.Random(asked.seed)
        first = ["phantom", "--out", str(base / "archive"), "--patients", "120", "--size", "96"]
        for arguments in (first, prepare_command(base / "archive", base / "corpus")):
            subprocess.run([sys.executable, "-c", COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
        known = verbs(base)
        finish(known["pretrain"], base / "run")
        same = [try_verb(name, known[name], base, asked.kills, rng) for name in asked.verbs]
    raise SystemExit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
