"""Where configuration becomes objects: this knob, that argument, and no other logic."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from virtex.build import data as build_tasks
from virtex.build.data import Vocabulary
from virtex.checkpoints import file as checkpoint
from virtex.config.schema import Config, TransformSpec, Visual
from virtex.data import loader, transforms
from virtex.data.contents import Contents, WholeSplit, contents
from virtex.data.dataset import VALIDATION_EPOCH, ExampleDataset, Key
from virtex.data.images import ImageLimits
from virtex.data.records import Records
from virtex.data.remote.prefetcher import Prefetcher, report_retries
from virtex.data.remote.shards import RemoteSplits, remote_splits
from virtex.data.subset import SubsetManifest, training_subset
from virtex.data.transforms import Transform
from virtex.distributed.signals import Stopped
from virtex.distributed.world import World
from virtex.errors import UserError
from virtex.models.backbone import Backbone
from virtex.models.modes import SizesAlone
from virtex.models.networks import fetch_weights, load_pretrained, network
from virtex.models.state_dict import model_weights
from virtex.models.upstream import current_names
from virtex.optim import schedules
from virtex.optim.groups import parameter_groups
from virtex.optim.lookahead import Lookahead
from virtex.tasks.base import Encoder, Objective


def backbone(config: Config, *, weights_follow: bool = False) -> Backbone:
    """The visual backbone; `weights_follow` says that pretrained weights would be overwritten."""
    visual = config.model.visual
    built = network(
        visual.network,
        feature_size=visual.feature_size,
        image_size=config.data.image_crop_size,
        zero_init_residual=visual.zero_init_residual,
    )
    if visual.pretrained is not False and not weights_follow:
        path = _pretrained_file(visual)
        load_pretrained(built, _read_weights(path), str(path))
    normalize = config.data.transforms_train[-1].arguments
    return Backbone(
        built.cnn,
        built.grid,
        mean=normalize["mean"],
        std=normalize["std"],
        channels_last=config.channels_last,
        frozen=visual.frozen,
    )


def check_backbone(config: Config, *, weights_follow: bool = False) -> None:
    """Raise `UserError` for what can be seen to be wrong with `backbone` before it is built.

    Torchvision's weights are fetched, so that this is done once, before processes are started.
    """
    visual = config.model.visual
    with SizesAlone():  # without memory or random numbers
        network(
            visual.network,
            feature_size=visual.feature_size,
            image_size=config.data.image_crop_size,
        )
    if visual.pretrained is not False and not weights_follow:
        _pretrained_file(visual)


def _pretrained_file(visual: Visual) -> Path:
    """The named file of weights, or torchvision's."""
    if not isinstance(visual.pretrained, Path):
        return fetch_weights(visual.network)
    if not visual.pretrained.is_file():
        raise UserError(
            f"MODEL.VISUAL.PRETRAINED: no file at {visual.pretrained}; name a file of weights, or "
            "set it to true (torchvision's weights) or false"
        )
    return visual.pretrained


def _read_weights(path: Path) -> Mapping[str, Any]:
    try:
        return current_names(model_weights(checkpoint.load(path)))
    except UserError as error:
        raise UserError(f"MODEL.VISUAL.PRETRAINED: {error}; replace or remove it") from error


def objective(config: Config, *, weights_follow: bool = False) -> Objective:
    """The model with its losses, on the CPU, freshly initialised from torch's random state."""
    return build_tasks.objective(config, backbone(config, weights_follow=weights_follow))


@dataclass(frozen=True)
class Data:
    """Both splits as examples, and `report`: what was found, in lines for a person.

    `records` are those of the whole training split, those trained on and those of validation.
    `subset` says which images are trained on; it is None for all of them. `remote` is None where
    the data are not fetched to be read.
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

    @cached_property
    def contents(self) -> Contents:
        """What both splits hold, for checkpoints; takes seconds, so only where it is needed."""
        return contents(*self.records, self.shuffle_window)

    @property
    def fetched(self) -> tuple[str, ...]:
        """A line on what was fetched so far, where anything is."""
        return () if self.remote is None else (f"data: {self.remote.statistics}",)


def data(config: Config) -> Data:
    """The training and the validation split of `DATA.ROOT`; raises `UserError` for missing images
    unless `DATA.ON_BAD_IMAGE` is skip, for a batch larger than the training split, and for a cache
    too small for remote data."""
    settings = config.data
    whole = build_tasks.loading(config)
    training, chosen = training_subset(
        whole.training,
        percentage=settings.use_percentage,
        seed=config.random_seed,
        manifest=settings.subset_manifest,
    )
    loader.check_batch_size(config.optim.batch_size, len(training))
    remote = remote_splits(whole.training, training, whole.validation)
    if remote is not None:
        remote.check_room(settings.shuffle_window, settings.cache_gb)
    report = (
        f"training: {len(training)} of {len(whole.training)} images",
        *(f"training: {line}" for line in whole.training.report),
        f"validation: {len(whole.validation)} images",
        *(f"validation: {line}" for line in whole.validation.report),
        *_missing(training, settings.on_bad_image),
        *_missing(whole.validation, settings.on_bad_image),
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
            limits=ImageLimits(settings.max_pixels, settings.max_image_mb << 20),
        )

    return Data(
        vocabulary=whole.vocabulary,
        records=(whole.training, training, whole.validation),
        shuffle_window=settings.shuffle_window,
        subset=chosen,
        training=examples(training, settings.transforms_train, whole.training_encoder),
        validation=examples(whole.validation, settings.transforms_val, whole.validation_encoder),
        collate=whole.training_encoder.collate,
        report=report,
        remote=remote,
    )


def training_batches(
    config: Config,
    parts: Data,
    world: World,
    *,
    workers: int,
    first: int,
    on_bad_image: Callable[[str], None],
    say: Callable[[str], None] = lambda _: None,
    reached: Callable[[str], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Generator[Mapping[str, Tensor], None, None]:
    """This process's batches on its device, endless, from iteration `first` (from 1) on.

    Shards that are fetched come ahead of them: `say` and `reached` are told of it. Raises `Stopped`
    where `stopping` while those of the first window are waited for.
    """

    def check_stop() -> None:
        if stopping():
            raise Stopped("stopped by a signal while shards were fetched, before an iteration")

    ahead = None
    if parts.remote is not None:
        training = parts.remote.training
        ahead = Prefetcher(training, say=say, reached=reached, check_stop=check_stop)
    batches = loader.training_batches(
        parts.training,
        parts.collate,
        batch_size=config.optim.batch_size,
        workers=workers,
        seed=config.random_seed,
        window=config.data.shuffle_window,
        first_iteration=first - 1,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
        skipped=lambda bad: on_bad_image(f"skipped {bad}"),
        ahead=ahead,
    )
    if parts.remote is not None and ahead is not None:
        batches = report_retries(batches, ahead, parts.remote, say)
    return _on_device(batches, world.device)


def validation_batches(
    config: Config, parts: Data, world: World, *, workers: int, on_bad_image: Callable[[str], None]
) -> Generator[Mapping[str, Tensor], None, None]:
    """This process's share of the validation split on its device, every example once."""
    batches = loader.validation_batches(
        parts.validation,
        parts.collate,
        batch_size=config.optim.batch_size // config.optim.accumulate,
        workers=workers,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
        skipped=lambda bad: on_bad_image(f"skipped {bad}"),
    )
    return _on_device(batches, world.device)


def samples(parts: Data, count: int) -> Mapping[str, Tensor] | None:
    """A batch of up to `count` validation images; None where all of them are to be skipped."""
    keys = [Key(VALIDATION_EPOCH, index) for index in range(min(count, len(parts.validation)))]
    examples, _ = parts.validation.examples(keys)
    return parts.collate(examples) if examples else None


AnyOptimizer = torch.optim.Optimizer | Lookahead


def optimizer(config: Config, model: nn.Module) -> AnyOptimizer:
    """SGD or AdamW over the parameter groups, inside Lookahead if that is used."""
    optim = config.optim
    groups = parameter_groups(
        model,
        visual_lr=optim.cnn_lr,
        textual_lr=optim.lr,
        weight_decay=optim.weight_decay,
        no_decay=optim.no_decay,
    )
    settings = [dict(group) for group in groups]
    inner: torch.optim.Optimizer
    match optim.optimizer_name:
        case "sgd":
            inner = torch.optim.SGD(settings, lr=optim.lr, momentum=optim.sgd_momentum, fused=True)
        case "adamw":
            inner = torch.optim.AdamW(settings, lr=optim.lr, fused=True)
        case _:
            assert_never(optim.optimizer_name)
    if not optim.lookahead.use:
        return inner
    return Lookahead(inner, alpha=optim.lookahead.alpha, steps=optim.lookahead.steps)


def schedule(config: Config) -> schedules.Schedule:
    """The learning rate's factor after a number of steps."""
    optim = config.optim
    warmup, total = optim.warmup_steps, optim.num_iterations
    match optim.lr_decay_name:
        case "none":
            return schedules.constant(warmup)
        case "linear":
            return schedules.linear(warmup, total)
        case "cosine":
            return schedules.cosine(warmup, total)
        case "multistep":
            return schedules.multistep(warmup, optim.lr_steps, optim.lr_gamma)
        case _:
            assert_never(optim.lr_decay_name)


def transform_steps(specs: Sequence[TransformSpec], crop_size: int) -> list[Transform]:
    """The transforms before normalisation, which is the backbone's."""
    built: list[Transform] = []
    for spec in specs:
        match spec.name:
            case "random_resized_crop":
                built.append(transforms.RandomResizedCrop(crop_size, **spec.arguments))
            case "horizontal_flip":
                built.append(transforms.HorizontalFlip(**spec.arguments))
            case "color_jitter":
                built.append(transforms.ColorJitter(**spec.arguments))
            case "smallest_resize":
                built.append(transforms.SmallestResize(crop_size))
            case "center_crop":
                built.append(transforms.CenterCrop(crop_size))
            case "normalize":
                pass
            case _:
                raise AssertionError(f"{spec.name} passed the configuration's check")
    return built


def _missing(records: Records, on_bad_image: str) -> list[str]:
    """A line where image files are missing or empty; an error where that ends the run."""
    missing = records.missing(range(len(records)))
    if not missing:
        return []
    named = ", ".join(map(str, missing[:5]))
    line = f"{len(missing)} of {len(records)} image files are missing or empty: {named}"
    if on_bad_image == "error":
        raise UserError(
            f"{line}; check DATA.ROOT, or set DATA.ON_BAD_IMAGE to skip to train without them"
        )
    return [line]


def _on_device(
    batches: Iterator[Mapping[str, Tensor]], device: torch.device
) -> Generator[Mapping[str, Tensor], None, None]:
    for batch in batches:
        yield {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
