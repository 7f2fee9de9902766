"""Labelled images as records: their ids, labels, fingerprints and contents."""

import numpy as np
import pytest
from PIL import Image

from virtex.data.contents import contents, differences
from virtex.data.records import Record
from virtex.data.sources.labelled import read_labelled
from virtex.data.sources.labelled_records import LabelledRecords
from virtex.errors import UserError


def table(directory, rows, columns="cat,dog"):
    directory.mkdir(exist_ok=True)
    for row in rows:
        Image.new("RGB", (4, 4)).save(directory / row.partition(",")[0])
    path = directory / "labels.csv"
    path.write_text("\n".join([f"image,split,{columns}", *rows, ""]), encoding="utf-8")
    return path


ROWS = ["a.png,train,1,0", "b.png,train,,1", "c.png,val,1,0", "d.png,val,0,1"]


def both(path):
    data = read_labelled(path)
    return [LabelledRecords(data, split) for split in ("train", "test")]


def whole(path):
    train, test = both(path)
    return contents(train, train, test, window=1)


def test_records_hold_the_labels_of_their_images_in_order_of_ids(tmp_path):
    train, _ = both(table(tmp_path, ROWS))
    found = {record.image.name: record.labels for record in map(train.__getitem__, range(2))}
    assert found == {"a.png": (1, -1), "b.png": (0, 1)}
    assert train.image_ids.tolist() == sorted(train.image_ids.tolist())
    assert [train[i].image_id for i in range(2)] == train.image_ids.tolist()
    with pytest.raises(IndexError):
        train[2]


def test_one_label_is_the_index_of_its_class(tmp_path):
    rows = ["a.png,train,dog", "b.png,train,cat", "c.png,val,dog", "d.png,val,cat"]
    train, test = both(table(tmp_path, rows, "animal"))
    named = [record for split in (train, test) for record in map(split.__getitem__, range(2))]
    assert {record.image.name: record.labels for record in named} == {
        **{"a.png": (1,), "b.png": (0,), "c.png": (1,), "d.png": (0,)}
    }
    assert all(isinstance(record, Record) for record in named)


def test_a_moved_data_set_has_the_same_contents(tmp_path):
    before = whole(table(tmp_path / "a", ROWS))
    after = whole(table(tmp_path / "b", [ROWS[1], ROWS[0], *ROWS[2:]]))
    assert before == after


@pytest.mark.parametrize(
    ("row", "change"), [("b.png,train,0,1", "with the same ids"), ("e.png,train,,1", "other ids")]
)
def test_another_label_and_another_image_are_changes(tmp_path, row, change):
    before, fingerprint = whole(table(tmp_path / "a", ROWS)), both(tmp_path / "a/labels.csv")[0]
    after = whole(table(tmp_path / "b", [ROWS[0], row, *ROWS[2:]]))
    [line] = differences(before, after)
    assert change in line
    assert both(tmp_path / "b/labels.csv")[0].fingerprint != fingerprint.fingerprint


def test_other_names_of_classes_are_another_fingerprint(tmp_path):
    one, other = (both(table(tmp_path, ROWS, names))[0] for names in ("cat,dog", "cat,cow"))
    assert one.fingerprint != other.fingerprint


def test_an_image_that_is_listed_twice_has_two_ids(tmp_path):
    train, _ = both(table(tmp_path, [*ROWS, ROWS[0]]))
    assert len(set(train.image_ids.tolist())) == len(train) == 3
    rows = np.array([train[i].image.name for i in range(3)])
    assert (rows == "a.png").sum() == 2


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / split / name / "a.png")
    bad = tmp_path / "train" / "cat" / "\udcff.png"
    (tmp_path / "train" / "cat" / "a.png").rename(bad)
    with pytest.raises(UserError, match="is not UTF-8; rename it"):
        both(tmp_path)
