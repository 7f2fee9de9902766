"""The protocols of `virtex evaluate` on the frozen features of backbones."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from virtex.commands.arguments import device_name, image_limits, pixel_options
from virtex.commands.evaluate_results import check_results_of
from virtex.commands.progress import Progress
from virtex.files import check_writable

if TYPE_CHECKING:
    from virtex.distributed.world import World
    from virtex.evaluation.backbones import EvaluatedBackbone
    from virtex.evaluation.features import FeatureSettings
    from virtex.evaluation.results import Result


def backbone_results(
    arguments: argparse.Namespace, world: "World"
) -> "Iterator[tuple[EvaluatedBackbone, list[Result]]]":
    """Check everything, then give each backbone with its results; raises `UserError`."""
    from virtex.evaluation.evaluate import evaluate_backbones, open_evaluation

    with world.shared_errors():
        data = open_evaluation(
            arguments.protocol, arguments.data, seed=arguments.seed, engine=arguments.engine
        )
        backbones = _open_backbones(arguments)
        settings = _feature_settings(arguments, world)
    images = data.images * len(backbones)
    quiet = arguments.quiet or not world.main
    with Progress("features", images, "images", quiet=quiet) as progress:
        say = progress.note if world.main else lambda _: None
        for line in (*data.report, *filter(None, (one.note for one in backbones))):
            say(line)
        found = evaluate_backbones(
            arguments.protocol,
            data,
            backbones,
            settings,
            seed=arguments.seed,
            on_bad_image=arguments.on_bad_image,
            say=say,
            advance=progress.advance,
            fitting=lambda *work: progress.interrupted("fitting", *work),
            world=world,
        )
        yield from zip(backbones, found, strict=True)


def _open_backbones(arguments: argparse.Namespace) -> "list[EvaluatedBackbone]":
    from virtex.evaluation.backbones import open_backbones

    backbones = open_backbones(
        arguments.checkpoint,
        config=arguments.config,
        network_name=arguments.network,
        image_size=arguments.image_size,
        pixels=pixel_options(arguments),
    )
    for backbone in backbones:
        check_results_of(backbone, arguments.output)
    return backbones


def _feature_settings(arguments: argparse.Namespace, world: "World") -> "FeatureSettings":
    import torch

    from virtex.data.shards.store import cache_directory
    from virtex.evaluation.features import FeatureSettings
    from virtex.training.precision import named_precision

    device = world.device if world.size > 1 else torch.device(device_name(arguments.device))
    settings = FeatureSettings(
        precision=named_precision(arguments.precision, device),
        device=device,
        workers=arguments.cpu_workers,
        limits=image_limits(arguments),
        cache=cache_directory(arguments.cache_dir),
    )
    if settings.cache is not None:
        check_writable(settings.cache)
    return settings
