"""Two thousand hostile files: nothing crashes, nothing hangs, memory stays bounded, each file is refused or read.

`make slow`, or `pytest -m slow tests/test_fuzz.py`, runs twenty thousand others.
"""

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from convirt.data.corpora import Corpus
from convirt.data.imaging import sandbox
from convirt.data.imaging.pixels import Unreadable
from convirt.data.imaging.prepared import prepare_image
from convirt.data.preparing.archive import prepare_archive
from convirt.data.preparing.options import Options
from convirt.data.sources.open_i import read_report
from convirt.errors import InputError
from hostile_files import MUTATIONS, good_files, hostile_file

SECONDS = 10
ADDRESS_SPACE = 4 * 2**30
RESIDENT = 2 * 2**30


def run(numbers: range, folder: Path) -> Counter[str]:
    """Prepare hostile files; return how often each reason came up, and how often none did."""
    good = good_files()
    met: Counter[str] = Counter()
    killers: list[str] = []
    slowest = 0.0
    with sandbox.sandboxed(seconds=SECONDS, memory=ADDRESS_SPACE):
        for name, data in (("good" + name, data) for name, data in good.items()):
            (folder / name).write_bytes(data)
            if name not in ("goodcolour.dcm", "goodframes.dcm"):
                prepare_image(folder / name, source=name, image_size=64)
        for number in numbers:
            name, data = hostile_file(number, good)
            path = folder / name
            path.write_bytes(data)
            started = time.monotonic()
            try:
                record, _ = prepare_image(path, source=name, image_size=64)
                assert max(record.height, record.width) == 64
                json.loads(record.recipe)
                met["read"] += 1
            except Unreadable as problem:
                met[problem.reason] += 1
                if problem.reason == sandbox.REASON:
                    killers.append(f"{name}: {problem.detail}")
            slowest = max(slowest, time.monotonic() - started)
            path.unlink()
        # getrusage would count what the parent held when it started the child.
        status = sandbox.call(Path.read_text, Path("/proc/self/status"))
    assert not killers
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak * 1024 < RESIDENT
    print(f"slowest {slowest:.2f} s", dict(met))
    return met


def test_two_thousand_hostile_images(tmp_path: Path) -> None:
    met = run(range(2000), tmp_path)
    assert sum(met.values()) == 2000
    assert len(met) > 8
    assert 100 < met["read"] < 1000


@pytest.mark.slow
def test_twenty_thousand_hostile_images(tmp_path: Path) -> None:
    assert sum(run(range(2000, 22000), tmp_path).values()) == 20_000


def archive(folder: Path, outside: Path) -> tuple[list[str], set[str]]:
    """A folder of hostile and good images; return paths for a table, and those that can be used."""
    folder.mkdir()
    good = good_files()
    for number in range(60):
        name, data = hostile_file(number, good)
        (folder / name).write_bytes(data)
    (folder / "good.png").write_bytes(good["a.png"])
    outside.mkdir()
    (outside / "secret.png").write_bytes(good["a.png"])
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "out").symlink_to(outside)
    (folder / "loop").symlink_to(folder / "loop")
    paths = [path.name for path in sorted(folder.iterdir()) if path.is_file()]
    hostile = ["../../etc/passwd", "/etc/passwd", "../outside/secret.png", "link.png", "out/secret.png", "loop"]
    hostile += [
        "good.png\0",
        "a" * 5000,
        ".",
        "..",
        "",
        "good.png/",
        "C:\\good.png",
        "//good.png",
        "~/x",
        "out/../good.png",
    ]
    return [*paths, *hostile], {"good.png"}


def test_hostile_paths_and_images_in_an_archive(tmp_path: Path) -> None:
    paths, _ = archive(tmp_path / "images", tmp_path / "outside")
    rows = [(path, "The heart is normal in size.", f"p{number}") for number, path in enumerate(paths)]
    table = tmp_path / "table.csv"
    pd.DataFrame(rows, columns=["image", "report", "patient"]).to_csv(table, index=False, escapechar="\\")
    out = prepare_archive(
        tmp_path / "images", table, "image", "report", "patient", tmp_path / "out", options=Options(max_failures=1)
    )
    corpus = Corpus.open(out)
    audit = json.loads((out / "audit.json").read_text())
    dropped = {row["row"] for reason in audit["dropped"].values() for row in reason["rows"]}
    assert audit["rows"]["total"] == len(dropped) + len(corpus)
    used = {image.source for index in range(len(corpus)) for image in corpus.pair(index).images}
    assert "good.png" in used
    assert not any("secret" in source or "passwd" in source or ".." in source for source in used)
    reasons = audit["dropped"]["path that leads out of the image folder"]
    assert {row.get("image", "") for row in reasons["rows"]} >= {"link.png", "out/secret.png", "../outside/secret.png"}


def test_mutated_tables(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(good_files()["a.png"])
    rows = "".join(f'a.png,"No effusion, ""no"" edema {n}.",p{n}\n' for n in range(30))
    text = f"image,report,patient\n{rows}".encode()
    ends: Counter[str] = Counter()
    lines: list[str] = []
    for number in range(24):
        rng = np.random.default_rng([number, 21])
        table = tmp_path / f"{number}.csv"
        table.write_bytes(MUTATIONS[number % 8](text, rng))
        out = tmp_path / f"out{number}"
        try:
            prepare_archive(
                tmp_path / "images", table, "image", "report", "patient", out, options=Options(max_failures=1)
            )
            audit = json.loads((out / "audit.json").read_text())["rows"]
            assert audit["total"] == audit["kept"] + audit["repaired"] + audit["dropped"]
            ends["prepared"] += 1
        except InputError as error:
            ends["refused"] += 1
            lines.append(str(error))
    assert not any("\n" in line for line in lines)
    assert len(list(tmp_path.glob("out*"))) == ends["prepared"]
    assert min(ends["prepared"], ends["refused"]) > 2


XML = b"""<?xml version="1.0"?><eCitation><uId id="CXR7"/><MedlineCitation><Article><Abstract>
<AbstractText Label="FINDINGS">The heart is normal. No effusion.</AbstractText>
<AbstractText Label="IMPRESSION">Normal chest.</AbstractText></Abstract></Article></MedlineCitation>
<parentImage id="CXR7_IM-0001"><panel/></parentImage></eCitation>"""


def test_mutated_xml() -> None:
    bombs = [
        b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>' + b"<a>&c;</a>",
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><eCitation><uId id="&x;"/></eCitation>',
        b"<a>" * 100_000,
        b"",
        b"\xff\xfe" + XML,
    ]
    ends: Counter[str] = Counter()
    for number in range(300):
        rng = np.random.default_rng([number, 22])
        data = bombs[number] if number < len(bombs) else MUTATIONS[number % 8](XML, rng)
        try:
            report = read_report(data)
            assert "root:" not in repr(report)
            ends["read"] += 1
        except ValueError as error:  # the one exception that it names
            ends[type(error).__name__] += 1
    assert min(ends["read"], ends["ValueError"]) > 5
