import json
import os
import socket
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from virtex.runtime.traffic import Traffic, _union

# The same steps with and without the hook, on two processes with batches of their own.
STEPS = """
import hashlib, json, sys
import torch
from torch.nn.parallel import DistributedDataParallel
from virtex.runtime.cluster import find_place
from virtex.runtime.traffic import Traffic
from virtex.runtime.world import Limits, connect

def train(world, traffic, unused):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(40, 300), torch.nn.ReLU(), torch.nn.Linear(300, 50), torch.nn.Tanh()
    )
    # Buckets smaller than the model, so that there are several.
    parallel = DistributedDataParallel(
        model,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
        find_unused_parameters=unused,
        bucket_cap_mb=0.03,
    )
    if traffic is not None:
        traffic.watch(parallel)
    generator = torch.Generator().manual_seed(world.rank)
    digests, taken = [], []
    for _ in range(4):
        model.zero_grad()
        parallel(torch.randn(8, 40, generator=generator)).square().sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.01 * parameter.grad
        gradients = b"".join(p.grad.numpy().tobytes() for p in model.parameters())
        digests.append(hashlib.sha256(gradients).hexdigest())
        if traffic is not None:
            taken.append(traffic.take())
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    return digests, taken, size

with connect(find_place(), gpus=False, limits=Limits()) as (world, _):
    for unused in (True, False):
        plain, _, size = train(world, None, unused)
        hooked, taken, _ = train(world, Traffic(), unused)
        told = world.gather([plain, hooked, taken, size])
        if world.main:
            print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told():
    """For each kind of graph and each process: digests without and with the hook, taken, size."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STEPS],
            env={**os.environ, **place, "RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    (output, errors), _ = [process.communicate(timeout=120) for process in processes]
    assert processes[0].returncode == 0, errors
    return [json.loads(line) for line in output.splitlines()]


def test_the_bytes_of_a_step_are_those_of_the_gradients(told):
    for graph in told:
        for _, _, taken, size in graph:
            assert [count for count, _ in taken] == [size] * 4


def test_an_exchange_takes_time(told):
    for graph in told:
        for _, _, taken, _ in graph:
            assert all(0 < seconds < 60 for _, seconds in taken)


def test_the_gradients_are_bit_for_bit_those_without_the_hook(told):
    for graph in told:
        for plain, hooked, _, _ in graph:
            assert hooked == plain
            assert len(set(plain)) == 4
        assert graph[0][1] == graph[1][1]


def test_one_process_exchanges_nothing():
    traffic = Traffic()
    model = torch.nn.Linear(2, 2)
    traffic.watch(model)
    model(torch.ones(1, 2)).sum().backward()
    assert traffic.take() == (0, 0.0)


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0.0),
        ([(1.0, 3.0)], 2.0),
        ([(1.0, 3.0), (5.0, 6.0)], 3.0),
        ([(5.0, 6.0), (1.0, 3.0)], 3.0),
        ([(1.0, 3.0), (2.0, 6.0)], 5.0),
        ([(1.0, 3.0), (3.0, 6.0)], 5.0),
        ([(1.0, 6.0), (2.0, 3.0), (5.0, 7.0)], 6.0),
        ([(1.0, 2.0), (1.0, 2.0)], 1.0),
    ],
)
def test_time_in_which_several_are_under_way_counts_once(spans, seconds):
    assert _union(spans) == seconds


moments = st.integers(0, 30)


@given(st.lists(st.tuples(moments, st.integers(0, 8)), max_size=8))
def test_the_union_is_the_number_of_seconds_that_lie_in_a_span(drawn):
    spans = [(float(start), float(start + length)) for start, length in drawn]
    covered = {second for start, length in drawn for second in range(start, start + length)}
    assert _union(spans) == len(covered)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_events_of_a_gpu_are_seconds_too():
    traffic = Traffic()
    start, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
    begun = time.perf_counter()
    start.record()
    torch.cuda._sleep(10_000_000)
    middle.record()
    torch.cuda._sleep(10_000_000)
    end.record()
    traffic._spans = [(start, end), (start, middle)]
    _, seconds = traffic.take()
    assert 0 < seconds <= time.perf_counter() - begun
