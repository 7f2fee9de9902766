import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.data.records import Record
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.coco_objects import CocoCategories
from virtex.errors import UserError

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "tooth"}]


@pytest.fixture
def write(tmp_path):
    def write(objects, **members):
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (7, 3, 12)],
            "annotations": [{"image_id": i, "category_id": c} for i, c in objects],
            "categories": CATEGORIES,
        }
        (tmp_path / "annotations").mkdir(exist_ok=True)
        path = tmp_path / "annotations" / "instances_train2017.json"
        path.write_text(json.dumps(content | members), encoding="utf-8")
        return tmp_path

    return write


def test_labels_count_the_categories_in_the_files_order_from_one(write):
    root = write([(7, 90), (12, 3), (7, 18), (7, 90)])
    records = CocoCategories(root, "train")
    directory = root / "train2017"
    assert list(records) == [
        Record(3, directory / "3.jpg"),
        Record(7, directory / "7.jpg", categories=(1, 3)),
        Record(12, directory / "12.jpg", categories=(2,)),
    ]
    assert records.categories == ("dog", "cat", "tooth")
    np.testing.assert_array_equal(records.image_ids, [3, 7, 12])
    text = (
        "1 images have no object: they contribute to batch norm but not to the loss (image ids 3)"
    )
    assert records.report == (text,)


@given(data=st.data())
def test_the_order_of_the_file_changes_nothing_but_the_labels_numbers(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    objects = data.draw(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([3, 18, 90]))))
    found = []
    for _ in range(2):
        content = {
            "annotations": [
                {"image_id": i, "category_id": c} for i, c in data.draw(st.permutations(objects))
            ],
            "images": [
                {"id": i, "file_name": f"{i}.jpg"} for i in data.draw(st.permutations(range(1, 6)))
            ],
            "categories": data.draw(st.permutations(CATEGORIES)),
        }
        path = root / "annotations" / "instances_train2017.json"
        path.write_text(json.dumps(content))
        records = CocoCategories(root, "train")
        names = ("background", *records.categories)
        found.append([(r.image.name, {names[label] for label in r.categories}) for r in records])
    assert found[0] == found[1]
    name = {category["id"]: category["name"] for category in CATEGORIES}
    expected = [(f"{i}.jpg", {name[c] for j, c in objects if i == j}) for i in range(1, 6)]
    assert found[0] == expected


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([(99, 3)], "1 objects are of images that are not listed (image ids 99)"),
        ([(7, 4)], "1 objects are of categories that are not listed (image ids 7)"),
    ],
)
def test_objects_of_unknown_images_or_categories_are_an_error_unless_skipped(
    write, objects, reason
):
    root = write([*objects, (3, 3)])
    with pytest.raises(UserError) as caught:
        CocoCategories(root, "train")
    assert reason in str(caught.value)
    assert "DATA.ON_BAD_IMAGE" in str(caught.value)
    records = CocoCategories(root, "train", "skip")
    assert [record.categories for record in records] == [(2,), (), ()]
    assert records.report[0] == reason


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"images": []}, "lists no images"),
        ({"categories": [], "annotations": []}, "lists no categories"),
        ({"categories": [{"id": 3, "name": "a"}] * 2}, "one category id to several categories"),
        ({"annotations": [{"image_id": 7}]}, "needs 'category_id', a whole number"),
        ({"categories": [{"id": 3}]}, "needs 'name', a string"),
        ({"images": [{"id": 3, "file_name": "a"}] * 2}, "1 image ids are given to several images"),
    ],
)
def test_annotations_of_another_form_are_an_error_with_the_path(write, members, reason):
    root = write([(7, 3)], **members)
    with pytest.raises(UserError) as caught:
        CocoCategories(root, "train")
    assert reason in str(caught.value)
    assert "instances_train2017.json" in str(caught.value)


def test_a_directory_without_annotations_is_an_error_that_says_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"DATA\.ROOT"):
        CocoCategories(tmp_path, "train")


def test_captions_and_objects_name_the_same_images(write_coco, write):
    root = write_coco({7: ["a"], 3: ["b"], 12: ["c"]})
    write([(7, 3)])
    np.testing.assert_array_equal(
        CocoCaptions(root, "train").image_ids, CocoCategories(root, "train").image_ids
    )
