"""Files that mean harm, made from good ones: cut, flipped, forged, swollen. Each is a function of a seed."""

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid

from dicom_files import bare, compressed, dicom, jpeg_2000, jpeg_lossless, lut, ramp, rle, sequence, texture


def raster(values: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, form, **options)
    return buffer.getvalue()


def good_files() -> dict[str, bytes]:
    """One small file of each kind that is read."""
    grey, deep = texture(8), texture(12)
    colour = np.stack([grey, grey[::-1], grey], axis=2)
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG")
    tables = {"VOILUTSequence": sequence(lut(list(range(4096)), 0, 12)), "PixelPaddingValue": 3}
    frames = np.stack([deep, deep[::-1]])
    return {
        "a.png": raster(grey, "PNG"),
        "b.png": raster(deep, "PNG"),
        "c.png": raster(colour, "PNG"),
        "d.png": palette.getvalue(),
        "a.jpg": raster(grey, "JPEG"),
        "b.jpg": raster(colour, "JPEG", progressive=True),
        "c.jpg": raster(texture(8, height=300, width=300), "JPEG", quality=95),
        "native.dcm": dicom(deep, WindowCenter=[2000, 3], WindowWidth=[900, 4]),
        "signed.dcm": dicom(ramp(-900, 900, "<i2", (40, 30)), bits=16, RescaleSlope=2, RescaleIntercept=-5),
        "big.dcm": dicom(deep, syntax=uid.ExplicitVRBigEndian),
        "implicit.dcm": dicom(deep, syntax=uid.ImplicitVRLittleEndian, **tables),
        "deflated.dcm": dicom(deep, syntax=uid.DeflatedExplicitVRLittleEndian),
        "bare.dcm": bare(dicom(deep)),
        "colour.dcm": dicom(colour, bits=8),
        "frames.dcm": dicom(frames, NumberOfFrames=2),
        "baseline.dcm": compressed(imagecodecs.jpeg8_encode(grey), grey, uid.JPEGBaseline8Bit, bits=8),
        "extended.dcm": compressed(imagecodecs.jpeg8_encode(deep, bitspersample=12), deep, uid.JPEGExtended12Bit),
        "lossless.dcm": compressed(jpeg_lossless(deep, 12, 1), deep, uid.JPEGLosslessSV1),
        "process14.dcm": compressed(jpeg_lossless(deep, 12, 5), deep, uid.JPEGLossless),
        "jpegls.dcm": compressed(imagecodecs.jpegls_encode(deep), deep, uid.JPEGLSLossless),
        "near.dcm": compressed(imagecodecs.jpegls_encode(deep, 3), deep, uid.JPEGLSNearLossless),
        "j2k.dcm": compressed(jpeg_2000(deep, reversible=True), deep, uid.JPEG2000Lossless),
        "htj2k.dcm": compressed(imagecodecs.htj2k_encode(deep), deep, uid.HTJ2KLossless),
        "rle.dcm": compressed(rle(deep), deep, uid.RLELossless),
    }


Mutation = Callable[[bytes, np.random.Generator], bytes]


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, len(data)))]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip one to twenty bits, more often near the start, where headers are."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 21))):
        place = int(rng.random() ** 2 * len(data))
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    """Put an extreme number somewhere."""
    extreme = rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE])
    size = int(rng.choice([1, 2, 4]))
    place = int(rng.integers(0, max(1, len(data) - size)))
    order = "little" if rng.random() < 0.5 else "big"
    number = (int(extreme) & ((1 << 8 * size) - 1)).to_bytes(size, order)  # type: ignore[arg-type]
    return data[:place] + number + data[place + size :]


def shuffle(data: bytes, rng: np.random.Generator) -> bytes:
    """Take a piece out, and put it in elsewhere, once or many times."""
    start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    place = int(rng.integers(0, len(data) + 1))
    return data[:place] + data[start:end] * int(rng.choice([0, 1, 1, 30])) + data[place:]


def blank(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:start] + bytes([int(rng.choice([0, 255]))]) * (end - start) + data[end:]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    """Keep the first bytes, by which a file is known, and follow them with noise."""
    return data[: int(rng.choice([0, 4, 16, 140, 400]))] + rng.bytes(int(rng.integers(0, 5000)))


def forge(data: bytes, rng: np.random.Generator) -> bytes:
    """Have a header announce a monstrous or impossible image, in good form."""
    sides = [0, 1, 7, 255, 10_000, 46_340, 65_535]
    height, width = int(rng.choice(sides)), int(rng.choice(sides))
    if data[:4] == b"\x89PNG":
        chunk = b"IHDR" + struct.pack(">II", width * 30, height * 30) + data[24:29]
        return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    if data[:2] == b"\xff\xd8":
        place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        for name, numbers in (
            ("Rows", sides),
            ("Columns", sides),
            ("BitsAllocated", [0, 1, 8, 12, 16, 32, 64, 65535]),
            ("BitsStored", [0, 1, 17, 65535]),
            ("HighBit", [0, 3, 65535]),
            ("SamplesPerPixel", [0, 1, 3, 4, 65535]),
            ("NumberOfFrames", [0, -1, 2, 2**31 - 1]),
            ("PixelRepresentation", [0, 1, 7]),
            ("PixelPaddingValue", [0, 65535]),
            ("PlanarConfiguration", [0, 1, 9]),
        ):
            if rng.random() < 0.3:
                setattr(dataset, name, int(rng.choice(numbers)))
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=False)
        return buffer.getvalue()
    except Exception:  # a number that cannot be written: leave it to the other mutations
        return flip(data, rng)


def swell(data: bytes, rng: np.random.Generator) -> bytes:
    """A decompression bomb of the file's kind."""
    megabytes = int(rng.choice([50, 450]))
    if data[:4] == b"\x89PNG":
        side = int((megabytes * 1e6) ** 0.5)
        ihdr = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, int(rng.choice([0, 2, 6])), 0, 0, 0)
        kind = b"IDAT" if rng.random() < 0.5 else b"zTXt" + b"key\0\0"
        body = kind + _zeros(megabytes, 15)
        chunks = [ihdr, body] if kind == b"IDAT" else [ihdr, body, data[data.find(b"IDAT") : -16]]
        return data[:8] + b"".join(
            struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
            for chunk in (*chunks, b"IEND")
        )
    if data[:2] == b"\xff\xd8":
        scan = data[data.find(b"\xff\xda") : -2]
        return forge(data[:-2] + scan * int(rng.choice([5, 300])) + data[-2:], rng)
    deflated = uid.DeflatedExplicitVRLittleEndian.encode()
    if deflated in data[:400]:
        head = data[: data.find(deflated) + len(deflated)]
        return head + _zeros(megabytes, -15, b"\xe0\x7f\x10\x00OB\0\0" + struct.pack("<I", megabytes * 10**6))
    # Sequences in sequences, each of undefined length.
    depth = int(rng.choice([50, 3000]))
    return data[:400] + (b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth


def _zeros(megabytes: int, wbits: int, start: bytes = b"") -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, wbits)
    parts = [compressor.compress(start), *(compressor.compress(bytes(10**6)) for _ in range(megabytes))]
    return b"".join(parts) + compressor.flush()


MUTATIONS: tuple[Mutation, ...] = (cut, flip, flip, overwrite, overwrite, shuffle, blank, noise, forge, forge)


def hostile_file(number: int, good: dict[str, bytes]) -> tuple[str, bytes]:
    """Name and content of one hostile file; the name's extension may be wrong."""
    rng = np.random.default_rng([number, 20])
    name = list(good)[number % len(good)]
    data = good[name]
    if number % 100 == 99:
        data = b""
    elif number % 50 == 49:
        data = swell(data, rng)
    else:
        for _ in range(int(rng.integers(1, 4))):
            data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng) if data else data
    suffix = str(rng.choice(["", ".png", ".jpg", ".dcm", ".txt"])) if rng.random() < 0.2 else "." + name.split(".")[1]
    return f"{number:05d}{suffix}", data
