"""What a run finds in a sample of its images: the range of values, and statistics of bands."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from virtex.build.data import PretrainingData
from virtex.build.images import image_limits, pixel_settings
from virtex.checkpoints.state import Checkpoint
from virtex.config.data import Data
from virtex.config.schema import Config
from virtex.data.images import BadImage, ImageSource
from virtex.data.order import EpochOrder
from virtex.data.pixel_sample import (
    PixelSample,
    band_statistics,
    choose_ranges,
    describe_ranges,
    range_problem,
    sample_pixels,
    sampled_images,
)
from virtex.models.backbone import Backbone
from virtex.models.first_convolution import fit_first_convolution


@dataclass(frozen=True)
class PixelChoice:
    """A configuration that leaves nothing open to a sample, and messages for the log.

    `cautions` are those to log as warnings.
    """

    config: Config
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


def adopt_pixels(config: Config, saved: Config) -> Config:
    """The configuration, with what was found for `saved` where it leaves that open.

    So a run resumes with the range and the statistics with which it began.
    """
    changes: dict[str, Any] = {}
    if config.data.pixel_range == "auto":
        changes["pixel_range"] = saved.data.pixel_range
    if config.data.normalization is None and config.data.bands == saved.data.bands:
        changes |= _normalized(config, saved.data.image_transform_train[-1])
    return _with_data(config, changes)


def choose_pixels(config: Config, data: PretrainingData, saved: Config | None) -> PixelChoice:
    """Choose what the configuration leaves open, from a sample of the training images.

    `saved` is the configuration of the checkpoint that the run resumes from: its choice is kept.
    Raises `UserError` if nothing can be chosen, or no image of the sample can be read.
    """
    if saved is not None:
        config = adopt_pixels(config, saved)
        if data.remote is not None:  # not to fetch a shard for messages
            return PixelChoice(config)
    limits = image_limits(config.data)
    try:
        sample = sample_pixels(_sources(config, data), pixel_settings(config.data), limits)
    except BadImage:
        if config.data.on_bad_image == "error":
            raise
        return PixelChoice(config)  # training reports them
    notes = []
    if config.data.pixel_range == "auto" and saved is None:
        config = _with_data(config, chosen_range(config.data, sample))
    pixels = pixel_settings(config.data)
    if (line := describe_ranges(sample, pixels)) is not None:
        notes.append(f"{line} (DATA.PIXEL_RANGE)")
    notes += [f"{line} (of sampled images)" for line in sample.note_lines]
    if config.data.normalization is None:
        mean, std = band_statistics(_sources(config, data), pixels, limits)
        config = _with_data(config, _normalized(config, f"normalize::{_arguments(mean, std)}"))
        notes.append(f"mean of the bands in sampled images: {mean}, standard deviation: {std}")
    problem = range_problem(sample, pixels)
    return PixelChoice(config, tuple(notes), () if problem is None else (problem,))


def weights_for_bands(visual: Backbone, saved: Checkpoint) -> Checkpoint:
    """The checkpoint, with weights for RGB converted to the bands of the backbone.

    If they were, the backbone gets a note of it.
    """
    weights, note = fit_first_convolution(visual.cnn, saved.weights, "visual.cnn.")
    if note is None:
        return saved
    visual.note = note
    return Checkpoint(saved.source, {"model": weights})


def _sources(config: Config, data: PretrainingData) -> Iterator[ImageSource]:
    """A sample of the training images; of remote shards those of the one that is needed first."""
    records = data.training.records
    if data.remote is None:
        return sampled_images(records)
    sizes = records.shard_sizes
    if data.mixture is None:
        order = EpochOrder(sizes, data.shuffle_window, config.random_seed, epoch=0)
        first = [int(order[0:1][0])]
    else:
        first = data.mixture.first_positions(data.shuffle_window, config.random_seed)
    ends = np.cumsum(sizes)
    shards = np.searchsorted(ends, first, side="right")
    ranges = [range(int(ends[shard] - sizes[shard]), int(ends[shard])) for shard in shards]
    return sampled_images(records, list(chain.from_iterable(ranges)))


def chosen_range(data: Data, sample: PixelSample) -> dict[str, Any]:
    """The settings of `DATA` that a sample of its images chooses; `UserError` if it cannot."""
    ranges = choose_ranges(sample, data.pixel_percentiles)
    if ranges is None:
        return {}
    return {"pixel_range": ranges[0] if len(ranges) == 1 else ranges}


def _arguments(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    return str({"mean": mean, "std": std})


def _normalized(config: Config, normalize: str) -> dict[str, Any]:
    data = config.data
    return {
        "image_transform_train": (*data.image_transform_train[:-1], normalize),
        "image_transform_val": (*data.image_transform_val[:-1], normalize),
    }


def _with_data(config: Config, changes: dict[str, Any]) -> Config:
    if not changes:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})
