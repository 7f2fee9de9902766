import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.optim import schedules

TOTAL = 60
decays = st.sampled_from([schedules.linear, schedules.cosine])
warmups = st.integers(0, TOTAL - 1)


def all_schedules(warmup):
    return [
        schedules.constant(warmup),
        schedules.linear(warmup, TOTAL),
        schedules.cosine(warmup, TOTAL),
        schedules.multistep(warmup, [30, 50], 0.1),
    ]


@given(warmup=warmups)
def test_warm_up_is_straight_from_zero_to_the_peak(warmup):
    for schedule in all_schedules(warmup):
        assert [schedule(step) for step in range(warmup)] == [s / warmup for s in range(warmup)]


@given(warmup=warmups)
def test_the_peak_is_at_the_end_of_the_warm_up(warmup):
    for schedule in all_schedules(warmup)[:3]:
        assert schedule(warmup) == 1.0


@given(decay=decays, warmup=warmups)
def test_decay_only_falls_and_ends_at_zero(decay, warmup):
    factors = [decay(warmup, TOTAL)(step) for step in range(warmup, TOTAL + 1)]
    assert all(later < earlier for earlier, later in pairwise(factors))
    assert factors[-1] == pytest.approx(0.0, abs=1e-15)  # cosine of a rounded pi
    assert min(factors) >= 0


@given(decay=decays, warmup=warmups, beyond=st.integers(1, 1000))
def test_after_the_end_the_rate_stays_at_zero(decay, warmup, beyond):
    assert decay(warmup, TOTAL)(TOTAL + beyond) == pytest.approx(0.0, abs=1e-15)


@given(decay=decays, warmup=st.integers(0, TOTAL - 2))
def test_half_of_the_decay_is_half_of_the_rate(decay, warmup):
    total = 2 * TOTAL - warmup  # as many steps again as to TOTAL
    assert decay(warmup, total)(TOTAL) == pytest.approx(0.5, abs=1e-15)


@given(warmup=warmups)
def test_cosine_equals_its_formula(warmup):
    for step in range(warmup, TOTAL + 1):
        angle = math.pi * (step - warmup) / (TOTAL - warmup)
        expected = math.cos(angle / 2) ** 2  # (1 + cos x) / 2
        assert schedules.cosine(warmup, TOTAL)(step) == pytest.approx(expected, abs=1e-15)


@given(
    warmup=st.integers(0, 10),
    milestones=st.lists(st.integers(11, TOTAL), unique=True).map(sorted),
    gamma=st.sampled_from([0.1, 0.5]),
)
def test_multistep_multiplies_once_a_milestone(warmup, milestones, gamma):
    factor = 1.0
    for step in range(warmup, TOTAL + 1):
        if step in milestones:
            factor *= gamma
        got = schedules.multistep(warmup, milestones, gamma)(step)
        assert got == pytest.approx(factor, rel=1e-12)  # powers against repeated products


def test_constant_stays():
    assert [schedules.constant(2)(step) for step in range(5)] == [0, 0.5, 1, 1, 1]
