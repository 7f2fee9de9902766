"""Where configuration becomes objects: this knob, that argument, and no other logic."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from virtex.config import Config, TransformSpec, Visual
from virtex.data import loader, transforms
from virtex.data.coco import CocoCaptions
from virtex.data.dataset import VALIDATION_EPOCH, ExampleDataset, Key
from virtex.data.records import Records, missing_images
from virtex.data.subset import subset
from virtex.data.transforms import Transform
from virtex.decoding.captioner import Captioner
from virtex.errors import UserError
from virtex.models.backbone import Backbone
from virtex.models.decoder import (
    TokenEmbedding,
    Transformer,
    TransformerDecoder,
    initialise,
    tied_output,
)
from virtex.models.networks import check_network, fetch_weights, load_pretrained, network
from virtex.optim import schedules
from virtex.optim.groups import parameter_groups
from virtex.optim.lookahead import Lookahead
from virtex.runtime import checkpoint
from virtex.runtime.world import World
from virtex.tasks.captioning import CaptionEncoder, Captioning
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import check_vocabulary


def tokenizer(config: Config) -> Tokenizer:
    """The vocabulary of the run, checked against the configuration."""
    data = config.data
    vocabulary = Tokenizer.from_file(data.tokenizer_model)
    check_vocabulary(
        vocabulary,
        path=data.tokenizer_model,
        vocab_size=data.vocab_size,
        unk_index=data.unk_index,
        sos_index=data.sos_index,
        eos_index=data.eos_index,
        mask_index=data.mask_index,
    )
    return vocabulary


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
    check_network(visual.network, config.data.image_crop_size)
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
        return checkpoint.load(path)
    except UserError as error:
        raise UserError(f"MODEL.VISUAL.PRETRAINED: {error}; replace or remove it") from error


def objective(config: Config, *, weights_follow: bool = False) -> Captioning:
    """The model with its losses, on the CPU, freshly initialised from torch's random state."""
    visual = backbone(config, weights_follow=weights_follow)
    textual, backward_textual = _textual_heads(config)
    match config.model.name:
        case "virtex" | "bicaptioning":
            model = Captioning(visual, textual, backward_textual)
        case "captioning":
            model = Captioning(visual, textual)
        case _:
            assert_never(config.model.name)
    return model


def _textual_heads(config: Config) -> tuple[TransformerDecoder, TransformerDecoder]:
    """Forward and backward heads, sharing all but their transformers."""
    data = config.data
    shape = config.model.textual.architecture
    dropout = config.model.textual.dropout

    def transformer() -> Transformer:
        return Transformer(
            layers=shape.layers,
            width=shape.width,
            heads=shape.heads,
            feedforward=shape.feedforward,
            dropout=dropout,
            norm_first=shape.norm_first,
        )

    projection = nn.Linear(config.model.visual.feature_size, shape.width)
    embedding = TokenEmbedding(
        data.vocab_size, shape.width, data.max_caption_length, dropout, data.unk_index
    )
    output = tied_output(embedding)
    forward = TransformerDecoder(projection, embedding, transformer(), output)
    backward = TransformerDecoder(projection, embedding, transformer(), output)
    std = config.model.textual.initial_std
    initialise(forward, std)
    initialise(backward.transformer, std)
    return forward, backward


@dataclass(frozen=True)
class Data:
    """Both splits as examples, and `report`: what was found, in lines for a person."""

    encoder: CaptionEncoder
    training: ExampleDataset
    validation: ExampleDataset
    report: tuple[str, ...]


def data(config: Config, vocabulary: Tokenizer) -> Data:
    """The training and the validation split of `DATA.ROOT`; raises `UserError` for missing images
    unless `DATA.ON_BAD_IMAGE` is skip, and for a batch larger than the training split."""
    settings = config.data
    encoder = CaptionEncoder(
        tokenizer=vocabulary,
        max_length=settings.max_caption_length,
        padding_index=settings.unk_index,
    )
    whole = CocoCaptions(settings.root, "train", settings.on_bad_image)
    training = subset(whole, settings.use_percentage, config.random_seed)
    loader.check_batch_size(config.optim.batch_size, len(training))
    validation = CocoCaptions(settings.root, "val", settings.on_bad_image)
    report = (
        f"training: {len(training)} of {len(whole)} images",
        *(f"training: {line}" for line in whole.report),
        f"validation: {len(validation)} images",
        *(f"validation: {line}" for line in validation.report),
        *_missing(training, settings.on_bad_image),
        *_missing(validation, settings.on_bad_image),
    )

    def examples(
        records: Records, specs: Sequence[TransformSpec], encode: CaptionEncoder
    ) -> ExampleDataset:
        steps = _transforms(specs, settings.image_crop_size)
        seed = config.random_seed
        return ExampleDataset(records, steps, encode.encode, seed, settings.on_bad_image)

    training_encoder = replace(encoder, single_caption=settings.use_single_caption)
    return Data(
        encoder=encoder,
        training=examples(training, settings.transforms_train, training_encoder),
        validation=examples(validation, settings.transforms_val, encoder),
        report=report,
    )


def training_batches(
    config: Config,
    parts: Data,
    world: World,
    *,
    workers: int,
    first: int,
    on_bad_image: Callable[[str], None],
) -> Iterator[Mapping[str, Tensor]]:
    """This process's batches on its device, endless, from iteration `first` (from 1) on."""
    batches = loader.training_batches(
        parts.training,
        parts.encoder.collate,
        batch_size=config.optim.batch_size,
        workers=workers,
        seed=config.random_seed,
        first_iteration=first - 1,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
        skipped=lambda bad: on_bad_image(f"skipped {bad}"),
    )
    return _on_device(batches, world.device)


def validation_batches(
    config: Config, parts: Data, world: World, *, workers: int, on_bad_image: Callable[[str], None]
) -> Iterator[Mapping[str, Tensor]]:
    """This process's share of the validation split on its device, every example once."""
    batches = loader.validation_batches(
        parts.validation,
        parts.encoder.collate,
        batch_size=config.optim.batch_size,
        workers=workers,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
        skipped=lambda bad: on_bad_image(f"skipped {bad}"),
    )
    return _on_device(batches, world.device)


def samples(parts: Data, count: int) -> tuple[Tensor, list[str]]:
    """Up to `count` validation images (n, 3, H, W) uint8, and a caption of each."""
    keys = [Key(VALIDATION_EPOCH, index) for index in range(min(count, len(parts.validation)))]
    examples, _ = parts.validation.examples(keys)
    if not examples:  # all of them are bad, and are to be skipped
        return torch.empty(0, 3, 0, 0, dtype=torch.uint8), []
    batch = parts.encoder.collate(examples)
    texts = [parts.encoder.tokenizer.decode(row) for row in batch["caption_tokens"].tolist()]
    return batch["image"], texts


def captioner(config: Config, model: Captioning, vocabulary: Tokenizer) -> Captioner:
    """The forward head's captioner."""
    decoder = config.model.decoder
    return Captioner(
        visual=model.visual,
        textual=model.textual,
        tokenizer=vocabulary,
        beam_size=decoder.beam_size,
        max_tokens=decoder.max_decoding_steps - 1,
    )


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
            inner = torch.optim.SGD(settings, lr=optim.lr, momentum=optim.sgd_momentum)
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


def _transforms(specs: Sequence[TransformSpec], crop_size: int) -> list[Transform]:
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
    missing = missing_images(records)
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
) -> Iterator[Mapping[str, Tensor]]:
    for batch in batches:
        yield {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
