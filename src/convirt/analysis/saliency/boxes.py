"""Boxes around findings, and which pixels of a view they cover.

A table of boxes has the columns `image` and `label`, and either `left`, `top`, `right`, `bottom` as shares of the
image's width and height, or `x`, `y`, `width`, `height` in pixels of the image; one row a box.

Shape legend: H W height and width of an image, R side of the view.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convirt.data.tables import read_frame
from convirt.errors import InputError

EDGES = {"share": ("left", "top", "right", "bottom"), "pixel": ("x", "y", "width", "height")}

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Boxes of findings by image and label."""

    unit: Literal["share", "pixel"]
    by_finding: Mapping[tuple[str, str], tuple[Box, ...]]
    """(image, label in lower case) -> boxes in the unit."""
    sha256: str
    """Hash of the table's bytes."""

    def of(self, image: str, label: str) -> tuple[Box, ...]:
        """The boxes of one finding; empty if none is known."""
        return self.by_finding.get((image, label.lower()), ())

    def on_view(self, image: str, label: str, height: int, width: int) -> list[Box]:
        """The boxes of a finding as shares of the zero-padded square that the encoder sees.

        Args:
            image: The image's name in the table.
            label: The finding.
            height: Of the image, pixels.
            width: Of the image, pixels.
        """
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2  # as `transforms.square` pads
        scale = (width, height) if self.unit == "share" else (1, 1)
        return [
            (
                (box[0] * scale[0] + left) / side,
                (box[1] * scale[1] + top) / side,
                (box[2] * scale[0] + left) / side,
                (box[3] * scale[1] + top) / side,
            )
            for box in self.of(image, label)
        ]


def read_boxes(path: str | Path) -> Boxes:
    """Read a table of boxes.

    Raises:
        InputError: No such table, columns that are none of the two kinds, or a box without area.
    """
    frame, sha256 = read_frame(path)
    kinds = [kind for kind, names in EDGES.items() if {"image", "label", *names} <= set(frame.columns)]
    if not kinds:
        raise InputError(
            f"{path} holds no boxes: it needs the columns image, label and left, top, right, bottom (shares) or x, y, "
            "width, height (pixels)"
        )
    unit: Literal["share", "pixel"] = "share" if kinds[0] == "share" else "pixel"
    corners_N4 = _corners(frame, unit, path)
    by_finding: dict[tuple[str, str], tuple[Box, ...]] = {}
    for image, label, box in zip(frame["image"], frame["label"].str.lower(), corners_N4.tolist(), strict=True):
        by_finding[image, label] = (*by_finding.get((image, label), ()), tuple(box))
    return Boxes(unit=unit, by_finding=by_finding, sha256=sha256)


def _corners(frame: pd.DataFrame, unit: str, path: str | Path) -> NDArray[np.float64]:
    try:
        values_N4 = frame[list(EDGES[unit])].to_numpy(dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{path}: an edge of a box is no number ({error}); repair it") from None
    if unit == "pixel":
        values_N4 = np.concatenate([values_N4[:, :2], values_N4[:, :2] + values_N4[:, 2:]], axis=1)
    good_N = np.isfinite(values_N4).all(axis=1) & (values_N4[:, :2] < values_N4[:, 2:]).all(axis=1)
    good_N &= (values_N4[:, :2] >= 0).all(axis=1) & ((unit == "pixel") | (values_N4 <= 1).all(axis=1))
    if not good_N.all():
        raise InputError(f"{path}: row {int(np.argmin(good_N))} is no box inside the image; repair it")
    return values_N4


def mask_of(boxes: Sequence[Box], size: int) -> NDArray[np.bool_]:
    """The pixels of a view [R, R] whose centre lies in a box; at least the pixel in the middle of each box."""
    centre_R = (np.arange(size) + 0.5) / size
    mask_RR = np.zeros((size, size), dtype=bool)
    for left, top, right, bottom in boxes:
        inside = np.outer((centre_R >= top) & (centre_R < bottom), (centre_R >= left) & (centre_R < right))
        mask_RR |= inside
        if not inside.any():
            middle = np.clip([(top + bottom) / 2 * size, (left + right) / 2 * size], 0, size - 1).astype(int)
            mask_RR[tuple(middle)] = True
    return mask_RR
