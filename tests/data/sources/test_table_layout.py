"""Tables as people have them: other names, separators and encodings, one table for all splits."""

import json

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from virtex.data.plain_text import text_lines
from virtex.data.sources.table import TableCaptions
from virtex.data.sources.table_layout import TableLayout
from virtex.errors import UserError

GERMAN = 'Dateiname;Befund\na.jpg;Größe unauffällig\nb.jpg;"Näheres; später"\n'
NAMED = TableLayout(image="Dateiname", caption="Befund", separator=";", encoding="cp1252")


def captions(root, layout, split="train"):
    records = TableCaptions(str(root), split, "error", layout)
    return {record.image.name: record.captions for record in records}


def test_a_german_table_is_read_as_it_is_described(tmp_path):
    (tmp_path / "train.csv").write_bytes(GERMAN.encode("cp1252"))
    assert captions(tmp_path, NAMED) == {
        "a.jpg": ("Größe unauffällig",),
        "b.jpg": ("Näheres; später",),
    }


def test_a_german_table_without_description_is_refused_with_all_that_it_needs(tmp_path):
    (tmp_path / "train.csv").write_bytes(GERMAN.encode("cp1252"))
    with pytest.raises(UserError) as caught:
        captions(tmp_path, TableLayout())
    separator, image, caption, encoding = str(caught.value).splitlines()[1:]
    assert "set DATA.SEPARATOR (--separator) to ';'" in separator
    assert "only 'Dateiname', 'Befund'" in image
    assert "DATA.COLUMNS.IMAGE (--image-column)" in image
    assert "DATA.COLUMNS.CAPTION (--caption-column)" in caption
    assert "line 2 is not UTF-8" in encoding
    assert "DATA.ENCODING (--encoding)" in encoding


def write_table(path, rows, separator=","):
    """Rows of {name: value} as the kind of table that the path names; values need no quotes."""
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [rows[0], *(row.values() for row in rows)]
        path.write_text("".join(separator.join(map(str, line)) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("name", "separator"),
    [("a.csv", "|"), ("a.csv", "\t"), ("a.tsv", ";"), ("a.jsonl", None), ("a.parquet", None)],
)
def test_columns_are_named_alike_in_every_kind_of_table(tmp_path, name, separator):
    rows = [
        {"n": n, "caption": "not this", "file": f"{n}.jpg", "words": f"words {n}"} for n in (5, 3)
    ]
    write_table(tmp_path / name, rows, separator)
    layout = TableLayout(image="file", caption="words", image_id="n", separator=separator)
    records = TableCaptions(str(tmp_path / name), None, "error", layout)
    found = [(record.image_id, record.image.name, *record.captions) for record in records]
    assert found == [(3, "3.jpg", "words 3"), (5, "5.jpg", "words 5")]
    assert records.report == ()


def test_a_guessed_name_is_reported(tmp_path):
    (tmp_path / "train.csv").write_text("path,title\na,one\n")
    report = TableCaptions(str(tmp_path), "train").report
    assert report == (
        "the column 'path' is taken for the image's path",
        "the column 'title' is taken for the caption",
    )


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (TableLayout(image="file"), "no column 'file', only 'image', 'caption', 'split'; set DATA"),
        (TableLayout(group="patient"), r"no column 'patient', .* DATA\.GROUP_COLUMN \(--group"),
        (TableLayout(encoding="ascii"), "line 3 is not ascii text"),
    ],
)
def test_a_wrong_description_is_refused_with_the_setting(tmp_path, layout, reason):
    (tmp_path / "train.csv").write_text("image,caption,split\na,b,train\nc,é,val\n")
    with pytest.raises(UserError, match=reason):
        TableCaptions(str(tmp_path), "train", "error", layout)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_separator_is_refused_where_there_is_none(tmp_path, kind):
    write_table(tmp_path / f"train.{kind}", [{"image": "a", "caption": "b"}])
    with pytest.raises(UserError, match=r"DATA\.SEPARATOR .*has no separator; remove"):
        captions(tmp_path, TableLayout(separator=";"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-le", "cp1252", "shift_jis"])
@settings(max_examples=12, deadline=None)
@given(texts=st.lists(st.sampled_from(["a", "", "b c\r", "é", "ボ", "｡"])))
def test_lines_are_those_of_the_decoded_text(tmp_path_factory, encoding, texts):
    path = tmp_path_factory.getbasetemp() / f"{encoding}.txt"
    content = "\n".join(texts).encode(encoding, "replace")
    path.write_bytes(content)
    whole = content.decode(encoding)
    lines = [line for _, line in text_lines(path, encoding)]
    assert "".join(lines) == whole
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines[:-1])


@pytest.mark.parametrize(
    ("encoding", "content", "reason"),
    [
        ("utf-16", "a\nb".encode("utf-16") + b"\x00", "line 2 is not utf-16 text"),
        ("utf-16", b"\xff\xfea\0\n\0" + b"\x00\xd8\n\0", "line 2 is not utf-16 text"),
        ("utf-16", ("ab\n" * 30_000).encode("utf-16") + b"\x00\xdc", "line 30001 is not utf-16"),
        ("cp1252", b"a\nb\x81", "line 2 is not cp1252 text: .*0x81"),
        ("cp1252", "a".encode("utf-16"), "line 1 is not cp1252 text: it holds zero bytes"),
    ],
)
def test_text_of_another_encoding_is_refused_with_its_line(tmp_path, encoding, content, reason):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=reason):
        list(text_lines(tmp_path / "a.txt", encoding))


SPLIT = "image,caption,set,patient\n" + "".join(
    f"{n}.jpg,caption {n},{name},p{n // 2}\n"
    for n, name in enumerate(["train", "TRAIN", "val", "Validation", "test", "", "train", "train"])
)


@pytest.mark.parametrize("whole", [True, False])
def test_one_table_has_the_splits_of_its_column(tmp_path, whole):
    (tmp_path / "all.csv").write_text(SPLIT)
    root = tmp_path / "all.csv" if whole else tmp_path
    layout = TableLayout(split="set")
    assert sorted(captions(root, layout)) == ["0.jpg", "1.jpg", "6.jpg", "7.jpg"]
    assert sorted(captions(root, layout, "val")) == ["2.jpg", "3.jpg"]
    report = TableCaptions(str(root), "train", "error", layout).report
    assert report == ("2 rows of other splits are not used: 'test' (1), '' (1)",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b,training\nc,d,test\n", "no row .* 'set' is of the split 'val'; .*'training' .1., 't"),
        ("a,b,train\na,c,val\n", "1 images have rows of both splits in the column 'set'"),
    ],
)
def test_a_column_that_gives_no_split_is_refused(tmp_path, text, reason):
    (tmp_path / "all.csv").write_text("image,caption,set\n" + text)
    with pytest.raises(UserError, match=reason):
        captions(tmp_path, TableLayout(split="set"), "val")


def test_one_table_without_a_column_of_splits_is_refused_with_both_remedies(tmp_path):
    (tmp_path / "all.csv").write_text(SPLIT)
    with pytest.raises(UserError, match=r"COLUMNS\.SPLIT .*DATA\.VAL_SHARE"):
        captions(tmp_path / "all.csv", TableLayout())


def test_defects_of_other_splits_are_not_counted(tmp_path):
    (tmp_path / "all.csv").write_text("image,caption,set\na,,test\nb,c,train\nd,,val\n")
    layout = TableLayout(split="set")
    assert captions(tmp_path, layout) == {"b": ("c",)}
    with pytest.raises(UserError, match=r"1 captions are blank \(line 4\)"):
        captions(tmp_path, layout, "val")


def test_an_image_with_two_groups_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("image,caption,g\na,b,x\na,c,y\n")
    with pytest.raises(UserError, match=r"two groups in the column 'g': x \(line 2\) and y \(line"):
        TableCaptions(str(tmp_path), "train", "error", TableLayout(group="g"))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_one_caption_may_be_of_several_images(tmp_path, kind):
    lists = [["a.jpg", "b/b.jpg"], ["c.jpg"]]
    rows = [
        {"image": "|".join(images) if kind == "csv" else images, "caption": f"caption {n}"}
        for n, images in enumerate(lists)
    ]
    write_table(tmp_path / f"train.{kind}", rows)
    (tmp_path / "a.jpg").write_bytes(b"-")
    layout = TableLayout(image_separator="|" if kind == "csv" else None)
    records = TableCaptions(str(tmp_path), "train", "error", layout)
    found = {record.captions: (record.image, *record.others) for record in records}
    assert found == {
        (f"caption {n}",): tuple(tmp_path / image for image in images)
        for n, images in enumerate(lists)
    }
    assert records.report == ("1 rows have several images, of which one is drawn at a time",)
    assert set(records.missing(range(2))) == {tmp_path / "b/b.jpg", tmp_path / "c.jpg"}


def test_a_value_with_an_empty_path_among_several_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("image,caption\na.jpg|,b\n")
    with pytest.raises(
        UserError, match=r"line 2: 'image' must be the path of an image, not 'a\.jpg\|'"
    ):
        captions(tmp_path, TableLayout(image_separator="|"))


def test_quoted_names_with_another_separator_are_refused_with_the_setting(tmp_path):
    (tmp_path / "train.csv").write_text('"image";"caption"\n"a";"b"\n')
    with pytest.raises(UserError, match=r"line 1 is malformed.*set DATA\.SEPARATOR.*by ';'"):
        captions(tmp_path, TableLayout())
    assert captions(tmp_path, TableLayout(separator=";")) == {"a": ("b",)}


def test_paths_are_relative_to_the_directory_of_images(tmp_path):
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "train.csv"
    table.write_text(f"image,caption\na/1.png,a dog\n{tmp_path}/images/2.png,a cat\n")
    for directory in ("../images", str(tmp_path / "images")):
        layout = TableLayout(image_directory=directory)
        records = TableCaptions(str(table), None, "error", layout)
        paths = {records.path(index).resolve() for index in range(2)}
        assert paths == {tmp_path / "images" / "a" / "1.png", tmp_path / "images" / "2.png"}
    with pytest.raises(UserError, match=r"is not a file below .*--image-directory"):
        TableCaptions(str(table), None, "error", TableLayout(image_directory="a"))
