"""Every knob of a pretraining run: its type, range, default, unit and reason.

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
    """Which tokens of a caption masked language modelling predicts, and what stands there."""

    mask_proportion: float = Field(
        default=0.15, gt=0, le=1, description="Share of a caption's tokens to predict, rounded up."
    )
    mask_probability: float = Field(
        default=0.85, ge=0, le=1, description="That such a token is replaced by [MASK]."
    )
    replace_probability: float = Field(
        default=0.10,
        ge=0,
        le=1,
        description="That it is replaced by another token at random; else it stays.",
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
    """Images, captions, and how they become examples."""

    format: Literal["coco", "table", "shards"] = Field(
        default="coco",
        description="What ROOT holds: COCO's annotations/, train2017/ and val2017/; a table of "
        "image files and captions; or train/ and val/ with tar shards, as `virtex pack`, "
        "WebDataset and img2dataset write them.",
    )
    root: str = Field(
        default="datasets/coco",
        min_length=1,
        description="Directory of the data; of shards also an address such as "
        "s3://bucket/directory.",
    )
    cache_dir: LocalPath | None = Field(
        default=None,
        description="Directory for what was fetched from an address, and for indexes of shards "
        "that cannot be written beside them; null for virtex/ in the user's cache.",
    )
    cache_gb: float = Field(
        default=50.0, gt=0, description="Most 10^9 bytes of fetched data to keep there."
    )
    shuffle_window: int = Field(
        default=131072,
        ge=1,
        description="Samples of shards that are shuffled together, in whole shards, which are "
        "shuffled before; coco and table are shuffled as a whole.",
    )
    tokenizer_model: LocalPath = Field(
        default=Path("datasets/vocab/coco_10k.model"),
        description="SentencePiece model of the vocabulary.",
    )
    vocab_size: int = Field(
        default=10000,
        ge=1,
        description="Pieces in the vocabulary; must agree with the tokenizer's. Of multilabel "
        "classification the categories and the background: 81 for COCO.",
    )
    unk_index: int = Field(
        default=0,
        ge=0,
        description="Id of unknown pieces in the tokenizer; also fills up short captions.",
    )
    sos_index: int = Field(default=1, ge=0, description="Id of [SOS], which begins a caption.")
    eos_index: int = Field(default=2, ge=0, description="Id of [EOS], which ends a caption.")
    mask_index: int = Field(
        default=3, ge=0, description="Id of [MASK], which hides a token in masked_lm."
    )
    image_crop_size: int = Field(
        default=224, ge=32, description="Pixels a side; at least the backbone's stride, 32."
    )
    max_caption_length: int = Field(
        default=30,
        ge=3,
        description="Tokens with [SOS] and [EOS]; the rest is cut, to bound memory and time.",
    )
    use_percentage: float = Field(
        default=100.0,
        gt=0,
        le=100,
        description="Percent of the training images, to study less data; RANDOM_SEED and the "
        "image ids alone decide which.",
    )
    subset_manifest: LocalPath | None = Field(
        default=None,
        description="The subset.json of a run, or a list of your own: train on these images, "
        "whatever the seed.",
    )
    use_single_caption: bool = Field(
        default=False,
        description="Only the first caption of a training image, in place of one at random.",
    )
    masked_lm: MaskedLM = MaskedLM()
    image_transform_train: Transforms = Field(
        default=("random_resized_crop", "horizontal_flip", "color_jitter", "normalize"),
        description="In order; arguments as in \"random_resized_crop::{'scale': (0.08, 1.0)}\".",
    )
    image_transform_val: Transforms = Field(
        default=("smallest_resize", "center_crop", "normalize"),
        description="In order, for validation.",
    )
    on_bad_image: Literal["error", "skip"] = Field(
        default="error",
        description="An image that cannot be read stops the run, or is named and left out; "
        "training then takes the next one in its place.",
    )
    max_pixels: int = Field(
        default=178_956_970,
        ge=1,
        description="Of one image: a small file can unpack to more than the memory. Each takes "
        "up to 15 bytes.",
    )
    max_image_mb: int = Field(
        default=256, ge=1, description="Megabytes (2^20 bytes) of one image file, as it is stored."
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
    """The backbone: what pretraining is for."""

    name: Annotated[str, parsed_by(parse_network)] = Field(
        default="torchvision::resnet50",
        description="Any ResNet, ResNeXt, wide ResNet, RegNet, ConvNeXt or ViT of torchvision: "
        "`torchvision::NAME`. A ViT needs a DATA.IMAGE_CROP_SIZE that divides into its patches.",
    )
    feature_size: int = Field(
        default=2048,
        ge=1,
        description="Channels of the features: 2048, and 512 for ResNet-18 and -34; of other "
        "families a wrong value is answered with the right one.",
    )
    pretrained: bool | LocalPath = Field(
        default=False,
        description="Start from ImageNet weights: true for torchvision's, or the path of a file of "
        "the network's weights or a checkpoint of virtex. A ViT's positions are interpolated to "
        "the image size.",
    )
    frozen: bool = Field(default=False, description="Keep its weights and statistics as they are.")
    zero_init_residual: bool = Field(
        default=True,
        description="Let every residual branch start at zero, as published. It steadies long "
        "runs; runs of minutes learn faster without. No effect on RegNet, ConvNeXt and ViT.",
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
            "transdec_postnorm or transdec_prenorm (where layers normalise), then layers, width, "
            "heads and feed-forward width; none for the classification tasks."
        ),
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Probability, against overfitting.")
    initial_std: float = Field(
        default=0.02,
        gt=0,
        description="Standard deviation of the initial weights. The published value suits widths "
        "of 1024 and more; a narrow head passes too little of the image on with it.",
    )

    @property
    def architecture(self) -> TextualArchitecture | None:
        """The transformer's sizes; None for `none`."""
        return parse_architecture(self.name)


class Decoder(Section):
    """How captions are predicted; training does not depend on it."""

    name: Literal["beam_search", "nucleus_sampling"] = Field(
        default="beam_search",
        description="The likeliest captions, or one caption drawn at random with RANDOM_SEED.",
    )
    beam_size: int = Field(
        default=5, ge=1, description="Captions that beam search follows at a time."
    )
    nucleus_size: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Probability of the likeliest tokens together, from which nucleus sampling "
        "draws the next one.",
    )
    max_decoding_steps: int = Field(
        default=30, ge=2, description="Tokens of a predicted caption, with [SOS]."
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

    use: bool = Field(default=True, description="Wrap the optimizer, for a steadier course.")
    alpha: float = Field(
        default=0.5, gt=0, le=1, description="Share of the way to the fast weights."
    )
    steps: int = Field(
        default=5, ge=1, description="Iterations between two moves of the slow weights."
    )


class Optim(Section):
    """How weights change."""

    optimizer_name: Literal["sgd", "adamw"] = Field(default="sgd", description="The update rule.")
    sgd_momentum: float = Field(
        default=0.9, ge=0, lt=1, description="Of sgd; adamw has its own averages."
    )
    weight_decay: float = Field(default=1e-4, ge=0, description="Pull of the weights towards zero.")
    no_decay: Annotated[str, parsed_by(parse_pattern)] = Field(
        default=".*textual.(embedding|transformer).*(norm.*|bias)",
        description="Regular expression: parameters whose name begins with it are not decayed.",
    )
    clip_grad_norm: float = Field(
        default=10.0, gt=0, description="Largest norm of all gradients; a huge value clips nothing."
    )
    lookahead: Lookahead = Lookahead()
    batch_size: int = Field(
        default=256, ge=1, description="Images an iteration, over all processes."
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Parts in which a process computes its images, one after the other: less "
        "memory, the same gradient but for batch norm, whose statistics are each part's.",
    )
    cnn_lr: float = Field(default=0.2, ge=0, description="Peak learning rate of the backbone.")
    lr: float = Field(default=1e-3, ge=0, description="Peak learning rate of all else.")
    num_iterations: int = Field(default=500000, ge=1, description="Length of the run.")
    warmup_steps: int = Field(
        default=10000, ge=0, description="Iterations in which the rates grow from 0 to their peak."
    )
    lr_decay_name: Literal["none", "linear", "cosine", "multistep"] = Field(
        default="cosine", description="How the rates fall after the warm-up."
    )
    lr_steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(),
        description="Iterations at which multistep lowers the rates; increasing, none within the "
        "warm-up or beyond the run.",
    )
    lr_gamma: float = Field(
        default=0.1, gt=0, le=1, description="Factor of the rates at each LR_STEPS."
    )
    max_nonfinite_steps: int = Field(
        default=10,
        ge=1,
        description="Iterations in a row that are left out because their gradient is not finite; "
        "one more stops the run.",
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
        default=0, ge=0, lt=2**32, description="Of weights, order, augmentation and dropout."
    )
    amp: bool = Field(
        default=True, description="Mixed precision: bfloat16 or float16 where it is faster."
    )
    cudnn_deterministic: bool = Field(
        default=False,
        description="Only deterministic kernels of cuDNN; other operations may still differ.",
    )
    cudnn_benchmark: bool = Field(
        default=True, description="Try cuDNN's kernels and keep the fastest."
    )
    sync_bn: bool = Field(
        default=False,
        description="Batch norm's statistics over all processes; else, as published, each "
        "process's own, and those of the first are saved.",
    )
    channels_last: bool = Field(
        default=True,
        description="Memory layout of the backbone: faster, and changes rounding only.",
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
