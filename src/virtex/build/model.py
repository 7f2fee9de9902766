"""The model and all that belongs to it, from the configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

from virtex.checkpoints import file as checkpoint
from virtex.config.schema import Config, Visual
from virtex.decoding.captioner import BeamSearch, Captioner, NucleusSampling, Strategy
from virtex.errors import UserError
from virtex.models.backbone import Backbone
from virtex.models.decoder import DecoderSettings
from virtex.models.modes import SizesAlone
from virtex.models.networks import fetch_weights, load_pretrained, network
from virtex.models.state_dict import current_names, model_weights
from virtex.tasks import find_task
from virtex.tasks.base import Masking, Objective, SamplePredictor, TaskSettings
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Categories, Vocabulary, check_categories, check_tokenizer


def build_backbone(config: Config, *, weights_follow: bool = False) -> Backbone:
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
    """Raise `UserError` for what can be seen to be wrong with `build_backbone` before it is built.

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


def build_objective(config: Config, *, weights_follow: bool = False) -> Objective:
    """The model with its losses, on the CPU, freshly initialised from torch's random state."""
    backbone = build_backbone(config, weights_follow=weights_follow)
    objective: Objective = find_task(config.model.name).objective(backbone, task_settings(config))
    return objective


def task_settings(config: Config) -> TaskSettings:
    """Everything that tasks may know of the configuration."""
    data, textual = config.data, config.model.textual
    shape = textual.architecture
    decoder = None
    if shape is not None:
        decoder = DecoderSettings(
            feature_size=config.model.visual.feature_size,
            vocab_size=data.vocab_size,
            max_length=data.max_caption_length,
            padding_index=data.unk_index,
            layers=shape.layers,
            width=shape.width,
            heads=shape.heads,
            feedforward=shape.feedforward,
            norm_first=shape.norm_first,
            dropout=textual.dropout,
            initial_std=textual.initial_std,
        )
    return TaskSettings(
        feature_size=config.model.visual.feature_size,
        vocab_size=data.vocab_size,
        padding_index=data.unk_index,
        sos_index=data.sos_index,
        eos_index=data.eos_index,
        mask_index=data.mask_index,
        max_caption_length=data.max_caption_length,
        single_caption=data.use_single_caption,
        masking=Masking(**data.masked_lm.model_dump()),
        decoder=decoder,
        initial_std=textual.initial_std,
        strategy=decoding_strategy(config),
        max_tokens=config.model.decoder.max_decoding_steps - 1,
    )


def sample_predictor(
    config: Config, objective: Objective, vocabulary: Vocabulary
) -> SamplePredictor:
    """The task's predictor of samples, for a model that `build_objective` gave."""
    task = find_task(config.model.name)
    return task.sample_predictor(objective, vocabulary, task_settings(config))


def build_captioner(
    config: Config, objective: Objective, vocabulary: Vocabulary, strategy: Strategy | None = None
) -> Captioner:
    """The model's captioner, by the configured strategy if none is given.

    Raises `UserError` if the task trains no head that can caption.
    """
    head = find_task(config.model.name).captioning_head
    if head is None or not isinstance(vocabulary, Tokenizer):
        raise UserError(
            f"a model of MODEL.NAME {config.model.name} cannot caption; take one that was "
            "pretrained by bicaptioning or captioning"
        )
    settings = task_settings(config)
    return Captioner(
        visual=objective.visual,
        textual=head(objective),
        tokenizer=vocabulary,
        strategy=settings.strategy if strategy is None else strategy,
        max_tokens=settings.max_tokens,
    )


def decoding_strategy(config: Config) -> Strategy:
    """How captions are found; sampling draws one an image, with the run's seed."""
    decoder = config.model.decoder
    match decoder.name:
        case "beam_search":
            return BeamSearch(decoder.beam_size)
        case "nucleus_sampling":
            return NucleusSampling(decoder.nucleus_size, samples=1, seed=config.random_seed)
        case _:
            assert_never(decoder.name)


def published_vocabulary(config: Config) -> tuple[Vocabulary, str]:
    """The vocabulary of weights that came without one, and where it is from, for messages.

    Raises `UserError` if the configured file is not there or is none.
    """
    if find_task(config.model.name).labels == "categories":
        # Nothing says what their categories are called.
        names = tuple(f"category {number}" for number in range(1, config.data.vocab_size))
        return Categories(names), "of DATA.VOCAB_SIZE"
    path = config.data.tokenizer_model
    if not path.is_file():
        raise UserError(
            "the weights came without a vocabulary, and there is none at DATA.TOKENIZER_MODEL, "
            f"{path}; name the one that they were trained with as well (--tokenizer FILE on the "
            "command line, tokenizer= in Python)"
        )
    return Tokenizer.from_file(path), str(path)


def check_vocabulary(config: Config, vocabulary: Vocabulary, source: str) -> None:
    """Raise `UserError` unless the configuration's figures are those of the vocabulary."""
    data = config.data
    match vocabulary:
        case Tokenizer():
            check_tokenizer(
                vocabulary,
                source=source,
                vocab_size=data.vocab_size,
                unk_index=data.unk_index,
                sos_index=data.sos_index,
                eos_index=data.eos_index,
                mask_index=data.mask_index,
            )
        case Categories():
            check_categories(vocabulary, source=source, vocab_size=data.vocab_size)
        case _:
            assert_never(vocabulary)
