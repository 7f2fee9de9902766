"""Scenes as a VOC2007 tree: several objects in an image, whose shapes are the classes.

As in VOC, the file of a class has for every image 1 (present), -1 (absent) or 0 (only difficult
ones, which here are very small).
"""

import math
from pathlib import Path
from xml.etree import ElementTree

from virtex.synthetic.composing import compose, scene_random
from virtex.synthetic.scenes import Object, Scene
from virtex.synthetic.trees import Advance, Amount, Drawing, write_image
from virtex.synthetic.words import SHAPES, Shape

_FIRST_NUMBERS = {"trainval": 1, "test": 500_001}
_DIFFICULT_BELOW = 0.32  # diameter

Labels = dict[Shape, int]


def write_voc_tree(root: Path, drawing: Drawing, amount: Amount, advance: Advance) -> None:
    """Write VOCdevkit/VOC2007/{JPEGImages,Annotations,ImageSets/Main} to `root`."""
    voc = root / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True)
    for split, count in (("trainval", amount.train), ("test", amount.val)):
        labels: dict[str, Labels] = {}
        for index in range(count):
            name = f"{_FIRST_NUMBERS[split] + index:06d}"
            scene = compose(scene_random(drawing.seed, f"voc {split}", index), drawing.max_objects)
            write_image(voc / "JPEGImages" / f"{name}.jpg", scene, drawing.side)
            annotation = ElementTree.tostring(_annotation(name, scene, drawing.side))
            (voc / "Annotations" / f"{name}.xml").write_bytes(annotation + b"\n")
            labels[name] = {shape: _label(scene, shape) for shape in SHAPES}
            advance()
        _write_sets(voc / "ImageSets" / "Main", split, labels)


def _write_sets(folder: Path, split: str, labels: dict[str, Labels]) -> None:
    _write_lines(folder / f"{split}.txt", list(labels))
    for shape in SHAPES:
        lines = [f"{name} {values[shape]:2d}" for name, values in labels.items()]
        _write_lines(folder / f"{shape}_{split}.txt", lines)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("ascii"))


def _is_difficult(item: Object) -> bool:
    return item.diameter < _DIFFICULT_BELOW


def _label(scene: Scene, shape: Shape) -> int:
    found = [item for item in scene.objects if item.look.shape == shape]
    if not found:
        return -1
    return 0 if all(_is_difficult(item) for item in found) else 1


def _annotation(name: str, scene: Scene, side: int) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    _add(root, "folder", "VOC2007")
    _add(root, "filename", f"{name}.jpg")
    _add(ElementTree.SubElement(root, "source"), "database", "virtex scenes")
    size = ElementTree.SubElement(root, "size")
    for key, pixels in (("width", side), ("height", side), ("depth", 3)):
        _add(size, key, pixels)
    _add(root, "segmented", 0)
    for item in scene.objects:
        _add_object(ElementTree.SubElement(root, "object"), item, side)
    ElementTree.indent(root, "\t")
    return root


def _add_object(parent: ElementTree.Element, item: Object, side: int) -> None:
    """Add an object, whose box has whole pixels counted from 1, the last one included."""
    _add(parent, "name", item.look.shape)
    _add(parent, "pose", "Unspecified")
    _add(parent, "truncated", 0)
    _add(parent, "difficult", int(_is_difficult(item)))
    left, top, right, bottom = (edge * side for edge in item.box)
    box = ElementTree.SubElement(parent, "bndbox")
    _add(box, "xmin", math.floor(left) + 1)
    _add(box, "ymin", math.floor(top) + 1)
    _add(box, "xmax", math.ceil(right))
    _add(box, "ymax", math.ceil(bottom))


def _add(parent: ElementTree.Element, tag: str, value: str | int) -> None:
    ElementTree.SubElement(parent, tag).text = str(value)
