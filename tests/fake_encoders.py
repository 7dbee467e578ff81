"""Encoders whose worth is known, and an archive of plain images that they read, for the tests of evaluation."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from convirt.data.splits import derive_seed
from convirt.evaluation.inputs import images

FINDINGS = ("edema", "fracture", "none")
STEP = 80  # grey levels between the classes


def _vectors(classes, keys, noise, normalise):
    """One-hot class plus noise that is a function of the item alone."""
    rows = []
    for code, key in zip(classes, keys, strict=True):
        generator = np.random.default_rng(derive_seed("fake", key))
        signal = np.zeros(8) if code is None else np.eye(8)[code]
        rows.append(signal + noise * generator.normal(size=8))
    vectors = np.array(rows, dtype=np.float32).reshape(-1, 8)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalise else vectors


class Oracle:
    """Sees the class in the grey level of an image and in the first word of a text."""

    def __init__(self, name="oracle", noise=0.05):
        self.name = name
        self.noise = noise
        self.images_seen = 0
        self.texts_seen = []

    def encode_image(self, images, *, space, batch_size, normalise):
        assert space in ("features", "shared")
        self.images_seen += len(images)
        codes = [round(float(np.median(image)) / STEP) for image in images]
        return _vectors(codes, [image.tobytes().hex() for image in images], self.noise, normalise)

    def encode_text(self, texts, *, space, batch_size, normalise):
        assert space == "shared"
        self.texts_seen += texts
        return _vectors([FINDINGS.index(text.split()[0]) for text in texts], texts, self.noise, normalise)


class Blind:
    """Sees nothing: vectors that do not depend on the class."""

    def __init__(self, name="random"):
        self.name = name
        self.images_seen = 0

    def encode_image(self, images, *, space, batch_size, normalise):
        assert space == "features", "a baseline has no shared space"
        self.images_seen += len(images)
        return _vectors([None] * len(images), [image.tobytes().hex() for image in images], 1.0, normalise)


def install(monkeypatch, *runs):
    """Let `load_encoders` find these runs (by folder name) and a blind baseline; returns the baselines made."""
    made = {}
    by_name = {run.name: run for run in runs}
    monkeypatch.setattr(images, "load", lambda run, part, device: by_name[Path(run).name])
    monkeypatch.setattr(images, "baseline", lambda kind, like, device: made.setdefault(kind, Blind(kind)))
    return made


def write_archive(folder, *, patients=60, seed=0):
    """Images (two a patient, grey level by class), and a table with splits by patient; returns the table's path."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        for view in range(2):
            code = (patient + view) % len(FINDINGS)
            name = f"{patient}-{view}.png"
            pixels = np.full((12, 12), STEP * code, np.uint8)
            pixels[0] = rng.integers(0, 255, 12)
            Image.fromarray(pixels).save(folder / name)
            finding = FINDINGS[code]
            rows.append(
                {
                    "image": name,
                    "patient": f"p{patient}",
                    "split": ("train", "dev", "test")[patient * 3 // patients],
                    "finding": finding,
                    "caption": f"{finding} seen" if view else f"{finding} in patient {patient}",
                    **{label: str(int(label == finding)) for label in FINDINGS},
                    "role": "query" if patient % 5 == 0 else "candidate",
                }
            )
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"
