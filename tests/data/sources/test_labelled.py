import json

import numpy as np
import pytest

from virtex.data.sources.labelled import read_labelled
from virtex.errors import UserError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


FOLDER = (
    "train/dog/2.jpg",
    "train/cat/b.JPG",
    "train/dog/10.jpg",
    "val/cat/a.png",
    "val/dog/a.gif",
)


def test_classes_and_images_are_sorted_by_name(tmp_path):
    touch(tmp_path, *FOLDER)
    data = read_labelled(tmp_path)
    assert (data.kind, data.classes, data.several) == ("imagefolder", ("cat", "dog"), False)
    names = [str(path.relative_to(tmp_path)) for path in data.train.paths]
    assert names == ["train/cat/b.JPG", "train/dog/10.jpg", "train/dog/2.jpg"]
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    assert data.report == ()


def test_images_are_found_at_any_depth_and_through_links(tmp_path):
    touch(tmp_path, *FOLDER, "elsewhere/c.jpg", "train/cat/deeper/d.jpg", "train/cat/._b.jpg")
    (tmp_path / "train" / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    names = [path.name for path in read_labelled(tmp_path).train.paths]
    assert names == ["b.JPG", "d.jpg", "c.jpg", "10.jpg", "2.jpg"]


def test_files_that_are_no_images_are_counted(tmp_path):
    touch(tmp_path, *FOLDER, "train/cat/notes.txt", "train/readme.md")
    (line,) = read_labelled(tmp_path).report
    assert line == "1 files without an image's extension were ignored: 1 *.txt"


def voc(root, **files):
    sets = root / "VOC2007" / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    for name, text in files.items():
        (sets / f"{name}.txt").write_text(text)


VOC = {
    "cat_trainval": "1 1\n2 -1\n",
    "dog_trainval": "1  0\n2  1\n",
    "cat_test": "3 1\n4 0\n",
    "dog_test": "3 -1\n4 1\n",
}


def test_voc_labels_keep_difficult_objects_apart(tmp_path):
    voc(tmp_path, **VOC)
    data = read_labelled(tmp_path)
    assert (data.kind, data.classes) == ("voc", ("cat", "dog"))
    assert data.train.labels.tolist() == [[1, 0], [-1, 1]]
    assert data.test.labels.tolist() == [[1, -1], [0, 1]]
    assert data.test.paths[0] == tmp_path / "VOC2007" / "JPEGImages" / "3.jpg"


def coco(root, objects):
    (root / "annotations").mkdir()
    for split, pairs in objects.items():
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)],
            "annotations": [{"image_id": i, "category_id": c} for i, c in pairs],
            "categories": [{"id": i, "name": n} for i, n in ((7, "cat"), (9, "dog"), (11, "owl"))],
        }
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


def test_coco_categories_of_both_splits_are_labels(tmp_path):
    coco(tmp_path, {"train": [(1, 7), (1, 7), (2, 9), (2, 11)], "val": [(2, 7), (1, 9)]})
    data = read_labelled(tmp_path)
    assert (data.kind, data.classes) == ("coco", ("cat", "dog"))
    assert data.train.labels.tolist() == [[1, -1], [-1, 1]]
    assert data.test.labels.tolist() == [[-1, 1], [1, -1]]
    assert data.train.paths[0] == tmp_path / "train2017" / "1.jpg"
    (line,) = data.report
    assert line == "1 categories have no image in one of the splits (categories owl)"


def table(root, text, name="t.csv"):
    (root / name).write_text(text)
    return root / name


SPLIT = "image,label,split\na.jpg,10,train\nb.jpg,2,train\nc.jpg,10,val\nd.jpg,2,test\n"


def test_one_column_of_a_table_has_classes_as_text(tmp_path):
    data = read_labelled(table(tmp_path, SPLIT))
    assert (data.kind, data.classes) == ("table", ("10", "2"))
    assert data.train.paths == (tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1], [0, 1])


def test_several_columns_are_present_absent_or_unknown(tmp_path):
    text = "image,split,cat,dog\na,train,1,0\nb,train,,1\nc,val,1,1\n"
    data = read_labelled(table(tmp_path, text))
    assert data.several
    assert data.train.labels.tolist() == [[1, -1], [0, 1]]
    assert data.test.labels.dtype == np.int8


def test_tabs_and_commas_read_alike(tmp_path):
    one = read_labelled(table(tmp_path, SPLIT))
    other = read_labelled(table(tmp_path, SPLIT.replace(",", "\t"), "t.tsv"))
    assert one.test.paths == other.test.paths


def test_a_fifth_of_each_class_is_held_out_without_a_split(tmp_path):
    rows = [f"{i}.jpg,{'ab'[i % 2]}" for i in range(40)]
    path = table(tmp_path, "\n".join(["image,label", *rows]))
    data = read_labelled(path, seed=3)
    assert np.bincount(data.test.labels).tolist() == [4, 4]
    assert len(data.train) == 32
    assert "no column 'split'; 8 of 40 images, drawn with seed 3, are the test" in data.report[0]
    assert read_labelled(path, seed=3).test.paths == data.test.paths
    assert read_labelled(path, seed=4).test.paths != data.test.paths


def test_images_that_are_listed_twice_are_reported(tmp_path):
    (line,) = read_labelled(table(tmp_path, SPLIT + "a.jpg,10,train\n")).report
    assert "1 images are listed more than once" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,split\na,train\n", "has the columns 'image', 'split'; expected 'image'"),
        ("name,label\na,x\n", "has the columns 'name', 'label'; expected 'image'"),
        ("image,x,x\na,1,1\n", "has the columns 'image', 'x', 'x'"),
        ("image,label,split\na,x\n", "line 2: the row has 2 values for 3 columns"),
        ("image,label,split\na,x,dev\n", "line 2: the split is 'dev'"),
        ("image,label,split\na,,train\n", "line 2: 'label' is empty"),
        ("image,split,x,y\na,train,3,0\n", "line 2: 'x' is '3'; with several label columns"),
        ("image,label,split\na,x,train\nb,y,train\n", "has no test images"),
        ("image,label\n", "has no training images"),
        ("", "has the columns none"),
        ("image,label,split\na,x,train\nb,x,val\n", "has only the class x"),
        (SPLIT + "e,3,train\n", "of 3 classes there are 1 without test images .3."),
        (SPLIT + "a.jpg,10,val\n", "1 images are in both splits"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        read_labelled(table(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "expected a directory with train/CLASS/IMAGE"),
        (("train/cat/1.jpg",), r"has train/ but no val/ or test/"),
        (("train/cat/1.jpg", "val/dog/1.jpg"), r"1 only in train/ \(cat\), 1 only in val/ \(dog\)"),
        ((*FOLDER[:4], "val/dog/notes.txt"), r"1 without test images \(dog\)"),
        (("train/cat/1.jpg", "val/cat/2.jpg"), "has only the class cat"),
    ],
    ids=["empty", "no test split", "other classes", "empty class", "one class"],
)
def test_a_directory_that_cannot_be_used_is_refused(tmp_path, names, message):
    touch(tmp_path, *names)
    with pytest.raises(UserError, match=message):
        read_labelled(tmp_path)


def test_what_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such directory or table"):
        read_labelled(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dog_test": "3 1\n5 1\n"}, "dog_test.txt lists other images"),
        ({"dog_test": "3 1\n4 2\n"}, "dog_test.txt, line 2: expected an image and 1, 0 or -1"),
        ({"owl_trainval": "1 1\n2 1\n"}, "owl_test.txt is missing"),
    ],
)
def test_a_voc_tree_that_cannot_be_used_is_refused(tmp_path, changed, message):
    voc(tmp_path, **VOC | changed)
    with pytest.raises(UserError, match=message):
        read_labelled(tmp_path)


def test_coco_splits_without_a_common_category_are_refused(tmp_path):
    coco(tmp_path, {"train": [(1, 7)], "val": [(1, 9)]})
    with pytest.raises(UserError, match="no category has images in both splits"):
        read_labelled(tmp_path)
