"""Work that a kill cannot lose: the hidden folder beside a corpus in which its shards wait until all are there.

    .NAME.preparing/
        stamp.json          what is being made; the same command makes the same stamp
        corpus/             data-00000.arrow ...: becomes the corpus by one rename
        pieces/             00000.json ...: what else each finished shard has to say; renamed into place last

Whatever else is found there was left behind by a process that was killed, and is of no use.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convirt.atomic import check_free, check_writable, write_json
from convirt.data.shards import shard_name
from convirt.errors import InputError
from convirt.jobs import STAMP, difference, hold, read_json


def work_folder(out: Path) -> Path:
    """Where the unfinished corpus that will be `out` is kept."""
    return out.parent / f".{out.name}.preparing"


def check_out(out: Path) -> None:
    """Refuse a taken `out` early, before a large table is read; unfinished work of the same name is no hindrance.

    Raises:
        InputError: `out` is neither missing nor an empty folder.
    """
    check_writable(out)
    if not work_folder(out).is_dir():
        check_free(out)


class Unfinished:
    """The work folder of one corpus, held by one process.

    Attributes:
        out: The corpus to be.
        folder: The work folder.
        corpus: The folder in it that becomes the corpus.
        complete: Whether the corpus had its name already when an earlier command was killed.
    """

    def __init__(self, out: Path, folder: Path, *, complete: bool) -> None:
        self.folder = folder
        self.corpus = folder / "corpus"
        self.complete = complete
        self._pieces = folder / "pieces"
        self.out = out

    @classmethod
    @contextmanager
    def claim(cls, out: Path, stamp: Mapping[str, Any]) -> Iterator["Unfinished"]:
        """Take up the work on `out`, or begin it. What is finished stays when the block fails.

        Args:
            out: The corpus to be.
            stamp: What is being made, nested JSON values.

        Raises:
            InputError: `out` is taken, another command is at work on it, or what is there was begun otherwise.
        """
        folder = work_folder(out)
        if not folder.is_dir():
            check_free(out)
            folder.mkdir(parents=True, exist_ok=True)
        with hold(out):
            found = read_json(folder / STAMP)
            if found is None:
                check_free(out)
                _empty(folder)
                write_json(folder / STAMP, stamp)
            elif different := _first_difference(found, json.loads(json.dumps(stamp))):
                raise InputError(
                    f"{folder} holds the unfinished work of another command ({different}); give the same command to "
                    "finish it, remove that folder to start afresh, or choose another --out"
                )
            complete = not (folder / "corpus").exists() and (out / "corpus.json").is_file() and found is not None
            unfinished = cls(out, folder, complete=complete)
            if not complete:
                check_free(out)
                unfinished.corpus.mkdir(exist_ok=True)
                unfinished._pieces.mkdir(exist_ok=True)
                unfinished.sweep()
            try:
                yield unfinished
            except BaseException as error:
                done = len(unfinished.finished())
                if not done:
                    unfinished.remove()
                elif isinstance(error, KeyboardInterrupt):
                    print(f"{done} finished shards are kept in {folder}: the same command goes on", file=sys.stderr)
                raise

    def piece(self, number: int) -> Path:
        """Where a finished shard's piece lies."""
        return self._pieces / f"{number:05d}.json"

    def finished(self) -> list[int]:
        """Return the numbers of the finished shards, ascending."""
        if not self._pieces.is_dir():
            return []
        return sorted(int(path.stem) for path in self._pieces.iterdir() if path.suffix == ".json")

    def read_piece(self, number: int) -> dict[str, Any]:
        """Read what a finished shard has to say.

        Raises:
            InputError: It is not there, because another machine wrote it elsewhere.
        """
        try:
            return json.loads(self.piece(number).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(
                f"shard {number} was written, but is not in {self.folder}: the folders of --out and of the images must "
                "lie on storage that every machine of the cluster shares"
            ) from error

    def discard(self, number: int) -> None:
        """Have a shard made again."""
        self.piece(number).unlink()
        (self.corpus / shard_name(number)).unlink(missing_ok=True)

    def publish(self) -> None:
        """Give the corpus its name and remove what is left. A kill in between is taken up by `claim`."""
        check_free(self.out)
        os.replace(self.corpus, self.out)
        self.remove()

    def remove(self) -> None:
        """Remove the work folder; its stamp goes last."""
        for name in ("corpus", "pieces"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove shards without their piece, pieces whose shard has not its size, and parts of either."""
        for number in self.finished():
            piece = self.read_piece(number)
            shard = self.corpus / shard_name(number)
            if (shard.stat().st_size if shard.exists() else 0) != piece["bytes"]:
                self.discard(number)
        shards = {shard_name(number) for number in self.finished()}
        for path in self.corpus.iterdir():
            if path.name not in shards:
                path.unlink()
        for path in self._pieces.iterdir():
            if path.suffix != ".json":
                path.unlink()


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the first difference of two stamps, in the words of the options; empty if there is none."""
    said = difference(before, now).removeprefix("made.")
    if said.startswith(("plans ", "pairs ")):
        return "other rows, texts, images or splits"
    if said.startswith("form "):
        return "begun by another version of convirt"
    return "another salt of the ids" if said.startswith("salt ") else said
