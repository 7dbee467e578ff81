"""DICOM pixels against a naive reading of the standard in float64 (PS3.3, C.7.6.3 and C.11; PS3.5, section 8)."""

import io
import json
import math
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from convirt.data.imaging.dicom import (
    REPAIR_EQUAL_CHANNELS,
    REPAIR_FAINT_COLOUR,
    REPAIR_NUMBER,
    REPAIR_PADDING,
    REPAIR_SHAPE,
    REPORT_BURNED_IN,
    read_dicom,
)
from convirt.data.imaging.display import (
    REPAIR_BLIND,
    REPAIR_FUNCTION,
    REPAIR_HALF_RESCALE,
    REPAIR_LUT_BITS,
    REPAIR_NARROW,
    REPAIR_RESCALE,
    REPAIR_WINDOW,
)
from convirt.data.imaging.pixels import Choice, Unreadable
from convirt.data.imaging.prepared import prepare_image, read_pixels
from dicom_files import bare, dicom, group, lut, ramp, sequence, written

STORAGE = "1.2.840.10008.5.1.4.1.1."


def naive(stored_HW: np.ndarray, function: Callable[[float], float]) -> list[list[float]]:
    return [[function(float(x)) for x in row] for row in stored_HW]


def naive_window(x: float, center: float, width: float, function: str = "LINEAR") -> float:
    """PS3.3, C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2, for an output range from 0 to 1."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(-4 * (x - center) / width))
    if function == "LINEAR_EXACT":
        if x <= center - width / 2:
            return 0.0
        return 1.0 if x > center + width / 2 else (x - center) / width + 0.5
    if x <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if x > center - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (center - 0.5)) / (width - 1) + 0.5


def naive_lut(x: float, entries: list[int], first: int) -> int:
    """PS3.3, C.11.1.1.1."""
    return entries[min(max(int(x) - first, 0), len(entries) - 1)]


def expect(data: bytes, expected: Any, **choices: Any) -> dict[str, Any]:
    pixels = read_dicom(data, choice=Choice(**choices))
    assert pixels.values_HW.dtype == np.float32
    np.testing.assert_allclose(pixels.values_HW, expected, atol=1e-6)
    return pixels.recipe


# Modality transformation (C.11.1)


def test_rescale_and_first_of_several_windows() -> None:
    stored_HW = ramp(0, 4095)
    tags = {
        "RescaleSlope": 2,
        "RescaleIntercept": -1024,
        "WindowCenter": [40, 900],
        "WindowWidth": [400, 3000],
        "WindowCenterWidthExplanation": ["SOFT", "BONE"],
    }
    for window, (center, width) in enumerate([(40, 400), (900, 3000)], 1):
        expected = naive(stored_HW, lambda x, c=center, w=width: naive_window(2 * x - 1024, c, w))  # type: ignore[misc]
        recipe = expect(dicom(stored_HW, **tags), expected, window=window)
        assert 0 < np.mean(expected) < 1
        assert recipe["modality"] == {"function": "RESCALE", "slope": 2.0, "intercept": -1024.0}
        assert recipe["voi"] == {
            "function": "LINEAR",
            "center": center,
            "width": width,
            "number": window,
            "of": 2,
        }  # not the explanation: it is free text

    assert read_dicom(dicom(stored_HW, **tags)).recipe["voi"]["number"] == 1
    with pytest.raises(Unreadable, match="DICOM without the window asked for"):
        read_dicom(dicom(stored_HW, **tags), choice=Choice(window=3))


@pytest.mark.parametrize(("slope", "intercept"), [(0, 5), ("1e400", 0)])
def test_a_rescale_that_is_none_is_ignored(slope: Any, intercept: Any) -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp(0, 100), WindowCenter=50, WindowWidth=60)))
    dataset.add_new("RescaleSlope", "DS", slope)
    dataset.add_new("RescaleIntercept", "DS", intercept)
    pixels = read_dicom(written(dataset))
    np.testing.assert_allclose(pixels.values_HW, naive(ramp(0, 100), lambda x: naive_window(x, 50, 60)), atol=1e-6)
    assert pixels.repairs == (REPAIR_RESCALE,)


@pytest.mark.parametrize("representation", ["US", "OW"])
def test_modality_lut(representation: str) -> None:
    table = lut([700, 600, 500, 400, 300, 200, 100, 0], 2, 16)
    if representation == "US":  # both are in use
        table.add_new("LUTData", "US", [700, 600, 500, 400, 300, 200, 100, 0])
    stored_HW = np.arange(12, dtype="<u2").reshape(3, 4)
    expected = naive(stored_HW, lambda x: naive_lut(x, [700, 600, 500, 400, 300, 200, 100, 0], 2) / 700)
    recipe = expect(dicom(stored_HW, ModalityLUTSequence=sequence(table)), expected)
    assert recipe["modality"] == {"function": "LUT", "entries": 8, "first": 2}


def test_modality_lut_of_signed_values_goes_before_the_window() -> None:
    entries = [x * x for x in range(21)]
    stored_HW = ramp(-12, 12, "<i2")
    data = dicom(stored_HW, ModalityLUTSequence=sequence(lut(entries, -10, 16)), WindowCenter=200, WindowWidth=300)
    expect(data, naive(stored_HW, lambda x: naive_window(naive_lut(x, entries, -10), 200, 300)))


# Values of interest (C.11.2)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", "UNKNOWN"])
@pytest.mark.parametrize("width", [1500, 2, 1])
def test_window_functions(function: str, width: int) -> None:
    stored_HW = ramp(1900, 2100) if width < 3 else ramp(0, 4095)
    data = dicom(stored_HW, WindowCenter=2000, WindowWidth=width, VOILUTFunction=function)
    known = function.replace("UNKNOWN", "LINEAR")
    expected = naive(stored_HW, lambda x: naive_window(x, 2000, width, known))
    assert expect(data, expected)["voi"]["function"] == known


def test_windows_that_are_none() -> None:
    stored_HW = ramp(0, 100)
    pixels = read_dicom(dicom(stored_HW, WindowCenter=[10, 50], WindowWidth=[0, 20]))
    np.testing.assert_allclose(pixels.values_HW, naive(stored_HW, lambda x: naive_window(x, 50, 20)), atol=1e-6)
    assert pixels.repairs == (REPAIR_WINDOW,)
    narrow = read_dicom(
        dicom(stored_HW, RescaleSlope="0.01", RescaleIntercept=0, WindowCenter="0.5", WindowWidth="0.4")
    )
    expected = naive(stored_HW, lambda x: naive_window(0.01 * x, 0.5, 0.4, "LINEAR_EXACT"))
    np.testing.assert_allclose(narrow.values_HW, expected, atol=1e-6)
    assert narrow.repairs == (REPAIR_NARROW,)


def test_voi_lut_goes_before_a_window() -> None:
    entries = [i * i for i in range(64)]  # up to 3969: twelve bits
    stored_HW = ramp(0, 80)
    tags = {"VOILUTSequence": sequence(lut(entries, 10, 12), lut(entries[::-1], 0, 12)), "WindowCenter": 1}
    data = dicom(stored_HW, WindowWidth=2, **tags)
    recipe = expect(data, naive(stored_HW, lambda x: naive_lut(x, entries, 10) / 4095))
    assert recipe["voi"] == {"function": "LUT", "number": 1, "of": 2, "first": 10, "high": 4095}
    expect(data, naive(stored_HW, lambda x: naive_lut(x, entries[::-1], 0) / 4095), window=2)


def test_voi_lut_that_announces_sixteen_bits_and_fills_eight() -> None:
    entries = [i * i for i in range(16)]
    pixels = read_dicom(dicom(ramp(0, 40), VOILUTSequence=sequence(lut(entries, 10, 16))))
    expected = naive(ramp(0, 40), lambda x: naive_lut(x, entries, 10) / 255)
    np.testing.assert_allclose(pixels.values_HW, expected, atol=1e-6)
    assert pixels.repairs == (REPAIR_LUT_BITS,)


@pytest.mark.parametrize("packed", [False, True])
def test_voi_lut_of_eight_bits_after_rescale_to_negative_values(packed: bool) -> None:
    entries = list(range(0, 256, 2))
    table = lut(entries, 65536 - 100, 8, packed=packed)  # -100, written as unsigned
    stored_HW = ramp(0, 200)
    data = dicom(stored_HW, RescaleSlope=1, RescaleIntercept=-110, VOILUTSequence=sequence(table))
    expect(data, naive(stored_HW, lambda x: naive_lut(x - 110, entries, -100) / 255))


def test_voi_lut_of_65536_entries() -> None:
    entries = [min(x, 4095) for x in range(65536)]
    stored_HW = ramp(0, 65535)
    data = dicom(stored_HW, bits=16, VOILUTSequence=sequence(lut(entries, 0, 12)))
    expect(data, naive(stored_HW, lambda x: min(x, 4095) / 4095))


def test_window_in_functional_groups_of_the_frame() -> None:
    stored_FHW = np.stack([ramp(0, 4095), ramp(4095, 0)])
    groups = [
        group(
            FrameVOILUTSequence=sequence(group(WindowCenter=c, WindowWidth=500)),
            PixelValueTransformationSequence=sequence(group(RescaleSlope=s, RescaleIntercept=7)),
        )
        for c, s in ((600, 1), (1500, 3))
    ]
    data = dicom(stored_FHW, NumberOfFrames=2, PerFrameFunctionalGroupsSequence=sequence(*groups))
    for frame, (center, slope) in enumerate([(600, 1), (1500, 3)], 1):
        expected = naive(stored_FHW[frame - 1], lambda x, c=center, s=slope: naive_window(s * x + 7, c, 500))  # type: ignore[misc]
        assert expect(data, expected, frame=frame)["frame"] == frame


def test_window_in_shared_functional_groups() -> None:
    shared = group(FrameVOILUTSequence=sequence(group(WindowCenter=2000, WindowWidth=900)))
    data = dicom(ramp(0, 4095), SharedFunctionalGroupsSequence=sequence(shared))
    expect(data, naive(ramp(0, 4095), lambda x: naive_window(x, 2000, 900)))


# Photometric interpretation, padding, bits


def test_monochrome1_is_inverted() -> None:
    tags = {"WindowCenter": 2000, "WindowWidth": 3000, "PhotometricInterpretation": "MONOCHROME1"}
    expected = naive(ramp(0, 4095), lambda x: 1 - naive_window(x, 2000, 3000))
    expect(dicom(ramp(0, 4095), **tags), expected)
    # INVERSE says the same a second time (C.11.6.1.2): it must not turn the image again.
    inverse = read_dicom(dicom(ramp(0, 4095), PresentationLUTShape="INVERSE", **tags))
    np.testing.assert_allclose(inverse.values_HW, expected, atol=1e-6)
    assert inverse.repairs == ()
    assert read_dicom(dicom(ramp(0, 4095), PresentationLUTShape="IDENTITY", **tags)).repairs == (REPAIR_SHAPE,)


def test_signed_values_without_window_use_their_range() -> None:
    stored_HW = ramp(-1000, 3000, "<i2")
    recipe = expect(dicom(stored_HW, bits=16), naive(stored_HW, lambda x: (x + 1000) / 4000))
    assert recipe["signed"] is True
    assert recipe["voi"] == {"function": "RANGE", "low": -1000.0, "high": 3000.0}


@pytest.mark.parametrize("dtype", ["<i2", "<u2", "|i1", "|u1", "<u4", "<i4"])
def test_extremes_of_every_type(dtype: str) -> None:
    limits = np.iinfo(dtype)
    stored_HW = ramp(0, 40, dtype)
    stored_HW[0, 0], stored_HW[-1, -1] = limits.min, limits.max
    span = limits.max - limits.min
    expected = naive(stored_HW, lambda x: (x - limits.min) / span)
    expect(dicom(stored_HW, bits=limits.bits), expected)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("value", "limit", "shown"), [(-2000, None, (-2000, -2000)), (-2000, -1990, (-2000, -1990))])
def test_padding_is_black_and_does_not_set_the_range(
    photometric: str, value: int, limit: int | None, shown: tuple[int, int]
) -> None:
    stored_HW = ramp(100, 300, "<i2")
    stored_HW[:, 0] = -2000
    stored_HW[:4, 0] = -1995 if limit else -2000
    tags = {"PixelPaddingValue": value, **({"PixelPaddingRangeLimit": limit} if limit else {})}
    pixels = read_dicom(dicom(stored_HW, bits=16, PhotometricInterpretation=photometric, **tags))
    inside = stored_HW[:, 1:].astype(float)
    expected = (inside - inside.min()) / (inside.max() - inside.min())
    expected = expected if photometric == "MONOCHROME2" else 1 - expected
    np.testing.assert_allclose(pixels.values_HW[:, 1:], expected, atol=1e-6)
    assert (pixels.values_HW[:, 0] == 0).all()
    assert pixels.recipe["padding"] == list(shown)


def test_negative_padding_written_as_unsigned_and_padding_everywhere() -> None:
    stored_HW = ramp(100, 300, "<i2")
    stored_HW[0, 0] = -2000
    dataset = pydicom.dcmread(io.BytesIO(dicom(stored_HW, bits=16)))
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert read_dicom(written(dataset)).recipe["padding"] == [-2000, -2000]
    everywhere = read_dicom(dicom(np.full((4, 4), 9, "<u2"), PixelPaddingValue=9))
    assert everywhere.repairs == (REPAIR_PADDING,)


@pytest.mark.parametrize(("bits", "high"), [(12, 11), (12, 13), (10, 15), (8, 7), (1, 0)])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.ExplicitVRBigEndian])
def test_stray_bits_outside_the_stored_ones_are_masked(bits: int, high: int, signed: bool, syntax: str) -> None:
    rng = np.random.default_rng(bits + high)
    low = -(1 << (bits - 1)) if signed else 0
    meant_HW = rng.integers(low, low + (1 << bits), (9, 7))
    shift = high + 1 - bits
    field = ((1 << bits) - 1) << shift
    cells_HW = (((meant_HW << shift) & field) | (rng.integers(0, 65536, (9, 7)) & ~field & 0xFFFF)).astype("<u2")
    cells_HW = cells_HW.view("<i2") if signed else cells_HW
    center = low + (50 if bits > 1 else 0)
    data = dicom(cells_HW, bits=bits, HighBit=high, syntax=syntax, WindowCenter=center, WindowWidth=90)
    recipe = expect(data, naive(meant_HW, lambda x: naive_window(x, center, 90)))
    assert (recipe["bits"], recipe["high_bit"]) == (bits, high)


def test_one_bit_an_image() -> None:
    bits_HW = (np.arange(64).reshape(8, 8) * 7 % 3 == 0).astype(np.uint8)
    packed = np.packbits(bits_HW, bitorder="little").reshape(1, 8)
    data = dicom(packed, bits=1, BitsAllocated=1, HighBit=0, Rows=8, Columns=8)
    expect(data, bits_HW)


# Several frames, colour


def test_frames() -> None:
    stored_FHW = np.stack([ramp(0, 100), ramp(50, 4000), ramp(9, 10)])
    data = dicom(stored_FHW, NumberOfFrames=3, WindowCenter=1000, WindowWidth=1500)
    with pytest.raises(Unreadable, match="DICOM with several frames"):
        read_dicom(data)
    for frame in (1, 2, 3):
        expected = naive(stored_FHW[frame - 1], lambda x: naive_window(x, 1000, 1500))
        recipe = expect(data, expected, frame=frame)
        assert (recipe["frame"], recipe["frames"]) == (frame, 3)
    for frame in (0, 4):
        with pytest.raises(Unreadable, match="DICOM without the frame asked for"):
            read_dicom(data, choice=Choice(frame=frame))
    single = dicom(stored_FHW[:1], NumberOfFrames=1)
    np.testing.assert_array_equal(read_dicom(single).values_HW, read_dicom(dicom(stored_FHW[0])).values_HW)


@pytest.mark.parametrize("planar", [0, 1])
def test_grey_saved_as_colour_is_kept(planar: int) -> None:
    grey_HW = ramp(10, 240, "|u1")
    channels = np.repeat(grey_HW[..., None], 3, axis=2)
    other = channels.copy()
    other[3, 3, 1] += 9
    for values, kept in ((channels, True), (other, False)):
        dataset = pydicom.dcmread(io.BytesIO(dicom(values, bits=8, PlanarConfiguration=planar)))
        if planar:
            dataset.PixelData = np.ascontiguousarray(np.moveaxis(values, 2, 0)).tobytes()
        if kept:
            pixels = read_dicom(written(dataset))
            np.testing.assert_allclose(pixels.values_HW, grey_HW / 255.0, atol=1e-6)
            assert pixels.repairs == (REPAIR_EQUAL_CHANNELS,)
        else:
            with pytest.raises(Unreadable, match="DICOM in colour"):
                read_dicom(written(dataset))


def test_ycbcr_without_colour_is_kept() -> None:
    grey_HW = ramp(10, 240, "|u1")
    values = np.stack([grey_HW, np.full_like(grey_HW, 128), np.full_like(grey_HW, 128)], axis=2)
    pixels = read_dicom(dicom(values, bits=8, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_allclose(pixels.values_HW, grey_HW / 255.0, atol=1e-6)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("photometric", ["YBR_FULL", "RGB"])
def test_colour_of_one_or_two_levels_is_grey(levels: int, photometric: str) -> None:
    """What lossy compression leaves of grey; a third level is colour."""
    luma_HW = ramp(10, 240, "|u1").astype(float)
    blue_HW, red_HW = np.zeros_like(luma_HW), np.zeros_like(luma_HW)
    blue_HW[2, 2], red_HW[4, 4] = levels, -levels
    channels = [luma_HW, 128 + blue_HW, 128 + red_HW]
    if photometric == "RGB":  # ITU-R BT.601
        red, blue = luma_HW + 1.402 * red_HW, luma_HW + 1.772 * blue_HW
        channels = [red, luma_HW - 0.344 * blue_HW - 0.714 * red_HW, blue]
    data = dicom(np.rint(np.stack(channels, axis=2)).astype("|u1"), bits=8, PhotometricInterpretation=photometric)
    if levels > 2:
        with pytest.raises(Unreadable, match="DICOM in colour"):
            read_dicom(data)
        return
    pixels = read_dicom(data)
    np.testing.assert_allclose(pixels.values_HW, luma_HW / 255, atol=0.6 / 255)
    assert pixels.repairs == (REPAIR_FAINT_COLOUR,)


@pytest.mark.parametrize("grey", [True, False])
def test_palette(grey: bool) -> None:
    entries = [x * x for x in range(256)]
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        table = entries if grey or name != "Blue" else entries[::-1]
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = np.array(table, dtype="<u2").tobytes()
    stored_HW = ramp(0, 255, "|u1")
    if grey:
        expect(dicom(stored_HW, bits=8, **tags), naive(stored_HW, lambda x: x * x / 65535))
    else:
        with pytest.raises(Unreadable, match="DICOM in colour"):
            read_dicom(dicom(stored_HW, bits=8, **tags))


# What is no picture, and what a file says of itself


def without(*names: str, **tags: Any) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp(0, 9), **tags)))
    for name in names:
        delattr(dataset, name)
    return written(dataset)


def inflated_bomb() -> bytes:
    """A deflated DICOM of 400 kB that grows to 400 MB."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp(0, 9))))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    small = written(dataset)
    start = small.find(b"1.2.840.10008.1.2.1.99") + 22
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = compressor.compress(b"\x08\x00\x05\x00UN\0\0" + (2**32 - 2).to_bytes(4, "little"))
    body += b"".join(compressor.compress(b"\0" * 2**24) for _ in range(25)) + compressor.flush()
    return small[:start] + body


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (without("PixelData"), r"^DICOM without pixels$"),
        (without("PixelData", SOPClassUID=f"{STORAGE}11.1"), "DICOM without pixels: presentation state"),
        (without("PixelData", SOPClassUID=f"{STORAGE}88.33"), "DICOM without pixels: structured report"),
        (without("PixelData", SOPClassUID=f"{STORAGE}88.59"), "DICOM without pixels: key object selection"),
        (without("PixelData", SOPClassUID=f"{STORAGE}104.1"), "DICOM without pixels: encapsulated document"),
        (without("PixelData", SOPClassUID=f"{STORAGE}481.3"), "DICOM without pixels: radiotherapy object"),
        (without("PixelData", SOPClassUID=f"{STORAGE}9.1.1"), "DICOM without pixels: waveform"),
        (dicom(ramp(0, 9), SOPClassUID=f"{STORAGE}481.2"), "DICOM whose pixels are no picture"),
        (dicom(ramp(0, 9), SOPClassUID=f"{STORAGE}66.4"), "DICOM whose pixels are no picture"),
        (dicom(np.zeros((4, 4, 3), "|u1"), bits=8, Modality="XC"), "DICOM in colour: photograph"),
        (dicom(np.arange(0, 240, 5, dtype="|u1").reshape(4, 4, 3), bits=8), r"^DICOM in colour$"),
        (without("Rows"), "DICOM that cannot be decoded"),
        (dicom(ramp(0, 9), NumberOfFrames=2**31 - 1), "DICOM with several frames"),
        (dicom(ramp(0, 9), Rows=60000, Columns=60000), "image too large"),
        (dicom(ramp(0, 9), Rows=0), "image without pixels"),
        (dicom(ramp(0, 9), BitsAllocated=24), "DICOM that cannot be decoded"),
        (dicom(ramp(0, 4095))[:-20], "DICOM that cannot be decoded"),
        (dicom(ramp(0, 4095))[:300], "DICOM"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 500, "DICOM|not a PNG"),
        (inflated_bomb(), "image too large"),
    ],
)
def test_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_dicom(data)
    assert re.search(reason, caught.value.reason)


def test_burned_in_annotation_is_reported_and_kept() -> None:
    said = read_dicom(dicom(ramp(0, 9), BurnedInAnnotation="YES"))
    assert said.repairs == (REPORT_BURNED_IN,)
    assert said.recipe["burned_in_annotation"] == "YES"
    assert read_dicom(dicom(ramp(0, 9), BurnedInAnnotation="NO")).repairs == ()


# Files


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"])
def test_other_encodings_of_the_data_set(syntax: str) -> None:
    stored_HW = ramp(-500, 500, "<i2")
    entries = list(range(0, 4000, 4))
    plain, other = (
        read_dicom(
            dicom(
                stored_HW,
                bits=16,
                syntax=to,
                VOILUTSequence=sequence(lut(entries, -400, 12, order=">" if to == "1.2.840.10008.1.2.2" else "<")),
                PixelPaddingValue=-500,
            )
        )
        for to in ("1.2.840.10008.1.2.1", syntax)
    )
    np.testing.assert_array_equal(other.values_HW, plain.values_HW)
    assert other.recipe == {**plain.recipe, "transfer_syntax": pydicom.uid.UID(syntax).name}


@pytest.mark.parametrize("suffix", [".dcm", ".img", ".77", "", ".png"])
def test_file_without_preamble_is_known_by_its_content(suffix: str) -> None:
    data = dicom(ramp(0, 4095))
    assert bare(data)[128:132] != b"DICM"
    np.testing.assert_array_equal(read_pixels(bare(data), suffix=suffix).values_HW, read_dicom(data).values_HW)
    with pytest.raises(Unreadable, match="not a PNG, JPEG or DICOM file"):
        read_pixels(b"\x08\x00 this is a text", suffix=".png")


def test_prepared_record(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(ramp(0, 4095), PhotometricInterpretation="MONOCHROME1"))
    record, repairs = prepare_image(tmp_path / "a.dcm", source="a.dcm", image_size=32)
    assert (record.height, record.width, repairs) == (32, 24, ())
    recipe = json.loads(record.recipe)
    assert recipe["format"] == "DICOM"
    assert recipe["photometric"] == "MONOCHROME1"
    assert recipe["bits"] == 12


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("spelt", [None, "", "monochrome2", "MONOCHROME 2", " MONOCHROME2 ", "GREY^FILM"])
def test_one_sample_a_pixel_is_grey_however_it_is_spelt(spelt: str | None) -> None:
    plain = dicom(ramp(0, 4095))
    dataset = pydicom.dcmread(io.BytesIO(plain))
    if spelt is None:
        del dataset.PhotometricInterpretation
    else:
        dataset.PhotometricInterpretation = spelt
    pixels = read_dicom(written(dataset))
    np.testing.assert_array_equal(pixels.values_HW, read_dicom(plain).values_HW)
    assert pixels.recipe["photometric"] == "MONOCHROME2"
    assert (spelt is not None and spelt.strip() == "MONOCHROME2") or any("oddly spelt" in r for r in pixels.repairs)


@pytest.mark.parametrize("wrong", ["nothing", "empty", "short"])
@pytest.mark.parametrize("kind", ["VOI", "Modality"])
def test_a_lut_that_cannot_be_used_gives_way_to_the_window(kind: str, wrong: str) -> None:
    plain = dicom(ramp(0, 4095), WindowCenter=2000, WindowWidth=1000)
    dataset = pydicom.dcmread(io.BytesIO(plain))
    item = pydicom.Dataset()
    if wrong != "empty":
        item.add_new("LUTDescriptor", "US", [4096, 0, 16])
        item.add_new("LUTData", "US", None if wrong == "nothing" else [0, 1, 2])
    setattr(dataset, f"{kind}LUTSequence", pydicom.Sequence([item]))
    pixels = read_dicom(written(dataset))
    np.testing.assert_array_equal(pixels.values_HW, read_dicom(plain).values_HW)
    assert any(
        f"{kind if kind == 'VOI' else 'modality'} LUT that cannot be used" in repair for repair in pixels.repairs
    )


@pytest.mark.parametrize("strays", [1, 3])
@pytest.mark.parametrize("stray", [65535, 40000])
def test_strays_do_not_set_the_range(stray: int, strays: int) -> None:
    stored_HW = np.tile(ramp(0, 4095), (8, 8)).astype("<u2")[:64, :64]
    assert stored_HW.size >= 1024
    plain = read_dicom(dicom(stored_HW, bits=16)).values_HW
    marked_HW = stored_HW.copy()
    marked_HW.flat[:strays] = stray
    pixels = read_dicom(dicom(marked_HW, bits=16))
    np.testing.assert_allclose(pixels.values_HW.ravel()[strays:], plain.ravel()[strays:], atol=2e-3)
    assert any("stray pixels" in repair for repair in pixels.repairs)


def test_a_bright_patch_is_no_stray() -> None:
    stored_HW = np.tile(ramp(0, 1000), (8, 8)).astype("<u2")[:64, :64]
    stored_HW[:2, :2] = 30000  # four pixels: something is there
    pixels = read_dicom(dicom(stored_HW, bits=16))
    assert not any("stray" in repair for repair in pixels.repairs)
    assert pixels.recipe["voi"]["high"] == 30000


@pytest.mark.filterwarnings("ignore:Invalid value for")
def test_no_text_of_a_header_is_repeated() -> None:
    name = "DOE^JANE"
    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp(0, 4095), WindowCenter=2000, WindowWidth=1000)))
    for tag in (
        "BurnedInAnnotation",
        "Modality",
        "WindowCenterWidthExplanation",
        "PresentationLUTShape",
        "SeriesDescription",
    ):
        setattr(dataset, tag, name)
    pixels = read_dicom(written(dataset))
    assert name not in json.dumps(pixels.recipe) + " ".join(pixels.repairs)
    del dataset.PixelData
    dataset.SOPClassUID = name
    with pytest.raises(Unreadable) as caught:
        read_dicom(written(dataset))
    assert name not in caught.value.reason + caught.value.detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BitsStored", None),
        ("SamplesPerPixel", None),
        ("PixelRepresentation", None),
        ("BitsStored", ""),
        ("BitsStored", "0"),
        ("BitsStored", "33"),
        ("HighBit", ""),
        ("PixelRepresentation", "2"),
        ("SamplesPerPixel", ""),
        ("NumberOfFrames", "many"),
        ("PixelPaddingValue", "none"),
        ("PixelPaddingValue", ["1", "2"]),
    ],
)
def test_whole_pixels_under_an_impossible_number_are_read(name: str, value: Any) -> None:
    stored_HW = ramp(0, 4000)
    dataset = pydicom.dcmread(io.BytesIO(dicom(stored_HW)))
    if value is None:
        delattr(dataset, name)
    else:
        dataset.add_new(pydicom.datadict.tag_for_keyword(name), "LO", value)
    pixels = read_dicom(written(dataset))
    np.testing.assert_allclose(pixels.values_HW, stored_HW / 4000, atol=1e-6)
    assert pixels.repairs == (f"{REPAIR_NUMBER}: {name}",)


@pytest.mark.parametrize("tags", [{"WindowCenter": 1e6, "WindowWidth": 50}, {"WindowCenter": -9000, "WindowWidth": 10}])
def test_a_window_that_shows_nothing_gives_way(tags: dict[str, Any]) -> None:
    pixels = read_dicom(dicom(ramp(0, 4000), **tags))
    np.testing.assert_allclose(pixels.values_HW, ramp(0, 4000) / 4000, atol=1e-6)
    assert pixels.repairs == (REPAIR_BLIND,)


def test_half_a_rescale_and_an_unknown_function_are_said() -> None:
    tags = {"WindowCenter": 500, "WindowWidth": 900, "VOILUTFunction": "CURVED"}
    pixels = read_dicom(dicom(ramp(0, 1000), RescaleIntercept=100, **tags))
    expected = naive(ramp(0, 1000), lambda x: naive_window(x + 100, 500, 900))
    np.testing.assert_allclose(pixels.values_HW, expected, atol=1e-6)
    assert pixels.repairs == (REPAIR_HALF_RESCALE, REPAIR_FUNCTION)
