import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from virtex.errors import UserError
from virtex.synthetic.coco_tree import read_objects, write_coco_tree
from virtex.synthetic.reading import is_true_in_pairs
from virtex.synthetic.trees import Amount, Drawing

DRAWING = Drawing(seed=0, side=64, max_objects=3)
Json = dict[str, object]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    write_coco_tree(folder, DRAWING, Amount(30, 10), lambda: None)
    return folder


def read(root: Path, kind: str, split: str) -> dict[str, list[dict]]:
    return json.loads((root / f"annotations/{kind}_{split}2017.json").read_text())


@pytest.mark.parametrize(("split", "count"), [("train", 30), ("val", 10)])
def test_every_image_has_a_file_five_captions_and_objects(
    root: Path, split: str, count: int
) -> None:
    captioned, seen = read(root, "captions", split), read(root, "instances", split)
    assert captioned["images"] == seen["images"]
    assert len(captioned["images"]) == count
    names = {path.name for path in (root / f"{split}2017").iterdir()}
    assert names == {image["file_name"] for image in captioned["images"]}
    for image in captioned["images"]:
        with Image.open(root / f"{split}2017" / image["file_name"]) as decoded:
            assert (decoded.format, decoded.size) == ("JPEG", (image["width"], image["height"]))
    captions = Counter(item["image_id"] for item in captioned["annotations"])
    assert captions == {image["id"]: 5 for image in captioned["images"]}
    assert {item["image_id"] for item in seen["annotations"]} == set(captions)
    for part in (captioned, seen):
        assert len({item["id"] for item in part["annotations"]}) == len(part["annotations"])


def test_ids_of_the_splits_are_disjoint(root: Path) -> None:
    train, val = (
        {image["id"] for image in read(root, "captions", split)["images"]}
        for split in ("train", "val")
    )
    assert not train & val


def test_captions_fit_the_objects_read_back(root: Path) -> None:
    objects = read_objects(root / "annotations/instances_train2017.json")
    for item in read(root, "captions", "train")["annotations"]:
        assert is_true_in_pairs(item["caption"], objects[item["image_id"]])


def test_instances_are_those_of_coco(root: Path) -> None:
    seen = read(root, "instances", "train")
    names = {category["id"]: category["name"] for category in seen["categories"]}
    looks = Counter(
        (item["image_id"], item["shape"], item["color"]) for item in seen["annotations"]
    )
    for item in seen["annotations"]:
        x, y, width, height = item["bbox"]
        assert 0 <= x < x + width <= 64
        assert 0 <= y < y + height <= 64
        assert names[item["category_id"]] == item["shape"]
        assert item["iscrowd"] == 0
        assert item["count"] == looks[item["image_id"], item["shape"], item["color"]]
        (flat,) = item["segmentation"]
        points = np.array(flat, np.float32).reshape(-1, 2)
        assert points.min(axis=0) == pytest.approx((x, y), abs=0.011)
        assert np.ptp(points, axis=0) == pytest.approx((width, height), abs=0.021)
        # contourArea takes the ring's hole from its outside too, as the polygon runs back inside.
        assert cv2.contourArea(points) == pytest.approx(item["area"], abs=2)


def test_longer_tree_begins_with_the_shorter_one(root: Path, tmp_path: Path) -> None:
    write_coco_tree(tmp_path, DRAWING, Amount(5, 3), lambda: None)
    for path in (tmp_path / "train2017").iterdir():
        assert path.read_bytes() == (root / "train2017" / path.name).read_bytes()
    shorter, longer = (read(folder, "captions", "val") for folder in (tmp_path, root))
    assert shorter["annotations"] == longer["annotations"][:15]


def test_another_seed_gives_other_images(root: Path, tmp_path: Path) -> None:
    write_coco_tree(tmp_path, Drawing(1, 64, 3), Amount(1, 1), lambda: None)
    name = "train2017/000000000001.jpg"
    assert (tmp_path / name).read_bytes() != (root / name).read_bytes()


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"images": []}', '{"images": [{"id": 1}], "annotations": [{"image_id": 1}]}'],
)
def test_other_instances_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(UserError, match=r"instances\.json"):
        read_objects(tmp_path / "instances.json")


def test_missing_instances_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json"):
        read_objects(tmp_path / "none.json")
