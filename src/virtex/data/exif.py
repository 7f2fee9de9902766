"""The orientation in an image's Exif data.

Our own parser takes a few microseconds for each image, and treats broken Exif data, which are
common, as upright instead of raising an error.
"""

import struct

import numpy as np
import numpy.typing as npt

EXIF_HEADER = b"Exif\0\0"
_ORIENTATION_TAG, _SHORT = 0x0112, 3


def orientation(exif: bytes) -> int:
    """The orientation, 1 … 8, of an Exif payload (with or without its header); 1 is upright."""
    tiff = exif.removeprefix(EXIF_HEADER)
    endian = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if endian is None:
        return 1
    try:
        (start,) = struct.unpack_from(endian + "I", tiff, 4)
        (entries,) = struct.unpack_from(endian + "H", tiff, start)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(endian + "HHIH", tiff, start + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG and kind == _SHORT and 1 <= value <= 8:
                return int(value)
    except struct.error:  # the directory ends outside the payload
        pass
    return 1


def upright(image: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Turn a stored image (H, W, C) upright; the result is contiguous."""
    if orientation == 1:
        return image
    if orientation >= 5:  # 5 … 8: rows and columns are exchanged
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
