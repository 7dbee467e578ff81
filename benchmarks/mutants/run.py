"""Seed one fault after another, and see whether the tests notice.

    python benchmarks/mutants/run.py [--only NAME ...] [--jobs 1] [--keep FOLDER]

The checkout is copied to a temporary folder and stays as it is. First the named test files of every fault run, then the
files of its area for those that nothing has noticed. In the end the tests that failed run without any fault: one that
fails then as well says nothing, and its faults are tried again without it. What was found is kept in FOLDER
(runs/mutants) until sources, tests or the fault change, so that an interrupted run goes on with the same command.
FOLDER/table.md holds the result. Exit status 1: fewer than 90 % caught.
"""

import argparse
import hashlib
import json
import os
import queue
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path

from catalogue import ROOT, SOURCES, Fault, problems, read_faults
from checkout import Copy

ENOUGH = 0.9
"""Share of the faults that have to be caught."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What became of a fault."""

    caught_by: str | None
    """The first test that fails; None where all pass, or time ran out."""
    seconds: float
    timed_out: bool = False
    stage: str = "narrow"
    """Whether its own test files ran (`narrow`), or those of its area too (`wide`)."""
    confirmed: bool = False
    """Whether the test that fails is known to pass without the fault."""

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to try."""
        return self.confirmed if self.caught_by else self.timed_out or self.stage == "wide"


class Runner:
    """What is known of faults, and where that is kept."""

    def __init__(self, root: Path, keep: Path) -> None:
        self.root = root
        self.keep = keep
        self._state = fingerprint(root)
        self._lock = threading.Lock()
        self._failing: set[str] = set()  # tests that fail without any fault
        try:
            self._kept = json.loads((keep / "results.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._kept = {}

    def key(self, fault: Fault) -> str:
        """Hash of everything that a fault's result depends on."""
        settled = {name: value for name, value in asdict(fault).items() if name not in ("breaks", "survives")}
        return hashlib.sha256((self._state + json.dumps(settled, sort_keys=True)).encode()).hexdigest()

    def known(self, fault: Fault) -> Found | None:
        """The kept result of a fault."""
        kept = self._kept.get(fault.name)
        return Found(**kept["found"]) if kept and kept["key"] == self.key(fault) else None

    def try_fault(self, fault: Fault, stage: str, copy: Copy) -> Found:
        """Seed a fault and run the test files of a stage."""
        before = self.known(fault)
        original = (copy.work / SOURCES / fault.file).read_text(encoding="utf-8")
        files = fault.tests if stage == "narrow" else [name for name in fault.wide if name not in fault.tests]
        files = [f"tests/{name}" for name in files if (copy.work / "tests" / name.partition("::")[0]).is_file()]
        start, failed, timed_out = time.monotonic(), [], False
        copy.write(fault.file, fault.apply(original))
        try:
            failed = copy.test(files, self._failing) if files else []
        except TimeoutError:
            timed_out = True
        finally:
            copy.write(fault.file, original)
        seconds = time.monotonic() - start + (before.seconds if before and stage == "wide" else 0)
        found = Found(
            caught_by=failed[0] if failed else None, seconds=round(seconds, 1), timed_out=timed_out, stage=stage
        )
        self._remember(fault, found)
        return found

    def confirm(self, faults: list[Fault], copy: Copy) -> None:
        """Run the tests that have caught something without any fault; forget what those say that fail."""
        caught = {fault: found for fault in faults if (found := self.known(fault)) and found.caught_by}
        new = {found.caught_by for found in caught.values() if not found.confirmed}
        failing = copy.test(sorted(filter(None, new)), all_of_them=True) if new else []
        self._failing |= set(failing)
        for fault, found in caught.items():
            if found.caught_by in self._failing:
                del self._kept[fault.name]
            else:
                self._remember(fault, replace(found, confirmed=True))

    def _remember(self, fault: Fault, found: Found) -> None:
        with self._lock:
            self._kept[fault.name] = {"key": self.key(fault), "found": asdict(found)}
            self.keep.mkdir(parents=True, exist_ok=True)
            new = self.keep / "results.json.new"
            new.write_text(json.dumps(self._kept, indent=1) + "\n", encoding="utf-8")
            new.replace(self.keep / "results.json")


def fingerprint(root: Path) -> str:
    """Hash of the sources and tests."""
    digest = hashlib.sha256((root / "pyproject.toml").read_bytes())
    for path in sorted(path for name in ("src", "tests") for path in (root / name).rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def table(results: dict[str, Found], faults: list[Fault]) -> str:
    """The result as a Markdown table."""
    lines = ["| fault | file | caught by | seconds | what it breaks |", "|---|---|---|---:|---|"]
    for fault in faults:
        if (found := results.get(fault.name)) is not None:
            by = found.caught_by or ("**out of time**" if found.timed_out else "**survived**")
            by += f": {fault.survives}" if fault.survives and not found.caught_by else ""
            lines.append(f"| {fault.name} | {fault.file} | {by} | {found.seconds:g} | {fault.breaks} |")
    return "\n".join(lines) + "\n"


def run_all(faults: list[Fault], runner: Runner, jobs: int, limit: float) -> dict[str, Found]:
    """Every fault's result, kept or found anew."""

    def open_faults() -> list[Fault]:
        return [fault for fault in faults if not ((found := runner.known(fault)) and found.settled)]

    jobs = max(1, min(jobs, len(open_faults())))
    print(f"{len(faults)} faults, of {len(faults) - len(open_faults())} the result is known", flush=True)
    made = [Copy(runner.root, limit) for _ in range(jobs if open_faults() else 0)]
    copies: queue.Queue[Copy] = queue.Queue()
    for copy in made:
        copies.put(copy)

    def one(fault: Fault, stage: str) -> None:
        copy = copies.get()
        try:
            found = runner.try_fault(fault, stage, copy)
            print(f"{fault.name}: {found.caught_by or f'not caught, {stage}'} ({found.seconds:g} s)", flush=True)
        finally:
            copies.put(copy)

    pool = ThreadPoolExecutor(jobs)
    try:
        while open_faults():
            list(pool.map(one, [f for f in faults if not runner.known(f)], repeat("narrow")))
            missed = [f for f in open_faults() if (found := runner.known(f)) and not found.caught_by]
            list(pool.map(one, missed, repeat("wide")))
            runner.confirm(faults, made[0])
    finally:
        for copy in made:
            copy.stop()
        pool.shutdown(cancel_futures=True)
        for copy in made:
            copy.remove()
    return {fault.name: found for fault in faults if (found := runner.known(fault))}


def main() -> int:
    """Run the faults; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="faults, or areas")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time, each in a copy of its own")
    parser.add_argument("--keep", type=Path, default=ROOT / "runs" / "mutants", help="folder of results")
    parser.add_argument("--limit", type=float, default=900, help="seconds that a fault's tests may take")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    faults = read_faults()
    if wrong := problems(faults):
        sys.exit("\n".join(wrong))
    if unknown := set(arguments.only) - {name for fault in faults for name in (fault.name, fault.area)}:
        sys.exit(f"no such fault or area: {', '.join(sorted(unknown))}")
    chosen = [fault for fault in faults if not arguments.only or {fault.name, fault.area} & set(arguments.only)]
    results = run_all(chosen, Runner(ROOT, arguments.keep), arguments.jobs, arguments.limit)
    arguments.keep.mkdir(parents=True, exist_ok=True)
    (arguments.keep / "table.md").write_text(table(results, chosen), encoding="utf-8")
    caught = sum(found.caught_by is not None for found in results.values())
    print(f"\n{table(results, chosen)}\n{caught} of {len(chosen)} faults caught ({100 * caught / len(chosen):.1f} %)")
    return 0 if caught >= ENOUGH * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
