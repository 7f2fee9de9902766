from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.data.order import EpochOrder, epoch_order, training_keys


def keys(examples, batch_size, count, first=0, part=slice(None), seed=0):
    return windowed_keys([examples], batch_size, count, first, part, seed)


def windowed_keys(sizes, batch_size, count, first=0, part=slice(None), seed=0, window=10):
    order = training_keys(
        np.array(sizes),
        window=window,
        batch_size=batch_size,
        part=part,
        seed=seed,
        first_iteration=first,
    )
    return list(islice(order, count))


@given(st.integers(1, 60), st.data())
def test_an_epoch_holds_each_example_at_most_once_and_drops_what_fills_no_batch(examples, data):
    batch_size = data.draw(st.integers(1, examples))
    batches = examples // batch_size
    for epoch in range(2):
        drawn = keys(examples, batch_size, batches, first=epoch * batches)
        flat = [key for batch in drawn for key in batch]
        assert {key.epoch for key in flat} == {epoch}
        assert len({key.position for key in flat}) == batches * batch_size
        assert all(0 <= key.position < examples for key in flat)


@given(st.integers(1, 40), st.integers(0, 100), st.data())
def test_starting_later_equals_going_on(examples, first, data):
    batch_size = data.draw(st.integers(1, examples))
    assert keys(examples, batch_size, 5, first) == keys(examples, batch_size, first + 5)[first:]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_parts_of_all_processes_are_the_global_batch(world_size):
    whole = keys(20, 6, 8)
    size = 6 // world_size
    parts = [
        keys(20, 6, 8, part=slice(rank * size, (rank + 1) * size)) for rank in range(world_size)
    ]
    joined = [[key for part in batch for key in part] for batch in zip(*parts, strict=True)]
    assert joined == whole


def test_orders_differ_by_epoch_and_seed():
    orders = {tuple(epoch_order(20, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_the_order_is_fixed_for_good():
    # A changed figure here would change every run that goes on from a checkpoint.
    assert epoch_order(8, seed=0, epoch=1).tolist() == [6, 4, 0, 5, 7, 1, 2, 3]


shapes = st.lists(st.integers(0, 12), min_size=1, max_size=30).filter(any)


@given(shapes, st.integers(1, 40), st.integers(0, 3))
def test_a_windowed_epoch_is_a_permutation(sizes, window, epoch):
    order = EpochOrder(np.array(sizes), window, 0, epoch)
    assert len(order) == sum(sizes)
    assert sorted(order[0 : len(order)].tolist()) == list(range(sum(sizes)))


@given(shapes, st.integers(0, 5), st.integers(0, 5))
def test_data_that_fit_into_a_window_are_ordered_as_files_are(sizes, seed, epoch):
    order = EpochOrder(np.array(sizes), sum(sizes), seed, epoch)
    assert order[0 : len(order)].tolist() == epoch_order(sum(sizes), seed, epoch).tolist()


@given(shapes, st.integers(1, 40), st.data())
def test_any_part_of_a_windowed_epoch_is_had_without_the_rest(sizes, window, data):
    order = EpochOrder(np.array(sizes), window, 1, 2)
    start = data.draw(st.integers(0, len(order)))
    stop = data.draw(st.integers(start, len(order) + 3))
    part = EpochOrder(np.array(sizes), window, 1, 2)[start:stop]
    assert part.tolist() == order[0 : len(order)][start:stop].tolist()


@given(shapes, st.integers(1, 40))
def test_a_window_holds_whole_shards_and_as_many_samples_as_said(sizes, window):
    order = EpochOrder(np.array(sizes), window, 3, 0)
    shard = np.repeat(np.arange(len(sizes)), sizes)[order[0 : len(order)]].tolist()
    places = {number: [i for i, s in enumerate(shard) if s == number] for number in set(shard)}
    # A sample is not further from another of its shard than a window is long.
    for number, of_shard in places.items():
        assert of_shard[-1] - of_shard[0] < max(window, sizes[number])


@given(shapes, st.integers(1, 40), st.integers(0, 60), st.data())
def test_a_windowed_order_goes_on_anywhere_at_any_world_size(sizes, window, first, data):
    size = data.draw(st.integers(1, sum(sizes)))
    whole = windowed_keys(sizes, size, first + 4, window=window)
    parts = [slice(rank, rank + 1) for rank in range(size)]
    for rank, part in enumerate(parts[:3]):
        resumed = windowed_keys(sizes, size, 4, first, part, window=window)
        assert resumed == [batch[rank : rank + 1] for batch in whole[first:]]


def test_windows_are_shuffled_each_in_its_own_way_and_anew_in_each_epoch():
    sizes = np.full(4, 6)
    order = EpochOrder(sizes, 6, 0, 0)[0:24].reshape(4, 6)
    assert len({tuple(window % 6) for window in order.tolist() and order}) > 1
    assert EpochOrder(sizes, 6, 0, 1)[0:24].tolist() != order.flatten().tolist()


def test_the_windowed_order_is_fixed_for_good():
    # A changed figure here would change every run that goes on from a checkpoint.
    assert EpochOrder(np.array([3, 2, 4]), 5, 0, 1)[0:9].tolist() == [0, 1, 2, 8, 7, 6, 5, 4, 3]
