"""Planned pairs whose images are drawn, not read, so that preparing is quick; also a command that can be killed."""

import hashlib
import io
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convirt.data.imaging.pixels import Unreadable
from convirt.data.preparing import prepare as preparing
from convirt.data.preparing.audit import Audit
from convirt.data.preparing.options import Options
from convirt.data.preparing.pairs import PairContent, PairPlan, Row, make_content
from convirt.data.records import ImageRecord

SIZE = 16
BAD = 7
"""Every so many rows an image cannot be read."""


def make_plans(count: int, *, bad: bool = True) -> list[PairPlan]:
    """Plans of `count` pairs with one or two images; some texts are too short, some images cannot be read."""
    plans = []
    number = 0
    for pair in range(count):
        rows = []
        for _ in range(1 + pair % 2):
            number += 1
            image = f"bad{number}.png" if bad and number % BAD == 0 else f"{number}.png"
            rows.append(
                Row(
                    number=number,
                    image=image,
                    source=image,
                    text="",
                    patient=f"p{pair // 3}",
                    study=f"s{pair}",
                    split="",
                    view="",
                    attributes={},
                )
            )
        text = "Normal" if bad and pair % 11 == 0 else f"FINDINGS: Image {pair} is normal. No effusion."
        split = ("train", "val", "test")[pair // 3 % 3]
        plans.append(
            PairPlan(
                pair_id=f"s{pair}", patient=f"p{pair // 3}", split=split, rows=tuple(rows), text=text, attributes={}
            )
        )
    return plans


def load(row: Row) -> tuple[ImageRecord, tuple[str, ...]]:
    """Draw the image of a row."""
    if row.source.startswith("bad"):
        raise Unreadable("truncated or damaged image", row.source)
    pixels = np.random.default_rng(row.number).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    record = ImageRecord(encoded=buffer.getvalue(), height=SIZE, width=SIZE, source=row.source, sha256=digest)
    return record, ("colour made grey",) if row.number % 5 == 0 else ()


def read(plan: PairPlan, *, seconds: float = 0.0, log: Path | None = None) -> PairContent:
    """Read a pair, slowly if asked to; what was read is noted in the folder `log`."""
    time.sleep(seconds)
    if log is not None:
        with (log / str(os.getpid())).open("a") as file:
            file.write(f"{plan.pair_id}\n")
    return make_content(plan, plan.text, load, Options(image_size=SIZE))


def kill(plan: PairPlan, *, once: Path | None = None) -> PairContent:
    """Read a pair; the process dies of one of them, if `once` is a path only as long as it does not exist."""
    if plan.pair_id == "s20" and not (once and once.exists()):
        if once:
            once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return read(plan)


def prepare(plans: list[PairPlan], out: Path, *, reads: Any = read, **options: Any) -> Path:
    """Prepare plans as a verb does."""
    return preparing.prepare_corpus(
        plans,
        reads,
        out,
        options=Options(**{"image_size": SIZE, "max_failures": 0.5, **options}),
        settings={"source": "drawn"},
        audit=Audit(table="drawn", total=sum(len(plan.rows) for plan in plans)),
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a corpus."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def main(out: str, count: str, workers: str, seconds: str) -> None:
    """A command to be killed: small shards, so that there are many."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started without it
    preparing.PAIRS_PER_SHARD = 10
    preparing._WORTH_WORKERS = 1
    prepare(make_plans(int(count)), Path(out), reads=partial(read, seconds=float(seconds)), workers=int(workers))


if __name__ == "__main__":
    main(*sys.argv[1:])
