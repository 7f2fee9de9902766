"""The configuration of a run, checked against its task, and the model that is built from it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

from torch import Tensor

from virtex.build.mirror_words import mirror_pairs
from virtex.checkpoints import file as checkpoint
from virtex.config import loading
from virtex.config.data import Data
from virtex.config.model import Model, Visual
from virtex.config.schema import Config
from virtex.config.section import Conflict
from virtex.decoding.captioner import BeamSearch, Captioner, NucleusSampling, Strategy
from virtex.errors import UserError
from virtex.models.backbone import Backbone
from virtex.models.decoder import DecoderSettings
from virtex.models.modes import SizesAlone
from virtex.models.networks import Network, feature_size, fetch_weights, load_pretrained, network
from virtex.models.state_dict import current_names, model_weights
from virtex.tasks import find_task
from virtex.tasks.auxiliary_tokens import auxiliary_tokens
from virtex.tasks.base import (
    WEIGHT_PER_TOKEN,
    Masking,
    Objective,
    SamplePredictor,
    Task,
    TaskSettings,
)
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Categories, Classes, Vocabulary


def load_config(
    path: Path, overrides: Sequence[str] = (), *, checkpoint_every: int | None = None
) -> Config:
    """Load the configuration of a new run; raises `UserError` with everything that is wrong.

    `checkpoint_every` is the interval of its checkpoints, if that is known.
    """
    return loading.load(
        Config, path, overrides, check=lambda config: new_run_conflicts(config, checkpoint_every)
    )


def new_run_conflicts(config: Config, checkpoint_every: int | None = None) -> Iterator[Conflict]:
    """The conflicts for which a new run is refused; arguments as of `load_config`."""
    yield from check_settings(config)
    yield from config.optim.useless_steps()
    if checkpoint_every is not None:
        yield from _interval_conflicts(config.evaluate.every, checkpoint_every)


def check_settings(config: Config) -> Iterator[Conflict]:
    """The conflicts between the task and other settings."""
    model, data = config.model, config.data
    task = find_task(model.name)
    if task.head == "linear" and model.textual.architecture is not None:
        yield (
            ("MODEL.NAME", "MODEL.TEXTUAL.NAME"),
            "expected the textual head 'none', as this task has a linear head",
        )
    if task.head == "decoder" and model.textual.architecture is None:
        yield (
            ("MODEL.NAME", "MODEL.TEXTUAL.NAME"),
            "expected a textual head such as 'transdec_postnorm::L1_H1024_A16_F4096'",
        )
    searches = task.head == "decoder" and model.decoder.name == "beam_search"
    size = math.inf if data.vocab_size is None else data.vocab_size
    if searches and model.decoder.beam_size > size:
        yield (
            ("MODEL.DECODER.BEAM_SIZE", "DATA.VOCAB_SIZE"),
            "expected a beam that is not larger than the vocabulary; set BEAM_SIZE to at most "
            f"{size}",
        )
    captions = config.evaluate.every > 0 and "captioning" in config.evaluate.protocols
    if captions and task.captioning_head is None:
        yield (
            ("MODEL.NAME", "EVALUATE.PROTOCOLS"),
            "expected captioning only for a task that trains a head that can caption, such as "
            "bicaptioning; remove it from PROTOCOLS",
        )
    yield from _unused_captions(model, data, task)
    if (task.labels == "classes") != (data.format == "labelled"):
        yield (
            ("MODEL.NAME", "DATA.FORMAT"),
            "expected MODEL.NAME image_classification with DATA.FORMAT labelled, or neither of "
            "them: this task needs labelled images, and all others captions or categories",
        )
    match task.labels:
        case "captions":
            yield from _token_conflicts(data)
        case "categories":
            yield from _category_conflicts(data)


def _unused_captions(model: Model, data: Data, task: Task[Any, Any]) -> Iterator[Conflict]:
    """The conflicts of settings for captions that the task does not use."""
    if model.auxiliary.tokens.weight and (task.labels, task.head) != ("captions", "decoder"):
        yield (
            ("MODEL.NAME", "MODEL.AUXILIARY.TOKENS.WEIGHT"),
            "expected a second target only for a task that predicts captions, such as "
            "bicaptioning; set WEIGHT to 0",
        )
    if model.textual.label_smoothing and task.head != "decoder":
        yield (
            ("MODEL.NAME", "MODEL.TEXTUAL.LABEL_SMOOTHING"),
            "expected smoothing only for a task that predicts captions; set LABEL_SMOOTHING to 0",
        )
    if model.token_weighting != "uniform" and model.name != "token_classification":
        yield (
            ("MODEL.NAME", "MODEL.TOKEN_WEIGHTING"),
            "expected a weighting only for token_classification; set TOKEN_WEIGHTING to uniform",
        )
    if task.labels != "captions" and data.captions_per_image != 1:
        yield (
            ("MODEL.NAME", "DATA.CAPTIONS_PER_IMAGE"),
            "expected several captions only for a task that reads captions; set "
            "CAPTIONS_PER_IMAGE to 1",
        )


def _interval_conflicts(every: int, checkpoint_every: int) -> Iterator[Conflict]:
    """A conflict if evaluations would not fall on checkpoints."""
    if every % checkpoint_every:
        above = every - every % checkpoint_every + checkpoint_every
        yield (
            ("EVALUATE.EVERY",),
            f"expected a multiple of --checkpoint-every, {checkpoint_every}, so that the weights "
            f"that are judged are saved; set EVERY to {above}, or give --checkpoint-every {every}",
        )


def _token_conflicts(data: Data) -> Iterator[Conflict]:
    for key, index in data.special_ids.items():
        if data.vocab_size is not None and index >= data.vocab_size:
            yield (key, "DATA.VOCAB_SIZE"), "expected an id below the size of the vocabulary"


def _category_conflicts(data: Data) -> Iterator[Conflict]:
    if not data.sources and data.format in ("table", "folder"):
        yield (
            ("MODEL.NAME", "DATA.FORMAT"),
            f"expected data with categories of objects, but a {data.format} holds captions; set "
            "DATA.FORMAT to coco or shards",
        )
    if data.vocab_size is not None and data.vocab_size < 2:
        yield (
            ("MODEL.NAME", "DATA.VOCAB_SIZE"),
            "expected at least one category besides the background; set VOCAB_SIZE to at least 2 "
            "(81 for COCO)",
        )


def build_backbone(config: Config, *, weights_follow: bool = False) -> Backbone:
    """The visual backbone; with `weights_follow`, `MODEL.VISUAL.PRETRAINED` is ignored.

    Raises `UserError` also if the statistics of the bands are not known.
    """
    visual, statistics = config.model.visual, config.data.normalization
    if statistics is None:
        raise UserError(
            f"DATA.BANDS chooses {config.data.band_count} bands, and normalize in "
            "DATA.IMAGE_TRANSFORM_TRAIN has no mean and std for them; give the configuration of a "
            "run, config.yaml in its directory, which has those that it found"
        )
    built = _build_network(config)
    note = None
    if visual.pretrained is not False and not weights_follow:
        path = _pretrained_file(visual)
        note = load_pretrained(built, _read_weights(path), str(path))
    return Backbone(
        built.cnn,
        built.grid,
        mean=statistics[0],
        std=statistics[1],
        channels_last=config.channels_last,
        frozen=visual.frozen,
        note=note,
    )


def _build_network(config: Config) -> Network:
    visual, data = config.model.visual, config.data
    return network(
        visual.network,
        feature_size=_feature_size(config),
        image_size=data.image_crop_size,
        zero_init_residual=visual.zero_init_residual,
        bands=data.band_count,
    )


def check_backbone(config: Config, *, weights_follow: bool = False) -> None:
    """Raise `UserError` if the backbone cannot be built, without memory for it.

    Torchvision's weights are downloaded here, once, before processes are started.
    """
    with SizesAlone():  # without memory or random numbers
        _build_network(config)
    visual = config.model.visual
    if visual.pretrained is not False and not weights_follow:
        _pretrained_file(visual)


def _pretrained_file(visual: Visual) -> Path:
    """The file of weights that is configured, or torchvision's."""
    if not isinstance(visual.pretrained, Path):
        return fetch_weights(visual.network)
    if not visual.pretrained.is_file():
        raise UserError(
            f"MODEL.VISUAL.PRETRAINED: no file at {visual.pretrained}; give the path of a file of "
            "weights, true for the weights of torchvision, or false"
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
    objective: Objective = configured_task(config).objective(backbone, task_settings(config))
    return objective


def configured_task(config: Config) -> Task[Any, Any]:
    """The task of a configuration, with its auxiliary losses."""
    task, weight = find_task(config.model.name), config.model.auxiliary.tokens.weight
    return replace(task, auxiliaries=(auxiliary_tokens(weight),)) if weight else task


def _feature_size(config: Config) -> int:
    visual = config.model.visual
    return feature_size(visual.network) if visual.feature_size is None else visual.feature_size


def task_settings(config: Config) -> TaskSettings:
    """The part of the configuration that tasks see; sizes of the vocabulary must be resolved."""
    data, textual = config.data, config.model.textual
    assert data.vocab_size is not None, "the vocabulary has not been read"
    assert data.unk_index is not None
    assert data.sos_index is not None
    assert data.eos_index is not None
    assert data.mask_index is not None
    shape = textual.architecture
    decoder = None
    if shape is not None:
        decoder = DecoderSettings(
            feature_size=_feature_size(config),
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
        feature_size=_feature_size(config),
        vocab_size=data.vocab_size,
        padding_index=data.unk_index,
        sos_index=data.sos_index,
        eos_index=data.eos_index,
        mask_index=data.mask_index,
        max_caption_length=data.max_caption_length,
        single_caption=data.use_single_caption,
        captions_per_image=None if data.captions_per_image == "all" else data.captions_per_image,
        whole_sentences=data.long_captions == "sentences",
        weighted_tokens=config.model.token_weighting == "idf",
        mirror_pairs=mirror_pairs(data),
        masking=Masking(**data.masked_lm.model_dump()),
        decoder=decoder,
        initial_std=textual.initial_std,
        label_smoothing=textual.label_smoothing,
        strategy=_strategy(config),
        max_tokens=config.model.decoder.max_decoding_steps - 1,
    )


def sample_predictor(
    config: Config, objective: Objective, vocabulary: Vocabulary
) -> SamplePredictor:
    """The task's predictor of samples, for a model of `build_objective`."""
    task = find_task(config.model.name)
    return task.sample_predictor(objective, vocabulary, task_settings(config))


def build_captioner(
    config: Config, objective: Objective, vocabulary: Vocabulary, strategy: Strategy | None = None
) -> Captioner:
    """The model's captioner, with the configured strategy by default.

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


def _strategy(config: Config) -> Strategy:
    """The strategy of decoding; sampling draws one caption per image, with the run's seed."""
    decoder = config.model.decoder
    match decoder.name:
        case "beam_search":
            return BeamSearch(decoder.beam_size)
        case "nucleus_sampling":
            return NucleusSampling(decoder.nucleus_size, samples=1, seed=config.random_seed)
        case _:
            assert_never(decoder.name)


def published_vocabulary(config: Config, weights: Mapping[str, Any]) -> tuple[Vocabulary, str]:
    """The vocabulary of weights that were published without one, and its source for messages.

    Its size is that of the configuration or else of the `weights`. Raises `UserError` if the
    configured file is missing or not a vocabulary, and if nothing tells the size.
    """
    labels = find_task(config.model.name).labels
    if labels != "captions":
        size, source = _published_size(config, weights)
        if labels == "classes":  # whose names are not known
            return Classes(tuple(f"class {number}" for number in range(size))), source
        return Categories(tuple(f"category {number}" for number in range(1, size))), source
    path = config.data.tokenizer_model
    if not path.is_file():
        raise UserError(
            f"the weights hold no vocabulary, and DATA.TOKENIZER_MODEL, {path}, does not exist; "
            "give the one that they were trained with (--tokenizer FILE on the command line, "
            "tokenizer= in Python)"
        )
    return Tokenizer.from_file(path), str(path)


def _published_size(config: Config, weights: Mapping[str, Any]) -> tuple[int, str]:
    """The number of labels, and what tells it."""
    if config.data.vocab_size is not None:
        return config.data.vocab_size, "of DATA.VOCAB_SIZE"
    weight = weights.get(WEIGHT_PER_TOKEN)
    if isinstance(weight, Tensor):
        return weight.numel(), f"of the weights' {WEIGHT_PER_TOKEN}"
    raise UserError(
        f"the weights hold no {WEIGHT_PER_TOKEN}, which tells the number of labels; set "
        "DATA.VOCAB_SIZE"
    )
