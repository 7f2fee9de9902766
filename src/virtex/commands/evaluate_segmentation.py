"""`virtex evaluate linear-segmentation`: a linear classifier of pixels on each backbone."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtex.commands.arguments import device_name, image_limits, pixel_options
from virtex.commands.evaluate_results import check_results_of
from virtex.commands.progress import Progress

if TYPE_CHECKING:
    import torch

    from virtex.evaluation.backbones import EvaluatedBackbone
    from virtex.evaluation.dense.segmentation import SegmentationJob
    from virtex.evaluation.figures import Figure
    from virtex.evaluation.results import Result


def segmentation_results(
    arguments: argparse.Namespace,
) -> "Iterator[tuple[EvaluatedBackbone, list[Result]]]":
    """Check everything, then give each backbone with its results; raises `UserError`."""
    import torch

    from virtex.evaluation.dense.training import flags_of_evaluate
    from virtex.evaluation.results import to_results

    device = torch.device(device_name(arguments.device))
    jobs = _jobs(arguments, device)
    for line in jobs[0].data.report:
        print(line, flush=True)
    for job in jobs:
        with flags_of_evaluate():
            figures = _train_and_judge(job, device, quiet=arguments.quiet)
        yield (
            job.backbone,
            to_results(
                figures,
                "linear-segmentation",
                job.backbone,
                data=job.data.sha256,
                root=job.data.root,
                seed=job.seed,
                settings={},
            ),
        )


def _jobs(arguments: argparse.Namespace, device: "torch.device") -> "list[SegmentationJob]":
    from virtex.evaluation.backbones import open_backbones
    from virtex.evaluation.dense.mask_data import read_mask_data
    from virtex.evaluation.dense.segmentation import SegmentationJob, check_job
    from virtex.evaluation.dense.training import working_directory
    from virtex.files import check_writable
    from virtex.training.precision import named_precision

    with Progress("reading the masks", None, "images", quiet=arguments.quiet) as progress:
        data = read_mask_data(arguments.data, arguments.mask_classes, progress.advance)
    backbones = open_backbones(
        arguments.checkpoint,
        config=arguments.config,
        network_name=arguments.network,
        image_size=arguments.image_size,
        pixels=pixel_options(arguments),
    )
    precision = named_precision(arguments.precision, device)
    given: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("iterations", "batch_size", "learning_rate", "save_every")
        if getattr(arguments, name) is not None
    }
    jobs = [
        SegmentationJob(
            data=data,
            backbone=backbone,
            directory=working_directory(
                arguments.work_dir or Path("runs/linear-segmentation"), backbone
            ),
            resume=bool(arguments.resume),
            precision=str(precision.dtype).removeprefix("torch."),
            seed=arguments.seed,
            workers=arguments.cpu_workers,
            limits=image_limits(arguments),
            on_bad_image=arguments.on_bad_image,
            **given,
        )
        for backbone in backbones
    ]
    for job in jobs:
        check_results_of(job.backbone, arguments.output)
        check_job(job)
        check_writable(job.directory)
    return jobs


def _train_and_judge(
    job: "SegmentationJob", device: "torch.device", *, quiet: bool
) -> "list[Figure]":
    import torch

    from virtex.checkpoints.lock import locked
    from virtex.distributed.signals import stop_requests
    from virtex.distributed.world import World
    from virtex.evaluation.dense.networks import LastStages
    from virtex.evaluation.dense.segmentation import (
        confusion_of,
        intersection_over_union,
        segmentation_figures,
        train_classifier,
    )
    from virtex.evaluation.dense.training import (
        Surroundings,
        interrupts_as_requests,
        loss_line,
    )
    from virtex.training.precision import named_precision

    precision = named_precision(job.precision, device)  # type: ignore[arg-type]
    world, name = World(0, 1, torch.device(device)), job.directory.name
    stages = LastStages(job.backbone.module).to(device)  # type: ignore[arg-type]
    with (
        stop_requests() as request,
        interrupts_as_requests(request),
        locked(job.directory) as warning,
    ):
        if warning is not None:
            print(warning, flush=True)
        with Progress(f"training {name}", job.iterations, "iterations", quiet=quiet) as progress:
            around = Surroundings(world, precision, request, progress.advance, progress.skip)
            head, losses = train_classifier(job, stages, around, progress.note)
            progress.note(loss_line(losses))
        images = len(job.data.test)
        with Progress(f"judging {name}", images, "images", quiet=quiet) as progress:
            around = Surroundings(world, precision, request, progress.advance, progress.skip)
            counts = confusion_of(job, head, stages, around, progress.note)
    for of_class, iou in zip(job.data.classes, intersection_over_union(counts), strict=True):
        print(f"{of_class}: IoU {100 * iou:.1f}")
    return segmentation_figures(counts, {**job.resolved(), "on_bad_image": job.on_bad_image})
