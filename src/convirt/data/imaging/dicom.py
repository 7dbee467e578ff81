"""Grey pixels of a DICOM file, as a viewer shows them.

Reading is in four steps: parse the file, decide whether it is a picture to learn from, decode its stored values
(`codecs`), and make of them what a viewer shows (`display`). What was decided on the way is the recipe; given a recipe,
nothing is decided anew. An archive holds much that is not a radiograph: presentation states, structured reports,
photographs, dose maps. Each kind has its own reason, so that an audit tells a hospital what its archive holds.

Shapes: H, W = rows and columns; C = samples of a pixel.
"""

import warnings
import zlib
from collections.abc import Collection
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom import uid
from pydicom.filereader import read_dataset, read_preamble

from convirt.data.imaging.codecs import bit_layout, stored_values
from convirt.data.imaging.display import (
    describe_modality,
    describe_voi,
    distinct,
    through_table,
    to_display,
    to_modality,
    without_strays,
)
from convirt.data.imaging.pixels import FIRST, MAX_PIXEL_BYTES, Choice, Pixels, Unreadable, check_size

REPAIR_EQUAL_CHANNELS = "colour with equal channels made grey"
REPAIR_FAINT_COLOUR = "colour of one or two levels made grey"
REPAIR_PADDING = "padding value that covers the whole image, ignored"
REPAIR_PHOTOMETRIC = "photometric interpretation missing or oddly spelt, one sample a pixel taken as grey"
REPAIR_NUMBER = "number of the header missing or impossible, the usual one taken"
REPAIR_STRAY = "stray pixels far outside the range of all others, which do not set the range"
REPAIR_SHAPE = "presentation LUT shape that contradicts the photometric interpretation, ignored"
REPORT_BURNED_IN = "burned-in annotation, says the file"
REPORT_VISIBLE = "recognizable face or body, says the file"

FAINT = 2.5
"""Levels of 8 bits by which colour differences may be away from none, what lossy compression makes of grey: one or two,
and half a level for the rounding of RGB."""

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")
_THREE_CHANNELS = tuple(word for word in _COLOUR if word != "PALETTE COLOR")
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# By the start of the SOP class, the longest first where one is the start of another (PS3.4, annex B.5).
_WITHOUT_PIXELS = {
    "1.2.840.10008.1.3.10": "media directory",
    f"{_STORAGE}88.59": "key object selection",
    f"{_STORAGE}88.": "structured report",
    f"{_STORAGE}104.": "encapsulated document",
    f"{_STORAGE}11.": "presentation state",
    f"{_STORAGE}9.": "waveform",
    f"{_STORAGE}66.5": "surface segmentation",
    f"{_STORAGE}66.": "registration or raw data",
    f"{_STORAGE}67": "real world value mapping",
    f"{_STORAGE}481.": "radiotherapy object",
}
_MAPS = {
    f"{_STORAGE}66.4": "segmentation",
    f"{_STORAGE}66.7": "label map",
    f"{_STORAGE}481.2": "radiotherapy dose",
    f"{_STORAGE}30": "parametric map",
}
_VISIBLE_LIGHT = f"{_STORAGE}77.1."
# fmt: off
MODALITIES = frozenset((
    "AR", "AS", "AU", "BDUS", "BI", "BMD", "CD", "CF", "CR", "CS", "CT", "CTPROTOCOL", "DD", "DG", "DF", "DM", "DOC",
    "DS", "DX", "EC", "ECG", "EPS", "ES", "FA", "FID", "FS", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER",
    "KO", "LEN", "LP", "LS", "MA", "MG", "MR", "MS", "NM", "OAM", "OCT", "OP", "OPM", "OPR", "OPT", "OPTBSV",
    "OPTENF", "OPV", "OSS", "OT", "PLAN", "POS", "PR", "PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE",
    "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SC", "SEG", "SM", "SMR", "SR", "SRF",
    "ST", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "VF", "XA", "XAPROTOCOL", "XC",
))
# fmt: on
"""Defined terms of Modality (PS3.3, C.7.3.1.1.1), and those that older files have."""
# fmt: off
VIEW_POSITIONS = frozenset((
    "AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "LATERAL", "LAT", "LPO", "RPO", "LAO", "RAO", "FRONTAL", "ML",
    "MLO", "LM", "LMO", "CC", "XCC", "XCCL", "XCCM", "FB", "SIO", "ISO", "SPOT", "AXIAL", "OBLIQUE", "LORDOTIC",
))
# fmt: on
"""Defined terms of View Position (PS3.3, C.8.1.1, C.8.11.7), and words that machines write instead."""
_PHOTOGRAPHS = ("XC", "ES", "GM", "SM", "OP", "DMS")


def read_dicom(data: bytes, *, choice: Choice = FIRST, recipe: dict[str, Any] | None = None) -> Pixels:
    """Turn the bytes of a DICOM file into grey pixels in [0, 1].

    Args:
        data: The whole file.
        choice: Which frame and window of several.
        recipe: What an earlier reading decided; it is followed, and `choice` is not looked at.

    Raises:
        Unreadable: No DICOM, no pixels, colour, several frames, or pixel data that cannot be decoded.
    """
    # Reading must be as tolerant as viewers are: pydicom warns of every value that is not as the standard has it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _read(data, choice, recipe)
        except Unreadable:
            raise
        except Exception as error:  # a damaged file can fail anywhere in the parser or a decoder
            # Not the error's own words: they may quote the header, and with it the patient's name.
            raise Unreadable("DICOM that cannot be decoded", type(error).__name__) from error


def _read(data: bytes, choice: Choice, recipe: dict[str, Any] | None) -> Pixels:
    dataset, syntax = _parse(data)
    mended = _mend_numbers(dataset)
    odd = _mend_photometric(dataset)
    frame = _screen(dataset, Choice(frame=recipe["frame"]) if recipe and "frame" in recipe else choice)
    repairs = _marks(dataset) + [REPAIR_PHOTOMETRIC] * odd + [f"{REPAIR_NUMBER}: {name}" for name in mended]
    stored_HW = _one_channel(dataset, stored_values(dataset, frame, repairs), repairs)
    if not stored_HW.size or not np.isfinite(stored_HW).all():
        raise Unreadable("DICOM that cannot be decoded", "pixels that are no numbers")
    if recipe is None:
        recipe = {"format": "DICOM", "transfer_syntax": syntax, **_describe(dataset, frame, choice, stored_HW, repairs)}
    return Pixels(
        values_HW=_render(dataset, frame, stored_HW, recipe), recipe=recipe, repairs=tuple(dict.fromkeys(repairs))
    )


def _parse(data: bytes) -> tuple[pydicom.Dataset, str]:
    """Return the data set, with a transfer syntax in any case, and the syntax's name."""
    stream = BytesIO(data)
    read_preamble(stream, force=True)
    read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    deflated = uid.DeflatedExplicitVRLittleEndian.encode()
    syntax = ""
    if deflated in data[: stream.tell()]:
        # pydicom would inflate the file whatever it grows to: a few kilobytes can become a terabyte.
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        body = inflater.decompress(data[stream.tell() :], MAX_PIXEL_BYTES)
        if inflater.unconsumed_tail:
            raise Unreadable("image too large", f"deflated DICOM of more than {MAX_PIXEL_BYTES} bytes")
        syntax = uid.DeflatedExplicitVRLittleEndian.name
        plain = uid.ExplicitVRLittleEndian.encode().ljust(len(deflated), b"\0")
        data = data[: stream.tell()].replace(deflated, plain) + body
    dataset = pydicom.dcmread(BytesIO(data), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        # A bare data set, without the preamble: its encoding was guessed from its first bytes.
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little is not False else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit is not False else explicit
    return dataset, syntax or _known_name(dataset.file_meta.TransferSyntaxUID)


def _known_name(value: Any) -> str:
    """The standard's name of a UID; one that it does not know may be any text, and is not repeated."""
    name = uid.UID(str(value)).name
    return name if name != str(value) else "unknown UID"


def _mend_numbers(dataset: pydicom.Dataset) -> list[str]:
    """Put usual numbers where the header has none or impossible ones, so that whole pixels are read.

    Returns:
        The names of these numbers.
    """
    if not any(name in dataset for name in _PIXELS):
        return []
    allocated = _whole(dataset, "BitsAllocated") or 16
    colour = str(dataset.get("PhotometricInterpretation", "")) in _THREE_CHANNELS
    needed = {  # the values that a reader can work with, and the one that is taken otherwise
        "SamplesPerPixel": (range(1, 1 << 16), 3 if colour else 1),
        "BitsStored": (range(1, allocated + 1), allocated),
        "PixelRepresentation": (range(2), 0),
    }
    optional = {
        "NumberOfFrames": range(1, 1 << 31),
        "HighBit": range(allocated),
        "PixelPaddingValue": range(-(1 << 31), 1 << 32),
        "PixelPaddingRangeLimit": range(-(1 << 31), 1 << 32),
    }
    mended = []
    for name, (possible, otherwise) in (
        needed | {name: (possible, None) for name, possible in optional.items()}
    ).items():
        value = _whole(dataset, name)
        if value is not None and value in possible:
            setattr(dataset, name, value)  # perhaps written as text, `0.0`
        elif otherwise is not None:
            setattr(dataset, name, otherwise)
            mended.append(name)
        elif name in dataset:
            delattr(dataset, name)
            mended.append(name)
    if "PixelPaddingValue" not in dataset:
        dataset.pop("PixelPaddingRangeLimit", None)
    return mended


def _whole(dataset: pydicom.Dataset, name: str) -> int | None:
    """A whole number of the header, if that is what it has there."""
    try:
        value = float(dataset.get(name))
        return int(value) if value.is_integer() else None
    except (TypeError, ValueError, AttributeError):
        return None


def _mend_photometric(dataset: pydicom.Dataset) -> bool:
    """Spell the photometric interpretation as the standard does; one sample a pixel without a known word is grey.

    Returns:
        Whether it was missing or spelt otherwise.
    """
    given = str(dataset.get("PhotometricInterpretation", "") or "")
    plain = "".join(given.upper().split())
    known = next((word for word in _GREY + _COLOUR if word.replace(" ", "") == plain), "")
    if not known and int(dataset.get("SamplesPerPixel", 1) or 1) == 1:
        known = "MONOCHROME2"
    if known and known != given and any(name in dataset for name in _PIXELS):
        dataset.PhotometricInterpretation = known
        return True
    return False


def _screen(dataset: pydicom.Dataset, choice: Choice) -> int:
    """Return the frame to read, numbered from 1.

    Raises:
        Unreadable: The file holds no picture, or several and none was asked for, or its header lacks what pixels need.
    """
    if not len(dataset):
        raise Unreadable("not a PNG, JPEG or DICOM file")
    kind = str(dataset.get("SOPClassUID", "") or dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    modality = _word(dataset, "Modality", MODALITIES)
    if not any(name in dataset for name in _PIXELS):
        what = next((name for start, name in _WITHOUT_PIXELS.items() if kind.startswith(start)), "")
        named = _known_name(kind) if kind else f"modality {modality}"
        raise Unreadable("DICOM without pixels" + (f": {what}" if what else ""), named)
    if kind in _MAPS:
        raise Unreadable("DICOM whose pixels are no picture", _MAPS[kind])
    for name in ("Rows", "Columns", "BitsAllocated"):
        if dataset.get(name) is None:
            raise Unreadable("DICOM that cannot be decoded", f"header without {name}")
    _check_colour(dataset, kind, modality)
    check_size(int(dataset.Rows), int(dataset.Columns))
    return _frame(dataset, choice)


def _check_colour(dataset: pydicom.Dataset, kind: str, modality: str) -> None:
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    samples = int(dataset.get("SamplesPerPixel", 1) or 1)
    if photometric not in _GREY + _COLOUR:
        raise Unreadable("DICOM in colour", "photometric interpretation missing or unknown")
    if samples not in (1, 3) or (samples == 3) != (photometric not in (*_GREY, "PALETTE COLOR")):
        raise Unreadable("DICOM that cannot be decoded", f"{samples} samples a pixel in {photometric}")
    if photometric in _COLOUR and (kind.startswith(_VISIBLE_LIGHT) or modality in _PHOTOGRAPHS):
        raise Unreadable("DICOM in colour: photograph", f"modality {modality}")


def _frame(dataset: pydicom.Dataset, choice: Choice) -> int:
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames < 1:
        raise Unreadable("DICOM that cannot be decoded", f"{frames} frames")
    if choice.frame is None:
        if frames > 1:
            raise Unreadable("DICOM with several frames", f"{frames} frames")
        return 1
    if not 1 <= choice.frame <= frames:
        raise Unreadable("DICOM without the frame asked for", f"frame {choice.frame} of {frames}")
    return choice.frame


def _word(dataset: pydicom.Dataset, name: str, known: Collection[str], otherwise: str = "unknown") -> str:
    """The value of an attribute if it is one of a closed list: other text of a header may name the patient."""
    value = str(dataset.get(name, "") or "").strip().upper()
    return value if value in known else otherwise


def _marks(dataset: pydicom.Dataset) -> list[str]:
    """Return what the file says of itself that someone should look at: its pixels may name or show the patient."""
    said = (("BurnedInAnnotation", REPORT_BURNED_IN), ("RecognizableVisualFeatures", REPORT_VISIBLE))
    return [report for name, report in said if str(dataset.get(name, "")).strip().upper() == "YES"]


def _one_channel(dataset: pydicom.Dataset, stored: np.ndarray, repairs: list[str]) -> np.ndarray:
    """Return one channel, [H, W]: colour is kept only where it is a grey image in disguise."""
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        tables = [dataset.get(f"{name}PaletteColorLookupTableData") for name in ("Red", "Green", "Blue")]
        descriptor = dataset.get("RedPaletteColorLookupTableDescriptor")
        if not tables[0] or not descriptor or not tables[0] == tables[1] == tables[2]:
            raise Unreadable("DICOM in colour", "photometric interpretation PALETTE COLOR")
        repairs.append(REPAIR_EQUAL_CHANNELS)
        item = pydicom.Dataset()
        item.LUTDescriptor, item.LUTData = list(descriptor), tables[0]
        dataset.ModalityLUTSequence = pydicom.Sequence([item])
        return stored
    if stored.ndim == 2:
        return stored
    lossy_jpeg = dataset.file_meta.TransferSyntaxUID in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
    bits = bit_layout(dataset)[1]
    ready = photometric.startswith("YBR_FULL") and not lossy_jpeg  # a decoder of JPEG has made RGB of it
    luma_HW, chroma = _luma_and_chroma(stored, ready, bits)
    if chroma > FAINT * (1 << max(bits - 8, 0)):
        raise Unreadable("DICOM in colour", f"photometric interpretation {photometric}")
    repairs.append(REPAIR_FAINT_COLOUR if chroma else REPAIR_EQUAL_CHANNELS)
    return luma_HW


def _luma_and_chroma(stored_HWC: np.ndarray, ready: bool, bits: int) -> tuple[np.ndarray, float]:
    """Return the grey of three channels, and how far the colour differences (Cb, Cr) are from none at most.

    Args:
        stored_HWC: RGB or, if `ready`, luma and the two differences (PS3.3, C.7.6.3.1.2).
        ready: Whether the channels are luma and differences.
        bits: Stored bits of a sample.
    """
    first, second, third = np.moveaxis(stored_HWC, 2, 0)
    if ready:
        middle = 1 << (bits - 1)
        chroma = max(float(np.abs(channel.astype(np.int64) - middle).max()) for channel in (second, third))
        return np.ascontiguousarray(first), chroma
    if np.array_equal(first, second) and np.array_equal(first, third):
        return np.ascontiguousarray(first), 0.0
    luma = 0.299 * first + 0.587 * second + 0.114 * third
    chroma = max(float(np.abs(third - luma).max()) * 0.564, float(np.abs(first - luma).max()) * 0.713)
    return np.rint(luma).astype(stored_HWC.dtype), chroma


def _describe(
    dataset: pydicom.Dataset, frame: int, choice: Choice, stored_HW: np.ndarray, repairs: list[str]
) -> dict[str, Any]:
    """Decide how the stored values are to be shown."""
    allocated, bits, high_bit = bit_layout(dataset)
    values_V = distinct(stored_HW)
    padding = _padding(dataset, values_V, repairs)
    inside_V = values_V if padding is None else values_V[~_is_padding(values_V, padding)]
    usual_V = without_strays(stored_HW, inside_V)
    modality = describe_modality(dataset, frame, repairs)
    photometric = str(dataset.PhotometricInterpretation)
    if photometric.startswith("MONOCHROME"):
        voi = describe_voi(dataset, frame, choice.window, to_modality(usual_V, dataset, modality), repairs)
        if voi["function"] == "RANGE" and len(usual_V) < len(inside_V):
            repairs.append(REPAIR_STRAY)
    else:  # colour is ready to be shown
        palette = photometric == "PALETTE COLOR"
        depth = int(dataset.RedPaletteColorLookupTableDescriptor[2]) if palette else bits
        voi = {"function": "RANGE", "low": 0.0, "high": float((1 << depth) - 1)}
    shape = str(dataset.get("PresentationLUTShape", "") or "")
    if shape and (shape == "INVERSE") != (photometric == "MONOCHROME1"):
        repairs.append(REPAIR_SHAPE)
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    return {
        "height": int(dataset.Rows),
        "width": int(dataset.Columns),
        "bits": bits,
        "bits_allocated": allocated,
        "high_bit": high_bit,
        "signed": bool(dataset.get("PixelRepresentation", 0)),
        "photometric": photometric,
        **({"frame": frame, "frames": frames} if frames > 1 else {}),
        "padding": padding,
        "modality": modality,
        "voi": voi,
        "burned_in_annotation": _word(dataset, "BurnedInAnnotation", ("YES", "NO"), "not said"),
    }


def _render(dataset: pydicom.Dataset, frame: int, stored_HW: np.ndarray, recipe: dict[str, Any]) -> np.ndarray:
    def shown(values_V: np.ndarray) -> np.ndarray:
        shown_V = to_display(to_modality(values_V, dataset, recipe["modality"]), dataset, frame, recipe["voi"])
        if recipe["photometric"] == "MONOCHROME1":
            shown_V = 1 - shown_V
        if recipe["padding"] is not None:  # what lies outside the image is black, whatever the window makes of it
            shown_V[_is_padding(values_V, recipe["padding"])] = 0
        return shown_V

    return through_table(stored_HW, shown)


def _is_padding(values: np.ndarray, padding: list[int]) -> np.ndarray:
    return np.asarray((values >= padding[0]) & (values <= padding[1]))


def _padding(dataset: pydicom.Dataset, values_V: np.ndarray, repairs: list[str]) -> list[int] | None:
    """Return the range of stored values that stand for "no image" (PS3.3, C.7.5.1.1.2), ends included."""
    if (value := dataset.get("PixelPaddingValue")) is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    bounds = [int(value), int(value if limit is None else limit)]
    if dataset.get("PixelRepresentation", 0):  # some writers store a negative padding value as unsigned
        allocated = int(dataset.BitsAllocated)
        bounds = [bound - (1 << allocated) if bound >= 1 << (allocated - 1) else bound for bound in bounds]
    bounds.sort()
    if _is_padding(values_V, bounds).all():  # a wrong header would leave nothing to see
        repairs.append(REPAIR_PADDING)
        return None
    return bounds
