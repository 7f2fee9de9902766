"""The settings of a pretraining run: their types, ranges, defaults and descriptions.

A key in YAML is the field's name in upper case (`config.optim.clip_grad_norm` is
`OPTIM.CLIP_GRAD_NORM`). Values are frozen. Nothing heavy is imported, so that a mistake is found
before any work starts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from virtex.config.section import (
    EARLIER_RUN,
    Conflict,
    LocalPath,
    Section,
    of_earlier_run,
    parsed_by,
)
from virtex.config.specs import (
    TextualArchitecture,
    TransformSpec,
    parse_architecture,
    parse_network,
    parse_pattern,
    parse_transforms,
    patch_side,
)
from virtex.errors import UserError

__all__ = ["EARLIER_RUN", "Config", "TextualArchitecture", "TransformSpec", "check_processes"]

_STRIDE = 32
"""Pixels a side, at most, that a network reduces to one position."""

_WITH_BATCH_NORM = ("resnet", "resnext", "wide_resnet", "regnet")

Transforms = Annotated[tuple[str, ...], parsed_by(parse_transforms)]


class MaskedLM(Section):
    """Which tokens of a caption masked language modelling predicts, and their replacements."""

    mask_proportion: float = Field(
        default=0.15,
        gt=0,
        le=1,
        description="Fraction of the tokens of a caption to predict, rounded up.",
    )
    mask_probability: float = Field(
        default=0.85,
        ge=0,
        le=1,
        description="Probability that a token to predict is replaced by [MASK].",
    )
    replace_probability: float = Field(
        default=0.10,
        ge=0,
        le=1,
        description="Probability that a token to predict is replaced by a random token; otherwise "
        "it is kept.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        return self.refuse(self._conflicts())

    def _conflicts(self) -> Iterator[Conflict]:
        if self.mask_probability + self.replace_probability > 1:
            keys = ("MASK_PROBABILITY", "REPLACE_PROBABILITY")
            most = f"{1 - self.mask_probability:g}"
            yield (
                keys,
                "expected two probabilities that add up to at most 1; set REPLACE_PROBABILITY to "
                f"at most {most}",
            )


class Data(Section):
    """The data set and its preprocessing."""

    format: Literal["coco", "table", "shards"] = Field(
        default="coco",
        description="Format of the data in ROOT: COCO, with annotations/, train2017/ and "
        "val2017/; a table of image files and captions; or tar shards in train/ and val/, as "
        "written by `virtex pack`, WebDataset and img2dataset.",
    )
    root: str = Field(
        default="datasets/coco",
        min_length=1,
        description="Root directory of the data; for shards also an address such as "
        "s3://bucket/directory.",
    )
    cache_dir: LocalPath | None = Field(
        default=None,
        description="Directory for files fetched from an address, and for indexes of shards that "
        "cannot be written beside them; null selects virtex/ in the user's cache directory.",
    )
    cache_gb: float = Field(
        default=50.0,
        gt=0,
        description="Maximum size of the fetched data in CACHE_DIR, in units of 10^9 bytes.",
    )
    shuffle_window: int = Field(
        default=131072,
        ge=1,
        description="Number of samples of shards that are shuffled together, after the order of "
        "the shards is shuffled; rounded to whole shards. The formats coco and table are always "
        "shuffled globally.",
    )
    tokenizer_model: LocalPath = Field(
        default=Path("datasets/vocab/coco_10k.model"),
        description="SentencePiece model of the vocabulary.",
    )
    vocab_size: int = Field(
        default=10000,
        ge=1,
        description="Size of the vocabulary, which must match the tokenizer. For multilabel "
        "classification it is the number of categories plus the background: 81 for COCO.",
    )
    unk_index: int = Field(
        default=0,
        ge=0,
        description="Id of unknown tokens, which is also used to pad short captions.",
    )
    sos_index: int = Field(default=1, ge=0, description="Id of [SOS], which begins a caption.")
    eos_index: int = Field(default=2, ge=0, description="Id of [EOS], which ends a caption.")
    mask_index: int = Field(
        default=3, ge=0, description="Id of [MASK], which hides a token in masked_lm."
    )
    image_crop_size: int = Field(
        default=224,
        ge=32,
        description="Side length of the input images in pixels; at least 32, the stride of the "
        "backbone.",
    )
    max_caption_length: int = Field(
        default=30,
        ge=3,
        description="Maximum number of tokens in a caption, with [SOS] and [EOS]; longer captions "
        "are truncated to bound memory and time.",
    )
    use_percentage: float = Field(
        default=100.0,
        gt=0,
        le=100,
        description="Percentage of the training images to use, for studies with less data. The "
        "choice depends only on RANDOM_SEED and the image ids.",
    )
    subset_manifest: LocalPath | None = Field(
        default=None,
        description="File that lists the images to train on, whatever the seed: the subset.json "
        "of a run, or a list of your own.",
    )
    use_single_caption: bool = Field(
        default=False,
        description="Use only the first caption of a training image instead of a random one.",
    )
    masked_lm: MaskedLM = MaskedLM()
    image_transform_train: Transforms = Field(
        default=("random_resized_crop", "horizontal_flip", "color_jitter", "normalize"),
        description="Transforms of training images, in order. Arguments are written as in "
        "\"random_resized_crop::{'scale': (0.08, 1.0)}\".",
    )
    image_transform_val: Transforms = Field(
        default=("smallest_resize", "center_crop", "normalize"),
        description="Transforms of validation images, in order.",
    )
    on_bad_image: Literal["error", "skip"] = Field(
        default="error",
        description="What to do with an image that cannot be read: stop the run (error), or "
        "report it and use the next image in its place (skip).",
    )
    max_pixels: int = Field(
        default=178_956_970,
        ge=1,
        description="Maximum number of pixels in an image, as a small file can decode to more "
        "than fits in memory. Reading an image takes up to 15 bytes per pixel.",
    )
    max_image_mb: int = Field(
        default=256, ge=1, description="Maximum size of an image file in MiB."
    )

    @property
    def transforms_train(self) -> tuple[TransformSpec, ...]:
        return parse_transforms(self.image_transform_train)

    @property
    def transforms_val(self) -> tuple[TransformSpec, ...]:
        return parse_transforms(self.image_transform_val)

    @model_validator(mode="after")
    def _check(self) -> Self:
        return self.refuse(self._conflicts())

    def _conflicts(self) -> Iterator[Conflict]:
        indices = ("UNK_INDEX", "SOS_INDEX", "EOS_INDEX", "MASK_INDEX")
        values = [self.unk_index, self.sos_index, self.eos_index, self.mask_index]
        if len(set(values)) < len(values):
            yield indices, "expected four different ids, those of the tokenizer"
        if self.format != "shards" and "://" in self.root:
            yield ("FORMAT", "ROOT"), "expected a directory on a disk, or the format shards"
        if self.subset_manifest is not None and self.use_percentage != 100:
            keys = ("SUBSET_MANIFEST", "USE_PERCENTAGE")
            yield (
                keys,
                "expected one of them: the manifest already lists the images that are used; set "
                "SUBSET_MANIFEST to null, or USE_PERCENTAGE to 100",
            )
        if self.transforms_train[-1] != self.transforms_val[-1]:
            # The model is one: it normalises what it gets.
            keys = ("IMAGE_TRANSFORM_TRAIN", "IMAGE_TRANSFORM_VAL")
            yield keys, "expected the same mean and std in both"


class Visual(Section):
    """The visual backbone."""

    name: Annotated[str, parsed_by(parse_network)] = Field(
        default="torchvision::resnet50",
        description="Name of the network, `torchvision::NAME`: any ResNet, ResNeXt, wide ResNet, "
        "RegNet, ConvNeXt or ViT of torchvision. A ViT needs a DATA.IMAGE_CROP_SIZE that is "
        "divisible by its patch size.",
    )
    feature_size: int = Field(
        default=2048,
        ge=1,
        description="Number of channels of the features: 2048, or 512 for ResNet-18 and "
        "ResNet-34. For other families the error for a wrong value names the right one.",
    )
    pretrained: bool | LocalPath = Field(
        default=False,
        description="Initial weights: true for the ImageNet weights of torchvision, or the path "
        "of a file with weights of the network or of a checkpoint of virtex. The position "
        "embeddings of a ViT are interpolated to the image size.",
    )
    frozen: bool = Field(
        default=False, description="Freeze the weights and batch norm statistics of the backbone."
    )
    zero_init_residual: bool = Field(
        default=True,
        description="Initialize every residual branch to zero, as published. This stabilizes long "
        "runs; runs of minutes learn faster without it. It has no effect on RegNet, ConvNeXt and "
        "ViT.",
    )

    @property
    def network(self) -> str:
        """The model's name in torchvision."""
        return parse_network(self.name)


class Textual(Section):
    """The head that reads the backbone's grid and predicts captions."""

    name: Annotated[str, parsed_by(parse_architecture)] = Field(
        default="transdec_postnorm::L1_H2048_A32_F8192",
        description=(
            "Architecture: transdec_postnorm or transdec_prenorm, followed by the number of layers "
            "(L), width (H), heads (A) and feed-forward width (F); none for classification tasks."
        ),
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout probability.")
    initial_std: float = Field(
        default=0.02,
        gt=0,
        description="Standard deviation of the initial weights. The published value suits widths "
        "of 1024 and more; with it a narrow head propagates too little of the image.",
    )

    @property
    def architecture(self) -> TextualArchitecture | None:
        """The transformer's sizes; None for `none`."""
        return parse_architecture(self.name)


class Decoder(Section):
    """How captions are predicted; training does not depend on it."""

    name: Literal["beam_search", "nucleus_sampling"] = Field(
        default="beam_search",
        description="Decoding method: beam search for the most likely captions, or nucleus "
        "sampling with RANDOM_SEED.",
    )
    beam_size: int = Field(default=5, ge=1, description="Number of beams in beam search.")
    nucleus_size: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Cumulative probability of the most likely tokens, from which nucleus "
        "sampling draws the next one.",
    )
    max_decoding_steps: int = Field(
        default=30, ge=2, description="Maximum number of tokens in a predicted caption, with [SOS]."
    )


TaskName = Literal[
    "virtex",
    "bicaptioning",
    "captioning",
    "masked_lm",
    "parallel_captioning",
    "token_classification",
    "multilabel_classification",
]


class Model(Section):
    """The pretraining task and its network."""

    name: TaskName = Field(
        default="virtex", description="The pretraining task; virtex is bicaptioning."
    )
    visual: Visual = Visual()
    textual: Textual = Textual()
    decoder: Decoder = Decoder()

    @property
    def classifies(self) -> bool:
        """Whether the task has a linear layer in place of a transformer."""
        return self.name.endswith("_classification")

    @model_validator(mode="after")
    def _check(self) -> Self:
        return self.refuse(self._conflicts())

    def _conflicts(self) -> Iterator[Conflict]:
        if self.classifies and self.textual.architecture is not None:
            yield ("NAME", "TEXTUAL.NAME"), "expected the textual head 'none' for classification"
        if not self.classifies and self.textual.architecture is None:
            yield (
                ("NAME", "TEXTUAL.NAME"),
                "expected a textual head such as 'transdec_postnorm::L1_H1024_A16_F4096'",
            )


class Lookahead(Section):
    """Slow weights that follow the fast ones (Zhang et al. 2019, arXiv 1907.08610)."""

    use: bool = Field(default=True, description="Use Lookahead around the optimizer.")
    alpha: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Step size of the slow weights towards the fast weights, as a fraction.",
    )
    steps: int = Field(
        default=5, ge=1, description="Number of iterations between updates of the slow weights."
    )


class Optim(Section):
    """The optimizer and its schedule."""

    optimizer_name: Literal["sgd", "adamw"] = Field(default="sgd", description="Optimizer.")
    sgd_momentum: float = Field(
        default=0.9, ge=0, lt=1, description="Momentum of sgd; adamw does not use it."
    )
    weight_decay: float = Field(default=1e-4, ge=0, description="Weight decay.")
    no_decay: Annotated[str, parsed_by(parse_pattern)] = Field(
        default=".*textual.(embedding|transformer).*(norm.*|bias)",
        description="Regular expression for parameters without weight decay, matched at the "
        "beginning of their names.",
    )
    clip_grad_norm: float = Field(
        default=10.0,
        gt=0,
        description="Maximum norm of the gradient over all parameters; a huge value disables "
        "clipping.",
    )
    lookahead: Lookahead = Lookahead()
    batch_size: int = Field(
        default=256, ge=1, description="Number of images per iteration, over all processes."
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Number of microbatches into which each process splits its images, to save "
        "memory. The gradient is the same, except that batch norm computes its statistics per "
        "microbatch.",
    )
    cnn_lr: float = Field(default=0.2, ge=0, description="Peak learning rate of the backbone.")
    lr: float = Field(default=1e-3, ge=0, description="Peak learning rate of all other parameters.")
    num_iterations: int = Field(
        default=500000, ge=1, description="Number of iterations of the run."
    )
    warmup_steps: int = Field(
        default=10000,
        ge=0,
        description="Number of iterations in which the learning rates grow from 0 to their peak.",
    )
    lr_decay_name: Literal["none", "linear", "cosine", "multistep"] = Field(
        default="cosine", description="Decay of the learning rates after the warm-up."
    )
    lr_steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(),
        description="Iterations at which multistep lowers the learning rates: in increasing "
        "order, after the warm-up and before the end of the run.",
    )
    lr_gamma: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Factor by which the learning rates are multiplied at each of LR_STEPS.",
    )
    max_nonfinite_steps: int = Field(
        default=10,
        ge=1,
        description="Maximum number of consecutive iterations that are skipped because their "
        "gradient is not finite; one more stops the run.",
    )

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        useless = () if of_earlier_run(info) else self._useless_steps()
        return self.refuse([*self._conflicts(), *useless])

    def _conflicts(self) -> Iterator[Conflict]:
        if self.warmup_steps >= self.num_iterations:
            yield (
                ("WARMUP_STEPS", "NUM_ITERATIONS"),
                "expected a warm-up shorter than the run; set WARMUP_STEPS to at most "
                f"{self.num_iterations - 1}, or NUM_ITERATIONS to at least {self.warmup_steps + 1}",
            )
        if self.batch_size % self.accumulate:
            below = self.batch_size - self.batch_size % self.accumulate
            choices = [size for size in (below, below + self.accumulate) if size]
            yield (
                ("BATCH_SIZE", "ACCUMULATE"),
                "expected a batch that divides into the parts; set BATCH_SIZE to "
                f"{' or '.join(map(str, choices))}",
            )
        ascending = sorted(set(self.lr_steps))
        if list(self.lr_steps) != ascending:
            reason = f"expected iterations in increasing order, each once: {ascending}"
            yield ("LR_STEPS",), reason
        keys = ("LR_DECAY_NAME", "LR_STEPS")
        if self.lr_decay_name == "multistep" and not self.lr_steps:
            yield keys, "expected the iterations of multistep, such as LR_STEPS: [300000, 400000]"
        if self.lr_decay_name != "multistep" and self.lr_steps:
            yield keys, "expected LR_STEPS only with multistep; set that or remove the steps"

    def _useless_steps(self) -> Iterator[Conflict]:
        """The steps of multistep that would change no rate, or not when they are reached."""
        if self.lr_decay_name != "multistep":
            return
        early = [step for step in self.lr_steps if step < self.warmup_steps]
        late = [step for step in self.lr_steps if step >= self.num_iterations]
        if early:
            yield (
                ("LR_STEPS", "WARMUP_STEPS"),
                "expected no step before the end of the warm-up; remove "
                f"{_listed(early)} from LR_STEPS, or set WARMUP_STEPS to at most {min(early)}",
            )
        if late:
            yield (
                ("LR_STEPS", "NUM_ITERATIONS"),
                "expected steps before the end of the run; remove "
                f"{_listed(late)} from LR_STEPS, or set NUM_ITERATIONS to at least {max(late) + 1}",
            )


class Config(Section):
    """A pretraining run of virtex."""

    random_seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="Random seed of the initial weights, the data order, augmentation and dropout.",
    )
    amp: bool = Field(
        default=True,
        description="Train in mixed precision, in bfloat16 or float16, where it is faster.",
    )
    cudnn_deterministic: bool = Field(
        default=False,
        description="Use only deterministic cuDNN kernels; other operations may still be "
        "nondeterministic.",
    )
    cudnn_benchmark: bool = Field(
        default=True, description="Benchmark the cuDNN kernels and use the fastest."
    )
    sync_bn: bool = Field(
        default=False,
        description="Synchronize batch norm statistics over all processes. Otherwise, as "
        "published, each process has its own, and those of the first are saved.",
    )
    channels_last: bool = Field(
        default=True,
        description="Use the channels-last memory layout in the backbone, which is faster and "
        "changes only rounding.",
    )
    data: Data = Data()
    model: Model = Model()
    optim: Optim = Optim()

    @model_validator(mode="after")
    def _check(self) -> Self:
        return self.refuse(self._conflicts())

    def _conflicts(self) -> Iterator[Conflict]:
        decoder, data = self.model.decoder, self.data
        if self.model.name != "multilabel_classification":
            for key in ("UNK_INDEX", "SOS_INDEX", "EOS_INDEX", "MASK_INDEX"):
                if getattr(data, key.lower()) >= data.vocab_size:
                    keys = (f"DATA.{key}", "DATA.VOCAB_SIZE")
                    yield keys, "expected an id below the size of the vocabulary"
        beams = decoder.name == "beam_search" and not self.model.classifies
        if beams and decoder.beam_size > data.vocab_size:
            yield (
                ("MODEL.DECODER.BEAM_SIZE", "DATA.VOCAB_SIZE"),
                "expected a beam that is not larger than the vocabulary; set BEAM_SIZE to at most "
                f"{data.vocab_size}",
            )
        if decoder.max_decoding_steps > data.max_caption_length:
            # The head has learnt no positions beyond.
            yield (
                ("MODEL.DECODER.MAX_DECODING_STEPS", "DATA.MAX_CAPTION_LENGTH"),
                "expected decoding that is not longer than a caption; set MAX_DECODING_STEPS to at "
                f"most {data.max_caption_length}, or MAX_CAPTION_LENGTH to at least "
                f"{decoder.max_decoding_steps}",
            )
        if self.model.name == "multilabel_classification":
            yield from self._category_conflicts()
        patch = patch_side(self.model.visual.network)
        rest = data.image_crop_size % patch
        if rest:
            yield (
                ("DATA.IMAGE_CROP_SIZE", "MODEL.VISUAL.NAME"),
                f"expected images that divide into the network's patches, {patch} pixels a side; "
                f"set IMAGE_CROP_SIZE to {data.image_crop_size + patch - rest}",
            )

    def _category_conflicts(self) -> Iterator[Conflict]:
        if self.data.format == "table":
            yield (
                ("MODEL.NAME", "DATA.FORMAT"),
                "expected data with categories of objects, and a table holds captions; set "
                "DATA.FORMAT to coco or shards",
            )
        if self.data.vocab_size < 2:
            yield (
                ("MODEL.NAME", "DATA.VOCAB_SIZE"),
                "expected at least one category beside the background; set VOCAB_SIZE to at least "
                "2, for COCO to 81",
            )


def check_processes(config: Config, processes: int) -> None:
    """Raise `UserError` unless the batch divides into the parts of all processes (at least 1)."""
    batch_size, accumulate = config.optim.batch_size, config.optim.accumulate
    parts = processes * accumulate
    if batch_size % parts:
        below = batch_size - batch_size % parts
        choices = [size for size in (below, below + parts) if size]
        times = f" times OPTIM.ACCUMULATE {accumulate}" if accumulate > 1 else ""
        raise UserError(
            f"'OPTIM.BATCH_SIZE' is {batch_size} over all processes, which does not divide by "
            f"{processes} processes{times}; choose {' or '.join(map(str, choices))}"
        )
    if batch_size == parts and _one_value_a_channel(config, processes):
        raise UserError(
            f"'OPTIM.BATCH_SIZE' is {batch_size} over all processes, so each computes one image at "
            f"a time, and 'DATA.IMAGE_CROP_SIZE' is {config.data.image_crop_size}, which leaves "
            "one position: batch norm needs more than one value; set OPTIM.BATCH_SIZE to "
            f"{2 * parts}, or DATA.IMAGE_CROP_SIZE to 64"
        )


def _one_value_a_channel(config: Config, processes: int) -> bool:
    """Whether one image gives batch norm in training a single value."""
    visual = config.model.visual
    normalised = not visual.frozen and visual.network.startswith(_WITH_BATCH_NORM)
    shared = config.sync_bn and processes > 1
    return normalised and not shared and config.data.image_crop_size <= _STRIDE


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
