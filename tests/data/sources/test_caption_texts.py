import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.data.sources.caption_texts import read_captions
from virtex.errors import UserError

captions = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")), max_size=5)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("captions")


def read(path, column="caption"):
    return list(read_captions(path, column))


@given(captions)
def test_coco_annotations_give_their_captions(directory, captions):
    path = directory / "a.json"
    content = {"images": [{"id": 1}], "annotations": [{"caption": text} for text in captions]}
    path.write_text(json.dumps(content))
    assert read(path) == captions


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("A.TSV", "\t")])
@given(captions=captions)
def test_tables_give_the_named_column(directory, name, delimiter, captions):
    path = directory / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["image", "caption", "source"])
        writer.writerows([f"{n}.jpg", text, "web"] for n, text in enumerate(captions))
    assert read(path) == captions
    assert read(path, "source") == ["web"] * len(captions)


def test_json_lines_give_all_captions(directory):
    path = directory / "a.jsonl"
    rows = [{"image": "1.jpg", "captions": ["a", "é"]}, {"image": "2.jpg", "captions": [None]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read(path) == ["a", "é", ""]
    with pytest.raises(UserError, match=r"--column is for \.csv and \.tsv"):
        read(path, "captions")


def test_text_gives_a_caption_a_line(directory):
    path = directory / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa dog\r\n\n  a cat, \xc3\xa9\nold\rlast")
    assert read(path) == ["a dog", "", "  a cat, é", "old", "last"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("b.csv", b"id,text\n1,a\n", "has no column 'caption', only 'id', 'text'; .*--column"),
        ("b.csv", b"", "has no column 'caption', only nothing"),
        ("b.csv", b"id,caption\n1,a\n2\n", "line 3: the row ends before column 'caption'"),
        ("b.csv", b'caption\n"a dog\n', "is malformed"),
        ("b.csv", b"caption\n\xff\n", "is not UTF-8"),
        ("b.txt", b"a\nb\xe9\n", "line 2 is not UTF-8 .* byte 0xe9; convert it to UTF-8 first"),
        ("b.txt", "a".encode("utf-16"), "line 1 is not UTF-8 text: .* of UTF-16; convert"),
        ("b.txt", "a".encode("utf-16-le"), "line 1 is not UTF-8 text: it holds zero bytes"),
        (
            "b.json",
            b'{"annotations": [{"caption": "\xe9"}]}',
            "at byte 30, after .*caption.* 0xe9; convert it",
        ),
        ("b.json", b'{"annotations": [{"image_id": 1}]}', "needs 'caption', a string"),
        ("b.json", b'{"annotations": [', "is not a well-formed JSON object"),
        ("b.parquet", b"", "is not a Parquet file"),
        ("b.xml", b"", "must be one of .json, .csv, .tsv, .jsonl, .parquet, .txt"),
    ],
)
def test_files_that_cannot_be_read_are_an_error_with_the_path(directory, name, content, reason):
    (directory / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}.*{reason}"):
        read(directory / name)


@pytest.mark.parametrize("name", ["none.json", "none.csv", "none.txt"])
def test_a_missing_file_is_an_error_with_its_path(directory, name):
    with pytest.raises(UserError, match=f"cannot read .*{name}: No such file"):
        read(directory / name)
