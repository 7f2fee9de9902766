"""Training steps on random data in a process of their own, whose memory and time are measured.

`python -m virtex.doctor.step_trial` reads a `Trial` as JSON and prints a `StepCost` as JSON.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import repeat

import torch
from torch import Tensor

from virtex.build.model import build_objective
from virtex.build.optimizer import build_average, build_optimizer, build_schedule
from virtex.config.schema import Config
from virtex.distributed.world import World
from virtex.errors import RunError
from virtex.training.loop import TrainState, optimize
from virtex.training.precision import choose_precision

_ALL_CAPTIONS = 5
_WARM_UP = 1
_ENDED = "the measurement of a training step of {} images ended without a result: {}"


@dataclass(frozen=True)
class Trial:
    """Steps of `batch_size` images on a device: a warm-up, then some for at most `seconds`."""

    config: str
    batch_size: int
    device: str
    seconds: float


@dataclass(frozen=True)
class StepCost:
    """The median seconds of a step, and the most bytes that the process or the GPU held."""

    batch_size: int
    seconds: float
    peak_bytes: int

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.seconds


def measure_step(config: Config, batch_size: int, device: str, seconds: float) -> StepCost | None:
    """The cost of a step; None if there is not enough memory for it.

    The configuration must have its sizes. Raises RunError if the steps fail for another reason.
    """
    trial = Trial(config.model_dump_json(by_alias=True), batch_size, device, seconds)
    ended = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(asdict(trial)),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 0:
        return StepCost(**json.loads(ended.stdout.splitlines()[-1]))
    # A process that the system ends for its memory has no words.
    if ended.returncode < 0 or "memory" in ended.stderr.lower():
        return None
    reason = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
    raise RunError(_ENDED.format(batch_size, reason))


def _run(trial: Trial) -> StepCost:
    config = Config.model_validate_json(trial.config, by_alias=True, by_name=False)
    optim = config.optim.model_copy(
        update={"batch_size": trial.batch_size, "num_iterations": 10**6, "num_epochs": None}
    )
    config = config.model_copy(update={"optim": optim})
    device = torch.device(trial.device)
    objective = build_objective(config, weights_follow=True).to(device)
    precision = choose_precision(config.amp, device)
    state = TrainState(
        objective,
        objective,
        build_optimizer(config, objective),
        build_schedule(config),
        precision.gradient_scaler(),
        precision,
        build_average(config, objective),
    )
    steps = optimize(
        state,
        repeat(random_batch(config, device)),
        clip_grad_norm=optim.clip_grad_norm,
        max_nonfinite_steps=10**6,
        seed=0,
        world=World(rank=0, size=1, device=device),
        accumulate=optim.accumulate,
        first=1,
        last=10**6,
    )
    times = list(_times(steps, device, trial.seconds))
    return StepCost(trial.batch_size, statistics.median(times[_WARM_UP:]), _peak_bytes(device))


def _times(steps: Iterator[object], device: torch.device, seconds: float) -> Iterator[float]:
    """The duration of the warm-up and of at least one step."""
    end = time.monotonic() + seconds
    for number, begin in enumerate(iter(time.monotonic, None)):
        if number > _WARM_UP and begin > end:
            return
        next(steps)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        yield time.monotonic() - begin


def random_batch(config: Config, device: torch.device) -> dict[str, Tensor]:
    """A batch with the tensors of every task, whose captions have the greatest length.

    Where all captions of an image are drawn, five are assumed.
    """
    rows, side = config.optim.batch_size, config.data.image_crop_size
    chosen = config.data.captions_per_image
    per_image = _ALL_CAPTIONS if chosen == "all" else chosen
    length, size = config.data.max_caption_length, config.data.vocab_size
    assert size is not None
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(size, (rows * per_image, length), generator=generator)
    names = ("caption_tokens", "reversed_tokens", "masked_labels")
    batch = {
        "image_id": torch.arange(rows),
        "dropout_key": torch.arange(len(tokens)),
        "image": torch.randint(
            256, (rows, config.data.band_count, side, side), generator=generator, dtype=torch.uint8
        ),
        "caption_lengths": torch.full((len(tokens),), length),
        **dict.fromkeys(names, tokens),
        "parallel": torch.arange(len(tokens)) % 4 > 0,
        **dict.fromkeys(("labels", "all_tokens"), tokens[:rows]),
    }
    if per_image > 1:
        batch["captions_per_image"] = torch.full((rows,), per_image)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def main() -> None:
    """Measure the trial of standard input."""
    print(json.dumps(asdict(_run(Trial(**json.load(sys.stdin))))))


if __name__ == "__main__":
    main()
