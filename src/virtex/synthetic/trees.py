"""Shared parts of the file trees: options, limits, writing images and JSON."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from virtex.errors import UserError
from virtex.synthetic.drawing import draw, encode_jpeg
from virtex.synthetic.scenes import Scene
from virtex.synthetic.words import MAX_OBJECTS, SHAPES

Advance = Callable[[], None]
"""Called once for every image written."""

SMALLEST_SIDE, LARGEST_SIDE = 32, 1024
_MOST_IMAGES = 499_999  # beyond, file names would not have the digits that readers expect


@dataclass(frozen=True)
class Amount:
    """How many images for training and how many held-out ones."""

    train: int
    val: int


@dataclass(frozen=True)
class Drawing:
    """How scenes are drawn: the seed, the image's side in pixels, the most objects in a scene."""

    seed: int
    side: int
    max_objects: int

    def __post_init__(self) -> None:
        """Raise UserError for an invalid value."""
        if self.seed < 0:
            raise UserError(f"the seed is {self.seed}; it must be 0 or more")
        if not SMALLEST_SIDE <= self.side <= LARGEST_SIDE:
            raise UserError(
                f"the images' side is {self.side} pixels; it must be {SMALLEST_SIDE} (below, "
                f"shapes cannot be distinguished) to {LARGEST_SIDE}"
            )
        if not 1 <= self.max_objects <= MAX_OBJECTS:
            raise UserError(
                f"a scene of at most {self.max_objects} objects; it must be 1 to {MAX_OBJECTS}"
            )


def check_amount(amount: Amount, what: str, least: int = 1) -> None:
    """Raise UserError for invalid numbers of images in a tree, which `what` names."""
    for split, count in (("training", amount.train), ("held-out", amount.val)):
        if not least <= count <= _MOST_IMAGES:
            raise UserError(
                f"{count} {split} images for {what}; it must be {least} to {_MOST_IMAGES}"
            )


def check_classes(amount: Amount, what: str) -> None:
    """As `check_amount`, with at least one image for every shape."""
    check_amount(amount, what, least=len(SHAPES))


def write_image(path: Path, scene: Scene, side: int) -> None:
    """Draw a scene into a JPEG file."""
    path.write_bytes(encode_jpeg(draw(scene, side)))


def write_json(path: Path, value: object) -> None:
    """Write compact JSON in the order of the keys: equal values give equal bytes."""
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="ascii")
