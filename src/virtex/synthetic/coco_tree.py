"""Scenes as a COCO tree: captions for pretraining, instances with boxes to evaluate captions.

Beyond COCO's keys an image has `background` and an instance has `shape`, `color`, `texture`, `size`
and `count` (the number of objects in the image that look like it).
"""

import json
from pathlib import Path
from typing import Any

from virtex.errors import UserError
from virtex.synthetic.composing import compose, scene_random
from virtex.synthetic.scenes import Object, Scene
from virtex.synthetic.sentences import captions
from virtex.synthetic.trees import Advance, Amount, Drawing, write_image, write_json
from virtex.synthetic.words import SHAPES

_FIRST_IDS = {"train": 1, "val": 500_001}  # the splits' ids never overlap
_INFO = {"description": "virtex scenes: drawn pictures with true captions", "version": "1"}

Json = dict[str, Any]


def write_coco_tree(root: Path, drawing: Drawing, amount: Amount, advance: Advance) -> None:
    """Write annotations/, train2017/ and val2017/ to `root`; none of them may exist."""
    (root / "annotations").mkdir()
    for split, count in (("train", amount.train), ("val", amount.val)):
        _write_split(root, split, drawing, count, advance)


def _write_split(root: Path, split: str, drawing: Drawing, count: int, advance: Advance) -> None:
    folder = root / f"{split}2017"
    folder.mkdir()
    images: list[Json] = []
    sentences: list[Json] = []
    instances: list[Json] = []
    for index in range(count):
        random = scene_random(drawing.seed, split, index)
        scene = compose(random, drawing.max_objects)
        image = _image(_FIRST_IDS[split] + index, scene, drawing.side)
        write_image(folder / image["file_name"], scene, drawing.side)
        images.append(image)
        for number, caption in enumerate(captions(scene, random), len(sentences) + 1):
            sentences.append({"id": number, "image_id": image["id"], "caption": caption})
        for item in scene.objects:
            identity = {"id": len(instances) + 1, "image_id": image["id"]}
            instances.append(identity | _instance(item, scene, drawing.side))
        advance()
    head = {"info": _INFO, "licenses": [], "images": images}
    write_json(root / f"annotations/captions_{split}2017.json", head | {"annotations": sentences})
    write_json(
        root / f"annotations/instances_{split}2017.json",
        head | {"annotations": instances, "categories": _categories()},
    )


def _categories() -> list[Json]:
    return [
        {"id": number, "name": shape, "supercategory": "shape"}
        for number, shape in enumerate(SHAPES, start=1)
    ]


def _image(image_id: int, scene: Scene, side: int) -> Json:
    return {
        "id": image_id,
        "file_name": f"{image_id:012d}.jpg",
        "width": side,
        "height": side,
        "background": scene.background.color,
    }


def _instance(item: Object, scene: Scene, side: int) -> Json:
    """The annotation of an object, in pixels from the upper left corner."""
    left, top, right, bottom = (edge * side for edge in item.box)
    return {
        "category_id": SHAPES.index(item.look.shape) + 1,
        # x, y, width, height
        "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
        "area": round(item.area * side**2, 2),
        "segmentation": [[round(value * side, 2) for point in item.polygon for value in point]],
        "iscrowd": 0,
        "shape": item.look.shape,
        "color": item.look.color,
        "texture": item.look.texture,
        "size": item.look.size,
        "count": dict(scene.looks)[item.look],
    }


def read_objects(instances: Path) -> dict[int, list[tuple[str, str]]]:
    """Read the (colour, shape) pair of each object, by image id.

    Raises UserError for a file that is missing or was not written for scenes.
    """
    try:
        content = json.loads(instances.read_text(encoding="utf-8"))
        objects: dict[int, list[tuple[str, str]]] = {image["id"]: [] for image in content["images"]}
        for item in content["annotations"]:
            objects[item["image_id"]].append((item["color"], item["shape"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{instances} does not hold the objects of scenes ({type(error).__name__}: {error}); "
            "give a directory that `virtex synthesize` wrote"
        ) from error
    return objects
