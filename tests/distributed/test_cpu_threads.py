"""Threads of computing, and the cores that are free for them."""

import pytest

from virtex.distributed.cpu_threads import available_cores, busy_cores_advice


def test_there_is_a_core() -> None:
    assert available_cores() >= 1


@pytest.mark.parametrize(
    ("threads", "cores", "load"),
    [(2, 2, 0.4), (1, 2, 2.0), (1, 1, 5.0), (8, 16, 7.9), (16, 16, 0.9)],
)
def test_threads_with_a_core_each_need_no_advice(threads: int, cores: int, load: float) -> None:
    assert busy_cores_advice(threads, cores, load) is None


@pytest.mark.parametrize(
    ("threads", "cores", "load", "advised"),
    [(2, 2, 1.0, 1), (2, 2, 9.0, 1), (16, 16, 4.2, 12), (8, 16, 12.0, 4)],
)
def test_the_advice_leaves_busy_cores_to_others(
    threads: int, cores: int, load: float, advised: int
) -> None:
    advice = busy_cores_advice(threads, cores, load)
    assert advice is not None
    assert advice.endswith(f"OMP_NUM_THREADS={advised}")
    assert busy_cores_advice(advised, cores, load) is None
