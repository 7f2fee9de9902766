"""The segments of a JPEG file: where the image ends, its scans, and whether its data are complete.

Whatever follows the image's end marker (a second image, a video, a sender's bytes) is ignored.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from virtex.data.exif import EXIF_HEADER

_SOS, _EOI, _DRI = 0xDA, 0xD9, 0xDD
_APPLICATION = frozenset(range(0xE0, 0xF0))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF: the size of the image
# Comments and application segments except JFIF's and Adobe's, which name the colour space.
_METADATA = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))
_ARITHMETIC = frozenset(range(0xC9, 0xD0))
_WITHOUT_LENGTH = frozenset((0x01, 0xD8, _EOI))
# In a scan's data FF 00 is a value of 255, and FF D0 … FF D7 restart the decoder.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_SCAN = b"\xff\xda"
_MOST_SCANS = 100  # programs write about ten
_MOST_SEGMENTS = 20_000
_MOST_BEFORE_EXIF = 1000  # it is among the first, but a profile or a preview may precede it
# It has no FF, and begins with 0 for data that are cut after an FF.
_PROBE = bytes(37 * number * number % 251 for number in range(64))


class Segment(NamedTuple):
    """A marker's position and code, and where its parameters and the data after them end."""

    start: int
    code: int
    parameters_end: int
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """The segments of a JPEG file up to the image's end marker, or else to the end of the file.

    Raises ValueError if there are more than any program writes.
    """
    match = _MARKER.search(data, 2)
    for _ in range(_MOST_SEGMENTS):
        if match is None:
            return
        start, code, position = match.start(), data[match.start() + 1], match.end()
        if code not in _WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
        match = None if code == _EOI else _MARKER.search(data, position)
        end = len(data) if match is None else match.start()
        yield Segment(start, code, min(position, end), end)
    raise ValueError(f"it has more than {_MOST_SEGMENTS} segments, which only waste time")


def exif(data: bytes) -> bytes:
    """The Exif payload with its header; empty if there is none."""
    for part in islice(segments(data), _MOST_BEFORE_EXIF):
        if part.code not in _APPLICATION:  # they precede all others
            break
        if data.startswith(EXIF_HEADER, part.start + 4):
            return data[part.start + 4 : part.parameters_end]
    return b""


def check_scans(data: bytes, max_pixels: int) -> None:
    """Raise ValueError if there are so many scans that they only waste time.

    Each scan goes through the whole image. Above a hundred, none may repeat another, and all of
    them may not take more work than a hundred scans of an image of `max_pixels`.
    """
    if data.count(_SCAN) <= _MOST_SCANS:  # a quick bound, as it counts bytes after the image too
        return
    parts = list(segments(data))
    scans = [data[part.start : part.parameters_end] for part in parts if part.code == _SOS]
    pixels = max((_pixels(data, part) for part in parts if part.code in _FRAMES), default=0)
    if len(scans) > _MOST_SCANS and (
        len(set(scans)) < len(scans) or len(scans) * pixels > _MOST_SCANS * max_pixels
    ):
        raise ValueError(f"it has more than {_MOST_SCANS} scans, which only waste time")


def kind(data: bytes) -> str:
    """Describe the kind of JPEG file: `process 3, 12 bits a sample, 3 components`."""
    for part in segments(data):
        if part.code in _FRAMES and part.parameters_end - part.start >= 10:
            bits, components = data[part.start + 4], data[part.start + 9]
            height = int.from_bytes(data[part.start + 5 : part.start + 7], "big")
            without = "" if height else ", without a height in its header"
            process = part.code - 0xC0
            return f"process {process}, {bits} bits a sample, {components} components{without}"
    return "without a frame header"


def without_metadata(data: bytes) -> bytes:
    """The file without metadata, which may be broken, and without what follows the image."""
    parts = (part for part in segments(data) if part.code not in _METADATA)
    return data[:2] + b"".join(data[part.start : part.end] for part in parts)


def probe(data: bytes) -> bytes | None:
    """The same image with meaningless bytes after each part of its data.

    A decoder skips them unless the part is truncated: then it takes them for the missing data and
    gives other pixels. None for arithmetic coding, which may leave out the end of the data.
    """
    pieces = [data[:2]]
    for part in segments(data):
        if part.code in _ARITHMETIC:
            return None
        if part.code != _SOS:
            pieces.append(data[part.start : part.end])
            continue
        # A file may get its length before its content, so zeros at the end are not data.
        coded = data[part.parameters_end : part.end].rstrip(b"\0")
        restarts = _RESTART.findall(coded)
        following = bytes((0xFF, 0xD0 + len(restarts) % 8))
        coded = _RESTART.sub(lambda marker: _PROBE + marker[0], coded)
        pieces += [data[part.start : part.parameters_end], coded, _PROBE, following, _PROBE]
    return b"".join((*pieces, b"\xff\xd9"))


def lost_restart(data: bytes) -> bool:
    """Whether a restart marker is missing, so that decoders leave out the data after it."""
    restarts = False
    for part in segments(data):
        if part.code == _DRI:
            restarts = any(data[part.start + 4 : part.start + 6])
        elif part.code == _SOS and restarts:
            found = _RESTART.findall(data, part.parameters_end, part.end)
            ahead = {(marker[1] - 0xD0 - number) % 8 for number, marker in enumerate(found)}
            if ahead & {1, 2, 6, 7}:
                return True
    return False


def _pixels(data: bytes, frame: Segment) -> int:
    size = data[frame.start + 5 : frame.start + 9]
    return int.from_bytes(size[:2], "big") * int.from_bytes(size[2:], "big")
