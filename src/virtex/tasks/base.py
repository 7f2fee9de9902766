"""The contract of tasks.

A task is a file of this room that constructs one `Task`. Its `Encoder` works in the loader: a
record becomes an example, examples become a `Batch`. Its `Objective` works on the device: a batch
becomes a `Loss` for each of its `loss_names`. Its `SamplePredictor` shows in words what the model
predicts. Tasks never see the configuration, only the `TaskSettings` that `build` fills from it.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.decoding.captioner import Strategy
from virtex.models.backbone import Backbone
from virtex.models.decoder import DecoderSettings, TransformerDecoder
from virtex.text.mirror_words import Pair
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Categories, Classes

Batch = Mapping[str, Tensor]
"""`image` (B, 3, H, W) uint8 RGB, `image_id` (B,) int64, and the tensors of the task.

The first axis of each tensor indexes the B images or the N captions, which are in the order of
their images. `captions_per_image` (B,) int64, at least one each, is absent from a batch with one
caption for every image. `dropout_key` (N,) int64 has the key of each caption.
"""


def select_images(batch: Batch, start: int, stop: int) -> Batch:
    """The images `start` … `stop` - 1 of a batch, with their captions."""
    images = captions = slice(start, stop)
    counts = batch.get("captions_per_image")
    if counts is not None:
        captions = slice(int(counts[:start].sum()), int(counts[:stop].sum()))
    # Where both axes have the same length, every image has one caption and the slices agree.
    return {
        name: tensor[images if len(tensor) == len(batch["image"]) else captions]
        for name, tensor in batch.items()
    }


class Loss(NamedTuple):
    """A sum of losses and the number of items in it, both scalar tensors.

    Kept apart so that the mean over many batches weighs each item alike, however they are divided.
    A named tuple, because DistributedDataParallel searches only containers that it knows for
    tensors; with another class it would silently exchange no gradients.
    """

    total: Tensor
    items: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean loss of an item; zero, not NaN, where there is none."""
        return self.total / self.items.clamp(min=1)


def at_least_float32(logits: Tensor) -> Tensor:
    """Cast `logits` of lower precision to float32, in which losses are computed."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def token_cross_entropy(
    logits: Tensor, targets: Tensor, padding_index: int, smoothing: float = 0.0
) -> Tensor:
    """The cross-entropy of (N, T, V) logits, summed over all (N, T) int64 targets but padding.

    A share `smoothing` of each target is divided equally among all V tokens (Szegedy et al., 2016).
    """
    return F.cross_entropy(
        at_least_float32(logits).flatten(0, 1),
        targets.flatten(),
        ignore_index=padding_index,
        reduction="sum",
        label_smoothing=smoothing,
    )


class Encoder(Protocol):
    """The loader's half of a task; can be pickled, for loader workers."""

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """An example; everything random is drawn from `rng`."""
        ...

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A `Batch` of one or more examples."""
        ...


@dataclass(frozen=True)
class JointEncoder:
    """The encoder of a task and those of its auxiliaries, in this order, as one.

    An auxiliary's encoder only adds tensors of its own. It draws from the generator last, so that
    it changes no draw of the task, and collates complete examples.
    """

    encoders: Sequence[Encoder]

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """An example with the values of all encoders."""
        example: dict[str, object] = {}
        for encoder in self.encoders:
            example |= encoder.encode(record, augmented, rng)
        return example

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A `Batch` with the tensors of all encoders."""
        batch: dict[str, Tensor] = {}
        for encoder in self.encoders:
            batch |= encoder.collate(examples)
        return batch


Number = TypeVar("Number", float, Tensor)


class AuxiliaryHead(nn.Module):
    """The device's half of an auxiliary: a loss from the grid that the task's objective uses."""

    @abstractmethod
    def num_targets(self, batch: Batch) -> Tensor:
        """The number of items in the loss of a batch, an int64 scalar, without computing it."""

    @abstractmethod
    def forward(self, grid: Tensor, batch: Batch) -> Tensor:
        """The sum of the loss over its items, given the grid (B, C, h, w)."""


class Objective(nn.Module):
    """The device's half of a task: `forward` gives the losses of a `Batch` by name.

    A task defines `main_losses`, the names of its own losses, `main_targets` and `main_totals`.
    `attach` adds the losses of auxiliaries, whose heads are then in `auxiliaries`.
    """

    main_losses: tuple[str, ...]
    auxiliaries: nn.ModuleDict

    def __init__(self, visual: Backbone) -> None:
        super().__init__()
        self.visual = visual
        self.auxiliary_weights: dict[str, float] = {}

    @abstractmethod
    def main_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The number of items in each loss of the task, int64 scalars, without computing it."""

    @abstractmethod
    def main_totals(self, grid: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The sum of each loss of the task over its items, given the grid (B, C, h, w)."""

    def attach(self, heads: Mapping[str, AuxiliaryHead], weights: Mapping[str, float]) -> None:
        """Add the losses of auxiliaries; their parameters follow those of the task."""
        self.auxiliaries = nn.ModuleDict(heads)
        self.auxiliary_weights = dict(weights)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The keys of what `forward` gives, also where a process has no batch."""
        return (*self.main_losses, *self.auxiliary_weights)

    def num_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The number of items in each loss of a batch, int64 scalars, without computing it."""
        counts = {name: head.num_targets(batch) for name, head in self._heads()}
        return self.main_targets(batch) | counts

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """The losses of a batch, by the names in `loss_names`; one grid serves all of them."""
        items = self.num_targets(batch)
        grid = self.visual(batch["image"])
        totals = self.main_totals(grid, batch)
        totals |= {name: head(grid, batch) for name, head in self._heads()}
        return {name: Loss(total, items[name]) for name, total in totals.items()}

    def weighted(self, means: Mapping[str, Number]) -> dict[str, Number]:
        """The mean losses, with those of auxiliaries multiplied by their weights.

        Training minimises their sum.
        """
        weights = self.auxiliary_weights
        return {
            name: mean * weights[name] if name in weights else mean for name, mean in means.items()
        }

    def total(self, means: Mapping[str, float]) -> float:
        """What training minimises, the sum of the weighted mean losses, of those that are known."""
        return sum(self.weighted(means).values())

    def _heads(self) -> Iterator[tuple[str, AuxiliaryHead]]:
        for name in self.auxiliary_weights:
            head = self.auxiliaries[name]
            assert isinstance(head, AuxiliaryHead)
            yield name, head

    if TYPE_CHECKING:  # the call of `nn.Module` is untyped

        def __call__(self, batch: Batch) -> dict[str, Loss]: ...


@dataclass(frozen=True)
class Sample:
    """The model's prediction for an image and its target, as text."""

    prediction: str
    target: str


SamplePredictor = Callable[[Batch], list[Sample]]


@dataclass(frozen=True)
class Masking:
    """How masked language modelling changes the tokens of a caption.

    A share of `mask_proportion`, rounded up, is chosen. Each chosen token becomes [MASK] with
    `mask_probability`, and another one, drawn from all ordinary tokens, with `replace_probability`.
    """

    mask_proportion: float
    mask_probability: float
    replace_probability: float


@dataclass(frozen=True)
class TaskSettings:
    """The part of the configuration that tasks see.

    At most `captions_per_image` captions of an image are drawn for training, None draws all.
    `weighted_tokens` weighs tokens by how rare they are, in a task whose labels they are.
    `mirror_pairs` are words that are exchanged in the captions of mirrored images. `decoder` is
    None for a task whose head is a classifier. `label_smoothing` is for training alone. A decoded
    caption has at most `max_tokens` tokens after [SOS].
    """

    feature_size: int
    vocab_size: int
    padding_index: int
    sos_index: int
    eos_index: int
    mask_index: int
    max_caption_length: int
    single_caption: bool
    captions_per_image: int | None
    whole_sentences: bool
    weighted_tokens: bool
    mirror_pairs: tuple[Pair, ...]
    masking: Masking
    decoder: DecoderSettings | None
    initial_std: float
    label_smoothing: float
    strategy: Strategy
    max_tokens: int

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Tokens that are not words: unknown text, which is also padding, and the markers."""
        return (self.padding_index, self.sos_index, self.eos_index, self.mask_index)

    @property
    def decoder_settings(self) -> DecoderSettings:
        """`decoder`, for a task whose head is a decoder."""
        assert self.decoder is not None
        return self.decoder


WEIGHT_PER_TOKEN = "textual.output.bias"
"""The state-dict name of a weight (V,) that every task's head has."""
AnyObjective = TypeVar("AnyObjective", bound=Objective)
AnyVocabulary = TypeVar("AnyVocabulary", Tokenizer, Categories, Classes)


@dataclass(frozen=True)
class Auxiliary(Generic[AnyVocabulary]):
    """A further loss on the backbone's grid, added to those of a task with a `weight`.

    The loss is called `name`, and the state dict holds the head below `auxiliaries.NAME`. The
    arguments of `encoder` are those of `Task.main_encoder`.
    """

    name: str
    encoder: Callable[[AnyVocabulary, TaskSettings, bool], Encoder]
    head: Callable[[TaskSettings], AuxiliaryHead]
    weight: float


@dataclass(frozen=True, kw_only=True)
class Task(Generic[AnyObjective, AnyVocabulary]):
    """A task of the training loop.

    `labels` is what a record must hold. `head` is what predicts from the features: a transformer
    of the architecture `MODEL.TEXTUAL.NAME`, or a linear layer. `main_encoder` gives the encoder of
    training examples or, with False, of validation examples. `captioning_head` gives the head that
    can caption an image token by token; it is None for a task that trains no such head.
    `class_head` gives the module whose output, (B, V), scores the classes in a batch's `labels`, so
    that validation can count the right answers; it is None for a task of other labels.
    """

    labels: Literal["captions", "categories", "classes"]
    head: Literal["decoder", "linear"]
    main_encoder: Callable[[AnyVocabulary, TaskSettings, bool], Encoder]
    main_objective: Callable[[Backbone, TaskSettings], AnyObjective]
    sample_predictor: Callable[[AnyObjective, AnyVocabulary, TaskSettings], SamplePredictor]
    captioning_head: Callable[[AnyObjective], TransformerDecoder] | None
    class_head: Callable[[AnyObjective], nn.Module] | None = None
    auxiliaries: Sequence[Auxiliary[AnyVocabulary]] = ()

    def encoder(self, vocabulary: AnyVocabulary, settings: TaskSettings, training: bool) -> Encoder:
        """The encoder of training or validation examples, with the targets of all losses."""
        main = self.main_encoder(vocabulary, settings, training)
        others: list[Encoder] = [
            each.encoder(vocabulary, settings, training) for each in self.auxiliaries
        ]
        return JointEncoder((main, *others)) if others else main

    def objective(self, visual: Backbone, settings: TaskSettings) -> AnyObjective:
        """The objective with the losses of all auxiliaries."""
        objective = self.main_objective(visual, settings)
        if self.auxiliaries:
            heads = {each.name: each.head(settings) for each in self.auxiliaries}
            objective.attach(heads, {each.name: each.weight for each in self.auxiliaries})
        return objective
