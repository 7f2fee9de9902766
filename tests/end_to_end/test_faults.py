"""A few of the faults of `benchmarks/faults.py`, and its page."""

import random

import pytest
from benchmarks import faults
from benchmarks.fault_kinds import KINDS

pytestmark = pytest.mark.slow


def test_the_page_is_what_the_records_give():
    records = faults.read(faults.RESULTS)
    assert faults.PAGE.read_text(encoding="utf-8") == faults.page(records)


def test_every_kind_is_drawn_twice():
    drawn = faults.names(50, seed=0)
    assert len(drawn) == 50
    assert all(drawn.count(name) >= 2 for name in KINDS)
    assert drawn == faults.names(50, seed=0)
    assert drawn != faults.names(50, seed=1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    faults.prepare(root)
    return faults.peaceful(root)
