from collections import Counter
from pathlib import Path

from PIL import Image
from torchvision.datasets import ImageFolder

from virtex.synthetic.imagefolder_tree import write_imagefolder_tree
from virtex.synthetic.trees import Amount, Drawing
from virtex.synthetic.words import SHAPES


def test_classes_are_shapes_in_equal_numbers(tmp_path: Path) -> None:
    write_imagefolder_tree(tmp_path, Drawing(0, 64, 3), Amount(24, 12), lambda: None)
    for split, each in (("train", 4), ("val", 2)):
        images = ImageFolder(str(tmp_path / "imagefolder" / split))
        assert set(images.classes) == set(SHAPES)
        assert set(Counter(images.targets).values()) == {each}
        for path, _ in images.samples:
            with Image.open(path) as image:
                assert (image.format, image.size) == ("JPEG", (64, 64))


def test_held_out_images_are_others(tmp_path: Path) -> None:
    write_imagefolder_tree(tmp_path, Drawing(0, 64, 3), Amount(12, 12), lambda: None)
    contents = [path.read_bytes() for path in tmp_path.rglob("*.jpg")]
    assert len(set(contents)) == len(contents) == 24
