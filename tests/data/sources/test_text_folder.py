import os

import numpy as np
import pytest

from virtex.data.records import Record
from virtex.data.sources.text_folder import TextFolder
from virtex.errors import UserError


@pytest.fixture
def write(tmp_path):
    """A function that writes {path: text} and gives the directory; an image may be anything."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return write


def test_whole_numbers_are_ids_and_lines_are_captions(write):
    root = write(
        {
            "b/002.JPG": "",
            "b/002.txt": b"\xef\xbb\xbfa dog\r\n\n  a cat, \xc3\xa9\nlast",
            "a/10.png": "",
            "a/10.txt": "one\n",
            "a/10.json": "of another tool",
            ".hidden/7.jpg": "",
            os.fsdecode(b"\xff.json"): "",
        }
    )
    records = TextFolder(root)
    assert list(records) == [
        Record(2, root / "b/002.JPG", ("a dog", "  a cat, é", "last")),
        Record(10, root / "a/10.png", ("one",)),
    ]
    assert records.report == ()


@pytest.mark.parametrize("other", ["x", "sub/1", "9" * 19])
def test_other_names_give_ids_that_depend_on_the_path_alone(write, other):
    files = {"1.jpg": "", "1.txt": "one", f"{other}.jpg": "", f"{other}.txt": "other"}
    several = TextFolder(write(files))
    more = TextFolder(write({"z.jpg": "", "z.txt": "z"}))
    assert len(several) == 2
    assert np.isin(several.image_ids, more.image_ids).all()
    assert (np.diff(more.image_ids) > 0).all()
    assert {(r.image.stem, *r.captions) for r in several} == {
        ("1", "one"),
        (other.rpartition("/")[2], "other"),
    }


def test_the_fingerprint_is_of_ids_and_captions(write):
    first = TextFolder(write({"1.jpg": "", "1.txt": "a"})).fingerprint
    assert first == TextFolder(write({"1.jpg": "other pixels"})).fingerprint
    assert first != TextFolder(write({"1.txt": "b"})).fingerprint
    assert len(first) == 64


INCOMPLETE = {f"{n}.jpg": "" for n in range(8)} | {"0.txt": "a", "1.txt": " \n", "x/y.txt": "b"}


def test_unmatched_files_are_an_error_that_names_a_few(write):
    expected = (
        r"6 images have no text \(2\.jpg, 3\.jpg, 4\.jpg, 5\.jpg, 6\.jpg, …\);"
        r" 1 images have an empty text \(1\.jpg\); 1 texts have no image \(x/y\.txt\)\. Correct"
    )
    with pytest.raises(UserError, match=expected):
        TextFolder(write(INCOMPLETE))


def test_unmatched_items_are_left_out_and_reported_on_request(write):
    records = TextFolder(write(INCOMPLETE), "skip")
    assert [(record.image_id, record.captions) for record in records] == [(0, ("a",))]
    assert len(records.report) == 3


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "holds no image with a text beside it, such as a.jpg and a.txt; .*no files"),
        ({"a.jpg": ""}, r"holds no image with a text .*; 1 images have no text \(a\.jpg\)"),
        ({"a.jpg": "", "a.png": "", "a.txt": "a"}, r"more than the extension: .*a\.jpg, .*a\.png"),
        ({"a.jpg": "", "a.txt": b"\xff"}, r"a\.txt is not UTF-8 text: .*; convert it"),
        ({"a.jpg": "", "a.txt": "a".encode("utf-16")}, r"a\.txt is not UTF-8 text: .* of UTF-16;"),
        (
            {"a.jpg": "", "a.txt": "a".encode("utf-16-le")},
            r"a\.txt is not UTF-8 text: .*zero bytes",
        ),
        ({"a.jpg": "", "a.txt": "a", "a.TXT": "b"}, r"texts .* more than the extension: .*a\.TXT"),
        (
            {"a.heic": "", "b.heic": "", "a.cap": ""},
            r"such as a\.jpg .* holds 2 \.heic, 1 \.cap",
        ),
        ({os.fsdecode(b"\xff.jpg"): ""}, "is not UTF-8; rename it"),
    ],
)
def test_directories_without_records_are_an_error(write, files, reason, on_bad_image):
    with pytest.raises(UserError, match=reason):
        TextFolder(write(files), on_bad_image)


def test_extensions_may_be_in_capitals_and_names_hold_dots(write):
    root = write({"v1.5 1.JPG": "", "v1.5 1.TXT": "a", "v1.5 2.avif": "", "v1.5 2.txt": "b\rc"})
    captions = {record.image.name: record.captions for record in TextFolder(root)}
    assert captions == {"v1.5 1.JPG": ("a",), "v1.5 2.avif": ("b", "c")}


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nothing: No such file or directory"):
        TextFolder(tmp_path / "nothing")
