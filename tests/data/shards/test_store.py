import os
import pickle

import pytest

from virtex.data.shards.store import LocalStore, MemoryStore, cache_directory
from virtex.errors import UserError


@pytest.fixture(params=[LocalStore, MemoryStore])
def store(request, tmp_path):
    return request.param(str(tmp_path))


def test_what_was_written_is_read_whole_and_in_parts(store):
    assert store.write("a", b"0123456789")
    assert list(store.list_files()) == ["a"]
    assert store.size("a") == 10
    assert store.list_files()["a"].size == 10
    assert store.read("a") == b"0123456789"
    assert store.read("a", 3) == b"3456789"
    assert store.read("a", 3, 4) == b"3456"
    assert store.read("a", 8, 4) == b"89"
    assert store.read("a", 20, 4) == b""


def test_a_missing_file_is_named_with_its_address(store):
    for ask in (store.size, store.read, lambda name: store.read(name, 0, 1)):
        with pytest.raises(UserError, match=f"{store.root}/none"):
            ask("none")


def test_only_files_directly_inside_are_named(tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("b", "a", "d/c"):
        (tmp_path / name).touch()
    assert sorted(LocalStore(str(tmp_path)).list_files()) == ["a", "b"]


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=f"cannot list {tmp_path}/none"):
        LocalStore(f"{tmp_path}/none").list_files()


def test_many_files_take_few_descriptors(tmp_path):
    store = LocalStore(str(tmp_path))
    for number in range(200):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(2):
        assert all(store.read(str(n), 0, 9) == b"%d" % n for n in range(200))
    assert len(os.listdir("/proc/self/fd")) - before <= 64  # noqa: PTH208
    again = pickle.loads(pickle.dumps(store))
    assert again.read("7", 0, 1) == b"7"


def test_the_cache_is_the_given_one_or_the_users(tmp_path, monkeypatch):
    assert cache_directory(tmp_path) == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_directory(None) == tmp_path / "x" / "virtex"
