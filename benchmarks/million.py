"""Open a corpus of a million pairs and read the first batch of an epoch.

    python benchmarks/million.py --scratch FOLDER [--pairs 1000000] [--batch 32]

Writes a corpus with tiny images into FOLDER (about 3 GB; kept, so that a second call only measures), then opens it in
a fresh process and prints seconds (by the clock, and of the processor) and the memory that is resident at the end.
"""

import argparse
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from convirt.data.preparing.prepare import PAIRS_PER_SHARD
from convirt.data.shards import SCHEMA, Fingerprint, shard_name, write_about, write_catalogue

SIZE, IMAGES, ROWS_PER_BATCH = 16, 256, 64


def draw_images() -> list[dict[str, object]]:
    """Some tiny images, as the rows of a corpus hold them."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(IMAGES):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)).save(buffer, "PNG")
        named = {"view": "PA", "source": f"files/{number:06d}.jpg", "recipe": json.dumps({"format": "JPEG", "bits": 8})}
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        images.append({"encoded": buffer.getvalue(), "height": SIZE, "width": SIZE, "sha256": digest, **named})
    return images


def write(out: Path, pairs: int) -> None:
    """Write the corpus as `prepare` does: the same schema, rows a batch and pairs a shard."""
    out.mkdir(parents=True)
    images = draw_images()
    sentences = ["No pleural effusion.", "The heart is normal in size.", "No pneumothorax is seen."]
    counts = {"pairs": pairs, "images": pairs, "sentences": 3 * pairs, "patients": (pairs + 2) // 3}
    names = [shard_name(number) for number in range(-(-pairs // PAIRS_PER_SHARD))]
    for number, name in enumerate(names):
        numbers = range(number * PAIRS_PER_SHARD, min(pairs, (number + 1) * PAIRS_PER_SHARD))
        with pa.OSFile(str(out / name), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as stream:
            for start in range(0, len(numbers), ROWS_PER_BATCH):
                rows = numbers[start : start + ROWS_PER_BATCH]
                columns = {
                    "pair_id": [f"{pair:016x}" for pair in rows],
                    "patient_id": [hashlib.sha256(str(pair // 3).encode()).hexdigest()[:16] for pair in rows],
                    "split": ["val" if pair // 3 % 100 == 0 else "train" for pair in rows],
                    "text": [f"{' '.join(sentences)} Image {pair}." for pair in rows],
                    "sentences": [sentences] * len(rows),
                    "attributes": [[]] * len(rows),
                    "images": [[images[pair % IMAGES]] for pair in rows],
                }
                stream.write_batch(pa.RecordBatch.from_pydict(columns, schema=SCHEMA))
    fingerprint = Fingerprint(SIZE).hexdigest()
    write_catalogue(out, names)
    write_about(out, shards=names, image_size=SIZE, fingerprint=fingerprint, counts=counts, settings={})


def measure(path: Path, batch: int) -> dict[str, float]:
    """Open the corpus and read the first batch, in this process; imports are not counted."""
    from convirt.data.corpora import Corpus
    from convirt.data.loading.loader import TrainingBatches

    def since(start: tuple[float, float]) -> tuple[float, float]:
        return time.perf_counter() - start[0], time.process_time() - start[1]

    begun = resident()
    start = time.perf_counter(), time.process_time()
    corpus = Corpus.open(path)
    opened = since(start)
    start = time.perf_counter(), time.process_time()
    batches = TrainingBatches(corpus, batch, 0)
    assert len(batches[0]) == batch
    read = since(start)
    return {
        "pairs": len(corpus),
        "open_s": round(opened[0], 2),
        "open_cpu_s": round(opened[1], 2),
        "first_batch_s": round(read[0], 2),
        "first_batch_cpu_s": round(read[1], 2),
        "resident_before_mb": round(begun),
        "resident_after_mb": round(resident()),
        "resident_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def resident() -> float:
    """Memory of this process that is resident now, MB, mapped pages of the corpus included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Parse arguments, write if need be, and measure in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--measure", action="store_true", help="only measure, in this process")
    arguments = parser.parse_args()
    path = arguments.scratch / f"corpus-{arguments.pairs}"
    if arguments.measure:
        print(json.dumps(measure(path, arguments.batch)))
        return
    if not (path / "corpus.json").exists():
        write(path, arguments.pairs)
    command = [sys.executable, __file__, *sys.argv[1:], "--measure"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
