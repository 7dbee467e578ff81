"""A copy of the checkout, in which one fault at a time is seeded and tests run."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

from catalogue import SOURCES

PRELOADED = ["torch", "torchvision", "transformers", "timm", "sklearn.linear_model", "scipy.stats", "pandas", "pytest"]
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(PRELOADED)  # importing them takes longer than most tests
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "*_cache", "__pycache__", "runs", "build", "dist")


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
        self._process: int | None = None

    def write(self, file: str, text: str) -> None:
        """Change a source file, at a time of its own: byte code is told from newer source by seconds alone."""
        path = self.work / SOURCES / file
        path.write_text(text, encoding="utf-8")
        self._clock += 10
        os.utime(path, (self._clock, self._clock))

    def test(self, what: list[str], deselected: Iterable[str] = (), *, all_of_them: bool = False) -> list[str]:
        """Run tests; gives those that fail, of which there is one at most unless all are asked for.

        Raises:
            TimeoutError: They did not come to an end in time.
            RuntimeError: pytest could not run them.
        """
        scratch = self.folder / "scratch"
        scratch.mkdir()
        options = [
            *([] if all_of_them else ["-x"]),
            "-q",
            "-rfE",
            "--tb=no",
            "-p",
            "no:cacheprovider",
            "-m",
            "not slow",
        ]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that the fork has imported
        options += [f"--deselect={test}" for test in sorted(deselected)]
        output = self.folder / "output.txt"
        process = FORKS.Process(target=_pytest, args=(self.work, scratch, output, [*options, *what]))
        process.start()
        self._process = process.pid
        try:
            process.join(self.limit)
            if process.exitcode is None:
                raise TimeoutError
        finally:
            self.stop()
            process.join()
            shutil.rmtree(scratch, ignore_errors=True)
        if process.exitcode in (0, 5):
            return []
        said = output.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in said.splitlines() if line.startswith(("FAILED tests/", "ERROR tests/"))]
        if not lines:
            raise RuntimeError(f"pytest failed without naming a test:\n{said[-2000:]}")
        return [line.partition(" ")[2].partition(" - ")[0].strip() for line in lines]

    def stop(self) -> None:
        """End the tests that run, with all that they have started."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process, signal.SIGKILL)

    def remove(self) -> None:
        """Leave nothing behind."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _pytest(work: Path, scratch: Path, output: Path, arguments: list[str]) -> None:
    """Run pytest in this process, a fork of one that has imported the large libraries, though nothing of ours."""
    os.setsid()
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= {"PYTHONPATH": str(work / "src"), "TMPDIR": str(scratch)}
    tempfile.tempdir = None
    os.chdir(work)
    sys.path[:0] = [str(work / "src"), str(work)]
    import pytest

    status = int(pytest.main(arguments))
    import convirt

    assert Path(convirt.__file__).is_relative_to(work), "the tests ran other sources"
    sys.stdout.flush()
    os._exit(status)
