"""The protocols of `virtex evaluate` on the frozen features of backbones."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from virtex.commands.arguments import evaluation_options
from virtex.commands.evaluate_results import check_results_of
from virtex.commands.progress import Progress

if TYPE_CHECKING:
    from virtex.distributed.world import World
    from virtex.evaluation.backbones import EvaluatedBackbone
    from virtex.evaluation.results import Result


def backbone_results(
    arguments: argparse.Namespace, world: "World"
) -> "Iterator[tuple[EvaluatedBackbone, list[Result]]]":
    """Check everything, then give each backbone with its results; raises `UserError`."""
    from virtex.evaluation.evaluate import evaluate_backbones
    from virtex.evaluation.opening import open_features

    with world.shared_errors():
        options = evaluation_options(arguments)
        if world.size > 1:
            options["device"] = world.device
        data, backbones, settings = open_features(options)
        for backbone in backbones:
            check_results_of(backbone, arguments.output)
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
