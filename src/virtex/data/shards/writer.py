"""One tar shard from records: the same records give the same bytes."""

import hashlib
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from virtex.data.images import (
    DEFAULT_LIMITS,
    BadImage,
    ImageLimits,
    ImageSource,
    decode_image,
    decode_raster,
    read_bytes,
)
from virtex.data.pixel_values import DEFAULT_PIXELS, PixelSettings
from virtex.data.records import Records, record_json
from virtex.data.shards.tar_index import FURTHER_IMAGE, IMAGES, KINDS, ROW, TarIndex, summarize
from virtex.data.shards.tar_members import BLOCK
from virtex.files import whole_file

_END = bytes(2 * BLOCK)
_SIGNATURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n": "png", b"GIF8": "gif", b"BM": "bmp"}


@dataclass(frozen=True)
class Reduction:
    """Images whose shorter side is longer than `short_side` pixels are reduced to it, as JPEG."""

    short_side: int
    quality: int


@dataclass(frozen=True)
class Packing:
    """How records become shards; unchecked images are copied without being decoded."""

    reduction: Reduction | None = None
    skip_bad: bool = False
    checked: bool = True
    with_categories: bool = False


def write_shard(
    records: Records,
    positions: Iterable[int],
    path: Path,
    packing: Packing,
    limits: ImageLimits = DEFAULT_LIMITS,
    pixels: PixelSettings = DEFAULT_PIXELS,
) -> tuple[TarIndex, list[BadImage]]:
    """Write the tar file `path`, whole or not at all; returns its index and the skipped images.

    `pixels` is for reduced images, which are stored with 8 bits. Raises BadImage for an image that
    cannot be read, unless `packing` skips it; OSError if writing fails.
    """
    with whole_file(path) as file:
        shard = _Shard(file)
        added = (_add(shard, records, index, packing, limits, pixels) for index in positions)
        bad = [error for error in added if error]
        shard.append(_END)
    keys = [PurePath(error.picture).name for error in bad]
    index = TarIndex(
        rows=np.array(shard.rows, ROW),
        further=np.array(shard.further, FURTHER_IMAGE),
        tar_bytes=shard.size,
        tar_sha256=shard.sha256.hexdigest(),
        ids="given",
        labels="categories" if packing.with_categories else "captions",
        excluded=(summarize("images cannot be read", keys),) if keys else (),
    )
    return index, bad


class _Shard:
    """A tar file that is being written, and the rows of its index."""

    def __init__(self, file: BinaryIO) -> None:
        self.rows: list[tuple[int, ...]] = []
        self.further: list[tuple[int, ...]] = []
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._file = file

    def append(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)

    def add(self, name: str, data: bytes) -> tuple[int, int, int]:
        """Append a member; returns its offset, size and checksum."""
        member = tarfile.TarInfo(name)  # of time 0 and owner 0
        member.size = len(data)
        self.append(member.tobuf(tarfile.USTAR_FORMAT))
        location = self.size, len(data), zlib.crc32(data)
        self.append(data + bytes(-len(data) % BLOCK))
        return location


def _add(
    shard: _Shard,
    records: Records,
    index: int,
    packing: Packing,
    limits: ImageLimits,
    pixels: PixelSettings,
) -> BadImage | None:
    """Add a record; returns the error of an image that is skipped."""
    try:
        record = records[index]
        images = [
            _image(image, packing, limits, pixels) for image in (record.image, *record.others)
        ]
    except BadImage as error:
        if not packing.skip_bad:
            raise
        return error
    key = f"{record.image_id:012}"
    names = [key, *(f"{key}.{number}" for number in range(1, len(images)))]
    first, *further = [
        shard.add(f"{name}.{extension}", data)
        for name, (extension, data) in zip(names, images, strict=True)
    ]
    shard.further += [(len(shard.rows), *image) for image in further]
    categories = record.categories if packing.with_categories else None
    json = record_json(record.image_id, record.captions, categories, len(images))
    text = shard.add(f"{key}.json", json)
    shard.rows.append((record.image_id, *first, *text, KINDS.index("json")))
    return None


def _image(
    source: ImageSource, packing: Packing, limits: ImageLimits, pixels: PixelSettings
) -> tuple[str, bytes]:
    """The extension and the bytes of an image in the shard."""
    data = read_bytes(source, limits)
    if packing.reduction is not None:
        image = decode_image(data, source, limits, pixels)
        if min(image.shape[:2]) > packing.reduction.short_side:
            return "jpg", _reduced(image, packing.reduction, source)
    elif packing.checked:
        # The range, and which frame is used, are for the training to choose.
        decode_raster(data, source, limits, replace(pixels, frame="first"))
    return _extension(data, source), data


def _reduced(image: npt.NDArray[np.uint8], reduction: Reduction, source: ImageSource) -> bytes:
    """An (H, W, 3) RGB image as a smaller JPEG."""
    height, width = image.shape[:2]
    factor = reduction.short_side / min(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    encoded, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, reduction.quality])
    if not encoded:
        reason = f"{size[0]} x {size[1]} pixels are too elongated to be written as JPEG"
        raise BadImage(source, reason)
    return jpeg.tobytes()


def _extension(data: bytes, source: ImageSource) -> str:
    """The extension of an image's name in the shard, by which it is recognized."""
    for signature, extension in _SIGNATURES.items():
        if data.startswith(signature):
            return extension
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    named = str(source).rpartition(".")[2].lower()
    return named if named in IMAGES else "img"  # the format is found from the bytes
