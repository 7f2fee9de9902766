"""The classifiers of pixels of an evaluation: what is trained, and what it gives."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from virtex.checkpoints.lock import locked
from virtex.distributed.signals import stop_requests
from virtex.distributed.world import World
from virtex.evaluation.backbones import open_backbones
from virtex.evaluation.dense.mask_data import read_mask_data
from virtex.evaluation.dense.networks import LastStages
from virtex.evaluation.dense.options import DenseOptions, given
from virtex.evaluation.dense.reporting import SILENT, Reporting
from virtex.evaluation.dense.segmentation import (
    SegmentationJob,
    check_job,
    confusion_of,
    intersection_over_union,
    segmentation_figures,
    train_classifier,
)
from virtex.evaluation.dense.training import (
    Surroundings,
    flags_of_evaluate,
    interrupts_as_requests,
    working_directory,
)
from virtex.evaluation.figures import Figure
from virtex.evaluation.results import Result, to_results
from virtex.files import check_writable
from virtex.training.precision import named_precision


def open_classifiers(options: DenseOptions, reporting: Reporting = SILENT) -> list[SegmentationJob]:
    """The classifiers to train, one for each checkpoint; raises `UserError`."""
    with reporting.phase("reading the masks", None, "images") as progress:
        data = read_mask_data(options.data, options.mask_classes, progress.advance)
    backbones = open_backbones(
        options.checkpoints,
        config=options.config,
        network_name=options.network,
        image_size=options.image_size,
        pixels=options.pixels,
    )
    work_dir = options.work_dir or Path("runs/linear-segmentation")
    jobs = [
        SegmentationJob(
            data=data,
            backbone=backbone,
            directory=working_directory(work_dir, backbone),
            resume=options.resume,
            precision=named_precision(options.precision, options.device),
            batch_size=options.batch_size,
            seed=options.seed,
            workers=options.cpu_workers,
            limits=options.limits,
            on_bad_image=options.on_bad_image,
            **given(
                iterations=options.iterations,
                learning_rate=options.learning_rate,
                save_every=options.save_every,
            ),
        )
        for backbone in backbones
    ]
    for job in jobs:
        check_job(job)
        check_writable(job.directory)
    return jobs


def classifier_results(
    jobs: Sequence[SegmentationJob], device: torch.device, reporting: Reporting = SILENT
) -> Iterator[list[Result]]:
    """Train and judge the classifiers; gives the results of each as they are found.

    Raises `Stopped` after a signal.
    """
    for line in jobs[0].data.report:
        reporting.say(line)
    for job in jobs:
        with flags_of_evaluate():
            figures = _train_and_judge(job, device, reporting)
        yield to_results(
            figures,
            "linear-segmentation",
            job.backbone,
            data=job.data.sha256,
            root=job.data.root,
            seed=job.seed,
            settings={},
        )


def _train_and_judge(
    job: SegmentationJob, device: torch.device, reporting: Reporting
) -> list[Figure]:
    world, name = World(0, 1, device), job.directory.name
    stages = LastStages(job.backbone.module).to(device)
    with (
        stop_requests() as request,
        interrupts_as_requests(request),
        locked(job.directory) as warning,
    ):
        if warning is not None:
            reporting.say(warning)
        with reporting.phase(f"training {name}", job.iterations, "iterations") as progress:
            around = Surroundings(world, job.precision, request, progress)
            head = train_classifier(job, stages, around)
        with reporting.phase(f"judging {name}", len(job.data.test), "images") as progress:
            around = Surroundings(world, job.precision, request, progress)
            counts = confusion_of(job, head, stages, around)
    for of_class, iou in zip(job.data.classes, intersection_over_union(counts), strict=True):
        reporting.say(f"{of_class}: IoU {100 * iou:.1f}")
    return segmentation_figures(counts, {**job.resolved(), "on_bad_image": job.on_bad_image})
