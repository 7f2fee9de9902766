"""`virtex evaluate detection`: train a detector on each backbone, and judge it."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtex.commands.arguments import device_name, image_limits, pixel_options
from virtex.commands.evaluate_results import check_results_of
from virtex.commands.progress import Progress
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.distributed.signals import StopRequest
    from virtex.distributed.world import World
    from virtex.evaluation.backbones import EvaluatedBackbone
    from virtex.evaluation.dense.detection_job import DetectionJob
    from virtex.evaluation.results import Result

_FIGURES = "figures.json"
_REMEDY = "The saved checkpoints are intact: continue with --resume"
_Work = tuple["DetectionJob", str, bool]
"""A job, the device and whether to be quiet: what each process gets."""


def detection_results(
    arguments: argparse.Namespace,
) -> "Iterator[tuple[EvaluatedBackbone, list[Result]]]":
    """Check everything, then give each backbone with its results; raises `UserError`."""
    from virtex.distributed.launch import LaunchConfig, launch
    from virtex.distributed.signals import stop_requests
    from virtex.evaluation.figures import Figure
    from virtex.evaluation.options import naming_options
    from virtex.evaluation.results import to_results

    device = _checked_device(arguments)
    with naming_options():
        jobs = _jobs(arguments)
    for line in _report(jobs[0]):
        print(line, flush=True)
    for job in jobs:
        with stop_requests() as request:
            request.check("stopped by a signal before the next training; continue with --resume")
            config = LaunchConfig(
                processes=job.processes,
                url=f"tcp://127.0.0.1:{_free_port()}",
                remedy=_REMEDY,
            )
            status = launch(_work, (job, device, arguments.quiet), config)
        if status:  # the processes have printed why
            raise SystemExit(status)
        kept = json.loads((job.directory / _FIGURES).read_text(encoding="utf-8"))
        yield (
            job.backbone,
            to_results(
                [Figure(**one) for one in kept],
                "detection",
                job.backbone,
                data=job.data_sha256,
                root=job.data.root,
                seed=job.settings.seed,
                settings={},
            ),
        )


def _jobs(arguments: argparse.Namespace) -> "list[DetectionJob]":
    from virtex.distributed.environment import read_environment
    from virtex.evaluation.backbones import open_backbones
    from virtex.evaluation.dense.detection_job import (
        DetectionJob,
        DetectionSettings,
        check_job,
        objects_hash,
        open_detection,
    )
    from virtex.evaluation.dense.training import working_directory
    from virtex.files import check_writable

    if read_environment().size > 1:
        raise UserError(
            "detection starts its own processes: give --processes N instead of a launcher"
        )
    with Progress("reading", None, "images", quiet=arguments.quiet) as progress:
        data, detector = open_detection(
            arguments.data, arguments.detector, arguments.on_bad_image, progress.advance
        )
    backbones = open_backbones(
        arguments.checkpoint,
        config=arguments.config,
        network_name=arguments.network,
        pixels=pixel_options(arguments),
    )
    settings = DetectionSettings(
        frozen=bool(arguments.frozen),
        iterations=arguments.iterations,
        learning_rate=arguments.learning_rate,
        longer_side=arguments.max_size,
        seed=arguments.seed,
        workers=arguments.cpu_workers,
        limits=image_limits(arguments),
        on_bad_image=arguments.on_bad_image,
        **_given(
            batch_size=arguments.batch_size,
            shorter_side=arguments.min_size,
            save_every=arguments.save_every,
            channels=arguments.pyramid_channels,
        ),
    )
    data_sha256 = objects_hash(data)
    jobs = [
        DetectionJob(
            data=data,
            data_sha256=data_sha256,
            detector=detector,
            backbone=backbone,
            settings=settings,
            directory=working_directory(arguments.work_dir or Path("runs/detection"), backbone),
            resume=bool(arguments.resume),
            # Coordinates of boxes have three digits in bfloat16, so auto is float32 everywhere.
            precision="float32" if arguments.precision == "auto" else arguments.precision,
            processes=arguments.processes or 1,
        )
        for backbone in backbones
    ]
    for job in jobs:
        check_results_of(job.backbone, arguments.output)
        check_job(job)
        check_writable(job.directory)
    return jobs


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _checked_device(arguments: argparse.Namespace) -> str:
    import torch

    device = device_name(arguments.device)
    processes = arguments.processes or 1
    if processes == 1 or device == "cpu":
        return device
    gpus = torch.cuda.device_count()
    if device != "cuda" or processes > gpus:
        raise UserError(
            f"--processes {processes} on --device {device}: this machine has {gpus} GPUs; with "
            "several processes each takes one, so give at most as many, or --device cpu"
        )
    return device


def _report(job: "DetectionJob") -> "Iterator[str]":
    data = job.data
    yield (
        f"{len(data.classes)} classes: {len(data.train)} training images with "
        f"{len(data.train.labels)} objects, {len(data.test)} test images with "
        f"{len(data.test.labels)} objects ({data.kind}, {job.detector})"
    )
    yield from data.report
    resolved = job.resolved()
    norm = "fixed, as the backbone is frozen" if resolved["frozen"] else "over the images of a "
    if not resolved["frozen"]:
        norm += "batch on all processes" if job.processes > 1 else "batch on the one process"
    yield (
        f"{resolved['iterations']} iterations of {resolved['batch_size']} images at a learning "
        f"rate of {resolved['learning_rate']:.4g}; batch norm of the backbone is {norm}"
    )


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _work(work: _Work) -> int:
    """Train and judge in this process, one of the job's; the main one writes and prints."""
    import torch

    from virtex.distributed.environment import read_environment
    from virtex.distributed.signals import STOPPED, Stopped, stop_requests
    from virtex.distributed.world import Timeouts, World, connect
    from virtex.evaluation.dense.training import flags_of_evaluate, interrupts_as_requests

    job, device, quiet = work
    process = read_environment()
    with ExitStack() as stack:
        stack.enter_context(flags_of_evaluate())
        request = stack.enter_context(stop_requests())
        stack.enter_context(interrupts_as_requests(request))
        if job.processes == 1:
            _train_and_judge(job, World(0, 1, torch.device(device)), request, quiet=quiet)
            return 0
        if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max((os.cpu_count() or 1) // process.size, 1))
        world, watchdog = stack.enter_context(
            connect(
                process,
                gpus=device != "cpu",
                timeouts=Timeouts(),
                stopping=lambda: bool(request),
                parent=request.parent,
                remedy=_REMEDY,
            )
        )
        try:
            _train_and_judge(job, world, request, quiet=quiet, report=watchdog.report)
        except Stopped as stopped:  # all of them, so nobody has failed
            if world.main:
                print(f"virtex evaluate: error: {stopped}", file=sys.stderr, flush=True)
            return STOPPED
        return 0


def _train_and_judge(
    job: "DetectionJob",
    world: "World",
    request: "StopRequest",
    *,
    quiet: bool,
    report: Any = lambda _: None,
) -> None:
    from virtex.checkpoints.lock import locked
    from virtex.evaluation.dense.detection import detect, judge, save_detections, train_detector
    from virtex.evaluation.dense.training import Surroundings
    from virtex.files import write_whole
    from virtex.training.precision import named_precision

    precision = named_precision(job.precision, world.device)
    quiet = quiet or not world.main
    with ExitStack() as stack:
        if world.main:
            warning = stack.enter_context(locked(job.directory))
            if warning is not None:
                print(warning, flush=True)
        name = job.directory.name
        total = job.resolved()["iterations"]
        with Progress(f"training {name}", total, "iterations", quiet=quiet) as progress:
            say = progress.note if world.main else _say_nothing
            around = Surroundings(
                world, precision, request, progress.advance, progress.skip, report
            )
            detector = train_detector(job, around, say)
        report("detection")
        images = -(-len(job.data.test) // world.size)
        with Progress(f"detecting {name}", images, "images", quiet=quiet) as progress:
            say = progress.note if world.main else _say_nothing
            around = Surroundings(
                world, precision, request, progress.advance, progress.skip, report
            )
            found, unread = detect(job, detector, around, say)
        if world.main:
            report("computing the figures")
            path = save_detections(job, found)
            figures, lines = judge(job, found, unread)
            content = json.dumps([asdict(figure) for figure in figures])
            write_whole(job.directory / _FIGURES, content.encode())
            print("\n".join([*lines, f"detections: {path}"]), flush=True)


def _say_nothing(_: str) -> None:
    pass
