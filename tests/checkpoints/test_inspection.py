"""Files that torch would read into more memory, time or code than their length suggests."""

import io
import pickle
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch
from tests.same import first_difference

from virtex.checkpoints import file as checkpoint
from virtex.checkpoints.file import DamagedCheckpoint
from virtex.errors import UserError

# torch's own way to name a storage in a file.
pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Tensor(Call):
    """Pickles as a tensor of one storage of 3 floats, with sizes of its own choice."""

    def __init__(self, start, size, stride, hooks=None):
        storage = torch.ones(3).storage()
        hooks = OrderedDict() if hooks is None else hooks
        arguments = (storage, start, size, stride, False, hooks)
        super().__init__(torch._utils._rebuild_tensor_v2, *arguments)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint_7.pth"


def rewritten(path, change):
    """The archive with other records; `change` gives a list of (name, bytes) from theirs."""
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Duplicate name")
        with zipfile.ZipFile(path, "w") as archive:
            for name, content, *kind in change(records):
                archive.writestr(name, content, *kind)


def refused(path, reason):
    with pytest.raises(DamagedCheckpoint, match=reason) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_programs_save_beside_tensors_is_read(path, zipped):
    types = [torch.half, torch.bool, torch.complex64]
    types += [torch.uint16] * zipped  # newer than the old format, which torch itself cannot read
    whole = torch.arange(12.0).reshape(3, 4)
    state = {
        "state": torch.nn.Linear(3, 2).state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "views": [whole, whole[1], whole.T, whole[:, ::2]],
        "empty": [torch.empty(0), torch.empty(2, 0), torch.tensor(4.0)],
        "types": [torch.ones(2, dtype=kind) for kind in types],
        "counts": Counter("abca"),
        "size": torch.Size([1, 2]),
        "plain": (1, -2, 1 << 70, 0.5, True, None, "ü", b"bytes\xff"),
        "shared": [[1, 2]] * 2,
        3: {},
    }
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert first_difference(checkpoint.load(path), state) is None


@pytest.mark.parametrize(
    "value",
    [
        Call(torch.Tensor, 10**12),
        Call(bytearray, 10**12),
        Call(torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (2,), (1,), False),
        Call(torch.device, [1]),
        torch.ones(3).to_sparse(),
    ],
    ids=["tensor", "bytearray", "meta", "device", "sparse"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_calls_that_torch_would_make_but_no_checkpoint_needs(path, value, zipped):
    torch.save({"model": value}, path, _use_new_zipfile_serialization=zipped)
    refused(path, "not a checkpoint of tensors and plain values")


@pytest.mark.parametrize(
    ("start", "size", "stride"),
    [
        (0, (10**12,), (1,)),
        (0, (10**6, 10**6), (0, 0)),
        (0, (4,), (0,)),
        (2, (2,), (1,)),
        (-1, (1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (2.0,), (1,)),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_sizes_that_go_beyond_the_storage(path, start, size, stride, zipped):
    torch.save({"weight": Tensor(start, size, stride)}, path, _use_new_zipfile_serialization=zipped)
    refused(path, "damaged")


def test_hooks_of_a_tensor(path):
    torch.save({"weight": Tensor(0, (3,), (1,), OrderedDict({1: "x"}))}, path)
    refused(path, "not a checkpoint of tensors and plain values")


def doubled(times):
    value = [1]
    for _ in range(times):
        value = [value, value]
    return value


def nested(times):
    value = []
    for _ in range(times):
        value = [value]
    return value


def itself():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [doubled(40), nested(200), itself(), [0] * 1_000_001])
def test_values_without_end(path, value):
    torch.save({"config": value}, path)
    refused(path, "too deeply|too many")


def test_keys_that_can_be_made_to_have_one_hash(path):
    torch.save({"state": {(1, 2): 3}}, path)
    refused(path, "a key of type tuple")
    torch.save({"state": {(2**61 - 1) << 20: 3}}, path)
    refused(path, "a key of type int")


def test_attributes_that_would_change_a_mapping(path):
    state = OrderedDict()
    state.other = 3
    torch.save({"model": state}, path)
    refused(path, "not a checkpoint of tensors and plain values")


def test_records_that_unpack_to_more_than_the_file(path):
    torch.save({"weight": torch.zeros(10**6)}, path)
    rewritten(path, lambda records: [(*record, zipfile.ZIP_DEFLATED) for record in records])
    assert path.stat().st_size < 10**5
    refused(path, "is compressed")


@pytest.mark.parametrize(
    ("added", "reason"),
    [
        ("archive/data/0", "two records have the same name"),
        ("archive/DATA/0", "two records have the same name"),
        ("../outside", "outside of"),
        ("/etc/passwd", "outside of"),
    ],
)
def test_records_of_another_name(path, added, reason):
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer)
    path.write_bytes(buffer.getvalue())
    rewritten(path, lambda records: [*records, (added, b"x")])
    refused(path, reason)


def test_a_record_of_another_size_than_its_tensor(path):
    torch.save({"weight": torch.zeros(3)}, path)

    def shorter(records):
        return [(name, content[:8] if "/data/" in name else content) for name, content in records]

    rewritten(path, shorter)
    refused(path, "8 bytes instead of 12")


def test_a_record_inside_another(path):
    torch.save({"one": torch.zeros(3), "two": torch.ones(3)}, path)
    content = bytearray(path.read_bytes())
    listed = content.index(b"PK\x01\x02")
    places = [content.index(name, listed) for name in (b"/data/0", b"/data/1")]
    first, second = (content.rindex(b"PK\x01\x02", 0, place) for place in places)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    path.write_bytes(content)
    refused(path, "overlaps another")


def test_a_long_list_of_records(path):
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for number in range(100_001):
            archive.writestr(zipfile.ZipInfo(f"a/{number}"), b"")
    refused(path, "100001 records")


def test_another_archive_in_front(path):
    torch.save({"weight": torch.zeros(3)}, path)
    content = path.read_bytes()
    path.write_bytes(content + content)
    refused(path, "not where it should be")
    path.write_bytes(content + b"behind")
    refused(path, "the archive's end is missing")


def test_a_tensor_that_is_larger_than_the_memory(path):
    """The file is as long as its tensor, but takes no room: a hole."""
    torch.save({"weight": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    many = 1 << 40
    longer = pickle.dumps(many, protocol=2)[2:-1]
    content = content.replace(b"cpuq\x06K\x03", b"cpuq\x06" + longer)
    content = content.replace(b"K\x00K\x03\x85", b"K\x00" + longer + b"\x85")
    content = content[: -8 - 12] + struct.pack("<q", many)
    with path.open("wb") as file:
        file.write(content)
        file.truncate(len(content) + 4 * many)
    with pytest.raises(UserError, match=r"take 4096\.0 GiB of memory, but only .* are free"):
        checkpoint.load(path)
