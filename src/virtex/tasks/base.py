"""The contract of pretraining tasks: what every task takes and gives.

A task is a file of this room that constructs one `Task`. Its `Encoder` works in the loader: a
record becomes an example, examples become a `Batch`. Its `Objective` works on the device: a batch
becomes a `Loss` for each of its `loss_names`; training minimises the sum of their means. Its
`SamplePredictor` shows in words what the model predicts. Tasks never see the configuration, only
the `TaskSettings` that `build` fills from it.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Categories

Batch = Mapping[str, Tensor]
"""`image` (B, 3, H, W) uint8 RGB, `image_id` and `dropout_key` (B,) int64; the task's own tensors.

Every tensor has the examples along its first axis.
"""


class Loss(NamedTuple):
    """A sum of losses and the number of items in it, both scalar tensors.

    Kept apart so that the mean over many batches weighs each item alike, however they are divided.
    A named tuple, as DistributedDataParallel looks for tensors in containers that it knows; of
    another class it would exchange no gradients, without a word.
    """

    total: Tensor
    items: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean loss of an item; zero, not NaN, where there is none."""
        return self.total / self.items.clamp(min=1)


def at_least_float32(logits: Tensor) -> Tensor:
    """`logits`, from which a loss is computed, without what mixed precision took off them."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def token_cross_entropy(logits: Tensor, targets: Tensor, padding_index: int) -> Tensor:
    """The summed cross-entropy of (B, T, V) logits for (B, T) int64 targets, but for padding."""
    return F.cross_entropy(
        at_least_float32(logits).flatten(0, 1),
        targets.flatten(),
        ignore_index=padding_index,
        reduction="sum",
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


class Objective(nn.Module):
    """The device's half of a task: `forward` gives the losses of a `Batch` by name."""

    loss_names: tuple[str, ...]
    """The keys of what `forward` gives, also where a process has no batch."""

    def __init__(self, visual: Backbone) -> None:
        super().__init__()
        self.visual = visual

    @abstractmethod
    def num_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The number of items in each loss of a batch, int64 scalars, without computing it."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Loss]:
        """The losses of a batch, by the names in `loss_names`."""

    if TYPE_CHECKING:  # the call of `nn.Module` is untyped

        def __call__(self, batch: Batch) -> dict[str, Loss]: ...


@dataclass(frozen=True)
class Sample:
    """The model's prediction for an image, and its target, as text."""

    prediction: str
    target: str


SamplePredictor = Callable[[Batch], list[Sample]]


@dataclass(frozen=True)
class Masking:
    """Shares of a caption's tokens; see `virtex.tasks.masked_lm`."""

    mask_proportion: float
    mask_probability: float
    replace_probability: float


@dataclass(frozen=True)
class TaskSettings:
    """Everything that tasks may know of the configuration.

    `decoder` is None for a task whose head is a classifier. `max_tokens` counts those of a decoded
    caption after [SOS].
    """

    feature_size: int
    vocab_size: int
    padding_index: int
    sos_index: int
    eos_index: int
    mask_index: int
    max_caption_length: int
    single_caption: bool
    masking: Masking
    decoder: DecoderSettings | None
    initial_std: float
    strategy: Strategy
    max_tokens: int

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Tokens that are no words: the unknown one, which is also padding, and the markers."""
        return (self.padding_index, self.sos_index, self.eos_index, self.mask_index)

    @property
    def decoder_settings(self) -> DecoderSettings:
        """`decoder`, of a task whose head is one."""
        assert self.decoder is not None
        return self.decoder


WEIGHT_PER_TOKEN = "textual.output.bias"
"""(V,): the weight of every task's head that has the vocabulary's size and no other."""

AnyObjective = TypeVar("AnyObjective", bound=Objective)
AnyVocabulary = TypeVar("AnyVocabulary", Tokenizer, Categories)


@dataclass(frozen=True, kw_only=True)
class Task(Generic[AnyObjective, AnyVocabulary]):
    """A pretraining task.

    `labels` is what a record must hold. `head` is what predicts from the features: a transformer
    of the architecture `MODEL.TEXTUAL.NAME`, or a linear layer. `encoder` gives the encoder of
    training examples or, with False, of validation examples. `captioning_head` gives the head that
    can caption an image token by token; it is None for a task that trains no such head.
    """

    labels: Literal["captions", "categories"]
    head: Literal["decoder", "linear"]
    encoder: Callable[[AnyVocabulary, TaskSettings, bool], Encoder]
    objective: Callable[[Backbone, TaskSettings], AnyObjective]
    sample_predictor: Callable[[AnyObjective, AnyVocabulary, TaskSettings], SamplePredictor]
    captioning_head: Callable[[AnyObjective], TransformerDecoder] | None
