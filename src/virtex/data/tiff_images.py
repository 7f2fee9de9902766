"""The values of TIFF files that Pillow cannot read, or only with 8 bits; tifffile reads them."""

import io
import logging
import math
import operator
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from virtex.data.pillow_images import SEVERAL_PAGES, UNNAMED_BAND
from virtex.data.pixel_values import CheckSize, MissingPackageError, Raster, bits_range

Tags = Mapping[int, tuple[int, ...]]
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _EXTRA, _FORMAT = 258, 262, 274, 277, 338, 339
_USED = (_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _EXTRA, _FORMAT)
_UNSIGNED = 1
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_PREMULTIPLIED, _ALPHA = 1, 2
_CLASSIC = (b"*\0", b"\0*")  # not BigTIFF
_BAND_AXES = "CSQI"  # of tifffile: channels, samples, and axes without a name
_MOST_PAGES = 10_000
_PACKAGES = "pip install 'virtex-pretraining[bands]'"


def first_tags(data: bytes) -> Tags:
    """The tags of a TIFF file's first image that are used here; empty if it is not one."""
    endian = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    try:
        version = struct.unpack_from(endian + "H", data, 2)[0] if endian else 0
        if version == 42:
            return _directory(data, endian, "I", "H", struct.unpack_from(endian + "I", data, 4)[0])
        if version == 43:  # BigTIFF
            return _directory(data, endian, "Q", "Q", struct.unpack_from(endian + "Q", data, 8)[0])
    except struct.error:  # the directory ends outside the file
        pass
    return {}


def _check_directories(data: bytes) -> None:
    """Raise ValueError if a page's directory lies outside the file, which tifffile passes over."""
    endian = "<" if data[:2] == b"II" else ">"
    offset, count, entry, at = ("I", "H", 12, 4) if data[2:4] in _CLASSIC else ("Q", "Q", 20, 8)
    seen = {0}
    try:
        while (start := struct.unpack_from(endian + offset, data, at)[0]) not in seen:
            seen.add(start)
            if len(seen) > _MOST_PAGES:
                raise ValueError(f"it has more than {_MOST_PAGES} pages")
            (entries,) = struct.unpack_from(endian + count, data, start)
            at = start + struct.calcsize("=" + count) + entry * entries
    except struct.error as error:
        raise ValueError("it is truncated") from error


def _directory(data: bytes, endian: str, offset: str, count: str, start: int) -> Tags:
    tags: dict[int, tuple[int, ...]] = {}
    size = struct.calcsize("=" + offset)
    (entries,) = struct.unpack_from(endian + count, data, start)
    first = start + struct.calcsize("=" + count)
    for number in range(min(entries, 4096)):
        place = first + number * (4 + 2 * size)
        tag, kind, values = struct.unpack_from(f"{endian}HH{offset}", data, place)
        form = {3: "H", 4: "I"}.get(kind)
        if tag not in _USED or form is None or values > 4096:
            continue
        at = place + 4 + size
        if struct.calcsize(f"={values}{form}") > size:
            (at,) = struct.unpack_from(endian + offset, data, at)
        tags[tag] = struct.unpack_from(f"{endian}{values}{form}", data, at)
    return tags


def needs_tifffile(tags: Tags, *, every_band: bool) -> bool:
    """Whether Pillow would reduce or refuse the values of a file with these tags."""
    if not tags:
        return False
    (samples, *_), bits = tags.get(_SAMPLES, (1,)), max(tags.get(_BITS, (1,)), default=1)
    photometric, kind = tags.get(_PHOTOMETRIC, (_BLACK_IS_ZERO,)), tags.get(_FORMAT, (_UNSIGNED,))
    if samples == 1:
        return bits > 32 or bits == 24 or (bits == 32 and kind[0] == _UNSIGNED) or every_band
    if bits > 8 or kind[0] != _UNSIGNED:
        return True
    grey = photometric[0] in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    return (samples > 3 and every_band) or (grey and samples > 2)


def tiff_raster(
    data: bytes, tags: Tags, check_size: CheckSize, *, every_band: bool = False
) -> tuple[Raster, int]:
    """The values of a file's first image and their Exif orientation.

    With `every_band`, alpha is a band as others, and images of one band that the file declares as
    channels of one are its bands. Raises `MissingPackageError`, and ValueError for what is not
    supported.
    """
    try:
        import tifffile
    except ImportError as error:
        raise MissingPackageError(
            f"TIFF files with several bands of more than 8 bits, or with bands that are not RGB, "
            f"require tifffile: {_PACKAGES}"
        ) from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what matters is raised
    _check_directories(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        values, notes = _values(file, check_size, every_band=every_band)
    turned = tags.get(_ORIENTATION, (1,))[0]
    raster = _interpreted(values, tags, notes, every_band=every_band)
    return raster, turned if 1 <= turned <= 8 else 1


def _values(
    file: Any, check_size: CheckSize, *, every_band: bool
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """The values (H, W, C) of the first page, or of the pages that hold a band each."""
    page, several = file.pages[0], len(file.pages) > 1
    read, pages = page, [page]
    if several and every_band and page.samplesperpixel == 1:
        read = file.series[0]
        pages, several = list(read.pages), False
        _check_channels(read, page)
    bands = math.prod(read.shape) // max(page.imagewidth * page.imagelength, 1)
    check_size(page.imagewidth, page.imagelength, bands * page.dtype.itemsize)
    for one in pages:
        ends = map(operator.add, one.dataoffsets, one.databytecounts)
        if max(ends, default=0) > file.filehandle.size:
            raise ValueError("it is truncated")
    try:
        values = read.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise MissingPackageError(f"{error}: {_PACKAGES}") from error
    return _bands_last(values, read.axes), (SEVERAL_PAGES,) if several else ()


def _check_channels(series: Any, page: Any) -> None:
    """Raise ValueError unless the pages of a series are the bands of one image."""
    stacked = series.axes.replace("Y", "").replace("X", "")
    several = [axis for axis in stacked if series.shape[series.axes.index(axis)] > 1]
    # Of an array (H, W, C), tifffile may write H pages of W x C pixels.
    by_rows = len(series.pages) > min(page.imagewidth, page.imagelength)
    if len(several) != 1 or several[0] not in _BAND_AXES or by_rows:
        raise ValueError(
            f"its {len(series.pages)} pages of {page.imagewidth} x {page.imagelength} pixels are "
            f"not declared as channels of one image (axes {series.axes}); save all bands in one "
            "page, with tifffile by planarconfig='contig'"
        )


def _bands_last(values: npt.NDArray[Any], axes: str) -> npt.NDArray[Any]:
    """Values (H, W, C); of tifffile's axes only one besides Y and X may be longer than 1."""
    moved = np.moveaxis(values, (axes.index("Y"), axes.index("X")), (0, 1))
    if max(moved.shape[2:], default=1) != math.prod(moved.shape[2:]):
        raise ValueError(f"it has the axes {axes}; expected one image with bands")
    return moved.reshape(*moved.shape[:2], -1)


def _interpreted(
    values: npt.NDArray[Any], tags: Tags, notes: tuple[str, ...], *, every_band: bool
) -> Raster:
    """The values as grey, as RGB, or as bands without a meaning."""
    if values.dtype.kind not in "uif":
        raise ValueError(f"its values are of type {values.dtype}, which is not supported")
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    declared = _declared(values, tags)
    if every_band:
        return Raster(values, declared, notes=notes)
    photometric = tags.get(_PHOTOMETRIC, (_BLACK_IS_ZERO,))[0]
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        raise ValueError(
            f"it has several bands of photometric interpretation {photometric}, which is not "
            "supported with more than 8 bits; save it as RGB"
        )
    colours = 3 if photometric == _RGB else 1
    extra = tags.get(_EXTRA, ())
    if len(extra) == 1 and extra[0] in (_PREMULTIPLIED, _ALPHA) and values.shape[2] == colours + 1:
        return _with_alpha(values, extra[0], declared, photometric == _WHITE_IS_ZERO, notes)
    if photometric == _RGB and values.shape[2] > 3:
        values, notes = values[:, :, :3], (*notes, UNNAMED_BAND)
    return Raster(values, declared, inverted=photometric == _WHITE_IS_ZERO, notes=notes)


def _declared(values: npt.NDArray[Any], tags: Tags) -> tuple[float, float] | None:
    if values.dtype.kind != "u" or values.dtype.itemsize > 2:
        return None
    return bits_range(max(tags.get(_BITS, (16,))))


def _with_alpha(
    values: npt.NDArray[Any],
    kind: int,
    declared: tuple[float, float] | None,
    inverted: bool,
    notes: tuple[str, ...],
) -> Raster:
    """Colours without their last band, which is alpha in the range of its type, or 0 to 1."""
    colours, alpha = values[:, :, :-1], values[:, :, -1].astype(np.float64)
    alpha = np.clip(alpha / (1.0 if declared is None else declared[1]), 0, 1)
    if kind == _PREMULTIPLIED:
        most = np.inf if declared is None else declared[1]
        whole = np.minimum(colours / np.where(alpha > 0, alpha, 1)[:, :, None], most)
        colours = (whole if declared is None else np.rint(whole)).astype(values.dtype)
    opacity = np.clip(256 * alpha, 0, 255).astype(np.uint8)
    return Raster(colours, declared, opacity, inverted=inverted, notes=notes)
