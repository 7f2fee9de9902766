"""A world of one process; those of several are in `test_launch` and `test_watchdog`."""

import pytest
import torch

from virtex.distributed.environment import ProcessInfo
from virtex.distributed.world import Timeouts, check_gpus, connect
from virtex.errors import UserError


def test_one_process_needs_no_others():
    with connect(ProcessInfo(), gpus=False, timeouts=Timeouts()) as (world, _):
        assert (world.rank, world.size, world.main) == (0, 1, True)
        tensor = torch.tensor([2.5])
        assert world.sum(tensor).item() == 2.5
        world.wait()


def test_more_gpus_than_there_are_is_an_error():
    available = torch.cuda.device_count()
    check_gpus(available)
    message = f"{available + 8}: this machine has {available} GPUs"
    with pytest.raises(UserError, match=message):
        check_gpus(available + 8)
