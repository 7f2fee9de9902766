"""The speed and remaining time of a run, as scalars and as lines for the console."""

import resource
import sys
import time
from collections.abc import Mapping
from datetime import timedelta

import torch

from virtex.distributed.traffic import Traffic
from virtex.distributed.watchdog import Watchdog
from virtex.training.loop import Step

_SHOW_SECONDS = 10.0


class Meter:
    """Accumulates the steps since its last restart; rates are means over them."""

    def __init__(self, processes: int, traffic: Traffic) -> None:
        self.processes = processes
        self.traffic = traffic
        self.restart()

    def restart(self) -> None:
        self.steps = 0
        self.images = 0
        self.seconds = 0.0
        self.data_seconds = 0.0

    def add(self, step: Step) -> None:
        self.steps += 1
        self.images += step.images
        self.seconds += step.seconds
        self.data_seconds += step.data_seconds

    @property
    def step_seconds(self) -> float:
        """The mean time of a step, waiting for data included."""
        return self.seconds / self.steps

    def speed(self, memory_gb: float) -> dict[str, float]:
        """Images per second over all processes, share of time spent waiting for data, memory.

        With several processes also megabytes of gradients per step, and the share of the time
        spent on exchanging them, mostly during the backward pass, in the steps that torch measures.
        """
        speed = {
            "speed/images_per_second": self.processes * self.images / self.seconds,
            "speed/data_wait_fraction": self.data_seconds / self.seconds,
            "speed/memory_gb": memory_gb,
        }
        if self.processes > 1:
            speed["speed/exchanged_mb_per_step"] = self.traffic.bytes_per_step / 1e6
            speed["speed/exchange_fraction"] = self.traffic.seconds_per_step / self.step_seconds
        return speed


class PreparationProgress:
    """Reports the preparation of a run to the watchdog, and on the main process to the user."""

    def __init__(self, watchdog: Watchdog, *, main: bool) -> None:
        self._watchdog, self._main = watchdog, main
        self._shown_at = time.monotonic()

    def indexed(self, name: str, done: int, total: int) -> None:
        """`done` of `total` bytes of shards are read, the last of the shard `name`."""
        self.report(f"indexing shards: {done / 1e9:.2f} of {total / 1e9:.2f} GB, {name}")

    def report(self, line: str) -> None:
        """Report what is being done; the user sees it every ten seconds."""
        self._watchdog.report(line)
        if self._main and time.monotonic() - self._shown_at >= _SHOW_SECONDS:
            self._shown_at = time.monotonic()
            print(line, file=sys.stderr, flush=True)


def print_notice(line: str) -> None:
    """Show a line to the user before there is a log."""
    print(line, file=sys.stderr, flush=True)


def training_scalars(step: Step, total: float, losses: Mapping[str, float]) -> dict[str, float]:
    """The numbers that a repeated run reproduces: losses, gradient norm, learning rates.

    `total` is what training minimises, the weighted sum of `losses`.
    """
    scalars = {"train/loss": total}
    scalars |= {f"train/{name}": value for name, value in losses.items()}
    scalars["train/gradient_norm"] = float(step.gradient_norm)
    return scalars | {f"learning_rate/{name}": rate for name, rate in step.learning_rates.items()}


def progress_line(
    iteration: int,
    last: int,
    epochs: float,
    total: float,
    losses: Mapping[str, float],
    speed: Mapping[str, float],
    step_seconds: float,
) -> str:
    """One line: iteration, epochs, losses, rate, remaining time, waiting for data, memory."""
    remaining = timedelta(seconds=round((last - iteration) * step_seconds))
    exchange = ""
    if "speed/exchange_fraction" in speed:
        exchange = f"exchange {speed['speed/exchange_fraction']:.0%}  "
    return (
        f"iteration {iteration:>{len(str(last))}}/{last}  epoch {epochs:.2f}  "
        f"{losses_text(total, losses)}  "
        f"{speed['speed/images_per_second']:.1f} images/s  "
        f"remaining {remaining}  "
        f"data wait {speed['speed/data_wait_fraction']:.0%}  "
        f"{exchange}"
        f"memory {speed['speed/memory_gb']:.1f} GB"
    )


def losses_text(total: float, losses: Mapping[str, float]) -> str:
    """The total loss and, if there are several, each of them."""
    text = f"loss {total:.4f}"
    if len(losses) == 1:
        return text
    return f"{text} ({', '.join(f'{name} {value:.4f}' for name, value in losses.items())})"


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory of this process, in GB: the GPU's if there is one, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
