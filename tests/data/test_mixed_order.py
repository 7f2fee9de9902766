"""The order of several sources, against a plain simulation that draws from endless lists."""

from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data.mixed_order import Mixture, mixed_keys
from virtex.data.order import EpochOrder, training_keys
from virtex.errors import UserError


def mixture(sizes, weights=None):
    shards = tuple(np.atleast_1d(np.array(size)) for size in sizes)
    names = tuple(f"source {n}" for n in range(len(sizes)))
    return Mixture(names, tuple(weights or [1.0] * len(sizes)), shards)


def keys(mixed, batch_size, count, first=0, part=slice(None), seed=0, window=16):
    drawn = mixed_keys(
        mixed,
        window=window,
        batch_size=batch_size,
        part=part,
        seed=seed,
        first_iteration=first,
    )
    return list(islice(drawn, count))


def flat_keys(*arguments, **options):
    return list(chain(*keys(*arguments, **options)))


cases = st.tuples(
    st.lists(st.tuples(st.integers(3, 40), st.integers(1, 5)), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 50),
)


@settings(deadline=None, max_examples=25)
@given(cases)
def test_each_source_gives_its_share_in_its_own_order_and_starts_over(case):
    pairs, batch_size, window = case
    mixed = mixture([size for size, _ in pairs], [float(weight) for _, weight in pairs])
    batches = sum(mixed.sizes) // batch_size
    total = sum(weight for _, weight in pairs)
    ends = np.cumsum(mixed.sizes).tolist()
    drawn = {number: [] for number in range(len(pairs))}
    try:
        quotas = mixed.quotas(batches * batch_size)
    except UserError:
        assert min(weight / total * batches * batch_size for _, weight in pairs) < 1
        return
    for epoch in range(3):
        flat = flat_keys(mixed, batch_size, batches, epoch * batches, window=window)
        where = Counter()
        for key in flat:
            number = next(n for n, end in enumerate(ends) if key.position < end)
            where[number] += 1
            drawn[number].append((key.epoch, key.position - (ends[number] - mixed.sizes[number])))
        assert [where[number] for number in range(len(pairs))] == quotas
        for quota, (_, weight) in zip(quotas, pairs, strict=True):
            assert abs(quota - weight / total * len(flat)) < 1
    for number, found in drawn.items():
        size = mixed.sizes[number]
        endless = []
        while len(endless) < len(found):
            number_of_pass = len(endless) // size
            order = EpochOrder(np.array([size]), window, number * 2**32, number_of_pass)[0:size]
            assert sorted(order.tolist()) == list(range(size))
            endless += [(number_of_pass, position) for position in order.tolist()]
        assert found == endless[: len(found)]


@settings(deadline=None, max_examples=15)
@given(cases, st.integers(0, 200))
def test_the_order_continues_anywhere_at_any_world_size(case, first):
    pairs, per_process, window = case
    batch_size = per_process * 12
    mixed = mixture([20 + size for size, _ in pairs], [float(weight) for _, weight in pairs])
    if sum(mixed.sizes) < batch_size:
        return
    whole = keys(mixed, batch_size, first + 4, window=window)[first:]
    assert keys(mixed, batch_size, 4, first, window=window) == whole
    for world_size in (2, 3, 4):
        size = batch_size // world_size
        parts = [
            keys(mixed, batch_size, 4, first, slice(r * size, (r + 1) * size), window=window)
            for r in range(world_size)
        ]
        assert [list(chain(*batch)) for batch in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize("window", [5, 1000])
def test_one_source_that_fills_its_batches_is_ordered_as_without_a_mixture(window):
    sizes = np.array([4, 9, 7, 10])
    plain = training_keys(
        sizes, window=window, batch_size=6, part=slice(None), seed=3, first_iteration=2
    )
    mixed = Mixture(("a",), (2.0,), (sizes,))
    assert keys(mixed, 6, 12, first=2, seed=3, window=window) == list(islice(plain, 12))


def test_sources_are_mixed_throughout_an_epoch_and_anew_in_the_next():
    mixed = mixture([600, 300, 100])
    epochs = [flat_keys(mixed, 10, 100, 100 * epoch, window=50) for epoch in range(2)]
    labels = [np.searchsorted([600, 900], [k.position for k in e], side="right") for e in epochs]
    assert (labels[0] != labels[1]).any()
    for label in labels:
        for begin in range(0, 1000, 100):
            counts = np.bincount(label[begin : begin + 100], minlength=3)
            assert (np.abs(counts - 100 / 3) < 20).all()


def test_a_sample_that_is_repeated_in_an_epoch_has_another_key():
    flat = flat_keys(mixture([10, 90], [9.0, 1.0]), 10, 10)
    assert len(set(flat)) == len(flat) == 100


@pytest.mark.parametrize(
    ("sizes", "weights", "reason"),
    [
        ([10, 10], [1e-4, 1.0], "weight 0.0001 of source 0"),
        ([0, 10], [1.0, 1.0], "source 0 is used"),
    ],
)
def test_a_source_that_gives_nothing_is_refused(sizes, weights, reason):
    with pytest.raises(UserError, match=reason):
        mixture(sizes, weights).quotas(20)


def test_the_mixed_order_is_fixed_for_good():
    batches = keys(mixture([4, 6], [1.0, 2.0]), 5, 3)
    assert [[tuple(key) for key in batch] for batch in batches] == [
        [(0, 4), (0, 8), (0, 9), (0, 2), (0, 5)],
        [(0, 0), (0, 3), (0, 6), (0, 7), (1, 6)],
        [(0, 1), (1, 5), (1, 9), (1, 0), (1, 8)],
    ]
