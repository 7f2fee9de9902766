import io
import random
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.tars import tar

from virtex.data.shards.store import MemoryStore
from virtex.data.shards.tar_members import TarStream, tar_members
from virtex.errors import UserError

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def members_of(content):
    store = MemoryStore("data/train")
    store.write("7.tar", content)
    return list(tar_members(TarStream(store, "7.tar")))


def refused(content):
    with pytest.raises(UserError, match=r"\Adata/train/7\.tar: ") as caught:
        members_of(content)
    return str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_members_are_those_of_the_tarfile_module(kind):
    names = ["a.jpg", "b/c.txt", "é.json", "d/" * 60 + "long.jpg"]
    content = tar({name: name.encode() * 200 for name in names}, format=kind)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        expected = [
            (info.name, info.offset_data, archive.extractfile(info).read()) for info in archive
        ]
    assert [tuple(member) for member in members_of(content)] == expected


def test_times_with_fractions_and_directories_are_harmless():
    info, directory = tarfile.TarInfo("a.jpg"), tarfile.TarInfo("d")
    info.mtime, directory.type = 1.5, tarfile.DIRTYPE  # WebDataset's writer gives such times
    content = tar([(directory, b""), (info, b"12")], format=tarfile.PAX_FORMAT)
    assert [(member.name, member.content) for member in members_of(content)] == [("a.jpg", b"12")]


def test_a_leading_dot_is_no_part_of_the_name():
    assert [member.name for member in members_of(tar({"././a.jpg": b""}))] == ["a.jpg"]


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "a/../../b.jpg", "a\nb.jpg", "..\\a.jpg"])
def test_names_that_lead_elsewhere_are_refused(name):
    assert "its name leads out of a directory" in refused(tar({name: b""}))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S"],
)
def test_links_devices_and_sparse_files_are_refused_with_their_name(kind):
    info = tarfile.TarInfo("a.jpg")
    info.type, info.linkname = kind, "b"
    assert "7.tar: a.jpg: it is a link or a special file" in refused(tar([(info, b"")]))


@pytest.mark.parametrize("key", ["size", "linkpath", "GNU.sparse.major", "hdrcharset"])
def test_extended_headers_that_change_what_a_member_is_are_refused(key):
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {key: "1"}
    message = refused(tar([(info, b"1")], format=tarfile.PAX_FORMAT))
    assert f"its extended header sets {key}" in message


def test_a_size_beyond_the_file_is_refused_before_memory_is_taken():
    info = tarfile.TarInfo("a.jpg")
    info.size = 8**11 - 1
    assert "more than the rest of the file" in refused(info.tobuf() + bytes(1024))
    info.size = 2**40  # written in binary
    assert "not an octal number" in refused(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def test_every_truncated_tar_is_refused():
    content = tar({"a.jpg": b"a" * 700, "b.json": b"{}"})
    end = 512 + 1024 + 512 + 512
    for length in range(0, end, 100):
        assert "truncated" in refused(content[:length])
    assert "truncated" in refused(content[:end])  # all members, no end


def test_what_follows_the_end_is_refused():
    assert "after the end" in refused(tar({"a.jpg": b"1"}) + tar({"b.jpg": b"1"}))


def test_a_damaged_header_is_refused():
    content = bytearray(tar({"a.jpg": b"1"}))
    content[3] ^= 1
    assert "the header at byte 0 is damaged" in refused(bytes(content))
    assert "not a tar file" in refused(b"PK\x03\x04" + bytes(2000))


@given(st.integers(0, 10**9), st.integers(1, 8))
def test_damage_anywhere_is_an_error_of_ours_or_harmless(seed, changes):
    rng = random.Random(seed)
    info = tarfile.TarInfo("a" * 120 + ".jpg")
    content = bytearray(tar([(info, b"1")], format=rng.choice(FORMATS[1:])))
    for _ in range(changes):
        content[rng.randrange(2048)] = rng.randrange(256)
    try:
        members_of(bytes(content))
    except UserError as error:
        assert str(error).startswith("data/train/7.tar: ")  # noqa: PT017
