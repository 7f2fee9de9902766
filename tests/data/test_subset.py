import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from virtex.data.sources.coco import CocoCaptions
from virtex.data.subset import Selection, subset
from virtex.errors import UserError


class Ids:
    """Records that are nothing but ids."""

    def __init__(self, ids):
        self.image_ids = np.array(ids, np.int64)

    def __len__(self):
        return len(self.image_ids)

    def __getitem__(self, index):
        return int(self.image_ids[index])


ids = st.lists(st.integers(0, 10**6), min_size=1, max_size=60, unique=True)
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


def test_the_choice_is_fixed_for_good():
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
    selection = Selection(records, np.array([2, 0]))
    assert list(selection) == [records[2], records[0]]
    assert selection.image_ids.tolist() == [3, 1]
    records[2].picture.unlink()
    assert selection.missing([0, 1]) == [records[2].picture]
