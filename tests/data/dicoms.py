"""DICOM files for tests, in the transfer syntaxes that packages here can write."""

import io

import numpy as np

SYNTAXES = {
    "implicit little endian": "1.2.840.10008.1.2",
    "explicit little endian": "1.2.840.10008.1.2.1",
    "explicit big endian": "1.2.840.10008.1.2.2",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG baseline": "1.2.840.10008.1.2.4.50",
    "JPEG lossless": "1.2.840.10008.1.2.4.57",
    "JPEG lossless SV1": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
}


def _encoded(values, syntax, bits):
    """One frame, compressed."""
    import imagecodecs

    match syntax:
        case "JPEG lossless" | "JPEG lossless SV1":
            return imagecodecs.ljpeg_encode(values, bitspersample=bits)
        case "JPEG baseline":
            return imagecodecs.jpeg8_encode(values, level=95)
        case "JPEG-LS":
            return imagecodecs.jpegls_encode(values)
        case "JPEG 2000":
            return imagecodecs.jpeg2k_encode(values, codecformat="j2k", level=0, bitspersample=bits)
    raise AssertionError(syntax)


def dicom(frames, *, syntax="explicit little endian", bits=12, cut=None, **attributes):
    """A file of frames (H, W), (H, W, 3) or (F, H, W), with further attributes.

    `cut` is how much of a compressed frame is in the file, if not all.
    """
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    uid = pydicom.uid.UID(SYNTAXES[syntax])
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = uid
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    colour = frames.shape[-1] == 3 and frames.ndim > 2
    stack = frames if frames.ndim == (4 if colour else 3) else frames[None]
    made.Rows, made.Columns = stack.shape[1:3]
    if len(stack) > 1:
        made.NumberOfFrames = len(stack)
    made.SamplesPerPixel = 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    made.BitsAllocated = 8 * frames.dtype.itemsize
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(frames.dtype.kind == "i")
    for name, value in attributes.items():
        setattr(made, name, value)
    order = ">" if syntax == "explicit big endian" else "<"
    made.PixelData = stack.astype(stack.dtype.newbyteorder(order)).tobytes()
    made["PixelData"].VR = "OW" if frames.dtype.itemsize > 1 else "OB"
    if syntax == "RLE":
        made.compress(uid, np.ascontiguousarray(frames))
    elif uid.is_encapsulated:
        made.PixelData = encapsulate([_encoded(one, syntax, bits)[:cut] for one in stack])
        made["PixelData"].VR = "OB"
    made.set_original_encoding(uid.is_implicit_VR, uid.is_little_endian)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()
