"""JPEG files that are whole and unusual, made by hand from parts."""

import io
import struct

import numpy as np
from PIL import Image

EOI, SOS = b"\xff\xd9", b"\xff\xda"


def noisy(size=(70, 60), seed=0):
    """Pixels (H, W, 3) with something in every block."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([128 + 100 * np.sin(x / 17 + y / 9), 60 + y, 255 - x], -1)
    noise = np.random.default_rng(seed).normal(0, 12, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def jpeg(pixels=None, mode="RGB", **options):
    file = io.BytesIO()
    image = Image.fromarray(noisy() if pixels is None else pixels).convert(mode)
    image.save(file, "JPEG", **({"quality": 90} | options))
    return file.getvalue()


def segment(code, content):
    return bytes((0xFF, code)) + struct.pack(">H", len(content) + 2) + content


def bits(text):
    """'0' and '1' as a scan's data, filled up with 1."""
    text += "1" * (-len(text) % 8)
    values = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    return values.replace(b"\xff", b"\xff\0")


def table(kind, codes):
    """A Huffman table in which all `codes` have the same length, the least that leaves one free."""
    length = len(codes).bit_length()
    counts = bytes(len(codes) if n == length else 0 for n in range(1, 17))
    return segment(0xC4, bytes((kind,)) + counts + bytes(codes))


def lossless(values):
    """8-bit grey (H, W) without loss (process 3, each value as its difference from the left)."""
    height, width = values.shape
    code = ""
    for y in range(height):
        for x in range(width):
            before = values[y, x - 1] if x else values[y - 1, 0] if y else 128
            difference = int(values[y, x]) - int(before)
            size = abs(difference).bit_length()
            code += format(size, "05b")
            if size:
                code += format(difference + (difference < 0) * ((1 << size) - 1), f"0{size}b")
    frame = b"\x08" + struct.pack(">HH", height, width) + b"\1\1\x11\0"
    scan = segment(0xDA, b"\1\1\0\1\0\0") + bits(code)
    return b"\xff\xd8" + segment(0xC3, frame) + table(0, range(17)) + scan + EOI


def scans_of_one_coefficient(count, side=8):
    """A progressive grey file, each of whose `count` (at most 127) scans gives something new."""
    frame = b"\x08" + struct.pack(">HH", side, side) + b"\1\1\x11\0"
    blocks = (-(-side // 8)) ** 2
    parts = [b"\xff\xd8", segment(0xDB, b"\0" + b"\1" * 64), segment(0xC2, frame)]
    parts += [table(0, [0, 5]), table(0x10, [0])]
    first = "01" + "10000" + "00" * (blocks - 1)  # a difference of 16, then none
    parts.append(segment(0xDA, b"\1\1\0\0\0\0") + bits(first))
    # No coefficient is other than 0: an end of block in each, first of the upper bits.
    for number in range(count - 1):
        spectral, low = number % 63 + 1, number < 63
        header = bytes((1, 1, 0, spectral, spectral, 0x01 if low else 0x10))
        parts.append(segment(0xDA, header) + bits("0" * blocks))
    return b"".join([*parts, EOI])


def with_scan_header(data, offset, value):
    """The last three bytes of the first scan's header are spectral start, end, approximation."""
    start = data.index(SOS)
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return data[: end + offset] + bytes((value,)) + data[end + offset + 1 :]


def before(marker, inserted, data):
    place = data.index(marker, data.index(SOS)) if marker != EOI else len(data) - 2
    return data[:place] + inserted + data[place:]


def after_start(data, inserted):
    return data[:2] + inserted + data[2:]


def unusual():
    """{what is unusual: the file}; each is whole, and Pillow decodes it."""
    plain, restarts = jpeg(), jpeg(restart_marker_blocks=6)
    progressive = jpeg(progressive=True)
    several = io.BytesIO()
    images = [Image.fromarray(noisy(seed=seed)) for seed in range(3)]
    images[0].save(several, "MPO", save_all=True, append_images=images[1:])
    adobe = b"Adobe\0d\0\0\0\0"
    return {
        "spectral end of 0": with_scan_header(plain, -2, 0),
        "spectral start of 5": with_scan_header(plain, -3, 5),
        "approximation of 1": with_scan_header(plain, -1, 1),
        "two bytes before the end": before(EOI, b"\0\0", plain),
        "many bytes before the end": before(EOI, bytes(258), plain),
        "bytes with values before the end": before(EOI, bytes(range(1, 200)), plain),
        "a marker twice": before(EOI, b"\xff\xd7" * 3, plain),
        "bytes before a restart": before(b"\xff\xd0", bytes(3), restarts),
        "bytes before a scan": before(b"\xff\xc4", b"\1\2\3", progressive),
        "bytes before the end of many scans": before(EOI, bytes(99), progressive),
        "fill bytes": before(EOI, b"\xff" * 20, plain),
        "an unknown colour transform": after_start(plain, segment(0xEE, adobe + b"\7")),
        "three components as they are": after_start(plain, segment(0xEE, adobe + b"\0")),
        "an unknown version of JFIF": plain.replace(b"JFIF\0\1", b"JFIF\0\7"),
        "no JFIF": plain[:2] + plain[20:],
        "a comment and a broken Exif": after_start(
            plain, segment(0xFE, b"\xff\xd9\xff\xda") + segment(0xE1, b"Exif\0\0MM\0*\xff\xff")
        ),
        "a broken profile": after_start(plain, segment(0xE2, b"ICC_PROFILE\0\5\1junk")),
        "a broken list of images": after_start(
            plain, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")
        ),
        "many scans behind the end": plain + SOS * 1000,
        "a second image behind the end": plain + jpeg(noisy(seed=5), progressive=True) * 20,
        "many scans in its metadata": after_start(plain, segment(0xE1, SOS * 1000)),
        "several images": several.getvalue(),
        "four inks": jpeg(mode="CMYK"),
        "one component": jpeg(mode="L"),
        "one component of four samples": jpeg(mode="L").replace(b"\1\1\x11\0", b"\1\1\x22\0", 1),
        "a restart at every block": jpeg(restart_marker_blocks=1),
        "progressive with restarts": jpeg(progressive=True, restart_marker_blocks=3),
        "an interval longer than the image": after_start(plain, segment(0xDD, b"\xff\xff")),
        "an interval of none": after_start(plain, segment(0xDD, b"\0\0")),
        "without loss": lossless(np.arange(256).reshape(16, 16) * 7 % 200),
        "127 scans": scans_of_one_coefficient(127),
        "no end marker, all zeros behind": plain[:-2] + bytes(600),
    }
