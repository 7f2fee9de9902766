"""Options, limits and file writing that all file trees share."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from virtex.errors import UserError
from virtex.synthetic.drawing import draw, encode_jpeg
from virtex.synthetic.scenes import Scene
from virtex.synthetic.words import MAX_OBJECTS

Advance = Callable[[], None]
"""Called once for every image written."""

SMALLEST_SIDE, LARGEST_SIDE = 32, 1024
_MOST_IMAGES = 499_999  # more would not fit the digits of file names that readers expect


@dataclass(frozen=True)
class Amount:
    """The numbers of training and of held-out images."""

    train: int
    val: int


@dataclass(frozen=True)
class Drawing:
    """How scenes are drawn; `side` is the image's in pixels, `max_objects` is for each scene."""

    seed: int
    side: int
    max_objects: int

    def __post_init__(self) -> None:
        """Raise UserError for an invalid value."""
        if self.seed < 0:
            raise UserError(f"the seed is {self.seed}; it must be 0 or more")
        if not SMALLEST_SIDE <= self.side <= LARGEST_SIDE:
            raise UserError(
                f"the images' side is {self.side} pixels; it must be {SMALLEST_SIDE} (shapes in "
                f"smaller images cannot be distinguished) to {LARGEST_SIDE}"
            )
        if not 1 <= self.max_objects <= MAX_OBJECTS:
            raise UserError(
                f"the maximum number of objects in a scene is {self.max_objects}; it must be 1 to"
                f" {MAX_OBJECTS}"
            )


def check_amount(amount: Amount, what: str, least: int = 1) -> None:
    """Raise UserError for invalid numbers of images in the tree that `what` names."""
    for split, count in (("training", amount.train), ("held-out", amount.val)):
        if not least <= count <= _MOST_IMAGES:
            raise UserError(
                f"{count} {split} images for {what}; it must be {least} to {_MOST_IMAGES}"
            )


def write_image(path: Path, scene: Scene, side: int) -> None:
    """Draw a scene and write it as a JPEG file."""
    path.write_bytes(encode_jpeg(draw(scene, side)))


def write_json(path: Path, value: object) -> None:
    """Write compact JSON; equal values in equal order give equal bytes."""
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="ascii")
