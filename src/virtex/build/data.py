"""Both splits of the data and their batches, from the configuration."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self, assert_never

import torch

from virtex.build.caption_checks import CaptionFindings, check_captions
from virtex.build.images import image_limits, pixel_settings
from virtex.build.model import check_vocabulary, task_settings
from virtex.build.transforms import transform_steps
from virtex.config.data import Data
from virtex.config.schema import Config
from virtex.config.specs import TransformSpec
from virtex.data import loader
from virtex.data.contents import Contents, WholeSplit, contents
from virtex.data.dataset import VALIDATION_EPOCH, ExampleDataset, Key
from virtex.data.images import OnBadImage
from virtex.data.loader import LoadedBatch
from virtex.data.pixel_values import PixelSettings
from virtex.data.records import Records
from virtex.data.remote.prefetcher import Prefetcher
from virtex.data.remote.shards import RemoteSplits, remote_splits
from virtex.data.remote.store import open_store
from virtex.data.shards.reader import Shards, open_shards
from virtex.data.shards.store import cache_directory
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.coco_objects import CocoCategories
from virtex.data.sources.labelled import read_labelled
from virtex.data.sources.labelled_records import LabelledRecords
from virtex.data.sources.table import TableCaptions
from virtex.data.sources.text_folder import TextFolder
from virtex.data.subset import SubsetManifest, training_subset
from virtex.distributed.world import World
from virtex.errors import UserError, first_few
from virtex.tasks import find_task
from virtex.tasks.base import Encoder, Task
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Categories, Classes, Vocabulary

_NOT_LABELLED = (
    "DATA.FORMAT is labelled, which has neither captions nor categories; it is for MODEL.NAME "
    "image_classification"
)


class ReportedRecords(WholeSplit, Protocol):
    """Records with a report: a line for each finding in their annotations."""

    @property
    def report(self) -> tuple[str, ...]: ...


class CategoryRecords(ReportedRecords, Protocol):
    """Records of objects, with the names of their categories."""

    @property
    def categories(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class PretrainingData:
    """Both splits as examples, and `report` and `findings`: lines for the log.

    `records` are those of the whole training split, those trained on and those of validation.
    `subset` lists the images to train on; it is None for all of them. `remote` is None for local
    data.
    """

    vocabulary: Vocabulary
    records: tuple[WholeSplit, Records, WholeSplit]
    shuffle_window: int
    subset: SubsetManifest | None
    training: ExampleDataset
    validation: ExampleDataset
    collate: loader.Collate
    report: tuple[str, ...]
    remote: RemoteSplits | None
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
        return replace(self, training=training, validation=validation)


def open_data(config: Config) -> PretrainingData:
    """The training and the validation split of `DATA.ROOT`; raises `UserError` for missing images
    unless `DATA.ON_BAD_IMAGE` is skip, for a batch larger than the training split, and for a cache
    too small for remote data."""
    settings = config.data
    task = find_task(config.model.name)
    vocabulary, whole, validation = _open_splits(config, task)
    training, chosen = training_subset(
        whole,
        percentage=settings.use_percentage,
        seed=config.random_seed,
        manifest=settings.subset_manifest,
    )
    loader.check_batch_size(config.optim.batch_size, len(training))
    remote = remote_splits(whole, training, validation)
    if remote is not None:
        remote.check_space(settings.shuffle_window, settings.cache_gb)
    report = (
        f"training: {len(training)} of {len(whole)} images",
        *(f"training: {line}" for line in whole.report),
        f"validation: {len(validation)} images",
        *(f"validation: {line}" for line in validation.report),
        *_missing(training, settings.on_bad_image),
        *_missing(validation, settings.on_bad_image),
    )

    def examples(
        records: Records, specs: Sequence[TransformSpec], encoder: Encoder
    ) -> ExampleDataset:
        steps = transform_steps(specs, settings.image_crop_size)
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
    return PretrainingData(
        vocabulary=vocabulary,
        records=(whole, training, validation),
        shuffle_window=settings.shuffle_window,
        subset=chosen,
        training=examples(training, settings.transforms_train, encoder),
        validation=examples(
            validation,
            settings.transforms_val,
            task.encoder(vocabulary, task_settings(config), False),
        ),
        collate=encoder.collate,
        report=report,
        remote=remote,
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
    config: Config, task: Task[Any, Any]
) -> tuple[Vocabulary, ReportedRecords, ReportedRecords]:
    """The vocabulary, the training and the validation split; raises `UserError`."""
    data = config.data
    match task.labels:
        case "captions":
            tokenizer = Tokenizer.from_file(data.tokenizer_model)
            check_vocabulary(config, tokenizer, str(data.tokenizer_model))
            return tokenizer, caption_records(data, "train"), caption_records(data, "val")
        case "categories":
            training, validation = category_records(data, "train"), category_records(data, "val")
            if training.categories != validation.categories:
                raise UserError(
                    f"the annotations of {data.root} list other categories for training than for "
                    "validation; they must be the same, in the same order"
                )
            categories = Categories(training.categories)
            check_vocabulary(config, categories, f"of objects in {data.root}")
            return categories, training, validation
        case "classes":
            return _labelled_splits(config)
        case _:
            assert_never(task.labels)


def _labelled_splits(config: Config) -> tuple[Classes, LabelledRecords, LabelledRecords]:
    labelled = read_labelled(Path(config.data.root), config.random_seed)
    classes = Classes(labelled.classes, labelled.several)
    check_vocabulary(config, classes, f"in {config.data.root}")
    training = LabelledRecords(labelled, "train", report=labelled.report)
    return classes, training, LabelledRecords(labelled, "test")


def source(
    kind: Literal["coco", "table", "folder"],
    root: str,
    split: str,
    *,
    with_categories: bool,
    skip_bad: bool,
) -> tuple[ReportedRecords, tuple[str, ...] | None]:
    """The records of a data set to pack, and the names of its categories if asked for.

    Raises `UserError`.
    """
    on_bad_image: OnBadImage = "skip" if skip_bad else "error"
    if kind == "folder":
        return TextFolder(Path(root, split), on_bad_image), None
    data = Data(format=kind, root=root, on_bad_image=on_bad_image)
    if with_categories:
        objects = category_records(data, split)
        return objects, objects.categories
    return caption_records(data, split), None


def caption_records(data: Data, split: str) -> ReportedRecords:
    """A split of `DATA.ROOT` with its captions; raises `UserError`."""
    match data.format:
        case "coco":
            return CocoCaptions(Path(data.root), split, data.on_bad_image)
        case "table":
            return TableCaptions(data.root, split, data.on_bad_image)
        case "shards":
            return _shards(data, split, "captions")
        case "labelled":
            raise UserError(_NOT_LABELLED)
        case _:
            assert_never(data.format)


def category_records(data: Data, split: str) -> CategoryRecords:
    """A split of `DATA.ROOT` with the categories of its objects; raises `UserError`."""
    match data.format:
        case "coco":
            return CocoCategories(Path(data.root), split, data.on_bad_image)
        case "table":
            raise UserError(
                "DATA.FORMAT is table, which holds captions, and MODEL.NAME"
                " multilabel_classification needs categories; set DATA.FORMAT to coco or shards"
            )
        case "shards":
            return _shards(data, split, "categories")
        case "labelled":
            raise UserError(_NOT_LABELLED)
        case _:
            assert_never(data.format)


def _shards(data: Data, split: str, labels: Literal["captions", "categories"]) -> Shards:
    cache_dir = cache_directory(data.cache_dir)
    root = f"{data.root.rstrip('/')}/{split}"
    store = open_store(root, cache_dir=cache_dir, cache_gb=data.cache_gb)
    return open_shards(
        store, labels, data.on_bad_image, cache_dir=cache_dir, window=data.shuffle_window
    )


def _missing(records: Records, on_bad_image: str) -> list[str]:
    """A line if image files are missing or empty, or `UserError` if bad images are errors."""
    missing = records.missing(range(len(records)))
    if not missing:
        return []
    line = (
        f"{len(missing)} of {len(records)} image files are missing or empty: {first_few(missing)}"
    )
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
