from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from torchvision.datasets import VOCDetection

from virtex.synthetic.trees import Amount, Drawing
from virtex.synthetic.voc_tree import write_voc_tree
from virtex.synthetic.words import SHAPES

SPLITS = {"trainval": 60, "test": 20}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    write_voc_tree(folder, Drawing(0, 64, 3), Amount(60, 20), lambda: None)
    return folder


def sets(root: Path) -> Path:
    return root / "VOCdevkit/VOC2007/ImageSets/Main"


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_those_of_the_annotations(root: Path, split: str) -> None:
    names = (sets(root) / f"{split}.txt").read_text().split()
    assert len(set(names)) == len(names) == SPLITS[split]
    found = set()
    for shape in SHAPES:
        lines = (sets(root) / f"{shape}_{split}.txt").read_text().splitlines()
        assert [line.split()[0] for line in lines] == names
        for name, label in (line.split() for line in lines):
            assert int(label) == label_in(root, name, shape)
            found.add(label)
    assert {"1", "-1"} <= found


def label_in(root: Path, name: str, shape: str) -> int:
    tree = ElementTree.parse(root / f"VOCdevkit/VOC2007/Annotations/{name}.xml")
    difficult = [
        o.findtext("difficult") for o in tree.iter("object") if o.findtext("name") == shape
    ]
    if not difficult:
        return -1
    return 1 if "0" in difficult else 0


def test_some_objects_are_difficult(root: Path) -> None:
    lines = [line for path in sets(root).glob("*_*.txt") for line in path.read_text().splitlines()]
    assert 0 < sum(line.endswith(" 0") for line in lines) < len(lines) / 10


def test_boxes_are_whole_pixels_inside_the_image(root: Path) -> None:
    for path in (root / "VOCdevkit/VOC2007/Annotations").iterdir():
        tree = ElementTree.parse(path).getroot()
        with Image.open(
            root / "VOCdevkit/VOC2007/JPEGImages" / str(tree.findtext("filename"))
        ) as im:
            width, height = im.size
        assert tree.findtext("size/width") == str(width)
        assert tree.findtext("size/height") == str(height)
        assert tree.find("object") is not None
        for box in tree.iter("bndbox"):
            left, top, right, bottom = (
                int(str(box.findtext(key))) for key in ("xmin", "ymin", "xmax", "ymax")
            )
            assert 1 <= left < right <= width
            assert 1 <= top < bottom <= height


def test_readable_by_torchvision(root: Path) -> None:
    images = VOCDetection(str(root), year="2007", image_set="trainval")
    assert len(images) == 60
    _, target = images[0]
    assert target["annotation"]["object"][0]["name"] in SHAPES
