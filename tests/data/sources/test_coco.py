import json
import operator
import os
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

from virtex.data.records import Record
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.coco_objects import CocoCategories
from virtex.errors import UserError

COCO_MINI = os.environ.get("VIRTEX_COCO_MINI")


def test_records_are_in_order_of_image_ids_with_captions_in_file_order(write_coco):
    root = write_coco({7: ["b", "a"], 3: ["é one"], 12: ["c"]})
    records = CocoCaptions(root, "train")
    directory = root / "train2017"
    assert [records[index] for index in range(len(records))] == [
        Record(3, directory / "000000000003.jpg", ("é one",)),
        Record(7, directory / "000000000007.jpg", ("b", "a")),
        Record(12, directory / "000000000012.jpg", ("c",)),
    ]
    np.testing.assert_array_equal(records.image_ids, [3, 7, 12])
    assert records.report == ()


def test_iteration_ends(write_coco):
    records = CocoCaptions(write_coco({1: ["a"]}, "val"), "val")
    assert [record.image_id for record in records] == [1]
    with pytest.raises(IndexError):
        records[-1]


def test_spawned_processes_share_the_memory(write_coco):
    records = CocoCaptions(write_coco({1: ["a", "b"], 2: ["c"]}), "train")
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(operator.getitem, (records, 1)) == records[1]
    # A handle for each tensor travels, not what is in it.
    assert len(ForkingPickler.dumps(records)) < 4000


def test_files_that_no_annotation_names_are_not_seen(write_coco):
    root = write_coco({1: ["a"]})
    (root / "train2017" / "000000000002.jpg").write_bytes(b"other")
    assert len(CocoCaptions(root, "train")) == 1


ANNOTATIONS = [
    {"image_id": 5, "caption": "five"},
    {"image_id": 9, "caption": "of no image"},
    {"image_id": 6, "caption": " \n"},
    {"image_id": 5, "caption": ""},
]


def test_unmatched_items_are_an_error_that_names_them(write_coco):
    root = write_coco({5: [], 6: [], 8: []}, annotations=ANNOTATIONS)
    expected = (
        r"captions_train2017\.json: 2 images have no caption \(image ids 6, 8\);"
        r" 1 captions are of images that are not listed \(image ids 9\);"
        r" 2 captions are blank \(image ids 6, 5\).*ON_BAD_IMAGE"
    )
    with pytest.raises(UserError, match=expected):
        CocoCaptions(root, "train")


def test_unmatched_items_are_left_out_and_reported_on_request(write_coco):
    root = write_coco({5: [], 6: [], 8: []}, annotations=ANNOTATIONS)
    records = CocoCaptions(root, "train", on_bad_image="skip")
    assert [(record.image_id, record.captions) for record in records] == [(5, ("five",))]
    assert len(records.report) == 3


def test_null_captions_are_an_error_or_left_out_and_counted(write_coco):
    captions = [{"image_id": 5, "caption": "a"}, {"image_id": 6, "caption": None}]
    root = write_coco({5: [], 6: []}, annotations=captions)
    with pytest.raises(UserError, match=r"1 captions are null \(image ids 6\).*ON_BAD_IMAGE"):
        CocoCaptions(root, "train")
    records = CocoCaptions(root, "train", on_bad_image="skip")
    assert [record.image_id for record in records] == [5]
    assert records.report == (
        "1 images have no caption (image ids 6)",
        "1 captions are null (image ids 6)",
    )


def test_a_report_names_a_few_of_many(write_coco):
    root = write_coco({i: [] for i in range(1, 20)} | {20: ["a"]})
    (line,) = CocoCaptions(root, "train", on_bad_image="skip").report
    assert line == "19 images have no caption (image ids 1, 2, 3, 4, 5, …)"


OUTSIDE = [
    *("../a.jpg", "/etc/passwd", "a/../../b.jpg", "..", ".", "", "a//b.jpg", "a/", "./a.jpg"),
    *("a\0.jpg", "a\\b.jpg", "..\\a.jpg"),
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("split", ["captions", "instances"])
def test_an_image_outside_of_its_directory_is_refused(tmp_path, name, split):
    content = {"images": [{"id": 1, "file_name": name}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / f"{split}_train2017.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="needs 'file_name', a path inside the directory of images"):
        {"captions": CocoCaptions, "instances": CocoCategories}[split](tmp_path, "train")


def test_an_image_may_lie_in_a_directory_below(write_coco):
    members = {"images": [{"id": 1, "file_name": "part/..a b.jpg"}]}
    (record,) = CocoCaptions(write_coco({1: ["a"]}, **members), "train")
    assert record.image.parts[-3:] == ("train2017", "part", "..a b.jpg")


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"images": [{"id": 1, "file_name": "a"}] * 2}, r"several images \(image ids 1\)"),
        ({"images": [{"file_name": "a"}]}, "'images' needs 'id', a whole number"),
        ({"images": [{"id": "1", "file_name": "a"}]}, "'images' needs 'id', a whole number"),
        ({"images": [{"id": True, "file_name": "a"}]}, "'images' needs 'id', a whole number"),
        ({"images": [{"id": 2**64, "file_name": "a"}]}, "'images' needs 'id', a whole number"),
        ({"images": [{"id": 1}]}, "'images' needs 'file_name', a string"),
        ({"images": [7]}, "'images' needs 'id'.* one is 7"),
        ({"images": [nested(900)]}, "('images' needs 'id'|nested too deeply)"),
        ({"annotations": [{"image_id": 1}]}, "'annotations' needs 'caption', a string"),
        ({"annotations": [{"image_id": 1, "caption": 5}]}, "needs 'caption', a string"),
        ({"annotations": [{"caption": "a"}]}, "'annotations' needs 'image_id'"),
        ({"images": {}, "annotations": []}, "no image with a caption"),
        (
            {"images": [], "annotations": []},
            "no image with a caption: .* none with items; expected",
        ),
        (
            {"images": {}, "annotations": {}, "data": [1, 2]},
            r"its lists are 'data' \(2\); expected",
        ),
    ],
)
def test_annotations_of_another_form_are_an_error_with_the_path(write_coco, members, reason):
    root = write_coco({1: ["a"]}, **members)
    with pytest.raises(UserError, match=rf"captions_train2017\.json.*{reason}"):
        CocoCaptions(root, "train")


def test_a_directory_without_annotations_is_an_error_that_says_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"captions_val2017\.json: DATA\.ROOT .* annotations/"):
        CocoCaptions(tmp_path, "val")


def test_missing_and_empty_files_are_found_without_reading(write_coco):
    root = write_coco({1: ["a"], 2: ["b"], 3: ["c"], 4: ["d"]})
    paths = [record.image for record in CocoCaptions(root, "train")]
    paths[1].unlink()
    paths[2].write_bytes(b"")
    assert CocoCaptions(root, "train").missing(range(4)) == paths[1:3]


@pytest.mark.skipif(COCO_MINI is None, reason="VIRTEX_COCO_MINI names no directory")
@pytest.mark.parametrize("split", ["train", "val"])
def test_published_annotations_are_read(split):
    records = CocoCaptions(Path(COCO_MINI), split)
    assert records.missing(range(len(records))) == []
    assert all(len(record.captions) >= 5 for record in records)
    assert f"{records[0].image_id:012}.jpg" == records[0].image.name
