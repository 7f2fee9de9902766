from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.data.order import TrainingKeys, epoch_order


def keys(examples, batch_size, count, first=0, part=slice(None), seed=0):
    return list(islice(TrainingKeys(examples, batch_size, part, seed, first), count))


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
