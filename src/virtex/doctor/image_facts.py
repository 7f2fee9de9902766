"""What a checkup keeps of each image: read once, by several processes, as training reads it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from virtex.data import jpeg_parts
from virtex.data.exif import orientation
from virtex.data.images import (
    BadImage,
    ImageLimits,
    ImageSource,
    PixelArray,
    decode_image,
    is_jpeg,
    read_bytes,
)
from virtex.data.pixel_values import PixelSettings
from virtex.data.records import Records
from virtex.data.shards.shard_workers import in_workers
from virtex.errors import UserError

THUMBNAIL = 16
"""The side of the grey thumbnails that are compared."""
_CHUNK = 16


class ImageFacts(NamedTuple):
    """One image of a split, or the reason why it cannot be read.

    `digest` is a hash of the pixels; `difference_hash` has a bit for each of 8 x 8 pairs of
    neighbours, whether the right one is brighter; `thumbnail` (16, 16) is grey, float32. `contrast`
    is the largest standard deviation of a band.
    """

    position: int
    name: str
    problem: str | None = None
    height: int = 0
    width: int = 0
    contrast: float = 0.0
    is_turned: bool = False
    digest: bytes = b""
    difference_hash: int = 0
    thumbnail: npt.NDArray[np.float32] | None = None


def image_facts(
    records: Records,
    positions: Sequence[int],
    limits: ImageLimits,
    pixels: PixelSettings,
    *,
    workers: int,
    advance: Callable[[int], None],
) -> Iterator[ImageFacts]:
    """The facts of the images of the records at `positions`, in order; several for some records.

    Raises RunError if a worker is lost, and `UserError` if a package is missing.
    """
    chunks = _Chunks(records, positions, limits, pixels)
    for facts in in_workers(chunks, workers, doing="reading the images"):
        advance(len({fact.position for fact in facts}))
        yield from facts


class _Chunks(Dataset[list[ImageFacts] | UserError]):
    """The facts of some records at a time; a missing package is returned as a value."""

    def __init__(
        self,
        records: Records,
        positions: Sequence[int],
        limits: ImageLimits,
        pixels: PixelSettings,
    ) -> None:
        self._records, self._positions = records, positions
        self._limits, self._pixels = limits, pixels

    def __len__(self) -> int:
        return -(-len(self._positions) // _CHUNK)

    def __getitem__(self, number: int) -> list[ImageFacts] | UserError:
        if number >= len(self):
            raise IndexError(number)
        facts = []
        for position in self._positions[number * _CHUNK : (number + 1) * _CHUNK]:
            try:
                record = self._records[position]
            except BadImage as error:
                facts.append(ImageFacts(position, str(error.picture), error.reason))
                continue
            for source in (record.image, *record.others):
                try:
                    facts.append(self._facts(position, source))
                except BadImage as error:
                    facts.append(ImageFacts(position, str(source), error.reason))
                except UserError as error:
                    return error
        return facts

    def _facts(self, position: int, source: ImageSource) -> ImageFacts:
        data = read_bytes(source, self._limits)
        image = decode_image(data, source, self._limits, self._pixels)
        turned = is_jpeg(data) and orientation(jpeg_parts.exif(data)) != 1
        grey = _grey(image)
        small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
        bits = np.packbits(small[:, 1:] > small[:, :-1])
        return ImageFacts(
            position,
            str(source),
            height=image.shape[0],
            width=image.shape[1],
            contrast=float(image.reshape(-1, image.shape[2]).std(axis=0).max()),
            is_turned=turned,
            digest=hashlib.blake2b(image.tobytes() + str(image.shape).encode()).digest()[:16],
            difference_hash=int.from_bytes(bits.tobytes(), "big"),
            thumbnail=cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA),
        )


def _grey(image: PixelArray) -> npt.NDArray[np.float32]:
    """The mean of the bands, (H, W)."""
    grey: npt.NDArray[np.float32] = image.mean(axis=2, dtype=np.float32)
    return grey
