"""Shards give what files give, and say what is wrong with them."""

import hashlib
import json
import os
import pickle
import re
import zlib
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from tests.data.faulty_server import serve
from tests.data.packing import opened, packed
from tests.data.tars import tar
from torch.nn.utils.rnn import pad_sequence

from virtex.data.dataset import ExampleDataset
from virtex.data.images import BadImage, read_bytes
from virtex.data.loader import training_batches, validation_batches
from virtex.data.remote.store import RemoteStore
from virtex.data.shards.manifest import MANIFEST
from virtex.data.shards.store import LocalStore
from virtex.data.shards.tar_index import index_tar, read_index
from virtex.data.shards.writer import Packing
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.coco_objects import CocoCategories
from virtex.data.subset import subset
from virtex.data.transforms import ColorJitter, HorizontalFlip, RandomResizedCrop
from virtex.errors import RunError, UserError

COCO_MINI = os.environ.get("VIRTEX_COCO_MINI")
TRAIN = (RandomResizedCrop(16), HorizontalFlip(), ColorJitter())

pytestmark = [
    # Python 3.12 and later say that torch's threads and forked workers may not go together.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    # torch says so where a machine has fewer cores than the test has workers.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


def encode(record, augmented, rng):
    caption = record.captions[rng.integers(len(record.captions))]
    return {"id": record.image_id, "image": augmented.image, "caption": caption}


def collate(examples):
    texts = [torch.tensor(list(example["caption"].encode())) for example in examples]
    return {
        "id": torch.tensor([example["id"] for example in examples]),
        "image": torch.stack([torch.as_tensor(example["image"]) for example in examples]),
        "caption": pad_sequence(texts, batch_first=True),
    }


@pytest.fixture
def files(write_coco):
    return CocoCaptions(write_coco({i: [f"é {i}", "b"] for i in range(3, 14)}), "train")


@pytest.fixture
def directory(files, tmp_path):
    return packed(files, tmp_path / "shards")


def same(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def loaded(records, count, on_bad_image="error", **options):
    dataset = ExampleDataset(records, TRAIN, encode, 0, on_bad_image)
    options = {"batch_size": 4, "seed": 5, "workers": 0} | options
    return list(islice(training_batches(dataset, collate, **options), count))


def training(*arguments, **options):
    return [batch for batch, _ in loaded(*arguments, **options)]


def is_same_data(files, shards):
    """Whether records, subsets and batches are the same."""
    assert len(shards) == len(files)
    assert shards.image_ids.tolist() == files.image_ids.tolist()
    for one, other in zip(files, shards, strict=True):
        assert (one.image_id, one.captions) == (other.image_id, other.captions)
        assert read_bytes(one.image) == read_bytes(other.image)
    for workers in (0, 2):
        same(training(files, 8), training(shards, 8, workers=workers))
    for world_size in (2, 4):
        for rank in range(world_size):
            ranks = {"rank": rank, "world_size": world_size, "first_iteration": 3}
            same(training(files, 4, **ranks), training(shards, 4, **ranks))
    halves = (subset(files, 50, 7), subset(shards, 50, 7))
    assert halves[0].image_ids.tolist() == halves[1].image_ids.tolist()
    same(*(training(half, 4) for half in halves))


def test_batches_from_shards_are_those_from_files(files, directory):
    is_same_data(files, opened(directory))


@pytest.mark.skipif(COCO_MINI is None, reason="VIRTEX_COCO_MINI names no directory")
@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_from_shards_of_coco_are_those_from_its_files(split, tmp_path):
    files = CocoCaptions(Path(COCO_MINI), split)
    shards = opened(packed(files, tmp_path / "shards", samples_per_shard=17, workers=2))
    is_same_data(files, shards)


@pytest.mark.skipif(COCO_MINI is None, reason="VIRTEX_COCO_MINI names no directory")
def test_shards_hold_the_categories_of_objects(tmp_path):
    files = CocoCategories(Path(COCO_MINI), "train")
    names = {"packing": Packing(with_categories=True), "categories": files.categories}
    shards = opened(packed(files, tmp_path / "shards", **names), "categories")
    assert shards.categories == files.categories
    assert [r.categories for r in shards] == [r.categories for r in files]
    with pytest.raises(UserError, match=r"hold categories, and MODEL\.NAME needs captions"):
        opened(tmp_path / "shards")


def test_smaller_windows_give_each_sample_once_in_an_epoch_with_any_workers(directory):
    shards = opened(directory, window=4)
    batches = training(shards, 6, batch_size=1 + 10, window=4)
    assert all(sorted(batch["id"].tolist()) == list(range(3, 14)) for batch in batches)
    same(training(shards, 7, window=4), training(shards, 7, workers=2, window=4))


def test_validation_reads_every_sample_once(files, directory):
    datasets = [ExampleDataset(r, TRAIN, encode, 0) for r in (files, opened(directory))]
    one, other = (validation_batches(d, collate, batch_size=4, workers=0) for d in datasets)
    same([batch for batch, _ in one], [batch for batch, _ in other])


def test_the_written_index_is_the_one_that_reading_the_shard_gives(directory):
    store = LocalStore(str(directory))
    for name in ("00000", "00001", "00003"):
        written = store.read(f"{name}.index")
        assert index_tar(store, f"{name}.tar").to_bytes() == written


def test_shards_that_lost_their_indexes_are_the_same_data(files, directory):
    before = opened(directory).fingerprint
    for path in (*directory.glob("*.index"), directory / MANIFEST):
        path.unlink()
    shards = opened(directory)
    is_same_data(files, shards)
    assert shards.fingerprint == before


def test_shards_travel_to_other_processes(directory):
    shards = opened(directory)
    again = pickle.loads(pickle.dumps(shards))
    assert again[5].captions == shards[5].captions
    assert read_bytes(again[5].image) == read_bytes(shards[5].image)


def test_indexes_in_memory_are_those_of_two_windows(directory):
    shards = opened(directory, window=3)
    for index in range(len(shards)):
        assert shards[index].image_id == index + 3
        assert sum(map(len, shards._indexes.values())) <= 6


def test_a_fingerprint_tells_other_data(files, directory, write_coco, tmp_path):
    prints = {files.fingerprint, opened(directory).fingerprint, subset(files, 50, 0).fingerprint}
    assert subset(files, 50, 1).fingerprint not in prints
    assert CocoCaptions(tmp_path, "train").fingerprint in prints
    other = CocoCaptions(write_coco({i: [f"é {i}", "c"] for i in range(3, 14)}), "train")
    assert other.fingerprint not in prints
    assert opened(packed(other, tmp_path / "other")).fingerprint not in prints


# Shards of others


def write_foreign(directory, shards):
    directory.mkdir()
    for name, members in shards.items():
        (directory / name).write_bytes(tar(members))
    return directory


def members_of(keys, photograph_bytes=b"picture"):
    return {
        f"{key}{suffix}": text
        for key in keys
        for suffix, text in ((".jpg", photograph_bytes), (".txt", b"a cat\nfelis"))
    }


def test_keys_that_are_numbers_are_the_image_ids(tmp_path):
    shards = {"0.tar": members_of(["000000", "000001"]), "1.tar": members_of(["000100"])}
    records = opened(write_foreign(tmp_path / "f", shards))
    assert records.image_ids.tolist() == [0, 1, 100]
    assert records[2].captions == ("a cat", "felis")
    assert read_bytes(records[2].image) == b"picture"
    assert {path.name for path in (tmp_path / "f").iterdir()} == {
        *("0.tar", "0.index", "1.tar", "1.index", MANIFEST)
    }


@pytest.mark.parametrize("keys", [["0", "1"], ["a/x", "y"]])
def test_keys_that_do_not_identify_are_hashed_with_their_shard(keys, tmp_path):
    shards = {"0.tar": members_of(keys), "1.tar": members_of(keys)}
    records = opened(write_foreign(tmp_path / "f", shards))
    ids = records.image_ids.tolist()
    assert len(set(ids)) == 4
    assert [record.image_id for record in records] == ids
    assert opened(tmp_path / "f").image_ids.tolist() == ids


class ReadOnly(LocalStore):
    """A directory that takes no file."""

    def write(self, name, content):  # noqa: ARG002
        return False


def test_indexes_of_a_read_only_directory_go_to_the_cache(tmp_path, monkeypatch):
    directory = write_foreign(tmp_path / "f", {"0.tar": members_of("12")})
    store = ReadOnly(str(directory))
    assert opened(directory, store=store)[1].image_id == 2
    assert [path.name for path in directory.iterdir()] == ["0.tar"]
    (cached,) = (tmp_path / "cache" / "indexes").iterdir()
    assert sorted(path.name for path in cached.iterdir()) == ["0.index", MANIFEST]
    monkeypatch.setattr("virtex.data.shards.indexing.index_tar", None)  # not made again
    assert opened(directory, store=store)[1].image_id == 2


def test_indexes_that_can_be_written_nowhere_are_kept_in_memory(tmp_path, monkeypatch):
    directory = write_foreign(tmp_path / "f", {"0.tar": members_of("12")})
    monkeypatch.setattr(LocalStore, "write", ReadOnly.write)
    assert opened(directory)[1].image_id == 2


def test_samples_without_a_caption_are_an_error_or_left_out(tmp_path):
    members = members_of("12") | {"3.jpg": b"p"}
    directory = write_foreign(tmp_path / "f", {"0.tar": members})
    for _ in range(2):  # from the shards, then from the manifest
        with pytest.raises(UserError, match=r"0\.tar: 1 images have no caption \(keys 3\)"):
            opened(directory)
    records = opened(directory, on_bad_image="skip")
    assert records.image_ids.tolist() == [1, 2]
    assert len(records.report) == 1


# What is wrong


def test_a_damaged_picture_is_named_with_its_shard_or_skipped(directory):
    shards = opened(directory)
    member = shards[4].image
    path = directory / member.shard
    data = bytearray(path.read_bytes())
    data[member.offset + 99] ^= 1
    path.write_bytes(data)
    name = f"{directory}/00001.tar: 000000000007.jpg"
    with pytest.raises(BadImage, match=f"{re.escape(name)}: its content is not what was indexed"):
        training(shards, 3)
    for workers in (0, 2):
        batches = loaded(shards, 6, "skip", workers=workers)
        assert {str(error.picture) for _, bad in batches for error in bad} == {name}
        assert {len(batch["id"]) for batch, _ in batches} == {4}
        assert 7 not in {i for batch, _ in batches for i in batch["id"].tolist()}


def test_a_damaged_text_is_named_with_its_shard(directory):
    path = directory / "00001.tar"
    path.write_bytes(path.read_bytes().replace(b'"image_id":7', b'"image_id":8'))
    shards = opened(directory)
    with pytest.raises(
        BadImage, match=r"00001\.tar: 000000000007\.json: its content is not what was indexed"
    ):
        shards[4]


def test_a_shard_cut_while_it_is_used_is_named(directory):
    shards = opened(directory)
    os.truncate(directory / "00001.tar", 2000)
    with pytest.raises(BadImage, match=r"00001\.tar: .*: the shard ends before it does"):
        read_bytes(shards[4].image)


def test_a_missing_shard_is_an_error_before_work_starts(directory):
    (directory / "00002.tar").unlink()
    with pytest.raises(UserError, match=r"1 of the 4 shards of .* are missing: 00002\.tar"):
        opened(directory)


def test_a_truncated_shard_is_an_error_before_work_starts(directory):
    size = (directory / "00002.tar").stat().st_size
    os.truncate(directory / "00002.tar", 512)
    with pytest.raises(UserError, match=f"00002.tar has 512 bytes instead of {size}; copy"):
        opened(directory)


def test_a_shard_that_is_not_in_the_manifest_is_an_error(directory):
    (directory / "00009.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 shards of .* are not in its shards\.json: 00009\.tar"):
        opened(directory)


def test_the_index_of_another_shard_is_an_error(directory):
    (directory / "00000.index").write_bytes((directory / "00001.index").read_bytes())
    shards = opened(directory)
    with pytest.raises(UserError, match=r"00000\.index is not the index that .*shards\.json"):
        shards[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "x"}, "'format' is 'x'; input should be 'virtex shards 1'"),
        ({"names": ["../0.tar"] * 4}, r"'names', item 0, is '\.\./0\.tar'"),
        ({"names": ["/etc/0.tar"] * 4}, r"'names', item 0, is '/etc/0\.tar'"),
        ({"names": ["0.tar"] * 4}, "a shard is named twice"),
        ({"samples": [1]}, "differ in length"),
        ({"samples": [1, -1, 1, 1]}, "'samples', item 1, is -1; input should be greater"),
        ({"samples": [2**70] * 4}, "'samples', item 0"),
        ({"index_sha256": ["zz"] * 4}, "'index_sha256', item 0, is 'zz'"),
        ({"tar_sha256": ["00"] * 4}, "'tar_sha256', item 0"),
        ({"ids": 1}, "'ids' is 1"),
        ({"labels": "words"}, "'labels' is 'words'"),
    ],
)
def test_a_manifest_of_another_form_is_an_error(directory, change, reason):
    path = directory / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=rf"shards\.json does not describe shards: .*{reason}"):
        opened(directory)


def test_a_manifest_that_is_no_json_is_an_error(directory):
    for text in ("", "[1]", "[" * 100000, "{}"):
        (directory / MANIFEST).write_text(text)
        with pytest.raises(UserError, match=r"shards\.json does not describe shards"):
            opened(directory)


def test_a_directory_without_shards_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"there are no shards in .*empty: DATA\.ROOT must hold"):
        opened(tmp_path / "empty")


def test_shards_without_samples_say_what_they_hold_and_what_is_expected(tmp_path):
    members = {"a.jpg": b"p", "a.json": b'{"TEXT": "b"}', "c.input.jpg": b"p"}
    directory = write_foreign(tmp_path / "f", {"0.tar": members})
    expected = (
        r"f hold no image with a caption: 0\.tar: 2 images have no caption \(keys a, c\.input\);"
        r" 0\.tar: it holds 1 \*\.jpg, 1 \*\.json, 1 \*\.input\.jpg;"
        r" 0\.tar: its JSON has the keys 'TEXT' \(1\)\. Expected are .*KEY\.txt with a caption a"
    )
    for on_bad_image in ("error", "skip"):
        with pytest.raises(UserError, match=expected):
            opened(directory, on_bad_image=on_bad_image)


def test_texts_that_are_not_utf_8_are_an_error_or_left_out(tmp_path):
    members = members_of("12") | {"1.txt": b"cr\xe8me"}
    directory = write_foreign(tmp_path / "f", {"0.tar": members})
    with pytest.raises(UserError, match=r"0\.tar: 1 texts are not UTF-8, .*files 1\.txt: .* 0xe8"):
        opened(directory)
    records = opened(directory, on_bad_image="skip")
    assert records.image_ids.tolist() == [2]
    assert len(records.report) == 2


def test_a_text_that_an_old_index_lets_pass_is_named_when_it_is_read(tmp_path):
    directory = write_foreign(tmp_path / "f", {"0.tar": members_of("12")})
    opened(directory)
    path, index = directory / "0.tar", directory / "0.index"
    written = path.read_bytes().replace(b"felis", b"f\xe8lis", 1)
    rows = read_index(index.read_bytes(), "i").rows.copy()
    rows["text_crc32"][0] = zlib.crc32(b"a cat\nf\xe8lis")
    content = index.read_bytes()
    content = content[: content.index(b"\n") + 1] + rows.tobytes()
    manifest = json.loads((directory / MANIFEST).read_text()) | {"tar_versions": None}
    manifest["index_sha256"] = [hashlib.sha256(content).hexdigest()]
    path.write_bytes(written)
    index.write_bytes(content)
    (directory / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BadImage, match=r"0\.tar: 1\.txt: it is not UTF-8 text: .* convert it"):
        opened(directory)[0]


# Shards that are made again


def made_again(directory, keep_time):
    """Put captions of the same length in place of those of the last sample of each shard."""
    for path in directory.glob("*.tar"):
        times = path.stat()
        first, cat, rest = path.read_bytes().rpartition(b"a cat")
        assert cat
        path.write_bytes(first + b"a dog" + rest)
        moved = 0 if keep_time else 10**9
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + moved))


@pytest.mark.parametrize("write", [LocalStore.write, ReadOnly.write], ids=["beside", "cache"])
def test_shards_that_were_replaced_are_indexed_again_and_that_is_reported(tmp_path, write):
    shards = {"0.tar": members_of("12"), "1.tar": members_of("34")}
    directory = write_foreign(tmp_path / "f", shards)
    store = LocalStore(str(directory))
    if write is ReadOnly.write:
        store = ReadOnly(str(directory))
    before = opened(directory, store=store)
    made_again(directory, keep_time=False)
    records = opened(directory, store=store)
    assert [record.captions[0] for record in records] == ["a cat", "a dog"] * 2
    assert records.fingerprint != before.fingerprint
    (line,) = records.report
    assert line.startswith("2 shards were replaced since they were indexed, and were read again (0")
    assert opened(directory, store=store).report == ()  # it is no finding the next time


def test_shards_with_another_time_and_the_same_content_are_the_same_data(tmp_path):
    directory = write_foreign(tmp_path / "f", {"0.tar": members_of("12")})
    before = opened(directory).fingerprint
    os.utime(directory / "0.tar")
    assert opened(directory).fingerprint == before


def test_a_shard_that_was_replaced_unnoticed_says_how_to_have_its_index_made_again(tmp_path):
    directory = write_foreign(tmp_path / "f", {"0.tar": members_of("12")})
    opened(directory)
    made_again(directory, keep_time=True)
    records = opened(directory)
    message = r"0\.tar: 2\.txt: its content is not what was indexed: .*or was replaced"
    with pytest.raises(
        BadImage, match=rf"{message}; .* remove shards\.json and 0\.index from .*f "
    ):
        records[1]
    (directory / MANIFEST).unlink()
    (directory / "0.index").unlink()
    assert opened(directory)[1].captions[0] == "a dog"


def test_an_index_that_a_failed_opening_left_is_not_taken_for_that_of_another_shard(tmp_path):
    directory = write_foreign(tmp_path / "f", {"0.tar": {"1.jpg": b"p", "1.tex": b"a cat"}})
    with pytest.raises(UserError, match="hold no image with a caption"):
        opened(directory)
    path = directory / "0.tar"
    path.write_bytes(tar({"1.jpg": b"p", "1.txt": b"a cat"}))
    assert opened(directory)[0].captions == ("a cat",)


def test_shards_that_were_replaced_in_a_bucket_are_indexed_again(tmp_path):
    bucket = fsspec.filesystem("memory")
    bucket.pipe_file("/again/0.tar", tar(members_of("12")))
    caches = {"cache_dir": tmp_path / "c", "cache_bytes": 10**9}
    opened(tmp_path / "again", store=RemoteStore("memory://again", **caches))
    bucket.pipe_file("/again/0.tar", tar(members_of("12")).replace(b"a cat", b"a dog"))
    records = opened(tmp_path / "again", store=RemoteStore("memory://again", **caches))
    assert records[0].captions[0] == "a dog"
    assert records.report[0].startswith("1 shards were replaced")


def test_a_malformed_shard_is_named_when_it_is_first_read(tmp_path):
    directory = write_foreign(tmp_path / "f", {"0.tar": {"../a.jpg": b""}})
    with pytest.raises(UserError, match=r"f/0\.tar: '\.\./a\.jpg': its name leads out"):
        opened(directory)


def test_an_index_holds_the_checksums(directory):
    index = read_index((directory / "00000.index").read_bytes(), "i")
    assert index.rows.dtype.itemsize == 41
    assert torch.tensor(index.rows["image_crc32"].astype(np.int64)).unique().numel() == 3


def test_a_category_without_a_name_is_named(tmp_path):
    (tmp_path / "f").mkdir()
    texts = {"1.json": b'{"image_id": 1, "categories": [2, 81]}', "1.jpg": b"p"}
    (tmp_path / "f" / "0.tar").write_bytes(tar(texts))
    with pytest.raises(UserError, match="hold categories without names, and"):
        opened(tmp_path / "f", "categories")
    path = tmp_path / "f" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": ["cat", "dog"]}))
    with pytest.raises(BadImage, match=r"0\.tar: 1\.json: category 81, and shards\.json names 2"):
        opened(tmp_path / "f", "categories")[0]


# Elsewhere


def test_shards_of_a_bucket_are_those_of_a_directory(directory, tmp_path):
    bucket = fsspec.filesystem("memory")
    for path in directory.iterdir():
        bucket.pipe_file(f"/d/{path.name}", path.read_bytes())
    store = RemoteStore("memory://d", cache_dir=tmp_path / "c", cache_bytes=10**9)
    same(training(opened(directory), 8), training(opened(directory, store=store), 8))
    bucket.rm_file("/d/00001.tar")
    with pytest.raises(UserError, match=r"memory://d are missing: 00001\.tar"):
        opened(directory, store=store)


def test_shards_of_a_web_server_are_those_of_a_directory(directory, tmp_path):
    with serve() as server:
        for path in directory.iterdir():
            server.files[f"/d/{path.name}"] = path.read_bytes()
        store = RemoteStore(f"{server.url}/d", cache_dir=tmp_path / "c", cache_bytes=10**9)
        remote = training(opened(directory, store=store), 8, workers=2)
        same(training(opened(directory), 8), remote)


def test_a_shard_that_was_replaced_at_its_address_is_an_error(directory, tmp_path):
    with serve() as server:
        for path in directory.iterdir():
            server.files[f"/d/{path.name}"] = path.read_bytes()
        tar_name = "/d/00001.tar"
        server.files[tar_name] = server.files[tar_name][:-1] + b"1"
        store = RemoteStore(f"{server.url}/d", cache_dir=tmp_path / "c", cache_bytes=10**9)
        shards = opened(directory, store=store)
        assert shards[0].captions
        with pytest.raises(RunError, match=r"00001\.tar: in 3 downloads the content did not have"):
            shards[4]


def test_an_address_without_a_manifest_or_a_listing_is_an_error(directory, tmp_path):
    with serve() as server:
        store = RemoteStore(f"{server.url}/d", cache_dir=tmp_path / "c", cache_bytes=10**9)
        with pytest.raises(UserError, match="cannot be listed, as HTTP has no directories"):
            opened(directory, store=store)


def test_a_huge_manifest_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "f").mkdir()
    with (tmp_path / "f" / "shards.json").open("wb") as file:
        file.truncate(1 << 40)  # of holes
    with pytest.raises(UserError, match=r"shards\.json has 1,099,511,627,776 bytes"):
        opened(tmp_path / "f")
