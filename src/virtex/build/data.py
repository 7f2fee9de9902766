"""The pretraining tasks as objects: with the configuration the one place that knows their names.

A new task is one file of `tasks`, its name in `config`, and a case in each `match` here; the type
checker names the ones that are missing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, assert_never

from torch import nn

from virtex.config.schema import Config, Data
from virtex.data.contents import WholeSplit
from virtex.data.images import OnBadImage
from virtex.data.remote.store import open_store
from virtex.data.shards.reader import Shards, open_shards
from virtex.data.shards.store import cache_directory
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.coco_objects import CocoCategories
from virtex.data.sources.table import TableCaptions
from virtex.data.sources.text_folder import TextFolder
from virtex.decoding.captioner import BeamSearch, Captioner, NucleusSampling, Strategy
from virtex.errors import UserError
from virtex.models.backbone import Backbone
from virtex.models.decoder import (
    TokenEmbedding,
    Transformer,
    TransformerDecoder,
    initialise,
    tied_output,
)
from virtex.models.heads import LabelHead
from virtex.tasks.base import Describe, Encoder, Objective
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.tasks.captioning import CaptionEncoder, Captioning, DescribeCaptions
from virtex.tasks.classification import DescribeLabels, LabelSetClassification
from virtex.tasks.masked_lm import (
    DescribeMaskedCaptions,
    MaskedCaptionEncoder,
    MaskedLanguageModel,
)
from virtex.tasks.multilabel_classification import CategoryEncoder
from virtex.tasks.token_classification import TokenLabelEncoder
from virtex.text.categories import BACKGROUND, Categories
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import check_categories, check_tokenizer

Vocabulary = Tokenizer | Categories


class ReportedRecords(WholeSplit, Protocol):
    """Records that say, a line each, what was found in their annotations."""

    @property
    def report(self) -> tuple[str, ...]: ...


class CategoryRecords(ReportedRecords, Protocol):
    """Records of objects, with the names of their categories."""

    @property
    def categories(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Loading:
    """The loader's half of a task: both splits, how their records are encoded, what labels mean."""

    vocabulary: Vocabulary
    training: ReportedRecords
    validation: ReportedRecords
    training_encoder: Encoder
    validation_encoder: Encoder


def loading(config: Config) -> Loading:
    """The records of `DATA.ROOT` for the task; raises `UserError`."""
    data = config.data
    padding = data.unk_index
    match config.model.name:
        case "virtex" | "bicaptioning" | "captioning":
            return _of_captions(config, lambda captions: CaptionEncoder(captions, padding))
        case "masked_lm":
            masking = data.masked_lm.model_dump()
            return _of_captions(
                config,
                lambda captions: MaskedCaptionEncoder(captions, padding_index=padding, **masking),
            )
        case "token_classification":
            return _of_captions(config, lambda captions: TokenLabelEncoder(captions, padding))
        case "multilabel_classification":
            return _of_objects(config)
        case _:
            assert_never(config.model.name)


def _of_captions(config: Config, encoder: Callable[[CaptionTokens], Encoder]) -> Loading:
    data = config.data
    tokenizer = Tokenizer.from_file(data.tokenizer_model)
    check_vocabulary(config, tokenizer, str(data.tokenizer_model))
    captions = CaptionTokens(tokenizer, data.max_caption_length)
    return Loading(
        tokenizer,
        training=caption_records(data, "train"),
        validation=caption_records(data, "val"),
        training_encoder=encoder(replace(captions, single_caption=data.use_single_caption)),
        validation_encoder=encoder(captions),
    )


def _of_objects(config: Config) -> Loading:
    data = config.data
    training, validation = category_records(data, "train"), category_records(data, "val")
    if training.categories != validation.categories:
        raise UserError(
            f"the annotations of {data.root} list other categories for training than for "
            "validation; they must be the same, in the same order"
        )
    categories = Categories(training.categories)
    check_vocabulary(config, categories, f"of objects in {data.root}")
    encoder = CategoryEncoder()
    return Loading(categories, training, validation, encoder, encoder)


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
        case _:
            assert_never(data.format)


def _shards(data: Data, split: str, labels: Literal["captions", "categories"]) -> Shards:
    cache_dir = cache_directory(data.cache_dir)
    root = f"{data.root.rstrip('/')}/{split}"
    store = open_store(root, cache_dir=cache_dir, cache_gb=data.cache_gb)
    return open_shards(
        store, labels, data.on_bad_image, cache_dir=cache_dir, window=data.shuffle_window
    )


def objective(config: Config, visual: Backbone) -> Objective:
    """The model with its losses, its head freshly initialised from torch's random state."""
    data = config.data
    special = (data.unk_index, data.sos_index, data.eos_index, data.mask_index)
    match config.model.name:
        case "virtex" | "bicaptioning":
            return Captioning(visual, *_textual_heads(config, causal=True))
        case "captioning":
            forward, _ = _textual_heads(config, causal=True)
            return Captioning(visual, forward)
        case "masked_lm":
            textual, _ = _textual_heads(config, causal=False)
            return MaskedLanguageModel(visual, textual)
        case "token_classification":
            return LabelSetClassification(visual, _label_head(config), special)
        case "multilabel_classification":
            return LabelSetClassification(visual, _label_head(config), (BACKGROUND,))
        case _:
            assert_never(config.model.name)


def describe(config: Config, model: Objective, vocabulary: Vocabulary) -> Describe:
    """What says in words what `model` makes of a batch of its task."""
    match model, vocabulary:
        case Captioning(), Tokenizer():
            return DescribeCaptions(captioner(config, model, vocabulary))
        case MaskedLanguageModel(), Tokenizer():
            return DescribeMaskedCaptions(model, vocabulary)
        case LabelSetClassification(), Tokenizer():
            return DescribeLabels(model, vocabulary.token)
        case LabelSetClassification(), Categories():
            return DescribeLabels(model, vocabulary.name)
        case _:
            raise AssertionError(f"{type(model).__name__} with {type(vocabulary).__name__}")


def captioner(
    config: Config, model: Objective, vocabulary: Vocabulary, strategy: Strategy | None = None
) -> Captioner:
    """The forward head's captioner, by the configured strategy if none is given.

    Raises `UserError` if the task has no such head.
    """
    if not isinstance(model, Captioning) or not isinstance(vocabulary, Tokenizer):
        raise UserError(
            f"a model of MODEL.NAME {config.model.name} cannot caption; take one that was "
            "pretrained by bicaptioning or captioning"
        )
    return Captioner(
        visual=model.visual,
        textual=model.textual,
        tokenizer=vocabulary,
        strategy=decoding_strategy(config) if strategy is None else strategy,
        max_tokens=config.model.decoder.max_decoding_steps - 1,
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
    if config.model.name == "multilabel_classification":
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


def _textual_heads(
    config: Config, *, causal: bool
) -> tuple[TransformerDecoder, TransformerDecoder]:
    """Forward and backward heads, sharing all but their transformers."""
    data = config.data
    shape = config.model.textual.architecture
    assert shape is not None
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
    forward = TransformerDecoder(projection, embedding, transformer(), output, causal=causal)
    backward = TransformerDecoder(projection, embedding, transformer(), output, causal=causal)
    std = config.model.textual.initial_std
    initialise(forward, std)
    initialise(backward.transformer, std)
    return forward, backward


def _label_head(config: Config) -> LabelHead:
    head = LabelHead(config.model.visual.feature_size, config.data.vocab_size)
    initialise(head, config.model.textual.initial_std)
    return head
