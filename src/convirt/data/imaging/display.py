"""From stored values to what a viewer shows: modality LUT, VOI LUT or window, photometric interpretation.

Scaling a file by its smallest and largest stored value would ignore all three, and make one patient's bone another's
lung. The order of the steps is that of DICOM PS3.4, section N.2; modality and VOI transformations are those of PS3.3,
sections C.11.1 and C.11.2. What is decided here (which window, which range) goes into a recipe of plain numbers, and
the same recipe gives the same pixels again.

Shapes: H, W = rows and columns; V = values.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydicom

from convirt.data.imaging.pixels import Unreadable

REPAIR_RESCALE = "rescale slope or intercept that is no number, zero or beyond all measure, ignored"
REPAIR_HALF_RESCALE = "rescale slope without intercept or the other way round, taken as 1 or 0"
REPAIR_WINDOW = "window whose centre or width is no number, or whose width is not positive, ignored"
REPAIR_BLIND = "window or VOI LUT that shows all values alike, ignored"
REPAIR_FUNCTION = "VOI LUT function that the standard does not have, taken as LINEAR"
REPAIR_NARROW = "LINEAR window narrower than 1, taken as LINEAR_EXACT"
REPAIR_MODALITY_LUT = "modality LUT that cannot be used, ignored"
REPAIR_VOI_LUT = "VOI LUT that cannot be used, ignored"
REPAIR_LUT_BITS = "VOI LUT that announces other bits than it fills"

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_VISIBLE = 1e-4  # of the range from black to white
_LARGEST = 1e9  # of a slope or an intercept; beyond it, arithmetic loses the stored values
_ENOUGH = 1024  # pixels of an image in which three are strays
_TABLE = 1 << 16  # as many different stored values at most go through a table; more are computed one by one


def attribute(dataset: pydicom.Dataset, frame: int, macro: str, name: str) -> Any:
    """Return an attribute of a frame, numbered from 1: its own, that of all frames, or the file's; None without any.

    Enhanced multi-frame objects keep rescale and windows in functional groups (PS3.3, C.7.6.16), others at the top.
    """
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*groups[frame - 1 : frame], *shared[:1]):
        items = group.get(macro) or []
        if len(items) and items[0].get(name) is not None:
            return items[0].get(name)
    return dataset.get(name)


def describe_modality(dataset: pydicom.Dataset, frame: int, repairs: list[str]) -> dict[str, Any]:
    """Say how stored values become modality values (PS3.3, C.11.1): by table, by slope and intercept, or not at all."""
    if items := dataset.get("ModalityLUTSequence"):
        if usable(items[0]):
            table_V, first = lookup_table(items[0])
            return {"function": "LUT", "entries": len(table_V), "first": first}
        repairs.append(REPAIR_MODALITY_LUT)
    numbers = [
        attribute(dataset, frame, "PixelValueTransformationSequence", f"Rescale{x}") for x in ("Slope", "Intercept")
    ]
    if numbers == [None, None]:
        return {"function": "IDENTITY"}
    if None in numbers:
        repairs.append(REPAIR_HALF_RESCALE)
    slope, intercept = (usual if x is None else _number(x) for x, usual in zip(numbers, (1.0, 0.0), strict=True))
    if slope is None or intercept is None or not 1 / _LARGEST < abs(slope) < _LARGEST or abs(intercept) > _LARGEST:
        repairs.append(REPAIR_RESCALE)
        return {"function": "IDENTITY"}
    return {"function": "RESCALE", "slope": slope, "intercept": intercept}


def to_modality(values_V: np.ndarray, dataset: pydicom.Dataset, recipe: dict[str, Any]) -> np.ndarray:
    """Apply the modality transformation; float64."""
    if recipe["function"] == "LUT":
        table_V, first = lookup_table(dataset.ModalityLUTSequence[0])
        return _look_up(values_V, table_V, _signed_first(first, values_V))
    if recipe["function"] == "RESCALE":
        return values_V.astype(np.float64) * recipe["slope"] + recipe["intercept"]
    return values_V.astype(np.float64)


def describe_voi(
    dataset: pydicom.Dataset, frame: int, window: int, inside_V: np.ndarray, repairs: list[str]
) -> dict[str, Any]:
    """Say which values of interest are shown (PS3.3, C.11.2): a VOI LUT goes before windows, the first unless another
    is asked for; without either, the range of the modality values `inside_V`. A LUT that cannot be used gives way.

    Raises:
        Unreadable: The window asked for does not exist.
    """
    luts = attribute(dataset, frame, "FrameVOILUTSequence", "VOILUTSequence") or []
    if any(not usable(item) for item in luts):
        repairs.append(REPAIR_VOI_LUT)
        luts = []
    windows = [] if len(luts) else list(_windows(dataset, frame, repairs))
    several = len(luts) or len(windows)
    if window > max(several, 1) or window < 1:
        raise Unreadable("DICOM without the window asked for", f"window {window} of {several}")
    recipe: dict[str, Any] = {}
    if len(luts):
        table_V, first = lookup_table(luts[window - 1])
        high = _lut_maximum(luts[window - 1], table_V, repairs)
        recipe = {"function": "LUT", "number": window, "of": several, "first": first, "high": high}
    elif windows:
        recipe = {**windows[window - 1], "number": window, "of": several}
    alone = int(dataset.get("NumberOfFrames", 1) or 1) == 1  # one frame of several may well be dark
    if recipe and alone and np.ptp(inside_V) and np.ptp(to_display(inside_V, dataset, frame, recipe)) < _VISIBLE:
        repairs.append(REPAIR_BLIND)
        recipe = {}
    return recipe or {"function": "RANGE", "low": float(inside_V.min()), "high": float(inside_V.max())}


def to_display(values_V: np.ndarray, dataset: pydicom.Dataset, frame: int, recipe: dict[str, Any]) -> np.ndarray:
    """Map modality values to [0, 1] as the recipe of `describe_voi` says; float64."""
    function = recipe["function"]
    if function == "LUT":
        luts = attribute(dataset, frame, "FrameVOILUTSequence", "VOILUTSequence")
        table_V, first = lookup_table(luts[recipe["number"] - 1])
        return np.clip(_look_up(np.rint(values_V), table_V, _signed_first(first, values_V)) / recipe["high"], 0, 1)
    if function == "RANGE":
        return np.clip((values_V - recipe["low"]) / max(recipe["high"] - recipe["low"], 1e-9), 0, 1)
    return apply_window(values_V, recipe["center"], recipe["width"], function)


def apply_window(values_V: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Map modality values to [0, 1] by a window (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values_V - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values_V - center) / width + 0.5, 0, 1)
    if width == 1:
        return (values_V > center - 0.5).astype(np.float64)
    return np.clip((values_V - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _windows(dataset: pydicom.Dataset, frame: int, repairs: list[str]) -> Iterator[dict[str, Any]]:
    names = ("WindowCenter", "WindowWidth")  # not their explanation: free text may name the patient
    centers, widths = (_several(attribute(dataset, frame, "FrameVOILUTSequence", name)) for name in names)
    named = str(attribute(dataset, frame, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR").strip().upper()
    if named not in _FUNCTIONS and len(centers):
        repairs.append(REPAIR_FUNCTION)
    for center, width in zip(map(_number, centers), map(_number, widths), strict=False):
        if center is None or width is None or width <= 0:
            repairs.append(REPAIR_WINDOW)
            continue
        function = named if named in _FUNCTIONS else "LINEAR"
        if function == "LINEAR" and width < 1:
            repairs.append(REPAIR_NARROW)
            function = "LINEAR_EXACT"
        yield {"function": function, "center": center, "width": width}


def lookup_table(item: pydicom.Dataset) -> tuple[np.ndarray, int]:
    """Return the entries of a LUT, float64 [V], and the input value that the first stands for (PS3.3, C.11.1.1.1).

    Raises:
        Unreadable: A table that holds fewer entries than it announces.
    """
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries or 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        # Eight-bit entries may be packed two to a word.
        packed = bits <= 8 and len(data) < 2 * entries
        order = ">" if item.original_encoding[1] is False else "<"
        table_V = np.frombuffer(data[: len(data) // 2 * 2] if not packed else data, "u1" if packed else f"{order}u2")
    else:
        table_V = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    if len(table_V) < entries:
        raise Unreadable("DICOM that cannot be decoded", f"LUT of {len(table_V)} entries instead of {entries}")
    return table_V[:entries].astype(np.float64), first


def usable(item: pydicom.Dataset) -> bool:
    """Whether a LUT holds what it announces."""
    try:
        return len(lookup_table(item)[0]) > 0
    except (Unreadable, AttributeError, TypeError, ValueError, IndexError):
        return False


def without_strays(stored_HW: np.ndarray, values_V: np.ndarray) -> np.ndarray:
    """The different stored values without strays: at most three pixels in all, farther from the rest than it is wide.

    A dead or stamped pixel would set the range of a whole film. A range is robust only where the outlier is isolated
    and far; else all values count.

    Args:
        stored_HW: The image.
        values_V: Its different values, ascending, without padding.
    """
    kept_V, left = values_V, 3
    while len(kept_V) > 2 and stored_HW.size >= _ENOUGH:
        ends = (
            (kept_V[-1], kept_V[:-1], kept_V[-1] - kept_V[-2]),
            (kept_V[0], kept_V[1:], kept_V[1] - kept_V[0]),
        )
        for value, rest_V, gap in ends:
            count = int((stored_HW == value).sum())
            if count <= left and gap > max(int(rest_V[-1]) - int(rest_V[0]), 1):
                kept_V, left = rest_V, left - count
                break
        else:
            break
    return kept_V if len(kept_V) > 1 else values_V


def _look_up(values_V: np.ndarray, table_V: np.ndarray, first: int) -> np.ndarray:
    """Values below the first entry get the first, values above the last get the last (PS3.3, C.11.1.1.1)."""
    places = np.clip(values_V.astype(np.int64) - first, 0, len(table_V) - 1)
    return table_V[places]


def _signed_first(first: int, values_V: np.ndarray) -> int:
    """The first input value is signed where the input is, whatever its value representation says."""
    if first >= 1 << 15 and values_V.min() < 0:
        return first - (1 << 16)
    return first + (1 << 16) if first < 0 and values_V.min() >= 1 << 15 else first


def _lut_maximum(item: pydicom.Dataset, table_V: np.ndarray, repairs: list[str]) -> int:
    """Return what stands for white: the largest number of the announced bits, unless the table shows that they lie."""
    bits, used = int(item.LUTDescriptor[2]), int(table_V.max()).bit_length()
    if used > bits or (bits == 16 and used <= 12):  # common: 16 announced, 12 meant
        repairs.append(REPAIR_LUT_BITS)
        bits = max(used, 1)
    return int((1 << bits) - 1)


def _several(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, pydicom.multival.MultiValue | list | tuple) else [value]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def through_table(stored_HW: np.ndarray, function: Any) -> np.ndarray:
    """Apply a function of one value, float64 -> float64, to all stored values; returns float32.

    An image of ten million pixels has a few thousand different values: each is computed once.
    """
    if stored_HW.dtype.kind not in "iu":
        return np.asarray(function(stored_HW)).astype(np.float32)
    low, high = int(stored_HW.min()), int(stored_HW.max())
    if high - low >= _TABLE:
        return np.asarray(function(stored_HW)).astype(np.float32)
    table_V = np.asarray(function(np.arange(low, high + 1))).astype(np.float32)
    if low == 0:
        return table_V[stored_HW]
    # The difference may wrap around, and is right again once read as unsigned.
    return table_V[(stored_HW - stored_HW.dtype.type(low)).view(f"u{stored_HW.dtype.itemsize}")]


def distinct(stored_HW: np.ndarray) -> np.ndarray:
    """Return the different stored values, ascending."""
    low, high = stored_HW.min(), stored_HW.max()
    if stored_HW.dtype.kind not in "iu" or int(high) - int(low) >= _TABLE:
        return np.unique(stored_HW)
    seen_V = np.zeros(int(high) - int(low) + 1, dtype=bool)
    seen_V[(stored_HW - low).view(f"u{stored_HW.dtype.itemsize}")] = True  # as in through_table
    return np.flatnonzero(seen_V) + int(low)
