"""The values of DICOM files, which pydicom reads.

In the order of the standard (PS3.4, N.2): modality transformation to the units of the device,
window to grey, inversion of MONOCHROME1.
"""

import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from virtex.data.pixel_values import (
    CheckSize,
    MissingPackageError,
    PixelArray,
    PixelSettings,
    Range,
    Raster,
    Window,
    bits_range,
)

_PACKAGES = "pip install 'virtex-pretraining[dicom]'"
# The beginnings of files without a preamble: a first element of the group 0008, in little endian.
_BARE = tuple(b"\x08\0" + element + b"\0" for element in (b"\0", b"\1", b"\5", b"\x08", b"\x16"))
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_IMPLICIT = "1.2.840.10008.1.2"
_HEADER_BYTES = 4096
_BY_PILLOW = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_BY_IMAGECODECS = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (57, 70, 80, 81))
_FUNCTIONAL_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_TRANSFORMATIONS = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
)


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file, with or without the preamble of 128 bytes."""
    return data[128:132] == b"DICM" or data.startswith(_BARE)


def dicom_raster(data: bytes, settings: PixelSettings, check_size: CheckSize) -> Raster:
    """The values of one frame: windowed to uint8, or in the device's units without a window.

    Raises `MissingPackageError`, and ValueError for a file with several frames of which the
    settings choose none.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingPackageError(f"DICOM files require pydicom: {_PACKAGES}") from error
    if _DEFLATED in data[:_HEADER_BYTES]:  # may inflate to any size before it can be checked
        raise ValueError("it is of the deflated transfer syntax; save it as explicit VR")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        try:
            return _raster(pydicom, data, settings, check_size)
        except (pydicom.errors.BytesLengthException, pydicom.errors.InvalidDicomError) as error:
            raise ValueError(str(error)) from error


def _raster(pydicom: Any, data: bytes, settings: PixelSettings, check_size: CheckSize) -> Raster:
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise ValueError("it is a DICOM file without an image, or truncated")
    frame, notes = _frame(dataset, settings)
    colours = dataset.get("SamplesPerPixel", 1)
    check_size(dataset.Columns, dataset.Rows, colours * (dataset.get("BitsAllocated", 8) // 8))
    values = _stored(pydicom, dataset, frame)
    if colours == 1 and dataset.get("PhotometricInterpretation") != "PALETTE COLOR":
        return _grey(values, _transformations(dataset, frame), settings, notes)
    return _colour(values, dataset, notes)


def _frame(dataset: Any, settings: PixelSettings) -> tuple[int, tuple[str, ...]]:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames == 1:
        return 0, ()
    if settings.frame == "error":
        raise ValueError(
            f"it has {frames} frames; choose one with DATA.DICOM_FRAME (--dicom-frame on the "
            "command line), first or middle"
        )
    note = f"have several frames, of which the {settings.frame} one is used (DATA.DICOM_FRAME)"
    return 0 if settings.frame == "first" else frames // 2, (note,)


def _stored(pydicom: Any, dataset: Any, frame: int) -> npt.NDArray[Any]:
    """The stored values of a frame, (H, W) or (H, W, 3)."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(_IMPLICIT)
    from pydicom.pixels import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        values: npt.NDArray[Any] = pixel_array(
            dataset, index=frame, decoding_plugin=_plugin(dataset, syntax)
        )
    except RuntimeError as error:
        if "missing dependencies" in str(error):
            text = f"{syntax.name} requires imagecodecs and python-gdcm: {_PACKAGES}"
            raise MissingPackageError(text) from error
        raise ValueError(f"its pixel data ({syntax.name}) are damaged") from error
    return values


def _plugin(dataset: Any, syntax: Any) -> str:
    """The decoder of the pixels; empty for pydicom's choice.

    GDCM ends the process at some damaged data, so it is left what no other decodes.
    """
    grey = dataset.get("SamplesPerPixel", 1) == 1
    if syntax in _BY_PILLOW:
        return "pillow" if grey or dataset.BitsAllocated == 8 else ""
    if not grey or syntax not in _BY_IMAGECODECS:
        return ""
    try:
        from virtex.data import dicom_codecs
    except ImportError:
        return ""
    from pydicom.pixels import get_decoder

    decoder = get_decoder(syntax)
    if dicom_codecs.LABEL not in decoder.available_plugins:
        decoder.add_plugin(dicom_codecs.LABEL, (dicom_codecs.__name__, "decode_frame"))
    return dicom_codecs.LABEL


def _transformations(dataset: Any, frame: int) -> Any:
    """The dataset, with the transformations of the frame where a file has them by frame."""
    groups = []
    for name, index in (
        ("SharedFunctionalGroupsSequence", 0),
        ("PerFrameFunctionalGroupsSequence", frame),
    ):
        items = dataset.get(name) or []
        groups += [
            found
            for keyword in _FUNCTIONAL_GROUPS
            if index < len(items)
            for found in (items[index].get(keyword) or [])[:1]
        ]
    for group in groups:
        for keyword in _TRANSFORMATIONS:
            if keyword in group:
                dataset[keyword] = group[keyword]
    return dataset


def _grey(
    stored: npt.NDArray[Any], dataset: Any, settings: PixelSettings, notes: tuple[str, ...]
) -> Raster:
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    values = _in_units(stored, dataset)
    match settings.window:
        case "file":
            shown = _windowed_by_file(values, dataset)
        case "none":
            shown = None
        case window:
            shown = apply_window(values.astype(np.float64), window, "LINEAR")
    if shown is None:
        return Raster(values[:, :, None], _declared(dataset), inverted=inverted, notes=notes)
    return Raster(shown[:, :, None], inverted=inverted, notes=notes)


def _in_units(stored: npt.NDArray[Any], dataset: Any) -> npt.NDArray[Any]:
    """The values of the device, integers if the transformation gives only these."""
    if dataset.get("ModalityLUTSequence"):
        return _looked_up(stored, dataset.ModalityLUTSequence[0], dataset).astype(np.uint16)
    slope, intercept = _rescaling(dataset)
    if (slope, intercept) == (1, 0):
        return stored
    if slope.is_integer() and intercept.is_integer():
        whole: npt.NDArray[np.int32] = stored.astype(np.int32) * int(slope) + int(intercept)
        return whole
    return stored * slope + intercept


def _rescaling(dataset: Any) -> tuple[float, float]:
    """Slope and intercept, 1 and 0 if there are none."""
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def _windowed_by_file(values: npt.NDArray[Any], dataset: Any) -> PixelArray | None:
    """Grey by the first window of a file, or by its table; None if it has neither."""
    window = _window(dataset)
    if window is not None:
        function = dataset.get("VOILUTFunction") or "LINEAR"
        return apply_window(values.astype(np.float64), window, function)
    if not dataset.get("VOILUTSequence"):
        return None
    table = dataset.VOILUTSequence[0]
    grey = _looked_up(values, table, dataset)
    shown: PixelArray = np.clip(256 * grey / 2 ** int(table.LUTDescriptor[2]), 0, 255)
    return shown.astype(np.uint8)


def _looked_up(values: npt.NDArray[Any], table: Any, dataset: Any) -> npt.NDArray[np.int64]:
    """The entries of a lookup table (PS3.3, C.11.1.1.1 and C.11.2.1.1).

    pydicom's own functions wrap around in tables of 8 bits with more than 256 entries.
    """
    entries = table.LUTData
    if isinstance(entries, bytes):
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        entries = np.frombuffer(entries, "<u2" if little else ">u2")
    numbers = np.asarray(entries, np.int64)[: int(table.LUTDescriptor[0]) or 65536]
    first = int(table.LUTDescriptor[1])
    indices = np.clip(np.rint(values).astype(np.int64) - first, 0, len(numbers) - 1)
    found: npt.NDArray[np.int64] = numbers[indices]
    return found


def _window(dataset: Any) -> Window | None:
    """The first window of a file; None if it has none."""
    centers, widths = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centers is None or widths is None:
        return None
    center, width = (
        values if isinstance(values, int | float) else next(iter(values), None)
        for values in (centers, widths)
    )
    return None if center is None or width is None else (float(center), float(width))


def apply_window(values: npt.NDArray[np.float64], window: Window, function: str) -> PixelArray:
    """Grey of a window, by the functions of PS3.3, C.11.2.1.

    `function` is LINEAR, LINEAR_EXACT or SIGMOID. Raises ValueError for a width that is not
    positive, and for another function.
    """
    center, width = window
    if width < 1 if function == "LINEAR" else width <= 0:
        raise ValueError(f"its window has a width of {width:g}; set DATA.DICOM_WINDOW")
    match function:
        case "LINEAR":
            grey = (values - (center - 0.5)) / max(width - 1, np.finfo(float).tiny) + 0.5
        case "LINEAR_EXACT":
            grey = (values - center) / width + 0.5
        case "SIGMOID":
            grey = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
        case _:
            raise ValueError(f"its window has the unknown function {function}")
    return np.clip(256 * np.clip(grey, 0, 1), 0, 255).astype(np.uint8)


def _declared(dataset: Any) -> Range | None:
    """The range of the stored bits after the modality transformation."""
    lookup = dataset.get("ModalityLUTSequence")
    if lookup:
        return bits_range(int(lookup[0].LUTDescriptor[2]))
    low, high = bits_range(int(dataset.BitsStored))
    if dataset.PixelRepresentation == 1:
        middle = 2 ** (int(dataset.BitsStored) - 1)
        low, high = -middle, middle - 1
    slope, intercept = _rescaling(dataset)
    ends = sorted((slope * low + intercept, slope * high + intercept))
    return ends[0], ends[1]


def _colour(values: npt.NDArray[Any], dataset: Any, notes: tuple[str, ...]) -> Raster:
    from pydicom.pixels import apply_color_lut

    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
        return Raster(np.asarray(apply_color_lut(values, dataset)), bits_range(bits), notes=notes)
    return Raster(values, bits_range(int(dataset.BitsStored)), notes=notes)
