"""Small trees of drawn boxes, and their objects, for the tests of dense protocols."""

import json

import numpy as np
from PIL import Image

SIDE = 64
COLORS = {"cat": (220, 40, 40), "dog": (40, 60, 220)}


def picture(boxes, width=SIDE, height=SIDE):
    """Filled boxes (name, x1, y1, x2, y2) on grey, (H, W, 3) uint8."""
    pixels = np.full((height, width, 3), 120, np.uint8)
    for name, x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = COLORS[name]
    return pixels


def scene(number):
    """One cat, and for even numbers a dog, at places that depend on the number."""
    shift = 3 * (number % 4)
    boxes = [("cat", 4 + shift, 6, 30 + shift, 34)]
    return boxes if number % 2 else [*boxes, ("dog", 20, 36 + shift // 2, 52, 60)]


def annotation(identity, image_id, category, box, **others):
    x1, y1, x2, y2 = box
    return {
        "id": identity,
        "image_id": image_id,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
        **others,
    }


def write_coco(root, train=4, test=3):
    """A COCO tree of `scene`s whose categories have the ids 7 and 3; returns its root."""
    for split, first, count in (("train", 1, train), ("val", 101, test)):
        images, annotations = [], []
        (root / f"{split}2017").mkdir(parents=True)
        for number in range(first, first + count):
            name = f"{number:012d}.png"
            Image.fromarray(picture(scene(number))).save(root / f"{split}2017" / name)
            images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
            for kind, *box in scene(number):
                category = {"cat": 7, "dog": 3}[kind]
                annotations.append(annotation(len(annotations) + 1, number, category, box))
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return root


def change(root, split, edit):
    """Edit the content of an annotation file of a COCO tree."""
    path = root / f"annotations/instances_{split}2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def voc_xml(boxes, width=SIDE, height=SIDE, difficult=()):
    """An annotation of VOC, whose pixels count from 1 with the last one inside."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{int(place in difficult)}</difficult><bndbox>"
        f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for place, (name, x1, y1, x2, y2) in enumerate(boxes)
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{objects}</annotation>"


def write_voc(root, splits=(("trainval", 1, 4), ("test", 101, 3)), year=2007):
    """A VOC tree of `scene`s; returns its root."""
    voc = root / "VOCdevkit" / f"VOC{year}"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / part).mkdir(parents=True)
    for split, first, count in splits:
        names = [f"{number:06d}" for number in range(first, first + count)]
        (voc / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            boxes = scene(int(name))
            Image.fromarray(picture(boxes)).save(voc / f"JPEGImages/{name}.jpg", quality=95)
            (voc / f"Annotations/{name}.xml").write_text(voc_xml(boxes))
    return root
