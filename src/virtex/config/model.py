"""The settings of the task and its network."""

from typing import Annotated, Literal

from pydantic import Field

from virtex.config.section import LocalPath, Section, parsed_by
from virtex.config.specs import TextualArchitecture, parse_architecture, parse_network


class Visual(Section):
    """The visual backbone."""

    name: Annotated[str, parsed_by(parse_network)] = Field(
        default="torchvision::resnet50",
        description="Name of the network, `torchvision::NAME`: any ResNet, ResNeXt, wide ResNet, "
        "RegNet, ConvNeXt or ViT of torchvision. A ViT needs a DATA.IMAGE_CROP_SIZE that is "
        "divisible by its patch size.",
    )
    feature_size: int | None = Field(
        default=None,
        ge=1,
        description="Number of channels of the features; null takes it from the network, such as "
        "2048 for ResNet-50. A value that is given must match the network.",
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
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of each target token in training that is divided equally among all "
        "tokens of the vocabulary. The losses of validation are without it.",
    )
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


class AuxiliaryTokens(Section):
    """The tokens of all captions of an image as a second target."""

    weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the loss; 0 trains without it. A linear layer on the mean of the "
        "grid predicts the distinct tokens of all captions of the image, each with a share of the "
        "target in proportion to log(N / n), where n of the N training images have it. Any task "
        "that predicts captions takes it; 1 is a good value.",
    )


class Auxiliary(Section):
    """Losses beside those of the task."""

    tokens: AuxiliaryTokens = AuxiliaryTokens()


TaskName = Literal[
    "virtex",
    "bicaptioning",
    "captioning",
    "masked_lm",
    "parallel_captioning",
    "token_classification",
    "multilabel_classification",
    "image_classification",
]


class Model(Section):
    """The pretraining task and its network."""

    name: TaskName = Field(
        default="virtex",
        description="The pretraining task; virtex is bicaptioning. image_classification fine-tunes "
        "a backbone on labelled images.",
    )
    token_weighting: Literal["uniform", "idf"] = Field(
        default="uniform",
        description="Shares of the tokens of an image in the target of token_classification: "
        "equal, as published (uniform), or in proportion to log(N / n), where n of the N training "
        "images have the token in a caption (idf).",
    )
    auxiliary: Auxiliary = Auxiliary()
    visual: Visual = Visual()
    textual: Textual = Textual()
    decoder: Decoder = Decoder()
