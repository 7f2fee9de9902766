"""Scenes as an ImageFolder tree: one object each, whose shape is the class."""

from pathlib import Path

from virtex.synthetic.composing import compose, scene_random
from virtex.synthetic.trees import Advance, Amount, Drawing, write_image
from virtex.synthetic.words import SHAPES


def write_imagefolder_tree(root: Path, drawing: Drawing, amount: Amount, advance: Advance) -> None:
    """Write imagefolder/{train,val}/CLASS/ to `root`; the classes alternate."""
    for split, count in (("train", amount.train), ("val", amount.val)):
        folder = root / "imagefolder" / split
        for shape in SHAPES:
            (folder / shape).mkdir(parents=True)
        for index in range(count):
            shape = SHAPES[index % len(SHAPES)]
            random = scene_random(drawing.seed, f"imagefolder {split}", index)
            scene = compose(random, max_objects=1, shape=shape)
            write_image(folder / shape / f"{index:06d}.jpg", scene, drawing.side)
            advance()
