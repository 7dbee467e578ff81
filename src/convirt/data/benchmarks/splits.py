"""Named splits of a labelled benchmark: which images train, validate and test (ConVIRT, appendix B).

Groups (images or patients) are ranked by a hash of seed, purpose and name, so a draw does not depend on the order of
the table, and the validation images of one seed are the same whatever else is asked.

Shape legend: N rows.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError

PARTS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Images of each part."""

    train: int
    val: int
    test: int


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How a named split is drawn."""

    group: Literal["image", "patient"]
    """What is drawn whole: single images, as the paper does, or patients, none of whom is then in two parts."""
    sizes: Sizes
    """The sizes aimed at; a source of another size gets the same shares."""
    test: Literal["released", "drawn", "pooled"] = "released"
    """Where the test part comes from: the one that the source releases; drawn from the released training part; or
    drawn from everything together, where the released parts share patients."""
    exact: bool = False
    """Whether a source that cannot give exactly these sizes is refused."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user asked of a split."""

    seed: int = 0
    val_images: int | None = None
    """Size of the validation part, instead of the rule's."""
    test_images: int | None = None
    """Size of a drawn test part, instead of the rule's."""


def rank(name: str, *, seed: int, purpose: str) -> bytes:
    """The place of a name in a random order that depends on nothing else."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()


def draw_groups(groups: Sequence[str], size: int, *, seed: int, purpose: str) -> NDArray[np.bool_]:
    """Choose whole groups that hold `size` rows together, or as few less as the ranking allows.

    Args:
        groups: Group of each row.
        size: Rows wanted.
        seed: Together with `purpose` and the names, all that the draw depends on.
        purpose: What is drawn, so that two draws of one seed are independent.

    Returns:
        [N], true for the rows drawn.
    """
    counts = Counter(groups)
    drawn: set[str] = set()
    room = size
    for group in sorted(counts, key=lambda name: rank(name, seed=seed, purpose=purpose)):
        if room == 0:
            break
        if counts[group] <= room:
            drawn.add(group)
            room -= counts[group]
    return np.array([group in drawn for group in groups], dtype=bool)


def split_rows(
    images: Sequence[str], patients: Sequence[str], released: Sequence[str], rule: SplitRule, asked: Asked
) -> NDArray[np.str_]:
    """The part of each row: `train`, `val`, `test`, or empty where a row takes no part.

    Args:
        images: Image of each row; rows of one image are never parted.
        patients: Patient of each row.
        released: `train` or `test` as the source releases it.
        rule: The named split.
        asked: Seed and sizes.

    Raises:
        InputError: The source cannot give the sizes that the rule demands, or a part would be empty.
    """
    groups_N = np.asarray(images if rule.group == "image" else patients, dtype=str)
    parts_N = np.where(np.asarray(released) == "test", "test", "train")
    if rule.exact:
        _check_exact(parts_N, rule.sizes, asked)
    if rule.test == "pooled":
        parts_N[:] = "train"
    elif rule.test == "drawn":
        parts_N[parts_N == "test"] = ""
    elif rule.group == "patient":
        parts_N[np.isin(groups_N, groups_N[parts_N == "test"]) & (parts_N == "train")] = ""
    sizes = rule.sizes
    if rule.test != "released":
        share = sizes.test / (sizes.train + sizes.val + sizes.test)
        _draw(parts_N, groups_N, "test", asked.test_images, share, asked.seed)
    share = sizes.val / (sizes.train + sizes.val)
    _draw(parts_N, groups_N, "val", asked.val_images, share, asked.seed)
    for part in PARTS:
        if not (parts_N == part).any():
            raise InputError(f"no image is left for the {part} part; choose another split or other sizes")
    return parts_N


def _draw(
    parts_N: NDArray[np.str_], groups_N: NDArray[np.str_], part: str, size: int | None, share: float, seed: int
) -> None:
    """Move whole groups from the training rows to `part`."""
    pool = np.flatnonzero(parts_N == "train")
    wanted = max(1, round(len(pool) * share)) if size is None else size
    if not 1 <= wanted < len(pool):
        raise InputError(f"cannot draw {wanted} {part} images from {len(pool)}; ask for fewer, and at least 1")
    parts_N[pool[draw_groups(groups_N[pool].tolist(), wanted, seed=seed, purpose=part)]] = part


def _check_exact(parts_N: NDArray[np.str_], sizes: Sizes, asked: Asked) -> None:
    if asked.val_images is not None or asked.test_images is not None:
        raise InputError("the split `paper` has the paper's sizes; choose the split `images` to give other sizes")
    found = int((parts_N == "train").sum()), int((parts_N == "test").sum())
    wanted = sizes.train + sizes.val, sizes.test
    if found != wanted:
        raise InputError(
            f"the split `paper` needs {wanted[0]} training and {wanted[1]} test images, the source has {found[0]} and "
            f"{found[1]}; complete it, or choose another split, for example `images`"
        )


def crossing_patients(patients: Sequence[str], parts_N: NDArray[np.str_]) -> int:
    """How many patients have images in more than one part."""
    seen: dict[str, set[str]] = {}
    for patient, part in zip(patients, parts_N.tolist(), strict=True):
        if part:
            seen.setdefault(patient, set()).add(part)
    return sum(len(parts) > 1 for parts in seen.values())
