"""The detectors of an evaluation: what is trained, in which processes, and what it gives."""

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch

from virtex.checkpoints.lock import locked
from virtex.data.pixel_sample import pixel_lines
from virtex.distributed.cpu_threads import share_cores
from virtex.distributed.environment import read_environment
from virtex.distributed.launch import launch, on_this_machine
from virtex.distributed.signals import STOPPED, Stopped, StopRequest, stop_requests
from virtex.distributed.world import Timeouts, World, connect
from virtex.errors import RunError, UserError
from virtex.evaluation.backbones import open_backbones
from virtex.evaluation.dense.detection import detect, judge, save_detections, train_detector
from virtex.evaluation.dense.detection_job import (
    DetectionJob,
    DetectionSettings,
    check_job,
    objects_hash,
    open_detection,
)
from virtex.evaluation.dense.options import DenseOptions, given
from virtex.evaluation.dense.reporting import SILENT, Reporting
from virtex.evaluation.dense.training import (
    Surroundings,
    flags_of_evaluate,
    interrupts_as_requests,
    working_directory,
)
from virtex.evaluation.figures import Figure
from virtex.evaluation.results import Result, to_results
from virtex.files import check_writable, write_whole
from virtex.training.precision import named_precision

_FIGURES = "figures.json"
_REMEDY = "The saved checkpoints are intact: continue with --resume"


class FailedProcesses(RunError):
    """Processes ended with `exit_status`, after they had printed why."""

    def __init__(self, exit_status: int) -> None:
        super().__init__(
            f"the processes of a detector ended with status {exit_status}, after they had printed "
            "why"
        )
        self.exit_status = exit_status


def open_detectors(options: DenseOptions, reporting: Reporting = SILENT) -> list[DetectionJob]:
    """The detectors to train, one for each checkpoint; raises `UserError`."""
    processes = options.processes or 1
    _check_processes(processes, options.device)
    with reporting.phase("reading", None, "images") as progress:
        data, detector = open_detection(
            options.data, options.detector, options.on_bad_image, progress.advance
        )
    backbones = open_backbones(
        options.checkpoints,
        config=options.config,
        network_name=options.network,
        pixels=options.pixels,
    )
    settings = DetectionSettings(
        frozen=options.frozen,
        iterations=options.iterations,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        longer_side=options.max_size,
        seed=options.seed,
        workers=options.cpu_workers,
        limits=options.limits,
        on_bad_image=options.on_bad_image,
        **given(
            shorter_side=options.min_size,
            save_every=options.save_every,
            channels=options.pyramid_channels,
        ),
    )
    # Coordinates of boxes have three digits in bfloat16, so auto is float32 everywhere.
    precision = "float32" if options.precision == "auto" else options.precision
    data_sha256 = objects_hash(data)
    jobs = [
        DetectionJob(
            data=data,
            data_sha256=data_sha256,
            detector=detector,
            backbone=backbone,
            settings=settings,
            directory=working_directory(options.work_dir or Path("runs/detection"), backbone),
            resume=options.resume,
            precision=named_precision(precision, options.device),
            processes=processes,
        )
        for backbone in backbones
    ]
    for job in jobs:
        check_job(job)
        check_writable(job.directory)
    return jobs


def _check_processes(processes: int, device: torch.device) -> None:
    if read_environment().size > 1 or (processes > 1 and "WORLD_SIZE" in os.environ):
        raise UserError(
            "detection starts its own processes: give --processes N instead of a launcher"
        )
    if processes == 1:
        return
    if threading.current_thread() is not threading.main_thread():
        raise UserError("several processes can only be started from the main thread")
    gpus = torch.cuda.device_count()
    if device.type != "cpu" and (str(device) != "cuda" or processes > gpus):
        raise UserError(
            f"--processes {processes} on --device {device}: this machine has {gpus} GPUs; with "
            "several processes each takes one, so give at most as many, or --device cpu"
        )


def detector_results(
    jobs: Sequence[DetectionJob], device: torch.device, reporting: Reporting = SILENT
) -> Iterator[list[Result]]:
    """Train and judge the detectors; gives the results of each as they are found.

    Raises `Stopped` after a signal, and `FailedProcesses`.
    """
    for line in _report(jobs[0]):
        reporting.say(line)
    for job in jobs:
        with stop_requests() as request:
            request.check("stopped by a signal before the next training; continue with --resume")
            machine = on_this_machine(job.processes, _REMEDY)
            status = launch(_work, (job, device, reporting), machine)
        if status == STOPPED:
            raise Stopped(
                f"stopped by a signal; what was trained is saved in {job.directory}; continue with "
                "--resume"
            )
        if status:
            raise FailedProcesses(status)
        kept = json.loads((job.directory / _FIGURES).read_text(encoding="utf-8"))
        yield to_results(
            [Figure(**one) for one in kept],
            "detection",
            job.backbone,
            data=job.data_sha256,
            root=job.data.root,
            seed=job.settings.seed,
            settings={},
        )


def _report(job: DetectionJob) -> Iterator[str]:
    data = job.data
    yield (
        f"{len(data.classes)} classes: {len(data.train)} training images with "
        f"{len(data.train.labels)} objects, {len(data.test)} test images with "
        f"{len(data.test.labels)} objects ({data.kind}, {job.detector})"
    )
    yield from data.report
    yield from pixel_lines(data.train.paths, job.pixels, job.settings.limits)
    resolved = job.resolved()
    processes = "all processes" if job.processes > 1 else "the one process"
    norm = f"over the images of a batch on {processes}"
    if resolved["frozen"]:
        norm = "fixed, as the backbone is frozen"
    yield (
        f"{resolved['iterations']} iterations of {resolved['batch_size']} images at a learning "
        f"rate of {resolved['learning_rate']:.4g}; batch norm of the backbone is {norm}"
    )


def _work(work: tuple[DetectionJob, torch.device, Reporting]) -> int:
    """Train and judge in this process, one of the job's; the main one writes and reports."""
    job, device, reporting = work
    process = read_environment()
    with ExitStack() as stack:
        stack.enter_context(flags_of_evaluate())
        request = stack.enter_context(stop_requests())
        stack.enter_context(interrupts_as_requests(request))
        if job.processes == 1:
            _train_and_judge(job, World(0, 1, device), request, reporting)
            return 0
        if device.type == "cpu":
            share_cores(process.size)
        world, watchdog = stack.enter_context(
            connect(
                process,
                gpus=device.type != "cpu",
                timeouts=Timeouts(),
                stopping=lambda: bool(request),
                parent=request.parent,
                remedy=_REMEDY,
            )
        )
        try:
            _train_and_judge(job, world, request, reporting, watchdog.report)
        except Stopped:  # all of them, so nobody has failed
            return STOPPED
        return 0


def _train_and_judge(
    job: DetectionJob,
    world: World,
    request: StopRequest,
    reporting: Reporting,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    if not world.main:
        reporting = SILENT
    with ExitStack() as stack:
        if world.main:
            warning = stack.enter_context(locked(job.directory))
            if warning is not None:
                reporting.say(warning)
        name = job.directory.name
        iterations = job.resolved()["iterations"]
        with reporting.phase(f"training {name}", iterations, "iterations") as progress:
            around = Surroundings(world, job.precision, request, progress, report)
            detector = train_detector(job, around)
        report("detection")
        images = -(-len(job.data.test) // world.size)
        with reporting.phase(f"detecting {name}", images, "images") as progress:
            around = Surroundings(world, job.precision, request, progress, report)
            found, unread = detect(job, detector, around)
        if world.main:
            report("computing the figures")
            path = save_detections(job, found)
            figures, lines = judge(job, found, unread)
            content = json.dumps([asdict(figure) for figure in figures])
            write_whole(job.directory / _FIGURES, content.encode())
            reporting.say("\n".join([*lines, f"detections: {path}"]))
