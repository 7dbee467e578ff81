"""How many altered copies of real images are found, and what is taken for a copy that is none.

    python benchmarks/near_duplicates.py --table ../shared/data/pediatric_pneumonia/manifest.csv
    python benchmarks/near_duplicates.py --table ../shared/data/medpix2/manifest.csv --patient-column case_id

Every image of the table is searched for near-duplicates, together with copies of some of them that are altered in one
way each. Copies found are recall; every other pair is counted by whether it is of one patient, and the pairs of two
patients are drawn into SHEET, to be looked at. Beside it stands what a perceptual hash made for photographs (64 bits of
a discrete cosine transform, at most 4 of them different) says of the same images.
"""

import argparse
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from scipy import fft

from convirt.data.records import ImageRecord
from convirt.inspection.appearance import Appearance, measure
from convirt.inspection.near_images import NearImages, find_near_images

Picture = Image.Image


def jpeg(image: Picture, quality: int) -> Picture:
    """A lossy round trip."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("L")


def crop(image: Picture, share: float) -> Picture:
    """Cut a share off every side."""
    left, top = round(image.width * share), round(image.height * share)
    return image.crop((left, top, image.width - left, image.height - top))


def pad(image: Picture) -> Picture:
    """Put the image on a black square."""
    side = max(image.size)
    square = Image.new("L", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def tone(change: Callable[[float], float]) -> Callable[[Picture], Picture]:
    """Change greys in [0, 1]."""
    table = [round(255 * min(1.0, max(0.0, change(grey / 255)))) for grey in range(256)]
    return lambda image: image.point(table)


ALTERED: dict[str, Callable[[Picture], Picture]] = {
    "JPEG, quality 30": lambda image: jpeg(image, 30),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR),
    "gamma 1.6": tone(lambda grey: grey**1.6),
    "gamma 0.6": tone(lambda grey: grey**0.6),
    "window 0.2 to 0.85": tone(lambda grey: (grey - 0.2) / 0.65),
    "histogram equalised": ImageOps.equalize,
    "padded to a square": pad,
    "squashed to a square": lambda image: image.resize((256, 256), Image.Resampling.BILINEAR),
    "turned by 1 degree": lambda image: image.rotate(1, Image.Resampling.BILINEAR),
    "cropped by 1 %": lambda image: crop(image, 0.01),
    "cropped by 2 %": lambda image: crop(image, 0.02),
    "cropped by 5 %": lambda image: crop(image, 0.05),
    "mirrored": ImageOps.mirror,
    "inverted": ImageOps.invert,
}


def record(image: Picture) -> ImageRecord:
    """An image as the search takes it; BMP is quick."""
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    return ImageRecord(encoded=buffer.getvalue(), height=image.height, width=image.width)


def photograph_hash(image: Picture) -> int:
    """The usual 64-bit perceptual hash: signs of the lowest frequencies about their median."""
    values = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS), float)
    low = fft.dctn(values)[:8, :8].ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


def search(images: list[Callable[[], Picture]], seen: list[Appearance]) -> NearImages:
    """Near-duplicates among images that have been measured."""
    groups = np.array([item.pixels for item in seen], np.uint64)
    return find_near_images(
        np.concatenate([item.coarse for item in seen]), groups, lambda place: record(images[place]())
    )


def draw(pairs: list[tuple[int, int]], images: list[Callable[[], Picture]], sheet: Path) -> None:
    """Draw pairs beside each other, four pairs a line."""
    page = Image.new("L", (4 * 340, max(1, -(-len(pairs) // 4)) * 170))
    for number, pair in enumerate(pairs):
        for side, place in enumerate(pair):
            corner = (number % 4 * 340 + side * 162, number // 4 * 170)
            page.paste(images[place]().resize((160, 160)), corner)
    page.save(sheet)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--image-column", default="image")
    parser.add_argument("--patient-column", default="patient_id")
    parser.add_argument("--copies", type=int, default=100, help="images that are copied in each way")
    parser.add_argument("--sheet", type=Path, default=Path("near-duplicates.png"))
    arguments = parser.parse_args()
    frame = pd.read_csv(arguments.table, keep_default_na=False).drop_duplicates(arguments.image_column)
    paths = [arguments.table.parent / name for name in frame[arguments.image_column]]
    patients = frame[arguments.patient_column].to_list()
    ranked = sorted(range(len(paths)), key=lambda place: hashlib.sha256(str(paths[place].name).encode()).digest())
    chosen = ranked[: arguments.copies]

    images: list[Callable[[], Picture]] = [lambda path=path: Image.open(path).convert("L") for path in paths]  # type: ignore[misc]
    seen = [measure(record(image())) for image in images]
    groups = np.array([item.pixels for item in seen], np.uint64)
    near = search(images, seen)
    pairs = [(int(a), int(b)) for a, b in near.pairs_P2]
    other = [pair for pair in pairs if patients[pair[0]] != patients[pair[1]]]
    print(f"{len(paths)} images, {len(paths) - len(np.unique(groups))} with the pixels of an earlier one")
    print(
        f"near-duplicates: {len(pairs) - len(other)} pairs of one patient, {len(other)} of two (see {arguments.sheet})"
    )
    draw(other[:40], images, arguments.sheet)
    hashes = np.array([photograph_hash(image()) for image in images], np.uint64)
    close = 0
    for place in range(len(hashes)):
        differing = np.bitwise_count(hashes[place + 1 :] ^ hashes[place])
        later = np.flatnonzero((differing <= 4) & (groups[place + 1 :] != groups[place])) + place + 1
        close += sum(patients[place] != patients[index] for index in later)
    print(f"a photographs' perceptual hash takes {close} pairs of two patients for near-duplicates")

    for name, alter in ALTERED.items():
        copies = [lambda place=place: alter(images[place]()) for place in chosen]  # type: ignore[misc]  # noqa: B023
        altered = [measure(record(copy())) for copy in copies]
        found = {tuple(pair) for pair in search([*images, *copies], [*seen, *altered]).pairs_P2.tolist()}
        same = {groups[place]: np.flatnonzero(groups == groups[place])[0] for place in chosen}
        hits = sum(
            altered[number].pixels == groups[place] or (same[groups[place]], len(images) + number) in found
            for number, place in enumerate(chosen)
        )
        print(f"  {name:24} {hits} of {len(chosen)}", flush=True)


if __name__ == "__main__":
    main()
