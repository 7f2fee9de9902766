from itertools import islice, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data.mixed_order import Mixture, mixed_keys
from virtex.data.order import training_keys
from virtex.data.prefetch_plan import mixed_windows, training_windows, with_prefetch
from virtex.errors import UserError


class Listener:
    """What was said, and which shards are here: those of the last window, and of the next one."""

    def __init__(self):
        self.said, self.here = [], []

    def wait_for(self, shards):
        self.said.append(("wait_for", shards.tolist()))
        self.here = [*self.here[-1:], set(shards.tolist())]

    def prefetch(self, shards):
        self.said.append(("prefetch", shards.tolist()))


def drawn(sizes, window, batch_size, first, count, lag):
    """Each batch's shards, and what had been said when it was given out."""
    listener = Listener()
    order = {"window": window, "batch_size": batch_size, "seed": 3, "first_iteration": first}
    keys = training_keys(np.array(sizes), part=slice(None), **order)
    windows = training_windows(np.array(sizes), **order)
    shard = np.repeat(np.arange(len(sizes)), sizes)
    for batch in islice(
        with_prefetch(keys, windows, listener, first_iteration=first, lag=lag), count
    ):
        yield {int(shard[key.position]) for key in batch}, listener


shapes = st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(any)


@given(shapes, st.integers(1, 40), st.integers(0, 50), st.integers(0, 6), st.data())
def test_a_batch_is_given_out_when_its_shards_are_there(sizes, window, first, lag, data):
    batch_size = data.draw(st.integers(1, sum(sizes)))
    for shards, listener in drawn(sizes, window, batch_size, first, 30, lag):
        needed = [set(numbers) for what, numbers in listener.said if what == "wait_for"]
        assert shards <= set().union(*needed[-1 - batch_size :])


@given(shapes, st.integers(1, 40), st.integers(0, 50), st.integers(0, 6))
def test_what_is_prefetched_is_what_is_needed_next(sizes, window, first, lag):
    said = [listener for _, listener in drawn(sizes, window, 1, first, 60, lag)][-1].said
    assert said[0][0] == "wait_for"
    expected = None
    for what, shards in said:
        if what == "prefetch":
            expected = shards
        elif expected is not None:
            assert shards == expected
            expected = None
    pairs = [what for what, _ in said]
    assert pairs == [("wait_for", "prefetch")[place % 2] for place in range(len(pairs))]


def test_the_next_window_is_prefetched_when_the_one_before_is_done_with():
    found = []
    for _, listener in drawn([6, 6, 6], 6, 2, 0, 9, lag=2):
        found.append("".join(what[0] for what, _ in listener.said))
    # Three batches a window: the word on the next one comes two batches after the first.
    assert found == ["w", "w", "wp", "wpw", "wpw", "wpwp", "wpwpw", "wpwpw", "wpwpwp"]


mixtures = st.lists(st.tuples(shapes, st.integers(1, 4)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(mixtures, st.integers(4, 30), st.integers(0, 60), st.integers(0, 5), st.data())
def test_the_shards_of_the_fetched_sources_of_a_mixture_are_there(parts, window, first, lag, data):
    mixture = Mixture(
        tuple(map(str, range(len(parts)))),
        tuple(float(weight) for _, weight in parts),
        tuple(np.array(sizes) for sizes, _ in parts),
    )
    batch_size = data.draw(st.integers(1, min(20, sum(mixture.sizes))))
    try:
        mixture.quotas(sum(mixture.sizes) // batch_size * batch_size)
    except UserError:
        return
    fetched = data.draw(
        st.lists(st.integers(0, len(parts) - 1), min_size=1, max_size=len(parts), unique=True)
    )
    sizes = np.concatenate(mixture.shard_sizes)
    source = np.repeat(np.arange(len(parts)), [len(each) for each in mixture.shard_sizes])
    shard = np.repeat(np.arange(len(sizes)), sizes)
    order = {"window": window, "batch_size": batch_size, "seed": 3, "first_iteration": first}
    keys = mixed_keys(mixture, part=slice(None), **order)
    windows = mixed_windows(mixture, sources=fetched, **order)
    listener, said = Listener(), 0
    for batch in islice(with_prefetch(keys, windows, listener, first_iteration=first, lag=lag), 30):
        waited = [set(shards) for what, shards in listener.said if what == "wait_for"]
        # The windows before this batch, and those that it begins.
        there = set().union(*waited[max(0, said - 1) :])
        said = len(waited)
        needed = {int(shard[key.position]) for key in batch}
        assert {number for number in needed if source[number] in fetched} <= there
        assert {int(source[number]) for number in there} == set(fetched)
    for (what, shards), (then, others) in pairwise(listener.said):
        if (what, then) == ("prefetch", "wait_for"):
            # A source comes to its next window, which was prefetched.
            assert set(others) & set(shards)
