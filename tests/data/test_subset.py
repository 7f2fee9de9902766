import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from virtex.data.sources.coco import CocoCaptions
from virtex.data.subset import (
    SUBSET,
    Subset,
    SubsetManifest,
    change,
    read,
    select,
    subset,
    training_subset,
    write_or_remove,
)
from virtex.errors import UserError

REPOSITORY = Path(__file__).parents[2]


class Ids:
    """Records that are nothing but ids."""

    def __init__(self, ids):
        self.image_ids = np.array(ids, np.int64)

    def __len__(self):
        return len(self.image_ids)

    def __getitem__(self, index):
        return int(self.image_ids[index])


ids = st.lists(st.integers(0, 10**6), min_size=1, max_size=60, unique=True)
all_ids = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30, unique=True)
percentages = st.floats(1, 100)


def longer(ids, percentage):
    """The ids and as many more as give at least one image."""
    return ids + list(range(10**6 + 1, 10**6 + 1 + math.ceil(100 / percentage)))


@given(ids, percentages, percentages, st.integers(0, 3))
def test_smaller_subsets_lie_in_larger_ones(ids, one, other, seed):
    ids = longer(ids, min(one, other))
    small, large = (subset(Ids(ids), p, seed).image_ids for p in sorted([one, other]))
    assert set(small.tolist()) <= set(large.tolist())


@given(ids, percentages, st.integers(0, 3), st.randoms())
def test_the_order_of_the_records_does_not_choose(ids, percentage, seed, random):
    ids = longer(ids, percentage)
    chosen = set(subset(Ids(ids), percentage, seed).image_ids.tolist())
    random.shuffle(ids)
    assert set(subset(Ids(ids), percentage, seed).image_ids.tolist()) == chosen


@given(st.integers(1, 2000), st.integers(1, 1000))
@example(1000, 323)  # in floating point 1000 * 32.3 / 100 lies below 323
def test_the_size_is_the_percentage_as_written_rounded_down(images, tenths):
    size = images * tenths // 1000
    percentage = tenths / 10
    if size:
        assert len(subset(Ids(range(images)), percentage, 0)) == size
    else:
        with pytest.raises(UserError, match="less than one"):
            subset(Ids(range(images)), percentage, 0)


@given(st.integers(1, 5000))
def test_the_error_of_no_image_names_the_smallest_percentage_that_gives_one(images):
    with pytest.raises(UserError, match=rf"is 1e-05, which of {images} training images") as caught:
        subset(Ids(range(images)), 1e-5, 0)
    smallest = float(str(caught.value).rpartition(" is ")[2])
    assert len(subset(Ids(range(images)), smallest, 0)) == 1
    if images > 1:
        with pytest.raises(UserError):
            subset(Ids(range(images)), smallest * 0.998, 0)


def test_the_choice_never_changes():
    # A changed figure here would change every data-efficiency run.
    assert subset(Ids(range(1000)), 0.5, 7).image_ids.tolist() == [83, 271, 370, 502, 779]


def test_seeds_choose_differently():
    chosen = {tuple(subset(Ids(range(100)), 10, seed).image_ids.tolist()) for seed in range(20)}
    assert len(chosen) == 20


def test_all_of_them_are_the_records_themselves():
    records = Ids([3, 1])
    assert subset(records, 100.0, 0) is records


@pytest.mark.parametrize("percentage", [0, -1, 100.5, float("nan")])
def test_percentages_out_of_range_are_an_error(percentage):
    with pytest.raises(UserError, match="above 0 and at most 100"):
        subset(Ids([1]), percentage, 0)


def test_a_selection_gives_the_records_at_its_positions(write_coco):
    records = CocoCaptions(write_coco({1: ["a"], 2: ["b"], 3: ["c"]}), "train")
    selection = Subset(records, np.array([2, 0]))
    assert list(selection) == [records[2], records[0]]
    assert selection.image_ids.tolist() == [3, 1]
    records[2].image.unlink()
    assert selection.missing([0, 1]) == [records[2].image]


# The manifest


def choose(records, percentage=50, seed=3, manifest=None):
    return training_subset(records, percentage=percentage, seed=seed, manifest=manifest)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "subset.json"


@pytest.fixture
def written(path):
    """A function that writes a JSON value as the manifest."""

    def written(value):
        path.write_text(json.dumps(value), encoding="utf-8")
        return path

    return written


@pytest.fixture
def refused(written):
    """A function of a manifest's content: the message of the error, which names the file."""

    def refused(value):
        with pytest.raises(UserError) as caught:
            read(written(value))
        assert str(written(value)) in str(caught.value)
        return str(caught.value)

    return refused


# The file


@given(all_ids, st.none() | st.integers(0, 2**32 - 1), st.none() | st.floats(1e-3, 100))
def test_what_is_written_is_read(tmp_path_factory, ids, seed, percentage):
    path = tmp_path_factory.getbasetemp() / "any.json"
    manifest = SubsetManifest.from_ids(tuple(sorted(ids)), 2 * len(ids), seed, percentage)
    write_or_remove(path, manifest)
    assert read(path) == manifest


def test_the_file_has_every_key_and_never_changes(path):
    _, manifest = choose(Ids([30, 10, 20, 40]), percentage=75)
    write_or_remove(path, manifest)
    kept = [10, 20, 40]
    assert json.loads(path.read_text()) == {
        "format": 1,
        "seed": 3,
        "percentage": 75.0,
        "images": 3,
        "of": 4,
        "sha256": hashlib.sha256(b"10\n20\n40").hexdigest(),
        "ids": kept,
    }
    assert [file.name for file in path.parent.iterdir()] == ["subset.json"]


def test_another_process_chooses_and_writes_the_same(path):
    _, manifest = choose(Ids(range(200)))
    write_or_remove(path, manifest)
    program = (
        "import sys; from tests.data.test_subset import *;"
        "write_or_remove(Path(sys.argv[1]), choose(Ids(range(199, -1, -1)))[1])"
    )
    other = path.with_name("other.json")
    subprocess.run([sys.executable, "-c", program, str(other)], check=True, cwd=REPOSITORY)
    assert other.read_bytes() == path.read_bytes()


def test_a_list_made_by_hand_needs_nothing_but_ids(written):
    assert read(written({"ids": [7, -2, 5]})) == SubsetManifest.from_ids((-2, 5, 7))


def test_a_file_that_cannot_be_written_leaves_the_old_one(path):
    write_or_remove(path, SubsetManifest.from_ids((1, 2), 3))
    path.with_name(f".subset.json.partial-{os.getpid()}").mkdir()
    with pytest.raises(IsADirectoryError):
        write_or_remove(path, SubsetManifest.from_ids((4,), 5))
    assert read(path) == SubsetManifest.from_ids((1, 2), 3)


# Mistakes in the file


def test_a_missing_file_and_a_directory_are_named(path):
    with pytest.raises(
        UserError, match=r"the subset manifest .* does not exist; check DATA.SUBSET_MANIFEST"
    ):
        read(path)
    with pytest.raises(UserError, match=r"is a directory; name a file such as .*subset\.json"):
        read(path.parent)
    with pytest.raises(UserError, match=r"cannot read .*: Not a directory"):
        read(Path(__file__) / "subset.json")


@pytest.mark.parametrize("content", [b"1 2 3", b"", b'{"ids": [1, 2', b"\xff", b"[" * 10**5])
def test_a_file_that_is_not_json_is_an_error(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"subset\.json: it is not JSON") as caught:
        read(path)
    assert 'at least {"ids": [1, 2, 3]}' in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "does not hold a JSON object; expected the subset.json of a run, or at least"),
        ({}, "it has no 'ids'"),
        ({"ids": "1 2"}, "'ids' is '1 2'; input should be a valid array"),
        ({"ids": []}, "'ids' is empty"),
        ({"id": [1]}, "the unknown key 'id'; the keys are format, seed,"),
        ({"ids": [1, "2"]}, "'ids', item 1, is '2'; input should be a valid integer"),
        ({"ids": [1.5]}, "'ids', item 0, is 1.5"),
        ({"ids": [True]}, "'ids', item 0, is True"),
        ({"ids": [2**63]}, "'ids', item 0, is 9223372036854775808"),
        ({"ids": [4, 1, 4, 1]}, "lists 2 images more than once (image ids 1, 4)"),
        ({"ids": [1], "format": 2}, "'format' is 2; input should be 1"),
        ({"ids": [1], "seed": -1}, "'seed' is -1; input should be greater than or equal to 0"),
        ({"ids": [1], "of": "9"}, "'of' is '9'; input should be a valid integer"),
        ({"ids": [1], "percentage": 0}, "'percentage' is 0; input should be greater than 0"),
        ({"ids": [1], "percentage": "5"}, "'percentage' is '5'"),
        ({"ids": [1], "percentage": float("nan")}, "'percentage' is nan"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(refused, content, message):
    assert message in refused(content)


@pytest.mark.parametrize("change", [{"ids": [1, 2]}, {"images": 9}, {"sha256": "0"}])
def test_an_edited_file_is_noticed_unless_its_sums_are_removed(path, refused, change):
    write_or_remove(path, SubsetManifest.from_ids((1, 2, 3), 4))
    content = json.loads(path.read_text()) | change
    assert "are not those that were written" in refused(content)
    del content["sha256"], content["images"]
    path.write_text(json.dumps(content))
    assert read(path).ids == tuple(content["ids"])


# The choice


@given(all_ids, st.randoms(), st.data())
def test_a_manifest_selects_its_images_in_the_order_of_the_records(
    tmp_path_factory, ids, random, data
):
    path = tmp_path_factory.getbasetemp() / "any.json"
    wanted = data.draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
    random.shuffle(ids)
    selected = select(Ids(ids), SubsetManifest.from_ids(tuple(sorted(wanted))), path)
    assert selected.image_ids.tolist() == [image_id for image_id in ids if image_id in wanted]


def test_a_run_s_manifest_gives_its_images_back_to_other_seeds(path):
    chosen, manifest = choose(Ids(range(50)))
    write_or_remove(path, manifest)
    again, given = choose(Ids(range(50)), percentage=100, seed=8, manifest=path)
    assert again.image_ids.tolist() == chosen.image_ids.tolist()
    assert given == SubsetManifest.from_ids(manifest.ids, 50)  # the seed of now did not choose them
    assert given.sha256 == manifest.sha256


def test_a_manifest_works_on_real_annotations(write_coco, written):
    records = CocoCaptions(write_coco({1: ["a"], 2: ["b"], 3: ["c"]}), "train")
    selected, _ = choose(records, percentage=100, manifest=written({"ids": [3, 1]}))
    assert list(selected) == [records[0], records[2]]


def test_all_images_have_no_manifest():
    records = Ids([3, 1])
    assert choose(records, percentage=100) == (records, None)


def test_ids_that_the_annotations_lack_are_counted_and_named(written):
    path = written({"ids": [*range(20)]})
    with pytest.raises(UserError) as caught:
        choose(Ids(range(8)), percentage=100, manifest=path)
    assert f"{path} lists 20 images, and 12 of them are not among the 8 training images" in str(
        caught.value
    )
    assert "(image ids 8, 9, 10, 11, 12, …)" in str(caught.value)


# A resumed run


def test_a_resumed_run_with_the_same_images_is_unchanged(path):
    _, manifest = choose(Ids(range(50)))
    write_or_remove(path, manifest)
    assert change(path, choose(Ids(np.arange(49, -1, -1)))[1]) is None


def test_a_resumed_run_notices_changed_data(path):
    write_or_remove(path, choose(Ids(range(40)), percentage=50)[1])
    now = choose(Ids(range(20, 60)), percentage=50)[1]
    assert f"on the 20 images of {path}, and now would on 20 of 40: " in str(change(path, now))


def test_changed_images_are_named(path):
    write_or_remove(path, SubsetManifest.from_ids((1, 2, 3), 9))
    words = str(change(path, SubsetManifest.from_ids((2, 4), 9)))
    assert words.endswith(": 2 left out (image ids 1, 3), 1 new (image ids 4)")


def test_another_percentage_is_a_setting_and_replaces_the_file(path):
    records = Ids(range(50))
    write_or_remove(path, choose(records, percentage=50)[1])
    for percentage in (20, 100):
        now = choose(records, percentage=percentage)[1]
        assert change(path, now) is None
        write_or_remove(path, now)
        assert path.exists() == (percentage < 100)


def test_a_missing_file_reports_no_change(path):
    assert change(path, SubsetManifest.from_ids((1,), 2)) is None
    write_or_remove(path, None)
    assert not path.exists()
    assert path.name == SUBSET
