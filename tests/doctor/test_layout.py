"""The layouts that are recognised, and what is said of those that are not."""

import json
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doctor.data_sets import (
    ENCODINGS,
    TEXTS,
    files_of,
    write_coco,
    write_images,
    write_table,
)

from virtex.build.sources import open_splits
from virtex.doctor.layout import detect_data
from virtex.errors import UserError


def opened(detected):
    """All captions of both splits, as a run reads them."""
    splits = open_splits(detected.data(), "captions")
    return [
        caption
        for records in (splits.training, splits.validation)
        for position in range(len(records))
        for caption in records[position].captions
    ]


def refusal(path, **given):
    with pytest.raises(UserError) as caught:
        detect_data(str(path), {f"DATA.{key}": value for key, value in given.items()})
    return str(caught.value)


@pytest.mark.parametrize(("language", "encoding"), ENCODINGS)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_table_is_read_in_the_encoding_and_with_the_separator_it_has(
    tmp_path, language, encoding, separator
):
    images, captions, text = TEXTS[language]
    texts = [f"{text} {index}" for index in range(40)]
    names = write_images(tmp_path, 40)
    rows = [(images, captions), *zip(names, texts, strict=True)]
    write_table(tmp_path / "daten.csv", rows, separator, encoding)
    before = files_of(tmp_path)
    detected = detect_data(str(tmp_path), {})
    assert detected.settings["DATA.COLUMNS.IMAGE"] == images
    assert detected.settings["DATA.COLUMNS.CAPTION"] == captions
    assert sorted(opened(detected)) == sorted(texts)
    assert files_of(tmp_path) == before
    certain = encoding.startswith("utf")
    assert any("guess" in note and text[:9] in note for note in detected.notes) is not certain


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_columns_are_found_by_their_content_whatever_they_are_called(tmp_path, kind):
    names = write_images(tmp_path / "bilder", 40)
    rows = [("nr", "a", "b", "c")]
    rows += [(str(i), f"bilder/{name}", "x", f"a dog no {i}") for i, name in enumerate(names)]
    if kind == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.Table.from_pylist(
            [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
        )
        pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "t.parquet")
    else:
        write_table(tmp_path / f"t{kind}", rows, "\t" if kind == ".tsv" else ",")
    detected = detect_data(str(tmp_path), {})
    assert detected.settings["DATA.COLUMNS.IMAGE"] == "a"
    assert detected.settings["DATA.COLUMNS.CAPTION"] == "c"
    assert len(opened(detected)) == 40


def test_splits_groups_and_several_images_are_found(tmp_path):
    names = write_images(tmp_path, 12)
    rows = [("path", "Patient_ID", "split", "report")]
    for index in range(0, 12, 2):
        split = "val" if index > 7 else "Train"
        rows.append(("|".join(names[index : index + 2]), str(index // 4), split, "no finding here"))
    write_table(tmp_path / "all.csv", rows)
    detected = detect_data(str(tmp_path), {})
    assert (
        detected.settings.items()
        >= {
            "DATA.COLUMNS.SPLIT": "split",
            "DATA.GROUP_COLUMN": "Patient_ID",
            "DATA.IMAGE_SEPARATOR": "|",
        }.items()
    )
    assert "DATA.VAL_SHARE" not in detected.settings
    splits = open_splits(detected.data(), "captions")
    assert (len(splits.training), len(splits.validation)) == (4, 2)


def test_a_column_of_splits_without_validation_is_spoken_of(tmp_path):
    rows = [("image", "split", "caption")]
    for index, name in enumerate(write_images(tmp_path, 20)):
        rows.append((name, "test" if index % 2 else "train", "a cat sits"))
    write_table(tmp_path / "all.csv", rows)
    detected = detect_data(str(tmp_path), {})
    assert "DATA.COLUMNS.SPLIT" not in detected.settings
    assert any("'split' has rows of 'test', 'train'" in note for note in detected.notes)


def test_tables_of_splits_are_read_together(tmp_path):
    rows = [("image", "caption"), *((name, "a cat sits") for name in write_images(tmp_path))]
    write_table(tmp_path / "train.csv", rows)
    assert "DATA.VAL_SHARE" in detect_data(str(tmp_path), {}).settings
    write_table(tmp_path / "val.csv", rows)
    write_table(tmp_path / "test.csv", rows)
    detected = detect_data(str(tmp_path), {})
    assert detected.settings["DATA.ROOT"] == str(tmp_path)
    assert "DATA.VAL_SHARE" not in detected.settings
    assert len(opened(detected)) == 12


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_a_table_in_the_directory_of_each_split_is_read(tmp_path, validation):
    for split in ("train", validation):
        names = write_images(tmp_path / split)
        rows = [("file_name", "text"), *((name, "a cat sits on a mat") for name in names)]
        write_table(tmp_path / split / "metadata.csv", rows)
    detected = detect_data(str(tmp_path), {})
    assert detected.settings["DATA.ROOT"] == str(tmp_path)
    assert "DATA.VAL_SHARE" not in detected.settings
    splits = open_splits(detected.data(), "captions")
    assert splits.training[0].image.parent == tmp_path / "train"
    assert splits.validation[0].image.parent == tmp_path / validation


def test_a_validation_split_with_another_name_is_spoken_of(tmp_path):
    for split in ("train", "validation"):
        for name in write_images(tmp_path / split):
            (tmp_path / split / name).with_suffix(".txt").write_text("a dog runs")
    detected = detect_data(str(tmp_path), {})
    assert "DATA.VAL_SHARE" in detected.settings
    assert any("validation looks like" in note for note in detected.notes)


def test_of_several_tables_the_one_with_images_and_captions_is_used(tmp_path):
    rows = [("image", "caption"), *((name, "a cat sits") for name in write_images(tmp_path))]
    write_table(tmp_path / "b.csv", rows)
    write_table(tmp_path / "a.csv", [("key", "value"), ("camera", "a long text of the camera")])
    detected = detect_data(str(tmp_path), {})
    assert detected.settings["DATA.ROOT"] == str(tmp_path / "b.csv")
    assert any("a.csv" in note for note in detected.notes)
    write_table(tmp_path / "c.csv", rows)
    message = refusal(tmp_path)
    assert "2 tables" in message
    assert "c.csv" in message
    assert detect_data(str(tmp_path / "c.csv"), {}).settings["DATA.ROOT"] == str(tmp_path / "c.csv")


def test_given_settings_come_first(tmp_path):
    rows = [("image", "caption", "note")]
    rows += [(name, "a cat sits", "one two three four") for name in write_images(tmp_path)]
    write_table(tmp_path / "t.csv", rows, ";")
    given = {"DATA.COLUMNS.CAPTION": "note", "DATA.VAL_SHARE": 0.4, "DATA.SEPARATOR": ";"}
    detected = detect_data(str(tmp_path), given)
    assert detected.settings.items() >= given.items()
    assert "no column 'nota'" in refusal(tmp_path, **{"COLUMNS.CAPTION": "nota"})
    labels = [("image", "label"), *((name, "cat") for name in write_images(tmp_path))]
    write_table(tmp_path / "t.csv", labels)
    given = {"DATA.COLUMNS.CAPTION": "label"}
    assert detect_data(str(tmp_path), given).settings["DATA.COLUMNS.CAPTION"] == "label"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "cp932"])
def test_folders_of_texts_are_read(tmp_path, encoding):
    text = TEXTS["japanese" if encoding == "cp932" else "german"][2]
    for split in ("train", "val"):
        for name in write_images(tmp_path / split):
            (tmp_path / split / name).with_suffix(".txt").write_text(text, encoding)
    detected = detect_data(str(tmp_path), {})
    assert detected.settings["DATA.FORMAT"] == "folder"
    assert opened(detected) == [text] * 12
    assert "DATA.VAL_SHARE" in detect_data(str(tmp_path / "train"), {}).settings


@pytest.mark.parametrize("in_splits", [True, False])
def test_shards_are_read_by_the_key_of_their_captions(tmp_path, in_splits):
    images = tmp_path / "images"
    names = write_images(images)
    root = tmp_path / "shards"
    for split in ("train", "val"):
        path = root / split / "0.tar" if in_splits else root / f"set-{split}-0.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as shard:
            for name in names:
                text = images / f"{name[:-4]}.json"
                text.write_text(json.dumps({"source": "web", "TEXT": "a dog runs", "size": 3}))
                for member in (images / name, text):
                    shard.add(member, member.name)
    before = files_of(tmp_path)
    detected = detect_data(str(root), {})
    assert files_of(tmp_path) == before
    assert "DATA.VAL_SHARE" not in detected.settings
    assert opened(detected) == ["a dog runs"] * 12


def test_coco_is_recognised(tmp_path):
    coco_root = write_coco(tmp_path)
    detected = detect_data(str(coco_root), {})
    assert detected.settings == {"DATA.FORMAT": "coco", "DATA.ROOT": str(coco_root)}
    assert opened(detected)


def test_images_without_captions_are_refused_with_what_is_there(tmp_path):
    assert "is empty" in refusal(tmp_path)
    for label in ("cats", "dogs"):
        write_images(tmp_path / label)
    message = refusal(tmp_path)
    assert "12 .png" in message
    assert "look like classes (cats, dogs)" in message
    (tmp_path / "captions.xlsx").write_bytes(b"PK")
    assert "Save the spreadsheet as CSV" in refusal(tmp_path)


def test_tables_that_cannot_be_used_are_refused_with_the_reason(tmp_path):
    names = write_images(tmp_path)
    path = tmp_path / "t.csv"
    write_table(path, [("image", "label"), *((name, "cat") for name in names)])
    assert "no column with texts of several words" in refusal(tmp_path)
    write_table(path, [(name, "a cat sits") for name in names])
    assert "no first row with the names" in refusal(tmp_path)
    write_table(path, [("image", "caption"), ("elsewhere/1.png", "a cat sits")])
    assert "'elsewhere/1.png'" in refusal(tmp_path)
    write_table(path, [("image", "caption"), ("0", "a cat sits")])
    assert "without their extensions" in refusal(tmp_path)
    write_table(path, [("url", "caption"), ("https://a.b/0.png", "a cat sits")])
    assert "download the images" in refusal(tmp_path)
    write_table(path, [("image", "image_id", "caption"), (names[0], "x1", "a cat sits")])
    assert "ids must be whole numbers" in refusal(tmp_path)
    path.write_bytes(b"")
    assert "is empty" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "nowhere")
    assert "is an address" in refusal("s3://bucket/data")


def test_a_directory_in_two_formats_needs_the_format(tmp_path):
    rows = [("image", "caption")]
    for name in write_images(tmp_path):
        (tmp_path / name).with_suffix(".txt").write_text("a dog runs")
        rows.append((name, "a cat sits"))
    write_table(tmp_path / "t.csv", rows)
    assert "table and folder; give --format" in refusal(tmp_path)
    for form in ("table", "folder"):
        assert detect_data(str(tmp_path), {"DATA.FORMAT": form}).settings["DATA.FORMAT"] == form
    assert "no tar shards" in refusal(tmp_path, FORMAT="shards")


def test_images_are_found_in_other_directories_than_that_of_the_table(tmp_path):
    names = write_images(tmp_path / "data" / "files" / "röntgen", 12)
    table = tmp_path / "data" / "t.csv"
    for prefix, directory in (
        ("", "files/röntgen"),
        ("röntgen/", "files"),
        (f"{tmp_path}/data/files/röntgen/", None),
    ):
        write_table(table, [("image", "caption"), *((prefix + n, "a cat sits") for n in names)])
        detected = detect_data(str(tmp_path / "data"), {"DATA.VAL_SHARE": 0.5})
        assert detected.settings.get("DATA.IMAGE_DIRECTORY") == directory
        splits = open_splits(detected.data(), "captions")
        assert splits.training.missing(range(len(splits.training))) == []


def test_absolute_paths_elsewhere_are_read_from_there(tmp_path):
    names = write_images(tmp_path / "images", 12)
    rows = [(f"{tmp_path}/images/{name}", "a cat sits") for name in names]
    write_table(tmp_path / "tables" / "t.csv", [("image", "caption"), *rows])
    detected = detect_data(str(tmp_path / "tables"), {"DATA.VAL_SHARE": 0.5})
    assert detected.settings["DATA.IMAGE_DIRECTORY"] == str(tmp_path / "images")
    splits = open_splits(detected.data(), "captions")
    assert splits.training.missing(range(len(splits.training))) == []


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet", "0.txt", "0.tar"])
@given(
    start=st.sampled_from([b"", b"\xff\xfe", b"image,caption\n0.png,", b'{"image": [1], "']),
    content=st.binary(max_size=80),
)
@settings(max_examples=25, deadline=None)
def test_any_content_is_read_or_refused(tmp_path_factory, name, start, content):
    root = tmp_path_factory.mktemp("any")
    write_images(root, 2, (4, 4))
    (root / name).write_bytes(start + content)
    with suppress(UserError):
        detect_data(str(root), {})
