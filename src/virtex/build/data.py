"""Both splits of the data and their batches, from the configuration."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, assert_never

import torch

from virtex.build.caption_checks import CaptionFindings, check_captions
from virtex.build.caption_lengths import describe_captions
from virtex.build.images import image_limits, pixel_settings
from virtex.build.model import configured_task, task_settings
from virtex.build.observer import SILENT, Observer
from virtex.build.resolve import image_stages, resolve_length, resolve_sizes
from virtex.build.sources import ReportedRecords, mixture, open_splits
from virtex.build.transforms import transform_steps
from virtex.config.schema import Config
from virtex.config.specs import TransformSpec
from virtex.data import loader
from virtex.data.contents import Contents, WholeSplit, contents
from virtex.data.dataset import VALIDATION_EPOCH, ExampleDataset, Key
from virtex.data.loader import LoadedBatch
from virtex.data.mixed_order import Mixture
from virtex.data.pixel_values import PixelSettings
from virtex.data.records import Records
from virtex.data.remote.prefetcher import Prefetcher
from virtex.data.remote.shards import RemoteSplits, remote_splits
from virtex.data.sources.image_list import similar_file
from virtex.data.sources.labelled import read_labelled
from virtex.data.sources.labelled_records import LabelledRecords
from virtex.data.subset import SubsetManifest, training_subset
from virtex.distributed.world import World
from virtex.errors import UserError, first_few
from virtex.tasks.base import Encoder, Task
from virtex.tasks.caption_tokens import caption_tokens
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Categories, Classes, Vocabulary


@dataclass(frozen=True)
class PretrainingData:
    """Both splits as examples, and `report` and `findings`: lines for the log.

    `config` is the configuration with the sizes and the number of iterations that the data tell;
    `num_epochs` is what the latter follows from, and None if it was given itself.
    `records` are those of the whole training split, those trained on and those of validation.
    `earlier` are the training examples up to some iterations, where images are smaller.
    `subset` lists the images to train on; it is None for all of them. `remote` is None for local
    data, `mixture` without several sources.
    """

    config: Config
    num_epochs: float | None
    vocabulary: Vocabulary
    records: tuple[WholeSplit, Records, WholeSplit]
    shuffle_window: int
    subset: SubsetManifest | None
    training: ExampleDataset
    earlier: tuple[tuple[int, ExampleDataset], ...]
    validation: ExampleDataset
    collate: loader.Collate
    report: tuple[str, ...]
    remote: RemoteSplits | None
    mixture: Mixture | None
    findings: CaptionFindings

    @cached_property
    def contents(self) -> Contents:
        """The contents of both splits, for checkpoints; computing them takes seconds."""
        return contents(*self.records, self.shuffle_window)

    def with_pixels(self, pixels: PixelSettings) -> Self:
        """The same data, whose values become 8 bits as `pixels` says."""
        if pixels == self.training.pixels:
            return self
        training, validation = (
            replace(split, pixels=pixels) for split in (self.training, self.validation)
        )
        earlier = tuple((last, replace(stage, pixels=pixels)) for last, stage in self.earlier)
        return replace(self, training=training, earlier=earlier, validation=validation)


def open_data(config: Config, observer: Observer = SILENT) -> PretrainingData:
    """The training and the validation split of the data.

    `observer` is notified of long work. Raises `UserError` for missing images unless
    `DATA.ON_BAD_IMAGE` is skip, for a batch larger than the training split, for a cache too small
    for remote data, and for sizes or a length that do not fit other settings.
    """
    settings = config.data
    task = configured_task(config)
    num_epochs = config.optim.num_epochs
    config, vocabulary, whole, validation = _open_splits(config, task, observer)
    training, chosen = training_subset(
        whole,
        percentage=settings.use_percentage,
        seed=config.random_seed,
        manifest=settings.subset_manifest,
    )
    loader.check_batch_size(config.optim.batch_size, len(training))
    mixed = mixture(settings, whole, training)
    if mixed is not None:
        batches = len(training) // config.optim.batch_size
        mixed.quotas(batches * config.optim.batch_size)
    config = resolve_length(config, len(training))
    remote = remote_splits(whole, training, validation)
    if remote is not None:
        remote.check_space(settings.shuffle_window, settings.cache_gb)
    described: list[str] = []
    if task.labels == "captions" and remote is None and isinstance(vocabulary, Tokenizer):
        drawn = caption_tokens(vocabulary, task_settings(config), True)
        described = describe_captions(training, drawn)
    report = (
        f"training: {len(training)} of {len(whole)} images",
        *(f"training: {line}" for line in whole.report),
        *(f"training: {line}" for line in described),
        *(
            f"training: images of {size} pixels up to iteration {last:,}"
            for last, size in image_stages(config)
        ),
        f"validation: {len(validation)} images",
        *(f"validation: {line}" for line in validation.report),
        *_missing(training, settings.on_bad_image),
        *_missing(validation, settings.on_bad_image),
    )

    def examples(
        records: Records, specs: Sequence[TransformSpec], encoder: Encoder, size: int
    ) -> ExampleDataset:
        steps = transform_steps(specs, size)
        return ExampleDataset(
            records,
            steps,
            encoder.encode,
            seed=config.random_seed,
            on_bad_image=settings.on_bad_image,
            limits=image_limits(settings),
            pixels=pixel_settings(settings),
        )

    encoder = task.encoder(vocabulary, task_settings(config), True)

    def training_examples(size: int) -> ExampleDataset:
        return examples(training, settings.transforms_train, encoder, size)

    stages = image_stages(config)
    return PretrainingData(
        config=config,
        num_epochs=num_epochs,
        vocabulary=vocabulary,
        records=(whole, training, validation),
        shuffle_window=settings.shuffle_window,
        subset=chosen,
        training=training_examples(settings.image_crop_size),
        earlier=tuple((last, training_examples(size)) for last, size in stages),
        validation=examples(
            validation,
            settings.transforms_val,
            task.encoder(vocabulary, task_settings(config), False),
            settings.image_crop_size,
        ),
        collate=encoder.collate,
        report=report,
        remote=remote,
        mixture=mixed,
        findings=check_captions(settings, training, vocabulary, remote=remote is not None),
    )


def training_batches(
    config: Config,
    data: PretrainingData,
    world: World,
    *,
    workers: int,
    first: int,
    prefetcher: Prefetcher | None = None,
) -> Generator[LoadedBatch, None, None]:
    """This process's batches on its device, endless, from iteration `first` (from 1) on.

    Keys are given to workers when `prefetcher`, for remote shards, has fetched their shards.
    """
    batches = loader.training_batches(
        data.training,
        data.collate,
        batch_size=config.optim.batch_size,
        workers=workers,
        seed=config.random_seed,
        window=config.data.shuffle_window,
        first_iteration=first - 1,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
        prefetcher=prefetcher,
        mixture=data.mixture,
        earlier=data.earlier,
    )
    return _on_device(batches, world.device)


def validation_batches(
    config: Config, data: PretrainingData, world: World, *, workers: int
) -> Generator[LoadedBatch, None, None]:
    """This process's share of the validation split on its device, every example once."""
    batches = loader.validation_batches(
        data.validation,
        data.collate,
        batch_size=config.optim.batch_size // config.optim.accumulate,
        workers=workers,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
    )
    return _on_device(batches, world.device)


def validation_samples(data: PretrainingData, positions: range) -> loader.Batch:
    """A batch of those validation images that exist; empty if all of them are skipped."""
    existing = positions[: max(len(data.validation) - positions.start, 0)]
    keys = [Key(VALIDATION_EPOCH, index) for index in existing]
    examples, _ = data.validation.examples(keys)
    return data.collate(examples) if examples else {}


def _open_splits(
    config: Config, task: Task[Any, Any], observer: Observer
) -> tuple[Config, Vocabulary, ReportedRecords, ReportedRecords]:
    """Configuration with sizes, vocabulary, training and validation split; raises `UserError`."""
    data = config.data
    match task.labels:
        case "captions":
            tokenizer = Tokenizer.from_file(data.tokenizer_model)
            config = resolve_sizes(config, tokenizer, str(data.tokenizer_model))
            splits = open_splits(data, "captions", observer)
            return config, tokenizer, splits.training, splits.validation
        case "categories":
            splits = open_splits(data, "categories", observer)
            categories = Categories(splits.categories)
            roots = ", ".join(source.root for source in data.all_sources)
            config = resolve_sizes(config, categories, f"of objects in {roots}")
            return config, categories, splits.training, splits.validation
        case "classes":
            return _labelled_splits(config)
        case _:
            assert_never(task.labels)


def _labelled_splits(config: Config) -> tuple[Config, Classes, LabelledRecords, LabelledRecords]:
    labelled = read_labelled(Path(config.data.root), config.random_seed)
    classes = Classes(labelled.classes, labelled.several)
    config = resolve_sizes(config, classes, f"in {config.data.root}")
    training = LabelledRecords(labelled, "train", report=labelled.report)
    return config, classes, training, LabelledRecords(labelled, "test")


def _missing(records: Records, on_bad_image: str) -> list[str]:
    """A line if image files are missing or empty, or `UserError` if bad images are errors."""
    missing = records.missing(range(len(records)))
    if not missing:
        return []
    line = (
        f"{len(missing)} of {len(records)} image files are missing or empty: {first_few(missing)}"
    )
    if (similar := similar_file(missing[0])) is not None:
        line += f" (but there is {similar}; write the names as the files have them)"
    if on_bad_image == "error":
        raise UserError(
            f"{line}; check DATA.ROOT, or set DATA.ON_BAD_IMAGE to skip to train without them"
        )
    return [line]


def _on_device(
    loaded: Iterable[LoadedBatch], device: torch.device
) -> Generator[LoadedBatch, None, None]:
    for batch, bad in loaded:
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        yield LoadedBatch(moved, bad)
