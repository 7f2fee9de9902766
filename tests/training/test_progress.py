import pytest
import torch

from virtex.distributed.traffic import Traffic
from virtex.training.loop import Step
from virtex.training.progress import Meter, losses_text, progress_line, training_scalars


def step_of(**changes):
    figures = {
        "iteration": 3,
        "losses": {"forward": torch.tensor(2.0), "backward": torch.tensor(1.0)},
        "gradient_norm": torch.tensor(0.5),
        "learning_rates": {"visual_decayed": 0.2, "textual_decayed": 1e-3},
        "applied": True,
        "images": 8,
        "data_seconds": 0.25,
        "seconds": 2.0,
    }
    return Step(**figures | changes)


def test_rates_are_means_over_the_steps_of_all_processes():
    measured = {"avg_backward_comm_time": 375_000_000}  # nanoseconds
    meter = Meter(4, Traffic(2_250_000, lambda: measured))
    meter.add(step_of())
    meter.add(step_of(images=4, seconds=1.0, data_seconds=0.5))
    assert meter.step_seconds == 1.5
    assert meter.speed(memory_gb=1.5) == {
        "speed/images_per_second": 4 * 12 / 3,
        "speed/data_wait_fraction": 0.25,
        "speed/memory_gb": 1.5,
        "speed/exchanged_mb_per_step": 2.25,
        "speed/exchange_fraction": 0.25,
    }


def test_a_restart_forgets_the_steps_before():
    meter, fresh = Meter(1, Traffic()), Meter(1, Traffic())
    meter.add(step_of(seconds=100.0))
    meter.restart()
    for one in (meter, fresh):
        one.add(step_of())
    assert meter.speed(1.0) == fresh.speed(1.0)
    assert meter.step_seconds == fresh.step_seconds


def test_scalars_hold_each_loss_their_sum_the_norm_and_the_rates():
    assert training_scalars(step_of(), 4.0, {"forward": 2.5, "backward": 1.5}) == {
        "train/loss": 4.0,
        "train/forward": 2.5,
        "train/backward": 1.5,
        "train/gradient_norm": 0.5,
        "learning_rate/visual_decayed": 0.2,
        "learning_rate/textual_decayed": 1e-3,
    }


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ({"forward": 1.25}, "loss 1.2500"),
        ({"a": 1.0, "b": 0.5}, "loss 1.5000 (a 1.0000, b 0.5000)"),
    ],
)
def test_losses_in_words(losses, text):
    assert losses_text(sum(losses.values()), losses) == text


@pytest.mark.parametrize(
    ("iteration", "step_seconds", "remaining"),
    [(100, 1.0, "0:00:00"), (40, 1.0, "0:01:00"), (1, 3600.0, "4 days, 3:00:00")],
)
def test_the_line_shows_progress_speed_and_remaining_time(iteration, step_seconds, remaining):
    meter = Meter(1, Traffic())
    meter.add(step_of())
    line = progress_line(
        iteration, 100, 0.756, 2.0, {"forward": 2.0}, meter.speed(1.25), step_seconds
    )
    assert line == (
        f"iteration {iteration:>3}/100  epoch 0.76  loss 2.0000  4.0 images/s  "
        f"remaining {remaining}  data wait 12%  memory 1.2 GB"
    )
