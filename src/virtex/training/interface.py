"""Pretraining, as a function."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtex.build.initial_weights import InitParts, initial_weights
from virtex.build.model import load_config
from virtex.checkpoints.file import checkpoints
from virtex.checkpoints.run_directory import LATEST
from virtex.config.schema import check_processes
from virtex.distributed.launch import launch, on_this_machine
from virtex.distributed.signals import STOPPED, Stopped
from virtex.errors import RunError
from virtex.training.run import pretrain as run_pretraining
from virtex.training.setup import PretrainOptions, check

_REMEDY = "call virtex.pretrain again with resume=True"


def pretrain(
    config: str | Path,
    directory: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    gpus: int = 0,
    cpu_workers: int = 0,
    checkpoint_every: int = 2000,
    keep_recent: int | None = None,
    log_every: int = 20,
    resume: bool = False,
    init_from: str | Path | None = None,
    init_parts: InitParts | None = None,
) -> Path:
    """Pretrain as `virtex pretrain` does on this machine; returns the last checkpoint.

    `config` is a YAML file, or the name of a configuration of the package, and `settings` override
    it by dotted key, such as `{"OPTIM.BATCH_SIZE": 64}`. `directory` takes checkpoints and logs.
    With several `gpus` each has a process. With `resume` the run continues from its newest
    checkpoint. `init_from` is a checkpoint whose weights a new run takes, all of them or the
    `init_parts`.

    Raises `UserError` before anything is started, `RunError` for a run that failed, and `Stopped`
    after a signal to stop (SIGTERM, SIGUSR1), when the state has been saved.
    """
    directory = Path(directory)
    overrides = [
        word
        for key, value in (settings or {}).items()
        for word in (key, json.dumps(value, default=str, ensure_ascii=False))
    ]
    described = load_config(Path(config), overrides, checkpoint_every=checkpoint_every)
    processes = max(1, gpus)
    check_processes(described, processes)
    options = PretrainOptions(
        config=described,
        directory=directory,
        overridden=tuple(overrides[::2]),
        resume_from=LATEST if resume else None,
        init_from=initial_weights(None if init_from is None else Path(init_from), init_parts, None),
        gpus=gpus > 0,
        workers=cpu_workers,
        checkpoint_every=checkpoint_every,
        keep_recent=keep_recent,
        log_every=log_every,
        command="virtex.pretrain",
    )
    check(options, gpus_per_machine=gpus)
    status = launch(run_pretraining, options, on_this_machine(processes, _REMEDY))
    if status == STOPPED:
        raise Stopped(f"stopped by a signal; what was trained is saved in {directory}; {_REMEDY}")
    if status:
        raise RunError(f"the run ended with status {status}; see {directory}/log_rank0.txt")
    return checkpoints(directory)[-1]
