"""A short search of every reader, and that the search finds what it looks for."""

import ctypes
import mmap
import os
import time

import numpy as np
import pytest
from tests.fuzz.campaign import BATCH, Limits, campaign, content
from tests.fuzz.targets import TARGETS

from virtex.errors import UserError

# Python's, where pytest's process has threads; the children use none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


class Broken:
    """Ends well but for inputs 3 and 60, which do as `fail` says."""

    name = "broken"
    allowed = (UserError,)

    def __init__(self, fail):
        self.fail = fail

    def generate(self, rng):
        return bytes(rng.integers(256, size=4, dtype=np.uint8))

    def read(self, data, directory):
        assert list(directory.iterdir()) == []
        if data in (content(self, 7, 3), content(self, 7, 60)):
            self.fail()
        raise UserError("a mistake of the user's")


def grow():
    # From the system: a large process may have as much in its heap, taken before and free now.
    pages = mmap.mmap(-1, 120 << 20)
    pages.write(bytes(1 << 20) * 120)


def leave():
    os._exit(0)


def crash():
    ctypes.string_at(0)


def complain():
    raise UserError("")


@pytest.mark.parametrize(
    ("fail", "what"),
    [
        (lambda: {}["key"], "KeyError: 'key' (test_fuzz.py:"),
        (crash, "ended by SIGSEGV"),
        (leave, "the interpreter ended with status 0"),
        (lambda: time.sleep(60), "took longer than 3.0 s"),
        (grow, "MB of memory"),
        (lambda: bytearray(1 << 50), "MemoryError"),
        (complain, "a message of 0 characters"),
    ],
)
def test_what_ends_otherwise_than_it_may_is_found_and_the_search_goes_on(fail, what):
    found = campaign(Broken(fail), 7, 0, 70, Limits(seconds=3.0, megabytes=60))
    assert found[0].number == 3
    assert what in str(found[0])
    # Memory that a child has had once counts once; the second input has another child.
    assert [finding.number for finding in found] == [3, 60]


def test_a_mistake_of_the_targets_own_is_a_finding():
    class Mistaken(Broken):
        def generate(self, rng):
            raise ValueError(rng.integers(9))

    (finding,) = campaign(Mistaken(crash), 0, 5, 1)
    assert "the target failed" in finding.what


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_is_a_function_of_its_seed_and_number(name):
    one, other = TARGETS[name](), TARGETS[name]()
    inputs = [content(one, 1, number) for number in range(20)]
    assert inputs == [content(other, 1, number) for number in range(20)]
    assert len(set(inputs)) > 10


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_from_a_file_brings_the_process_down(name):
    count = BATCH if name == "settings" else 4 * BATCH  # YAML is read slowly
    assert [str(finding) for finding in campaign(TARGETS[name](), 1, 0, count)] == []
