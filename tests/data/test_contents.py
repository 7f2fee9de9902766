import json
import pickle
import shutil

import numpy as np
import pytest
from tests.data.packing import opened, packed

from virtex.data.contents import contents, differences, from_plain
from virtex.data.shards.writer import Packing
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.coco_objects import CocoCategories
from virtex.data.sources.table import TableCaptions
from virtex.data.sources.text_folder import TextFolder
from virtex.data.subset import subset

CAPTIONS = {3: ["é one"], 5: ["two", 'a "third"'], 8: ["four"], 9: ["five"], 12: ["six"]}
WINDOW = 1000


def of(records, chosen=None, window=WINDOW):
    """The contents of a data set whose splits are the same."""
    return contents(records, chosen or records, records, window)


@pytest.fixture
def coco(write_coco):
    return CocoCaptions(write_coco(CAPTIONS), "train")


def test_every_format_of_one_content_is_the_same(coco, tmp_path):
    table, folder = tmp_path / "table", tmp_path / "folder"
    table.mkdir()
    shutil.copytree(tmp_path / "train2017", folder)
    rows = [
        {"image_id": image_id, "image": f"{image_id}.jpg", "caption": caption}
        for image_id, captions in reversed(CAPTIONS.items())
        for caption in captions
    ]
    (table / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for image_id, captions in CAPTIONS.items():
        (folder / f"{image_id:012}.txt").write_text("\n".join(captions), encoding="utf-8")
    expected = of(coco)
    assert (expected.training.images, expected.training.captions) == (5, 6)
    assert of(TableCaptions(str(table), "train")) == expected
    assert of(TextFolder(folder)) == expected
    for size in (1, 3, 100):
        shards = of(opened(packed(coco, tmp_path / f"shards_{size}", size)))
        assert differences(expected, shards) == differences(shards, expected) == []
        assert shards.order == expected.order


def test_contents_survive_a_checkpoint(coco):
    assert from_plain(pickle.loads(pickle.dumps(of(coco).to_plain()))) == of(coco)


@pytest.mark.parametrize("value", [None, {}, {"format": 2}, {"format": 1, "training": 3}, [1]])
def test_unknown_contents_cannot_be_compared(coco, value):
    assert from_plain(value) is None
    whole = of(coco).to_plain()
    assert from_plain(whole | {"format": 2}) is None
    assert from_plain(whole | {"training": {"images": 3}}) is None


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (CAPTIONS | {13: ["a"]}, "5 images with 6 captions, is 6 images with 7 captions"),
        (
            CAPTIONS | {9: ["fivf"]},
            "5 images with 6 captions, is 5 images with 6 captions, with the same ids"
            " and other captions or labels",
        ),
        (
            {**{i: CAPTIONS[i] for i in (3, 5, 8, 9)}, 13: ["six"]},
            "5 images with 6 captions, is 5 images with 6 captions, with other ids",
        ),
    ],
)
def test_differences_are_described(coco, write_coco, now, words):
    before = of(coco)
    changed = CocoCaptions(write_coco(now), "train")
    lines = differences(before, of(changed))
    assert lines == [f"training: was {words}", f"validation: was {words}"]
    assert differences(before, contents(coco, coco, changed, WINDOW)) == lines[1:]


def test_shards_do_not_count_captions(coco, write_coco, tmp_path):
    before = of(opened(packed(coco, tmp_path / "before")))
    other = CocoCaptions(write_coco(CAPTIONS | {9: ["fivf"]}), "train")
    shards = opened(packed(other, tmp_path / "after", 2))
    words = "was 5 images, is 5 images, with the same ids and other captions or labels"
    assert differences(before, of(shards)) == [f"training: {words}", f"validation: {words}"]


def test_categories_count_as_captions_do(tmp_path):
    def coco(categories):
        (tmp_path / "annotations").mkdir(exist_ok=True)
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)],
            "annotations": [{"image_id": 2, "category_id": one} for one in categories],
            "categories": [{"id": i, "name": f"n{i}"} for i in (1, 2, 3)],
        }
        path = tmp_path / "annotations" / "instances_train2017.json"
        path.write_text(json.dumps(content))
        return CocoCategories(tmp_path, "train")

    before = coco([1, 3])
    assert of(before) == of(coco([3, 1, 3]))
    assert differences(of(before), of(coco([2, 3])))
    directory = tmp_path / "train2017"
    directory.mkdir()
    packing = Packing(checked=False, with_categories=True)
    for i in (1, 2):
        (directory / f"{i}.jpg").write_bytes(b"\xff\xd8\xff")
    shards = packed(before, tmp_path / "shards", 1, packing, categories=before.categories)
    assert differences(of(before), of(opened(shards, "categories"))) == []


def test_the_order_depends_on_shards_only_where_windows_do(coco, tmp_path):
    shards = [opened(packed(coco, tmp_path / f"{size}", size)) for size in (2, 3)]
    assert of(shards[0]).order == of(shards[1]).order == of(coco).order
    orders = {of(one, window=4).order for one in (coco, *shards)}
    assert len(orders) == 3
    assert of(shards[0], subset(shards[0], 60, 0), 4).order not in orders


def test_ids_that_are_hashes_of_shard_names_do_not_change_with_the_names(tmp_path, coco):
    directory = packed(coco, tmp_path / "shards", 3)
    manifest = json.loads((directory / "shards.json").read_text())
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for path in directory.glob("*.tar"):
        shutil.copy(path, renamed / f"part-{path.name}")
        shutil.copy(path.with_suffix(".index"), renamed / f"part-{path.stem}.index")
    manifest |= {"ids": "hashed", "names": [f"part-{name}" for name in manifest["names"]]}
    (renamed / "shards.json").write_text(json.dumps(manifest))
    one, other = opened(directory), opened(renamed)
    assert not np.array_equal(one.image_ids, other.image_ids)
    assert of(one) == of(other)
