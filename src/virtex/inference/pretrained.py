"""A pretrained model and its vocabulary, from a checkpoint or from weights and settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from virtex.build.images import pixel_settings, with_pixel_options
from virtex.build.model import (
    build_captioner,
    build_objective,
    check_settings,
    published_vocabulary,
)
from virtex.build.resolve import resolve_sizes
from virtex.build.transforms import transform_steps
from virtex.checkpoints.model_directory import FILES
from virtex.checkpoints.state import Checkpoint, load_weights, read
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.config.section import conflict_text
from virtex.data.images import (
    DEFAULT_LIMITS,
    ImageLimits,
    PixelArray,
    from_pillow,
    named_limits,
    read_image,
)
from virtex.data.transforms import apply_transforms
from virtex.decoding.attention import WordAttention
from virtex.decoding.captioner import BeamSearch, Caption, Captioner, Strategy
from virtex.errors import UserError, first_line
from virtex.files import check_local
from virtex.models.modes import SizesAlone, evaluating
from virtex.tasks import find_task
from virtex.tasks.base import WEIGHT_PER_TOKEN, Objective
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Vocabulary

ImageInput = str | Path | Image.Image | PixelArray
"""An image file, an image of Pillow, or (H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class CaptionAttention:
    """A caption, and the attention of its words to `pixels` (H, W, 3) uint8 RGB."""

    text: str
    attention: WordAttention
    pixels: PixelArray


@dataclass(frozen=True)
class Pretrained:
    """A model in evaluation mode, with the configuration and vocabulary that its use needs."""

    config: Config
    vocabulary: Vocabulary
    objective: Objective
    limits: ImageLimits = DEFAULT_LIMITS
    """Limits of the image files that are read."""
    iteration: int | None = None
    """The iteration of the run that saved the weights; None if no run of virtex did."""

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Pretrained":
        """The model in a directory of `virtex export virtex`, or in a repository of the hub.

        `name` is a path, or `USER/REPOSITORY`, which requires huggingface_hub. Raises `UserError`.
        """
        path = Path(name)
        return load(path if path.exists() else _download(str(name)))

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.objective.parameters()).device

    @property
    def can_caption(self) -> bool:
        """Whether the model's task trained a captioning head."""
        return find_task(self.config.model.name).captioning_head is not None

    def to(self, device: str | torch.device) -> Self:
        """Move the model to a device, and return it."""
        self.objective.to(device)
        return self

    def pixels(self, pictures: Sequence[ImageInput]) -> Tensor:
        """(B, 3, H, W) uint8 RGB on the model's device, cropped as for validation.

        A model for other bands gets (B, N, H, W). Raises `BadImage`, a `UserError`, for a file that
        cannot be read as an image.
        """
        return self.crops(pictures).to(self.device)

    def crops(self, pictures: Sequence[ImageInput]) -> Tensor:
        """As `pixels`, on the CPU."""
        data = self.config.data
        steps = transform_steps(data.transforms_val, data.image_crop_size)
        crops = [apply_transforms(self._array(image), steps) for image in pictures]
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)

    def caption(
        self,
        pictures: Sequence[ImageInput],
        *,
        strategy: Strategy | None = None,
        keys: Sequence[int] | None = None,
        batch_size: int = 32,
    ) -> list[list[Caption]]:
        """Captions of each image, best first.

        `strategy` is `BeamSearch` or `NucleusSampling` of `virtex.decoding.captioner` (default: the
        configuration's). `keys` identify the images to sampling, so that its captions do not depend
        on `batch_size`; None stands for their positions.

        Raises `UserError` if the model has no captioning head, and the errors of `pixels`.
        """
        captioner = self.captioner(strategy)
        keys = range(len(pictures)) if keys is None else keys
        found: list[list[Caption]] = []
        for first in range(0, len(pictures), batch_size):
            batch = slice(first, first + batch_size)
            found += captioner.caption(self.pixels(pictures[batch]), keys[batch])
        return found

    def attention(
        self, picture: ImageInput, tokens: Sequence[int] | None = None, *, layer: int = -1
    ) -> CaptionAttention:
        """The attention to an image of each word of a caption.

        `tokens` are the caption's, without [SOS] and [EOS]; None stands for the best caption that
        beam search finds. `layer` is an index of the head's layers; -1 is the last one.

        Raises `UserError` for a `layer` that the head does not have and for too many tokens, and
        the errors of `caption`.
        """
        captioner = self.captioner(BeamSearch(self.config.model.decoder.beam_size))
        pixels = self.pixels([picture])
        if tokens is None:
            tokens = captioner.caption(pixels)[0][0].tokens
        return CaptionAttention(
            text=captioner.tokenizer.decode(tokens),
            attention=captioner.attention(pixels[0], tokens, layer=layer),
            pixels=pixels[0].permute(1, 2, 0).cpu().numpy(),
        )

    def _array(self, image: ImageInput) -> PixelArray:
        pixels, bands = pixel_settings(self.config.data), self.config.data.band_count
        match image:
            case str() | Path():
                check_local(image)
                return read_image(Path(image), self.limits, pixels)
            case Image.Image():
                try:
                    return from_pillow(image, pixels)
                except ValueError as error:
                    raise UserError(f"a Pillow image of mode {image.mode}: {error}") from error
            case _:
                if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != bands:
                    kind = "RGB" if bands == 3 else "bands"
                    raise UserError(
                        f"an image is an array of {image.dtype} {list(image.shape)}; expected "
                        f"uint8 [height, width, {bands}], {kind} from 0 to 255"
                    )
                return image

    def captioner(self, strategy: Strategy | None = None) -> Captioner:
        """The captioner of batches of pixels; `strategy` and errors as for `caption`."""
        return build_captioner(self.config, self.objective, self.vocabulary, strategy)

    @property
    def backbone(self) -> nn.Module:
        """The backbone as a module: uint8 or normalised images (B, 3, H, W) to a grid (B, C, h, w).

        `backbone.cnn` is torchvision's network without its classifier.
        """
        return self.objective.visual

    def features(
        self, pictures: ImageInput | Sequence[ImageInput], *, batch_size: int = 32
    ) -> Tensor:
        """(N, C) float32 on the CPU: the mean of each image's grid of features.

        One image gives (1, C). Raises the errors of `pixels`.
        """
        if isinstance(pictures, str | Path | Image.Image | np.ndarray):
            pictures = [pictures]
        with evaluating(self.objective):
            pooled = [
                self.objective.visual(self.pixels(pictures[first : first + batch_size]))
                .mean(dim=(2, 3))
                .float()
                .cpu()
                for first in range(0, len(pictures), batch_size)
            ]
        width = self.config.model.visual.feature_size
        assert width is not None  # a loaded configuration is resolved
        return torch.cat([torch.empty(0, width), *pooled])


def load(
    path: str | Path,
    *,
    config: str | Path | Config | None = None,
    tokenizer: str | Path | None = None,
    max_pixels: int | None = None,
    max_image_mb: int | None = None,
    pixel_range: tuple[float, float] | Literal["percentiles"] | None = None,
    average: bool = False,
) -> Pretrained:
    """Load the model of a checkpoint onto the CPU.

    A checkpoint of `virtex pretrain` is self-contained. A published one (a mapping with `model`, of
    any release from 0.9 on) and a bare state dict need `config`, the YAML file of their run or a
    `Config`; their vocabulary is `tokenizer`, by default `DATA.TOKENIZER_MODEL`. With a
    self-contained checkpoint, both replace its own. `max_pixels` and `max_image_mb` (2^20 bytes)
    limit the image files that the model reads. `pixel_range` replaces `DATA.PIXEL_RANGE`: the
    values that become 0 and 255 in images of more than 8 bits. `average` takes the average of the
    weights that a run with `OPTIM.EMA.DECAY` keeps.

    Raises `UserError` if the file cannot be read, for missing or unexpected keys and size
    mismatches, and if the vocabulary does not fit the weights.
    """
    path = Path(path)
    checkpoint = read(path, average=average)
    described = with_pixel_options(_config(checkpoint, config), {"pixel_range": pixel_range})
    vocabulary, source = _vocabulary(checkpoint, described, tokenizer)
    resolved = resolve_sizes(described, vocabulary, source)
    with SizesAlone():  # since the settings of a file can exceed the memory
        objective = build_objective(resolved, weights_follow=True)
    load_weights(objective, checkpoint, WEIGHT_PER_TOKEN)
    objective.eval()
    limits = named_limits(
        max_pixels,
        max_image_mb,
        settings=("max_pixels of virtex.load", "max_image_mb of virtex.load"),
    )
    iteration = checkpoint.state.get("iteration") if checkpoint.is_own else None
    return Pretrained(resolved, vocabulary, objective, limits, iteration)


def _download(repository: str) -> Path:
    """The directory to which a repository of the hub is downloaded."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise UserError(
            f"{repository} does not exist here; loading it from the hub requires huggingface_hub:"
            " install it, or give the path of a directory"
        ) from error
    try:
        return Path(snapshot_download(repository, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"{repository} is not a directory here, and cannot be loaded from the hub:"
            f" {first_line(error)}"
        ) from error


def _config(checkpoint: Checkpoint, given: str | Path | Config | None) -> Config:
    if given is not None and not isinstance(given, Config):
        return settings.load(Config, Path(given), check=check_settings)
    if given is None and not checkpoint.is_own:
        raise UserError(
            f"{checkpoint.source} holds weights but no configuration; give the YAML file of their "
            "run too (--config FILE on the command line, config= in Python)"
        )
    config = checkpoint.config if given is None else given
    conflicts = conflict_text(check_settings(config))
    if conflicts:
        raise UserError(conflicts)
    return config


def _vocabulary(
    checkpoint: Checkpoint, config: Config, given: str | Path | None
) -> tuple[Vocabulary, str]:
    """The vocabulary and its source, for messages."""
    if given is not None:
        return Tokenizer.from_file(Path(given)), str(given)
    if checkpoint.is_own:
        return checkpoint.vocabulary, f"in {checkpoint.source}"
    return published_vocabulary(config, checkpoint.weights)
