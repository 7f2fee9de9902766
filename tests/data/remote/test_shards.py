from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.faulty_server import serve
from tests.data.packing import opened, packed

from virtex.data.order import EpochOrder
from virtex.data.remote.shards import RemoteShards, remote_splits
from virtex.data.remote.store import RemoteStore
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.joined import JoinedRecords
from virtex.data.subset import Subset
from virtex.errors import UserError


@pytest.fixture
def directory(write_coco, tmp_path):
    """Four shards of 3, 3, 3 and 2 samples."""
    files = CocoCaptions(write_coco({i: [f"{i}"] for i in range(11)}), "train")
    return packed(files, tmp_path / "packed")


@pytest.fixture
def shards(directory, tmp_path):
    """The same at an address."""
    with served(directory, tmp_path) as (shards, _):
        yield shards


@contextmanager
def served(directory, tmp_path):
    """The shards at an address, through two stores, as those of two splits."""
    with serve() as server:
        server.files |= {f"/d/{path.name}": path.read_bytes() for path in directory.iterdir()}
        stores = [
            RemoteStore(f"{server.url}/d", cache_dir=tmp_path / "kept", cache_bytes=10**9)
            for _ in range(2)
        ]
        yield [opened(directory, store=store) for store in stores]


def test_the_files_are_those_of_the_chosen_shards(shards, directory, tmp_path):
    subset = Subset(shards, np.array([0, 6, 7, 10]))
    (source,) = remote_splits(shards, subset, shards).sources
    training = source.training
    assert training.samples.tolist() == [1, 2, 1]
    files = training.files(np.array([1, 2]))
    assert sorted(files) == ["00002.index", "00002.tar", "00003.index", "00003.tar"]
    assert all(size == (directory / name).stat().st_size for name, (size, _) in files.items())
    before = kept(tmp_path)
    for name, content in files.items():
        shards.store.register_checksums({name: content})
        shards.store.fetch(name)
    assert kept(tmp_path) - before == training.bytes[1:].sum()


def kept(directory):
    return sum(path.stat().st_size for path in (directory / "kept").glob("*.file"))


def test_data_that_are_read_where_they_lie_are_not_fetched(directory):
    local = opened(directory)
    assert remote_splits(local, local, local) is None


shapes = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 99)), min_size=1, max_size=9)


def made(samples, sizes):
    manifest = SimpleNamespace(tar_bytes=np.array(sizes), index_bytes=np.zeros(len(sizes), int))
    numbers = np.arange(len(samples))
    return RemoteShards(None, manifest, numbers, np.array(samples), with_indexes=False)


@given(shapes.filter(lambda shapes: any(one for one, _ in shapes)), st.integers(1, 40))
def test_no_two_windows_take_more_than_is_said(shapes, window):
    shards = made(*zip(*shapes, strict=True))
    most = shards.bytes_of_two_windows(window)
    assert most <= shards.bytes_of_two_windows(window + 1) <= shards.bytes.sum()
    for seed in range(5):
        windows = [w for *_, w in EpochOrder(shards.samples, window, seed, 0).windows()]
        for one in windows:
            for other in windows:
                assert shards.bytes[np.union1d(one, other)].sum() <= most


def test_equal_shards_take_what_they_take():
    shards = made([10] * 8, [964] * 8)  # and 36 of the cache's own
    assert [shards.bytes_of_two_windows(w) for w in (1, 10, 20, 40, 99)] == [
        *(2000, 2000, 4000, 8000, 8000)
    ]


def test_a_cache_without_room_for_two_windows_is_refused_with_what_would_fit(directory, tmp_path):
    with served(directory, tmp_path) as (shards, validation):
        splits = remote_splits(shards, shards, validation)
    whole = int(splits.sources[0].training.bytes.sum())
    splits.check_space(window=1000, cache_gb=2 * whole / 1e9)
    splits.check_space(window=3, cache_gb=1.7 * whole / 1e9)
    words = r"two windows of DATA\.SHUFFLE_WINDOW 6 .* up to .* bytes.*; set DATA\.CACHE_GB to "
    with pytest.raises(
        UserError, match=words + r"(\S+) or more, or .*WINDOW to (\d+) or less"
    ) as e:
        splits.check_space(window=6, cache_gb=1.7 * whole / 1e9)
    said = str(e.value).split()
    splits.check_space(window=6, cache_gb=float(said[said.index("more,") - 2]))
    fitting = int(said[-3])
    assert 3 <= fitting < 6
    splits.check_space(window=fitting, cache_gb=1.7 * whole / 1e9)
    with pytest.raises(UserError, match=words + r"\S+ or more$"):
        splits.check_space(window=6, cache_gb=whole / 1e9)


@pytest.mark.parametrize("kept", [None, [0, 1, 2, 12, 13, 20, 24, 40]])
def test_of_several_sources_the_files_of_the_remote_ones_are_fetched(
    directory, tmp_path, kept, monkeypatch
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(directory, tmp_path) as remote, served(directory, tmp_path) as other:
        local = opened(directory)
        # 11 samples in 4 shards each.
        training, validation = (
            JoinedRecords([local, one, local, two], ())
            for one, two in zip(remote, other, strict=True)
        )
        chosen = training if kept is None else Subset(training, np.array(kept))
        splits = remote_splits(training, chosen, validation)
        assert [source.number for source in splits.sources] == [1, 3]
        shards = np.searchsorted(np.cumsum(training.shard_sizes), kept or range(44), side="right")
        for place, number in enumerate(np.unique(shards).tolist()):
            found = splits.files(np.array([place]))
            source = {1: 0, 3: 1}.get(number // 4)
            name = f"{number % 4:05}"
            names = (f"{name}.tar", f"{name}.index") if source is not None else ()
            expected = {(source, file) for file in names}
            assert set(found) == expected
            assert splits.bytes(np.array([place])) == sum(size + 36 for size, _ in found.values())
        splits.check_space(1000, 1.0)
        with pytest.raises(UserError, match=f"{remote[0].store.root}, {other[0].store.root}"):
            splits.check_space(1000, 1e-6)
        before = splits.statistics.files
        remote[0].store.fetch("00000.tar")
        assert splits.statistics.files == before + 1
