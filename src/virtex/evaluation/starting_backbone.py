"""The backbone that a fine-tuning starts from, as a file in the directory of the run."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from virtex.config.data import Data
from virtex.config.pixels import PIXEL_FIELDS
from virtex.config.schema import Config
from virtex.errors import UserError
from virtex.evaluation.backbones import RANDOM, TORCHVISION

START = "finetune.json"
"""The name of the file, in the directory of a run, that holds its `StartingBackbone`."""


class StartingBackbone(BaseModel):
    """The backbone that a run starts from, kept in its directory.

    So a run resumes although the file of the backbone has been removed. `visual` holds settings of
    `MODEL.VISUAL`, and `normalize` is the transform that its images had. `pixels` holds those
    settings of `DATA` on bands and values of its images that are not the defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    iteration: int | None
    visual: dict[str, str | int | bool]
    normalize: str
    image_size: int
    pixels: dict[str, Any] = {}

    @property
    def path(self) -> Path | None:
        """The file that holds it; None for `random` and `torchvision`."""
        return None if self.name in (RANDOM, TORCHVISION) else Path(self.name)


def pixels_of(config: Config) -> dict[str, Any]:
    """The settings of `DATA` on bands and values, by their keys, that are not the defaults."""
    plain = config.data.model_dump(mode="json", by_alias=True, include=set(PIXEL_FIELDS))
    defaults = Data().model_dump(mode="json", by_alias=True)
    return {key: value for key, value in plain.items() if value != defaults[key]}


def read_start(directory: Path) -> StartingBackbone | None:
    """The start of the run in a directory; None if it was not recorded."""
    path = directory / START
    if not path.is_file():
        return None
    try:
        return StartingBackbone.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} does not hold the start of a run: {error.errors()[0]['msg']}; remove it to "
            "take it from --checkpoint again"
        ) from error


def start_json(start: StartingBackbone) -> bytes:
    """The content of the file `START`."""
    return (json.dumps(start.model_dump(), indent=1) + "\n").encode()
