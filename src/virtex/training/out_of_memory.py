"""Running out of memory as an error that suggests settings to try."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from virtex.config.schema import Config
from virtex.distributed.world import World
from virtex.errors import RunError, first_line

_WORDS = (
    "can't allocate memory",  # torch's allocator on the CPU
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


@contextmanager
def translate_memory_errors(config: Config, world: World) -> Iterator[None]:
    """Turn failed allocations, on a GPU or in main memory, into a `RunError` with advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not any(word in str(error) for word in _WORDS):
            raise
        raise RunError(_advice(config, world, error)) from error


def _advice(config: Config, world: World, error: Exception) -> str:
    batch, accumulate = config.optim.batch_size, config.optim.accumulate
    rows = batch // world.size
    tries = []
    parts = next((n for n in range(accumulate + 1, rows + 1) if rows % n == 0), None)
    if parts is not None:
        tries.append(
            f"OPTIM.ACCUMULATE {parts} (now {accumulate}): each process computes its {rows} images "
            f"in {parts} parts of {rows // parts}, with the same gradient"
        )
    if not config.amp:
        tries.append("AMP true (now false): bfloat16 or float16 if the device supports it")
    smaller = batch // 2 // (world.size * accumulate) * world.size * accumulate
    if smaller:
        tries.append(
            f"OPTIM.BATCH_SIZE {smaller} (now {batch} over {world.size} process(es)), with "
            "lower OPTIM.CNN_LR and OPTIM.LR"
        )
    if world.device.type == "cpu":
        tries.append("fewer loader workers (--cpu-workers)")
    return (
        f"out of memory on {world.device}: {first_line(error)}\nTry, in this order:\n"
        + "".join(f"  {line}\n" for line in tries)
        + "The saved checkpoints are intact: continue with --resume-from latest and "
        "--config-override."
    )
