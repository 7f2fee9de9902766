"""Inspection of a checkpoint file before torch reads it; nothing is built or run.

torch's restricted reader runs no code, but it calls some constructors with any sizes that the file
names, and accepts any views, shared values and compressed records. This inspection passes only
files that `torch.save` writes for tensors and plain values, so that reading one takes no more
memory than its length. The pickle is followed symbolically; only the sizes of tensors are computed.
"""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from virtex.checkpoints.pickle_check import SymbolicUnpickler

_ZIP_START = b"PK\x03\x04"
_MOST_PICKLED_BYTES = 64 << 20
_MOST_RECORDS = 100_000
_MOST_BYTES_A_RECORD = 1000  # in the list
_LOCAL_HEADER = 30  # bytes before a record's name
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def inspect(path: Path) -> int:
    """Inspect a checkpoint completely; returns how many bytes its tensors take.

    Raises `pickle.UnpicklingError` for a file that asks for anything but tensors and plain values,
    and `ValueError`, `LookupError`, `zipfile.BadZipFile` or `struct.error` for one that is damaged,
    or made to take more memory or time than its length suggests.
    """
    with path.open("rb") as file:
        start = file.read(len(_ZIP_START))
        if start and start != _ZIP_START and not start.startswith(pickle.PROTO):
            raise pickle.UnpicklingError("neither an archive nor a pickle")
        return _zip(file) if start == _ZIP_START else _legacy(file)


def check_sums(path: Path) -> None:
    """Raise `zipfile.BadZipFile` if a record of an inspected file has been altered.

    torch itself ignores the checksums that it writes: altered weights would load silently. The
    format of torch before 1.6 has no checksums.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            altered = archive.testzip()  # in small parts
        if altered is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {altered}")


def _zip(file: BinaryIO) -> int:
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        folder = _check_records(archive)
        records = {record.filename: record for record in archive.infolist()}
        pickled = records[f"{folder}data.pkl"]
        if pickled.file_size > _MOST_PICKLED_BYTES:
            raise ValueError(f"its values other than tensors take {pickled.file_size >> 20} MB")
        unpickler = SymbolicUnpickler()
        unpickler.values(io.BytesIO(archive.read(pickled)))
    for key, size in unpickler.storages.items():
        held = records[f"{folder}data/{key}"].file_size
        if held != size:
            raise ValueError(f"a tensor's record is {held} bytes instead of {size}")
    return sum(unpickler.storages.values())


def _check_directory(file: BinaryIO) -> None:
    """Reject a list of records that is too long, or that two readers could read differently."""
    length = file.seek(0, io.SEEK_END)
    end = length - 22
    file.seek(max(0, end))
    signature, _, _, _, records, size, start, comment = struct.unpack("<4s4H2IH", file.read(22))
    if signature != b"PK\x05\x06" or comment:
        raise zipfile.BadZipFile("the archive's end is missing")
    # torch repeats the figures in 64 bits: 56 bytes, and 20 that locate them.
    file.seek(max(0, end - 20 - 56))
    wide = file.read(56)
    if wide.startswith(b"PK\x06\x06"):
        records, size, start = struct.unpack("<32xQQQ", wide)
        end -= 20 + 56
    if records > _MOST_RECORDS:
        raise zipfile.BadZipFile(f"it lists {records} records")
    if start + size != end or size > _MOST_RECORDS * _MOST_BYTES_A_RECORD:
        raise zipfile.BadZipFile("its list of records is not where it should be")


def _check_records(archive: zipfile.ZipFile) -> str:
    """Reject records that are compressed, overlap, or share a name; returns their folder."""
    records = sorted(archive.infolist(), key=lambda record: record.header_offset)
    if not records:
        raise zipfile.BadZipFile("an archive without records")
    folder = records[0].filename.partition("/")[0] + "/"
    if len({record.filename.casefold() for record in records}) < len(records):
        raise zipfile.BadZipFile("two records have the same name")
    end = 0
    for record in records:
        if not record.filename.startswith(folder):
            raise zipfile.BadZipFile(f"a record {record.filename!r} outside of {folder!r}")
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise zipfile.BadZipFile(f"the record {record.filename!r} is compressed")
        if record.header_offset < end:
            raise zipfile.BadZipFile(f"the record {record.filename!r} overlaps another")
        end = record.header_offset + _LOCAL_HEADER + len(record.filename) + record.file_size
    if end > archive.start_dir:
        raise zipfile.BadZipFile("a record overlaps the list of records")
    return folder


def _legacy(file: BinaryIO) -> int:
    """torch's format before 1.6: five pickles, then each storage's length and bytes."""
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    pickles = io.BytesIO(file.read(_MOST_PICKLED_BYTES))
    unpickler = SymbolicUnpickler()
    read = unpickler.values
    if read(pickles) != _LEGACY_MAGIC or read(pickles) != _LEGACY_PROTOCOL:
        raise ValueError("it does not start like a file of torch")
    read(pickles)  # the machine that wrote it
    read(pickles)
    keys = read(pickles)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(unpickler.storages):
        raise ValueError("its list of tensors does not match its tensors")
    taken = sum(unpickler.storages.values())
    if pickles.tell() + 8 * len(keys) + taken > length:
        raise ValueError(f"tensors of {taken} bytes in a file of {length}")
    return taken
