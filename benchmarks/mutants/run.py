"""Seed one fault after another, and see whether the tests notice.

    python benchmarks/mutants/run.py [--only NAME ...] [--jobs 1] [--keep FOLDER]

The checkout is copied to a temporary folder and stays as it is. Of each fault the named test files run first, and where
they pass those of its area. A test that fails is run again without the fault: if it fails then as well it says nothing,
and is left out. What was found is kept in FOLDER (runs/mutants) until sources, tests or the fault change, so that an
interrupted run goes on with the same command. FOLDER/table.md holds the result. Exit status 1: fewer than 90 % caught.
"""

import argparse
import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from catalogue import ROOT, SOURCES, Fault, problems, read_faults

ENOUGH = 0.9
"""Share of the faults that have to be caught."""
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "*_cache", "__pycache__", "runs", "build", "dist")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What became of a fault."""

    caught_by: str | None
    """The first test that fails; None where all pass, or time ran out."""
    seconds: float
    timed_out: bool = False


class Copy:
    """A copy of the checkout in which one fault at a time is seeded."""

    def __init__(self, root: Path, limit: float) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mutants-"))
        self.limit = limit
        self.work = self.folder / "checkout"
        shutil.copytree(root, self.work, ignore=LEFT_OUT)
        if (shared := root.parent / "shared").is_dir():
            (self.folder / "shared").symlink_to(shared.resolve())
        self._clock = time.time()

    def write(self, file: str, text: str) -> None:
        """Change a source file, at a time of its own: byte code is told from newer source by seconds alone."""
        path = self.work / SOURCES / file
        path.write_text(text, encoding="utf-8")
        self._clock += 10
        os.utime(path, (self._clock, self._clock))

    def test(self, what: list[str], deselected: frozenset[str] = frozenset()) -> str | None:
        """Run tests until one fails; gives that one.

        Raises:
            TimeoutError: They did not come to an end in time.
            RuntimeError: pytest could not run them.
        """
        scratch = self.folder / "scratch"
        scratch.mkdir()
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        environment |= {"PYTHONPATH": str(self.work / "src"), "TMPDIR": str(scratch)}
        options = ["-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow"]
        options += [f"--deselect={test}" for test in sorted(deselected)]
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *what],
            cwd=self.work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=self.limit)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise TimeoutError from None
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if process.returncode in (0, 5):
            return None
        for line in output.splitlines():
            if line.startswith(("FAILED ", "ERROR ")):
                return line.partition(" ")[2].partition(" - ")[0].strip()
        raise RuntimeError(f"pytest failed without naming a test:\n{output[-2000:]}")

    def remove(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Runner:
    """Faults, what is known of them, and where that is kept."""

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

    def find(self, fault: Fault, copy: Copy) -> Found:
        """Seed a fault and run its tests."""
        original = (copy.work / SOURCES / fault.file).read_text(encoding="utf-8")
        start = time.monotonic()
        caught_by, timed_out = None, False
        narrow = [f"tests/{name}" for name in fault.tests]
        wide = [f"tests/{name}" for name in fault.wide if name not in fault.tests]
        wide = [name for name in wide if (copy.work / name).is_file()]
        try:
            for files in filter(None, (narrow, wide)):
                if (caught_by := self._caught(fault.apply(original), original, fault, files, copy)) is not None:
                    break
        except TimeoutError:
            timed_out = True
        finally:
            copy.write(fault.file, original)
        found = Found(caught_by=caught_by, seconds=round(time.monotonic() - start, 1), timed_out=timed_out)
        self._keep(fault, found)
        return found

    def _caught(self, changed: str, original: str, fault: Fault, files: list[str], copy: Copy) -> str | None:
        """The first test of some files that fails with the fault and passes without."""
        while True:
            copy.write(fault.file, changed)
            test = copy.test(files, frozenset(self._failing))
            if test is None:
                return None
            copy.write(fault.file, original)
            if copy.test([test]) is None:
                return test
            with self._lock:
                self._failing.add(test)

    def _keep(self, fault: Fault, found: Found) -> None:
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
    results = {fault.name: found for fault in faults if (found := runner.known(fault)) is not None}
    todo = [fault for fault in faults if fault.name not in results]
    print(f"{len(faults)} faults, {len(results)} known already", flush=True)
    copies: queue.Queue[Copy] = queue.Queue()
    made = [Copy(runner.root, limit) for _ in range(min(jobs, len(todo)))]
    for copy in made:
        copies.put(copy)

    def one(fault: Fault) -> None:
        copy = copies.get()
        try:
            results[fault.name] = found = runner.find(fault, copy)
            print(f"{fault.name}: {found.caught_by or 'SURVIVED'} ({found.seconds:g} s)", flush=True)
        finally:
            copies.put(copy)

    try:
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            list(pool.map(one, todo))
    finally:
        for copy in made:
            copy.remove()
    return results


def main() -> int:
    """Run the faults; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="faults, or areas")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time, each in a copy of its own")
    parser.add_argument("--keep", type=Path, default=ROOT / "runs" / "mutants", help="folder of results")
    parser.add_argument("--limit", type=float, default=900, help="seconds that a fault's tests may take")
    arguments = parser.parse_args()
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
