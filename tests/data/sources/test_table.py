import csv
import json
import operator
import sys
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from virtex.data.records import Record
from virtex.data.sources.table import TableCaptions
from virtex.data.sources.table_rows import read_rows
from virtex.errors import UserError

ROWS = [
    {"image_id": 7, "image": "a/7.jpg", "caption": "b, with a comma"},
    {"image_id": -3, "image": "3.jpg", "caption": 'é "one"'},
    {"image_id": 7, "image": "./a/7.jpg", "caption": "two\nlines"},
]


def write(path, rows):
    """Dictionaries as a table of the kind that the name says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ","
            )
            writer.writeheader()
            writer.writerows(rows)


KINDS = ["csv", "tsv", "jsonl", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_an_image_are_one_record_in_order_of_ids(tmp_path, kind):
    write(tmp_path / f"train.{kind}", ROWS)
    records = TableCaptions(str(tmp_path), "train")
    assert list(records) == [
        Record(-3, tmp_path / "3.jpg", ('é "one"',)),
        Record(7, tmp_path / "a/7.jpg", ("b, with a comma", "two\nlines")),
    ]
    np.testing.assert_array_equal(records.image_ids, [-3, 7])
    assert records.report == ()
    with pytest.raises(IndexError):
        records[2]


@pytest.mark.parametrize("kind", KINDS)
def test_without_ids_they_depend_on_the_path_alone(tmp_path, kind):
    rows = [{"filepath": f"{n % 50}.jpg", "title": f"caption {n}"} for n in range(100)]
    write(tmp_path / f"train.{kind}", rows)
    write(tmp_path / f"val.{kind}", rows[::-1][:7])
    train = TableCaptions(str(tmp_path), "train")
    val = TableCaptions(str(tmp_path), "val")
    assert len(train) == 50
    assert (np.diff(train.image_ids) > 0).all()
    assert np.isin(val.image_ids, train.image_ids).all()
    for record in train:
        number = int(record.image.stem)
        assert record.captions == (f"caption {number}", f"caption {number + 50}")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_row_may_have_a_list_of_captions(tmp_path, kind):
    rows = [{"image": "a", "captions": ["one", "two"]}, {"image": "a", "captions": ["three"]}]
    write(tmp_path / f"train.{kind}", rows)
    (record,) = TableCaptions(str(tmp_path), "train")
    assert record.captions == ("one", "two", "three")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("table")


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"))


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.tuples(texts.filter(bool), texts), min_size=1, max_size=5))
def test_rows_come_back_as_they_were_written(directory, kind, pairs):
    path = directory / f"a.{kind}"
    write(path, [{"image": image, "caption": caption} for image, caption in pairs])
    assert [(row.image, *row.captions) for row in read_rows(path)] == pairs


def test_spawned_processes_share_the_memory(tmp_path):
    write(tmp_path / "train.csv", ROWS)
    records = TableCaptions(str(tmp_path), "train")
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(operator.getitem, (records, 1)) == records[1]
    assert len(ForkingPickler.dumps(records)) < 4000


def test_paths_may_be_absolute_below_the_root(tmp_path, monkeypatch):
    write(tmp_path / "train.csv", [{"image": str(tmp_path / "b" / "a.jpg"), "caption": "a"}])
    assert TableCaptions(str(tmp_path), "train")[0].image == tmp_path / "b/a.jpg"
    monkeypatch.chdir(tmp_path)
    assert TableCaptions(".", "train")[0].image.resolve() == tmp_path / "b/a.jpg"


@pytest.mark.parametrize(
    "image", ["../a.jpg", "b/../../a.jpg", "/etc/a.jpg", ".", "..", "a\\u0000"]
)
def test_paths_elsewhere_are_refused(tmp_path, image):
    (tmp_path / "train.jsonl").write_text(f'{{"image": "{image}", "caption": "a"}}')
    with pytest.raises(UserError, match=r"train\.jsonl, line 1: .* is not a file below .*link"):
        TableCaptions(str(tmp_path), "train")


def test_the_fingerprint_is_of_ids_and_captions(tmp_path):
    def fingerprint(rows):
        write(tmp_path / "train.csv", rows)
        return TableCaptions(str(tmp_path), "train").fingerprint

    first = fingerprint(ROWS)
    assert first == fingerprint([row | {"more": 1} for row in ROWS])
    assert first != fingerprint(ROWS[:2])
    assert first != fingerprint([row | {"image_id": row["image_id"] + 1} for row in ROWS])


BLANK = b"image,caption\na,one\nb, \na,\nc,\n"


def test_blank_captions_are_an_error_that_names_their_lines(tmp_path):
    (tmp_path / "train.csv").write_bytes(BLANK)
    expected = (
        r"2 images have no caption \(line 3, line 5\);"
        r" 3 captions are blank \(line 3, line 4, line 5\)\. Correct .*ON_BAD_IMAGE"
    )
    with pytest.raises(UserError, match=expected):
        TableCaptions(str(tmp_path), "train")
    records = TableCaptions(str(tmp_path), "train", "skip")
    assert [record.captions for record in records] == [("one",)]
    assert len(records.report) == 2


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("csv", b"", "has no column of the image's path, only nothing; name it 'image' "),
        ("csv", b"id,caption\n", "no column of the image's path, only 'id', 'caption'"),
        ("csv", b"image,words\n", "no column of the caption, .* 'caption' .or title, text"),
        ("csv", b"image,captions\n", "no column of the caption"),
        ("csv", b"image,title,text\n", "'title', 'text' may all be the caption"),
        ("csv", b"image,image,caption\n", "'image', 'image' may all be the image's path"),
        ("csv", b"image,caption\n", "holds no image with a caption"),
        ("csv", b"image,caption\na,b\nc\n", ", line 3: the row has 1 values for 2 columns"),
        ("csv", b"image,caption\na,b,c\n", "line 2: the row has 3 values for 2 .*quotes"),
        ("csv", b"image,caption\n,b\n", "line 2: 'image' must be the path of an image, not ''"),
        ("csv", b'image,caption\na,"b\n', "line 2 is malformed: .* must be in double quotes"),
        ("csv", b'image,caption\na,"b\nc,d\n', "line 3 is malformed: .* begins in line 2; a value"),
        ("csv", b'image,caption\na,"b" c\n', "line 2 is malformed: .* must be in double quotes"),
        ("csv", "image,caption\na,b\n".encode("utf-16"), "line 1 is not UTF-8 .* of UTF-16;"),
        ("csv", "image,caption\na,b\n".encode("utf-16-le"), "line 1 is not UTF-8 .* zero bytes"),
        ("jsonl", b'{"image": "a", "caption": "\xe9"}', "line 1 is not UTF-8 .* 0xe9; convert it"),
        ("csv", b"image,caption\na,b\na,\xff\n", "line 3 is not UTF-8 text: .*convert"),
        ("csv", b"image,caption,image_id\na,b,1.0\n", "line 2: 'image_id' must be .*not '1.0'"),
        ("csv", b"image,caption,image_id\na,b,9223372036854775808\n", "whole number of 64"),
        ("csv", b"image,caption,image_id\na,b,1\nb,c,1\n", r"id 1 .* 'a' .line 2. .* 'b' .line 3"),
        ("csv", b"image,caption,image_id\na,b,1\na,c,2\n", r"'a' has .* 1 .line 2. and 2 .line 3"),
        ("csv", b"image,caption\nhttp://x/a.jpg,b\n", "line 2: .* is an address; download"),
        ("jsonl", b'{"image": "a", "caption": "b"}\n{"image"\n', "line 2 is not well-formed JSON"),
        ("jsonl", b"[1]\n", "line 1: expected a JSON object"),
        ("jsonl", b"[" * 100_000, "line 1 is not well-formed JSON"),
        ("jsonl", b'{"image": "a", "caption": 5}\n', "line 1: 'caption' must be a text, not 5"),
        ("jsonl", b'{"image": "a", "captions": "b"}\n', "'captions' must be a list of texts, not"),
        ("jsonl", b'{"image": "a", "captions": [1]}\n', "'captions' must be a list of texts, not"),
        ("jsonl", b'{"image": "a", "captions": []}\n', "1 images have no caption|no image with"),
        ("jsonl", b'{"image": 3, "caption": "b"}\n', "'image' must be the path of an image, not 3"),
        ("jsonl", b'{"image": "a", "caption": "b", "image_id": true}', "'image_id' must be"),
        ("parquet", b"PAR1", "is not a Parquet file that can be read"),
    ],
)
def test_broken_tables_are_an_error_with_the_line(tmp_path, name, content, reason, on_bad_image):
    (tmp_path / f"train.{name}").write_bytes(content)
    with pytest.raises(UserError, match=rf"(?s)train\.{name}.*{reason}"):
        TableCaptions(str(tmp_path), "train", on_bad_image)


@pytest.mark.parametrize("missing", ["null", "NaN", None])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_null_captions_are_an_error_or_left_out_and_counted(tmp_path, kind, missing):
    rows = [{"image": "a", "caption": "one"}, {"image": "a"}, {"image": "b"}]
    if kind == "parquet":
        write(tmp_path / "train.parquet", [{"caption": None} | row for row in rows])
    else:
        lines = [json.dumps(row) for row in rows]
        if missing is not None:
            lines = [line.replace("}", f', "caption": {missing}}}') for line in lines]
            lines[0] = json.dumps(rows[0])
        (tmp_path / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"1 images have .* 2 captions are null \((line|row) 2, "):
        TableCaptions(str(tmp_path), "train")
    records = TableCaptions(str(tmp_path), "train", "skip")
    assert [record.captions for record in records] == [("one",)]
    assert len(records.report) == 2


def test_null_in_a_list_of_captions_is_counted_and_so_is_a_null_list(tmp_path):
    rows = [{"image": "a", "captions": ["one", None]}, {"image": "b", "captions": None}]
    write(tmp_path / "train.jsonl", rows)
    records = TableCaptions(str(tmp_path), "train", "skip")
    assert [record.captions for record in records] == [("one",)]
    assert records.report == (
        "1 images have no caption (line 2)",
        "2 captions are null (line 1, line 2)",
    )


def test_a_broken_row_of_parquet_is_named(tmp_path):
    write(tmp_path / "train.parquet", [*ROWS, {"image": None, "image_id": 1, "caption": "a"}])
    with pytest.raises(UserError, match=r"train\.parquet, row 4: 'image' must be the path"):
        TableCaptions(str(tmp_path), "train")


def test_half_a_surrogate_pair_becomes_a_question_mark(tmp_path):
    (tmp_path / "train.jsonl").write_text(r'{"image": "\ud800", "caption": "\ud800"}')
    assert TableCaptions(str(tmp_path), "train")[0].captions == ("?",)


LONE = ["a.jpg", "b", "c/1.jpg", '"open, says', "c/2.jpg", "two", "c/3.jpg", 'tea"', "d.jpg", "e"]


def lone(delimiter, names="image caption"):
    """Rows of which two have a quotation mark that nobody meant as one of the table's."""
    pairs = zip([names.split()[0], *LONE[::2]], [names.split()[1], *LONE[1::2]], strict=True)
    reverse = names.startswith("caption")
    swapped = [pair[::-1] if reverse and n else pair for n, pair in enumerate(pairs)]
    return "".join(delimiter.join(pair) + "\n" for pair in swapped)


@pytest.mark.parametrize("names", ["image caption", "caption image"])
@pytest.mark.parametrize("closed", [True, False])
def test_an_unquoted_tsv_file_is_read_literally(tmp_path, names, closed):
    text = lone("\t", names) if closed else lone("\t", names).replace('tea"', "tea")
    (tmp_path / "train.tsv").write_text(text)
    records = TableCaptions(str(tmp_path), "train")
    found = {str(record.image.relative_to(tmp_path)): record.captions for record in records}
    captions = LONE[1::2] if closed else [text.replace('tea"', "tea") for text in LONE[1::2]]
    assert found == {name: (text,) for name, text in zip(LONE[::2], captions, strict=True)}


def test_quotation_marks_at_the_beginning_of_a_tsv_value_are_kept_where_it_is_not_quoted(tmp_path):
    (tmp_path / "train.tsv").write_text('image\tcaption\na\t"open" says\nb\t"shut"\n')
    records = TableCaptions(str(tmp_path), "train")
    assert {record.captions for record in records} == {('"open" says',), ('"shut"',)}


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("csv", lone(",").replace("open, says", "open says")),
        ("csv", lone(",", "caption image").replace("open, says", "open says")),
        ("csv", lone(",").replace("1.jpg", "1").replace("2.jpg", "2").replace("3.jpg", "3")),
        ("tsv", lone("\t") + 'f.jpg\t"a ""b"" c"\n'),
        ("tsv", lone("\t") + "f.jpg\ta\tb\n"),
    ],
)
def test_rows_that_a_quotation_mark_swallows_are_an_error(tmp_path, kind, text, on_bad_image):
    (tmp_path / f"train.{kind}").write_text(text)
    message = (
        rf"train\.{kind}, line 3: a quotation mark opens a value that ends in line 5, but line"
    )
    with pytest.raises(UserError, match=rf"{message} 4 in it is a row.*in double quotes"):
        TableCaptions(str(tmp_path), "train", on_bad_image)


def test_long_captions_are_read_and_the_limit_of_the_csv_module_is_restored(tmp_path):
    before = csv.field_size_limit()
    for kind in KINDS:
        directory = tmp_path / kind
        directory.mkdir()
        write(directory / f"train.{kind}", [{"image": "a", "caption": "very " * 60_000 + "long"}])
        assert len(TableCaptions(str(directory), "train")[0].captions[0]) == 300_004
        assert csv.field_size_limit() == before


def test_a_split_has_exactly_one_table(tmp_path):
    with pytest.raises(UserError, match=r"no table of the split 'val'.*val\.csv, .*extra 'table'"):
        TableCaptions(str(tmp_path), "val")
    write(tmp_path / "val.csv", ROWS)
    write(tmp_path / "val.jsonl", ROWS)
    with pytest.raises(UserError, match=r"several tables of one split: val\.csv, val\.jsonl"):
        TableCaptions(str(tmp_path), "val")


def test_parquet_without_its_package_names_the_extra(tmp_path, monkeypatch):
    write(tmp_path / "train.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"train\.parquet: .*virtex-pretraining\[table\]"):
        TableCaptions(str(tmp_path), "train")
