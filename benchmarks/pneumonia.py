"""Make a table for `convirt classify` of Kermany's pediatric chest radiographs: patients apart, repeats left out.

    python benchmarks/pneumonia.py --table pediatric_pneumonia/manifest.csv --out pneumonia.csv

The given test part stays. Ids restart between the given parts, so an id means a patient within its part alone. Training
images that look like a test image (the same pixels, or near-duplicates, look-alikes among them) are left out, with
every other image of their patients. A tenth of the remaining training patients is dealt to validation.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from near_duplicates import record
from PIL import Image

from convirt.data.splits import split_by_patient
from convirt.inspection.appearance import measure
from convirt.inspection.near_images import find_near_images


def repeats(paths: list[Path], tested: np.ndarray) -> tuple[set[int], dict[str, int]]:
    """Places of training images that stand in test too, and how many pairs of each kind say so."""
    seen = [measure(record(Image.open(path).convert("L"))) for path in paths]
    groups = np.array([item.pixels for item in seen], np.uint64)
    near = find_near_images(
        np.concatenate([item.coarse for item in seen]),
        groups,
        lambda place: record(Image.open(paths[place]).convert("L")),
    )
    equal = [
        (place, int(other))
        for place in np.flatnonzero(~tested)
        for other in np.flatnonzero(tested & (groups == groups[place]))
    ]
    found, counts = {place for place, _ in equal}, {"the same pixels": len(equal)}
    for kind, pairs in (("near-duplicates", near.pairs_P2), ("look-alikes", near.doubtful_P2)):
        across = 0
        for pair in pairs.tolist():
            # A search names one image of each group with the same pixels.
            sides = [np.flatnonzero(groups == groups[place]) for place in pair]
            for one, other in (sides, sides[::-1]):
                if tested[other].any() and (~tested[one]).any():
                    found.update(int(place) for place in one[~tested[one]])
                    across += 1
        counts[kind] = across
    return found, counts


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    frame = pd.read_csv(arguments.table, dtype=str, keep_default_na=False)
    frame["patient_id"] = frame["split"] + "/" + frame["patient_id"]
    tested = (frame["split"] == "test").to_numpy()
    found, counts = repeats([arguments.table.parent / name for name in frame["image"]], tested)
    print(", ".join(f"{count} pairs of {kind}" for kind, count in counts.items()), "between training and test")
    gone = frame["patient_id"].isin(frame["patient_id"].iloc[sorted(found)])
    print(f"{len(found)} training images look like a test image; {gone.sum()} of their patients are left out")
    frame = frame[~gone].copy()
    training = frame["split"] == "train"
    dealt = split_by_patient(frame.loc[training, "patient_id"], seed=arguments.seed, val_share=0.1, test_share=0.0)
    frame.loc[training, "split"] = frame.loc[training, "patient_id"].map(dealt)
    new = arguments.out.with_name(arguments.out.name + ".new")
    frame.to_csv(new, index=False)
    new.replace(arguments.out)
    sizes = frame.groupby("split").agg(images=("image", "size"), patients=("patient_id", "nunique"))
    print(sizes.to_string())


if __name__ == "__main__":
    main()
