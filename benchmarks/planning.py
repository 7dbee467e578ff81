"""Time and memory of planning a public data set at its true size, on a generated tree of links to one image.

    python benchmarks/planning.py mimic-cxr --scratch /some/disk
    python benchmarks/planning.py chexpert-plus --scratch /some/disk

The tree (227,835 studies of MIMIC-CXR with 410,103 images; 223,461 images of CheXpert Plus) stays in the scratch folder
for a second run. Planning is everything before the first image is opened.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from functools import partial
from pathlib import Path

from convirt.data.preparing.audit import Audit
from convirt.data.preparing.options import Options
from convirt.data.sources import chexpert_plus, mimic_cxr
from convirt.data.sources.mimic_cxr import official_splits
from convirt.data.sources.studies import hold_out_pairs, read_study

STUDIES, PATIENTS = 227_835, 74_487
REPEAT = "There is no focal consolidation, effusion or pneumothorax in this view of the chest. " * 8


def grow(name: str, root: Path) -> None:
    """Write the tables and reports of a tree, and links to one image, in a process whose memory is not ours."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import trees

    def lengthen(row: list[object]) -> None:
        # Texts are about as long as they are in CheXpert Plus.
        for column in ("report", "section_findings", "section_narrative"):
            row[trees.CHEXPERT_PLUS.index(column)] = f"{row[trees.CHEXPERT_PLUS.index(column)]} {REPEAT}"

    model = root.parent / "model.jpg"
    root.mkdir(parents=True)
    trees.write_jpg(model, 0)
    if name == "mimic-cxr":
        trees.make_mimic_cxr(
            root, STUDIES, write=trees.link_one(model), report=lambda s: trees.mimic_report(s) + REPEAT
        )
    else:
        trees.make_chexpert_plus(root, PATIENTS, suffix=".jpg", write=trees.link_one(model), change=lengthen)
    (root / "complete").touch()


def peak() -> str:
    """Largest memory that this process has held."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB at most"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("mimic-cxr", "chexpert-plus"))
    parser.add_argument("--scratch", type=Path, required=True)
    given = parser.parse_args()
    root = given.scratch / given.name
    if not (root / "complete").exists():
        grower = multiprocessing.get_context("spawn").Process(target=grow, args=(given.name, root))
        grower.start()
        grower.join()
    print(f"imported: {peak()}")
    start, busy = time.perf_counter(), time.process_time()
    audit = Audit(table="", total=0)
    if given.name == "mimic-cxr":
        texts = mimic_cxr.find_reports(root, None)
        table = mimic_cxr.image_table(root)
        plans, listed = mimic_cxr.plan_mimic_cxr(root, table, texts, audit, splits=official_splits(root))
    else:
        table = chexpert_plus.report_table(root, None, (), ())
        texts = chexpert_plus.TableReports.of(table)
        plans, listed = chexpert_plus.plan_chexpert_plus(root, table, audit)
    size = table.path.stat().st_size / 2**20
    print(
        f"planned {len(plans)} pairs of {listed['listed_images']:.0f} images from {table.name} ({size:.0f} MiB): ",
        end="",
    )
    print(f"{time.perf_counter() - start:.1f} s ({time.process_time() - busy:.1f} s of a processor), {peak()}")
    start, busy = time.perf_counter(), time.process_time()
    hold_out_pairs(plans, 5000, partial(read_study, root, texts, Options()), Options())
    print(f"held out 5,000 random pairs, their texts read: {time.perf_counter() - start:.1f} s ", end="")
    print(f"({time.process_time() - busy:.1f} s of a processor), {peak()}")


if __name__ == "__main__":
    main()
