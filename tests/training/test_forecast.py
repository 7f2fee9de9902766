"""The forecast of a run's duration and disk."""

import pytest
import torch

from virtex.checkpoints.file import Retention, checkpoint_path, remove_old
from virtex.training.forecast import Forecast, disk_line
from virtex.training.loop import Step


def step(iteration: int, seconds: float) -> Step:
    return Step(
        iteration=iteration,
        losses={},
        gradient_norm=torch.tensor(0.0),
        learning_rates={},
        images=4,
        applied=True,
        seconds=seconds,
        data_seconds=0.0,
    )


def due(forecast: Forecast, first: int, last: int, seconds: float = 2.0) -> list[int]:
    steps = (
        step(number, 100.0 if number < first + 3 else seconds) for number in range(first, last)
    )
    return [each.iteration for each in steps if forecast.is_due(each)]


@pytest.mark.parametrize("first", [1, 31])
def test_a_forecast_follows_twenty_steps_once(first):
    forecast = Forecast(last=100, interval=30)
    assert due(forecast, first, 100) == [first + 19]
    remaining = 100 - (first + 19)
    line = forecast.duration(first + 19)
    assert f"{remaining:,} iterations" in line
    assert f"0:0{remaining * 2 // 60}:{remaining * 2 % 60:02}" in line
    validations = {1: 4, 31: 3}[first]  # after 30, 60, 90 and 100, or the last three of these
    assert f"{validations} validations" in line


def test_short_runs_have_none():
    assert due(Forecast(last=20, interval=5), 1, 21) == []


@pytest.mark.parametrize(
    "retention",
    [
        Retention(None),
        Retention(1),
        Retention(3, milestone=10, interval=4),
        Retention(2, milestone=8, interval=4, untouched=8),
    ],
)
@pytest.mark.parametrize("existing", [(), (4, 8, 11)])
def test_the_checkpoints_at_the_end_are_those_that_a_run_leaves(tmp_path, retention, existing):
    for iteration in existing:
        checkpoint_path(tmp_path, iteration).touch()
    forecast = Forecast(last=42, interval=4).checkpoints_at_end(tmp_path, retention)
    for iteration in [*range(max(existing, default=0) // 4 * 4 + 4, 42, 4), 42]:
        checkpoint_path(tmp_path, iteration).touch()
        remove_old(tmp_path, retention)
    assert len(list(tmp_path.iterdir())) == forecast


def test_too_little_disk_is_seen():
    assert disk_line(10, 3, 40)[1]
    assert not disk_line(10, 3, 39)[1]
