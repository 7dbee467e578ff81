"""How fast images of radiographic size are prepared, and how much memory that takes.

    python benchmarks/preparing.py speed --scratch FOLDER [--files 5000] [--image-size 256] [--source-size 2500]
    python benchmarks/preparing.py memory --scratch FOLDER [--counts 1000 20000]

Generates JPEGs of 2048 x 2500 pixels (smooth shapes, edges and film noise: about 0.9 MB each) and a table into FOLDER,
where they are kept, and prepares them by `prepare archive`. `speed` compares one process with two, and scaled
decoding with decoding in full; `memory` gives the peaks of the command itself and of it with its workers for growing
archives (their files are links to a few hundred distinct ones). Run it on a quiet machine.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 2500, 2048
QUALITY = 90
DISTINCT = 400  # images of the memory study, and of sources of another size, that are no links


@cache
def noise() -> np.ndarray:
    """The noise of a detector, int16, in rows and columns enough to be cut from at many places."""
    return np.rint(np.random.default_rng(0).normal(0, 3.5, (HEIGHT + 257, WIDTH + 257))).astype(np.int16)


def draw(number: int) -> Image.Image:
    """A picture that compresses like a radiograph: soft tissue, bones' edges, and noise."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[: HEIGHT // 4, : WIDTH // 4].astype(np.float32) * 4
    values = 110 + 60 * np.cos((x / WIDTH - 0.5) * 5 + rng.normal(0, 0.2)) * np.sin(y / HEIGHT * 3)
    for _ in range(24):
        top, left, high, wide = rng.uniform((0, 0, 60, 60), (HEIGHT, WIDTH, 700, 500))
        values += np.float32(rng.normal(0, 22)) * (np.hypot((y - top) / high, (x - left) / wide) < 1)
    soft = Image.fromarray(values.clip(0, 255).astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    top, left = rng.integers(0, 257, 2)
    grain = noise()[top : top + HEIGHT, left : left + WIDTH]
    return Image.fromarray((np.asarray(soft, dtype=np.int16) + grain).clip(0, 255).astype(np.uint8))


def make_archive(folder: Path, files: int, distinct: int, source_size: int = HEIGHT) -> Path:
    """Write images and their table; return the table."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        path = images / f"{number:06d}.jpg"
        if path.exists():
            continue
        if number < distinct:
            picture = draw(number)
            picture.thumbnail((source_size, source_size), Image.Resampling.BOX)
            picture.save(path, "JPEG", quality=QUALITY)
        else:
            os.link(images / f"{number % distinct:06d}.jpg", path)
    table = folder / f"table-{files}.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "report", "patient"))
        for number in range(files):
            report = f"FINDINGS: Heart size is normal. No effusion. IMPRESSION: Normal chest, image {number}."
            writer.writerow((f"{number:06d}.jpg", report, f"p{number:06d}"))
    return table


def prepare(folder: Path, table: Path, out: Path, *, workers: int, image_size: int) -> dict[str, float]:
    """Prepare in a process of its own; return seconds and peaks of memory, MB."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "once", str(folder), str(table), str(out), str(workers), str(image_size)]
    start = time.perf_counter()
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 1), **json.loads(run.stdout.splitlines()[-1])}


def once(folder: str, table: str, out: str, workers: str, image_size: str) -> None:
    """What `prepare` runs."""
    from convirt.data.preparing.archive import prepare_archive
    from convirt.data.preparing.options import Options

    watch = Watch()
    watch.start()
    prepare_archive(
        Path(folder) / "images",
        Path(table),
        "image",
        "report",
        "patient",
        Path(out),
        options=Options(workers=int(workers), image_size=int(image_size)),
    )
    watch.stop()
    print(json.dumps({"peak_parent_mb": round(watch.parent), "peak_all_mb": round(watch.all)}))


class Watch(threading.Thread):
    """Samples the memory of this process (its own, without mapped files) and of it with all its workers (Pss)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.parent = self.all = 0.0
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.25):
            self.sample()

    def sample(self) -> None:
        """Take one sample. A worker that ends in the middle of it is left out."""
        ours = [os.getpid()]
        for process in ours:
            for task in Path(f"/proc/{process}/task").glob("*/children"):
                with suppress(OSError):
                    ours += map(int, task.read_text().split())
        total = 0.0
        for process in ours:
            with suppress(OSError):
                total += field(f"/proc/{process}/smaps_rollup", "Pss:")
        self.all = max(self.all, total)
        self.parent = max(self.parent, field("/proc/self/status", "RssAnon:"))

    def stop(self) -> None:
        """Take the last sample."""
        self._stopped.set()
        self.join()
        self.sample()


def field(path: str, name: str) -> float:
    """A line of a file of the kernel, MB."""
    return next(int(line.split()[1]) / 1024 for line in Path(path).read_text().splitlines() if line.startswith(name))


def full_decode(paths: list[Path], image_size: int) -> tuple[float, list[np.ndarray]]:
    """Decode in full and resize, one image after the other in one process: what scaled decoding is compared with."""
    from convirt.data.imaging.prepared import encode, read_pixels, resize

    pixels = []
    start = time.perf_counter()
    for path in paths:
        pixels.append(resize(read_pixels(path.read_bytes(), suffix=".jpg").values_HW, image_size))
        encode(pixels[-1])
    return time.perf_counter() - start, pixels


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 images, dB."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def speed(scratch: Path, files: int, image_size: int, sample: int, source_size: int) -> dict[str, object]:
    """One process, two, and decoding in full."""
    from convirt.data.corpora import Corpus, decode

    table = make_archive(scratch, files, files if source_size == HEIGHT else DISTINCT, source_size)
    runs = {
        workers: prepare(scratch, table, scratch / f"corpus-{workers}", workers=workers, image_size=image_size)
        for workers in (1, 2)
    }
    corpora = [Corpus.open(scratch / f"corpus-{workers}") for workers in runs]
    paths = [scratch / "images" / f"{number:06d}.jpg" for number in range(min(sample, files))]
    seconds, pixels = full_decode(paths, image_size)
    quality = [
        psnr(decode(corpora[0].pair(index).images[0]).squeeze(0).numpy(), full) for index, full in enumerate(pixels)
    ]
    rates = {workers: files / run["seconds"] for workers, run in runs.items()}
    return {
        "files": files,
        "image_size": image_size,
        "source_size": source_size,
        "megabytes_a_file": round(sum(path.stat().st_size for path in paths) / len(paths) / 1e6, 3),
        "runs": {f"{workers} workers": run for workers, run in runs.items()},
        "images_a_second": {str(workers): round(rate, 2) for workers, rate in rates.items()},
        "two_over_one": round(rates[2] / rates[1], 2),
        "same_pixels": len({corpus.fingerprint for corpus in corpora}) == 1,
        "full_decode_images_a_second": round(len(paths) / seconds, 2),
        "one_over_full_decode": round(rates[1] * seconds / len(paths), 2),
        "two_over_full_decode": round(rates[2] * seconds / len(paths), 2),
        "psnr_db": {"least": round(min(quality), 1), "mean": round(float(np.mean(quality)), 1)},
    }


def memory(scratch: Path, counts: list[int], image_size: int) -> dict[str, object]:
    """Peaks of memory for archives of several sizes."""
    peaks = {}
    for count in counts:
        table = make_archive(scratch, count, min(DISTINCT, min(counts)))
        out = scratch / "corpus-memory"
        peaks[str(count)] = prepare(scratch, table, out, workers=2, image_size=image_size)
    return {"memory": peaks}


def main() -> None:
    """Parse arguments and print one line of JSON."""
    if sys.argv[1:2] == ["once"]:
        once(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("speed", "memory"))
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--sample", type=int, default=200, help="images of the full decode and of PSNR")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 20000])
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--source-size", type=int, default=HEIGHT, help="larger side of the sources; a scratch each")
    arguments = parser.parse_args()
    scratch = arguments.scratch / arguments.study
    if arguments.study == "speed":
        print(
            json.dumps(speed(scratch, arguments.files, arguments.image_size, arguments.sample, arguments.source_size))
        )
    else:
        print(json.dumps(memory(scratch, arguments.counts, arguments.image_size)))


if __name__ == "__main__":
    main()
