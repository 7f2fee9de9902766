"""Grey JPEG-LS and lossless JPEG in DICOM files: a plugin of pydicom that calls imagecodecs.

GDCM, which also decodes them, ends the process at some damaged data.
"""

from typing import Any

import imagecodecs

LABEL = "imagecodecs"

_DECODERS = {
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
}
DECODER_DEPENDENCIES = dict.fromkeys(_DECODERS, ("numpy", "imagecodecs"))  # pydicom reads this


def is_available(uid: str) -> bool:
    """Whether the plugin decodes a transfer syntax."""
    return uid in _DECODERS


def decode_frame(data: bytes, runner: Any) -> bytes:
    """The values of a frame, little endian; raises ValueError if they are not (rows, columns)."""
    values = _DECODERS[str(runner.transfer_syntax)](data)
    if values.shape != (runner.rows, runner.columns):
        raise ValueError(f"its compressed data have the shape {values.shape}")
    runner.set_option("bits_allocated", 8 * values.dtype.itemsize)
    content: bytes = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return content
