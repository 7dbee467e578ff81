"""What the horizontal flip costs: does a model know the side of a finding?

    python benchmarks/laterality.py ARCHIVE RUN [RUN ...]

ARCHIVE is a phantom archive (`convirt phantom`, or `archive/` of a demo). Each test image with one finding on one side
is compared, in the shared space, with "left FINDING" and "right FINDING"; the higher similarity is the answer, and
chance is 50 %. A horizontal flip in pretraining (section 2.3) shows the same sentence with either side.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import convirt


def one_sided(archive: Path) -> list[tuple[str, str, str, str]]:
    """Image, patient, finding and side of each test image with just one finding, on one side."""
    found = []
    with open(archive / "labels.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            boxes = json.loads(row["boxes"] or "[]")
            sides = {box["side"] for box in boxes}
            if row["split"] == "test" and len(boxes) == 1 and sides <= {"left", "right"}:
                found.append((row["image"], row["patient_id"], boxes[0]["category"], boxes[0]["side"]))
    return found


def main() -> None:
    """Print the accuracy of each run with its 95 % bootstrap interval over patients."""
    archive, runs = Path(sys.argv[1]), sys.argv[2:]
    cases = one_sided(archive)
    images = [Image.open(archive / "images" / name) for name, *_ in cases]
    patients = np.array([patient for _, patient, *_ in cases])
    for run in runs:
        model = convirt.load(run)
        image_ND = model.encode_image(images)
        left_ND, right_ND = (
            model.encode_text([f"{side} {finding}" for *_, finding, _ in cases]) for side in ("left", "right")
        )
        says_left = (image_ND * (left_ND - right_ND)).sum(axis=1) > 0
        right_N = says_left == np.array([side == "left" for *_, side in cases])
        generator = np.random.default_rng(0)
        names = np.unique(patients)
        rows = {name: np.flatnonzero(patients == name) for name in names}
        means = [
            right_N[np.concatenate([rows[name] for name in generator.choice(names, len(names))])].mean()
            for _ in range(1000)
        ]
        low, high = np.percentile(means, [2.5, 97.5])
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        print(f"{run}: side right in {100 * right_N.mean():.1f} % ({interval}) of {len(cases)} images")


if __name__ == "__main__":
    main()
