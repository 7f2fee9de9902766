import json

import pytest
import torch
from tests.distributed.ranks import start_two

from virtex.distributed.traffic import Traffic

STEPS = """
import json
import torch
from virtex.distributed.data_parallel import data_parallel
from virtex.distributed.environment import read_environment
from virtex.distributed.traffic import Traffic
from virtex.distributed.world import Timeouts, connect

with connect(read_environment(), gpus=False, timeouts=Timeouts()) as (world, _):
    model = torch.nn.Sequential(torch.nn.Linear(40, 300), torch.nn.Tanh(), torch.nn.Linear(300, 5))
    model[0].bias.requires_grad_(False)
    parallel = data_parallel(model, world)
    traffic = Traffic()
    traffic.watch(parallel)
    for _ in range(3):
        parallel(torch.randn(8, 40)).square().sum().backward()
    measured = world.gather([traffic.bytes_per_step, traffic.seconds_per_step])
    if world.main:
        print(json.dumps(measured))
"""


@pytest.fixture(scope="module")
def measured():
    """The bytes and the seconds of a step, for each of two processes."""
    processes = start_two(STEPS)
    (output, errors), _ = [process.communicate(timeout=120) for process in processes]
    assert processes[0].returncode == 0, errors
    return json.loads(output)


def test_the_bytes_of_a_step_are_those_of_the_gradients(measured):
    assert [size for size, _ in measured] == [4 * (40 * 300 + 300 * 5 + 5)] * 2


def test_an_exchange_takes_time(measured):
    assert all(0 < seconds < 60 for _, seconds in measured)


def test_one_process_exchanges_nothing():
    traffic = Traffic()
    model = torch.nn.Linear(2, 2)
    traffic.watch(model)
    model(torch.ones(1, 2)).sum().backward()
    assert (traffic.bytes_per_step, traffic.seconds_per_step) == (0, 0.0)
