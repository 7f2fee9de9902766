"""Retrieval of captions by images and of images by captions, by log-likelihood."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.errors import UserError
from virtex.evaluation.captioned_images import captioned_images
from virtex.evaluation.features import data_hash
from virtex.evaluation.figures import Figure, mean_statistics
from virtex.evaluation.heads import (
    EvaluatedModel,
    HeadEvaluation,
    HeadSettings,
    image_grids,
)
from virtex.evaluation.likelihood import (
    Floats,
    estimated_seconds,
    text_scorer,
    without_prior,
)

RECALLS = (1, 5, 10)


def open_retrieval(root: Path, *, pairs: int = 1000, seed: int = 0) -> HeadEvaluation:
    """At most `pairs` validation images, drawn by the seed, each with its first caption.

    Raises `UserError` for wrong data, and for fewer than two pairs.
    """
    records, report = captioned_images(root, "val")
    if min(pairs, len(records)) < 2:
        raise UserError(
            f"--data {root}: {min(pairs, len(records))} pair of an image and a caption is not "
            "enough for retrieval; at least 2 are needed"
        )
    drawn = np.sort(np.random.default_rng(seed).permutation(len(records))[:pairs])
    paths = tuple(Path(str(records[row].image)) for row in drawn)
    captions = [records[row].captions[0] for row in drawn]

    def figures(model: EvaluatedModel, settings: HeadSettings) -> list[Figure]:
        return _figures(model, settings, paths, captions)

    texts = "\n".join(captions).encode("utf-8", "surrogatepass")
    return HeadEvaluation(
        root,
        paths,
        data_hash(root, paths, np.frombuffer(texts, np.uint8)),
        (f"{len(paths):,} of {len(records):,} validation images, a caption each", *report),
        figures,
    )


def _figures(
    model: EvaluatedModel, settings: HeadSettings, paths: Sequence[Path], captions: Sequence[str]
) -> list[Figure]:
    scorer = text_scorer(model)
    for line in scorer.findings(captions, "captions"):
        settings.say(line)
    tokens = scorer.tokens(captions)
    numbers = {text: number for number, text in enumerate(dict.fromkeys(tokens))}
    texts = list(numbers)
    rows: list[Floats] = []
    kept: list[int] = []
    for positions, grid in image_grids(model, paths, settings):
        with settings.precision.autocast():
            if not rows:
                seconds = estimated_seconds(scorer, grid, texts, len(paths))
                settings.say(
                    f"{len(paths):,} images x {len(texts):,} different captions take about "
                    f"{timedelta(seconds=max(round(seconds), 1))} on {settings.device}"
                )
            rows.append(scorer.log_likelihoods(grid, texts))
        kept += positions.tolist()
    # Of images that could not be read, the captions are left out too.
    groups = np.array([numbers[tokens[position]] for position in kept])
    return retrieval(np.concatenate(rows)[:, groups], groups)


def retrieval(scores: Floats, groups: npt.NDArray[np.int64]) -> list[Figure]:
    """Recall at 1, 5 and 10 from the scores (N, N) of captions (second axis) given images.

    Captions of the same group, (N,), are identical: each is correct for the images of all.
    """
    correct = groups[:, None] == groups
    settings: dict[str, object] = {"pairs": len(groups), "captions": len(np.unique(groups))}
    directions = {
        "image_to_text": ranks(scores, correct),
        "image_to_text_less_prior": ranks(without_prior(scores), correct),
        # The prior of a caption is the same for all images, so it changes nothing here.
        "text_to_image": ranks(scores.T, correct),
    }
    return [
        figure
        for name, found in directions.items()
        for figure in mean_statistics(
            [f"{name}_recall_{most}" for most in RECALLS], [found < most for most in RECALLS]
        ).figures(settings)
    ]


def ranks(scores: Floats, correct: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many wrong items of (N, M) have at least the score of the best correct one, (N,)."""
    best = np.where(correct, scores, -np.inf).max(axis=1, keepdims=True)
    wrong: npt.NDArray[np.int64] = ((scores >= best) & ~correct).sum(axis=1)
    return wrong
