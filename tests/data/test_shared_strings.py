import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from virtex.data.shared_strings import StringPacker, shared


@given(st.lists(st.text()))
def test_strings_come_back(strings):
    packer = StringPacker()
    for string in strings:
        packer.append(string)
    packed = packer.packed()
    assert [packed[index] for index in range(len(packed))] == strings


def test_half_a_surrogate_pair_is_replaced():
    packer = StringPacker()
    packer.append("a\ud800b")
    assert packer.packed()[0] == "a?b"


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_shared_copy_is_in_shared_memory_and_apart(size):
    values = np.arange(size)
    tensor = shared(values)
    assert tensor.is_shared()
    values += 1
    assert torch.equal(tensor, torch.arange(size))
