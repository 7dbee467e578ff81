"""Splits of a corpus into train, val and test, never through a patient."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from convirt.errors import InputError

_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation", "dev", "development"),
    "test": ("test", "testing"),
}
SPLITS = {alias: split for split, aliases in _NAMES.items() for alias in aliases}
"""Names of splits as tables have them (any case) -> ours."""


def canonical_id(name: str) -> str:
    """What two spellings of one id have in common: 1001, ` 1001`, 1001.0 and 0001001; P7 and p7.

    Ids are compared in this form. They are kept as they are written.
    """
    plain = " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
    plain = re.sub(r"^([0-9]+)[.,]0+$", r"\1", plain)
    return plain.lstrip("0") or "0" if plain.isdigit() else plain


def respelt(names: Iterable[str], *, prefer: Literal["canonical", "commonest"] = "canonical") -> dict[str, str]:
    """For each spelling of an id or a class that goes by several, the one that stands for it among those there.

    Args:
        names: As they are written, repetitions included.
        prefer: The canonical form if it is there, so that hashes of it stay as they are; or the commonest spelling.
            Failing that, the first.

    Returns:
        Spelling -> the one to take, without those that stay: empty if every id has one spelling.
    """
    spellings: dict[str, list[str]] = {}
    counts = Counter(names)
    for name in counts:
        spellings.setdefault(canonical_id(name), []).append(name)
    taken = {}
    for canonical, several in spellings.items():
        commonest = max(several, key=lambda name: counts[name])
        keep = commonest if prefer == "commonest" else canonical if canonical in several else several[0]
        taken.update({name: keep for name in several if name != keep})
    return taken


def given_split(name: str) -> str:
    """Return `train`, `val` or `test` for a split as a source table names it.

    Raises:
        InputError: The name is none of the usual ones.
    """
    if (split := SPLITS.get(name.strip().lower())) is None:
        known = ", ".join(SPLITS)
        raise InputError(
            f"split {name!r} is not known (known: {known}); rename it, or filter its rows out with --where"
        )
    return split


def check_patients(rows: Iterable[tuple[str, str]], *, remedy: str = "leave --split-column out") -> None:
    """Refuse given splits that share a patient.

    Args:
        rows: Patient and split of each row.
        remedy: How the user has patients dealt out anew.

    Raises:
        InputError: It names the first such patient and how many there are.
    """
    seen: dict[str, dict[str, str]] = {}
    for patient, split in rows:
        seen.setdefault(canonical_id(patient), {}).setdefault(split, patient)
    if shared := [name for name, splits in seen.items() if len(splits) > 1]:
        count = "the only such patient" if len(shared) == 1 else f"{len(shared)} such patients in all"
        splits = seen[shared[0]]
        first = " and ".join(sorted(splits))
        spelt = " or ".join(repr(patient) for patient in dict.fromkeys(splits.values()))
        raise InputError(
            f"patient {spelt} is in the given splits {first} ({count}); correct the "
            f"table, or {remedy} to split by patient"
        )


def split_by_patient(patients: Iterable[str], *, seed: int, val_share: float, test_share: float) -> Mapping[str, str]:
    """Deal patients to `train`, `val` and `test`.

    Patients are ranked by a hash of seed and name, so the order of the table does not matter and a patient who joins
    the archive moves few others. A share above 0 gets at least one patient if there are three or more.

    Raises:
        InputError: A share is out of range, or they leave nothing for training.
    """
    if not (0 <= val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
        raise InputError(f"val_share {val_share} and test_share {test_share} must be 0 or more and below 1 together")
    unique = set(patients)
    ranked = sorted(unique, key=lambda patient: hashlib.sha256(f"{seed}\0{patient}".encode()).digest())
    least = 1 if len(ranked) >= 3 else 0
    counts = [max(round(share * len(ranked)), least) if share > 0 else 0 for share in (val_share, test_share)]
    cut_val, cut_test = counts[0], counts[0] + counts[1]
    return {
        patient: "val" if rank < cut_val else "test" if rank < cut_test else "train"
        for rank, patient in enumerate(ranked)
    }


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed for one purpose, from what it may depend on, such as `(seed, epoch, "order")`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
