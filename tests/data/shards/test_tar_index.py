import json
import time
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.tars import tar

from virtex.data.plain_text import NotTextError
from virtex.data.shards import sample_text
from virtex.data.shards.store import MemoryStore
from virtex.data.shards.tar_index import FURTHER_IMAGE, ROW, TarIndex, index_tar, read_index
from virtex.data.shards.tar_members import TarStream, tar_members
from virtex.errors import UserError


def indexed(members):
    store = MemoryStore("s")
    store.write("0.tar", tar(members))
    return store, index_tar(store, "0.tar")


def of_rows(rows, tar_bytes=1 << 40):
    return TarIndex(np.array(rows, ROW), tar_bytes, "0" * 64, "given")


def test_rows_say_where_pictures_and_texts_are():
    store, index = indexed({"7.jpg": b"picture", "7.txt": b"a cat", "7.cls": b"3"})
    (row,) = index.rows
    assert row["image_id"] == 7
    assert store.read("0.tar", row["image_offset"], row["image_bytes"]) == b"picture"
    assert store.read("0.tar", row["text_offset"], row["text_bytes"]) == b"a cat"


def test_members_as_img2dataset_writes_them_give_the_caption_of_the_json():
    description = {"caption": "a cat", "key": "000000012", "status": "success", "width": 3}
    members = {
        "000000012.jpg": b"p",
        "000000012.json": json.dumps(description).encode(),
        "000000012.txt": b"a cat",
    }
    _, index = indexed(members)
    assert (index.rows["image_id"].tolist(), index.ids) == ([12], "keys")
    assert index.rows["text_kind"].tolist() == [0]


def test_json_without_a_caption_gives_way_to_the_text():
    _, index = indexed({"a.jpg": b"p", "a.json": b'{"caption": null}', "a.txt": b"a cat"})
    assert index.rows["text_kind"].tolist() == [1]
    assert index.ids == "names"


def test_what_lacks_its_counterpart_is_left_out_and_named():
    members = {
        "1.jpg": b"p",
        "2.txt": b"a",
        "3.jpg": b"p",
        "3.txt": b" \n",
        "4.jpg": b"",
        "4.txt": b"a",
    }
    _, index = indexed(members)
    assert index.rows["image_id"].tolist() == [4]  # that it is empty is said when it is read
    assert index.excluded == (
        "2 images have no caption (keys 1, 3)",
        "1 captions have no image (keys 2)",
    )


def test_two_pictures_of_a_key_are_an_error():
    with pytest.raises(UserError, match=r"s/0\.tar: 1\.png: there are two images of its key"):
        indexed({"1.jpg": b"p", "1.png": b"p", "1.txt": b"a"})
    with pytest.raises(UserError, match=r"s/0\.tar: 1\.TXT: there are two txt texts of its key"):
        indexed({"1.jpg": b"p", "1.txt": b"p", "1.TXT": b"a"})


def test_texts_that_cannot_be_read_are_left_out_and_named():
    members = {f"{n}.jpg": b"p" for n in range(1, 8)} | {
        "1.txt": "crème".encode("cp1252"),
        "2.txt": "a".encode("utf-16"),
        "3.txt": "a".encode("utf-16-le"),
        "4.json": b'{"caption": "\xe9"}',
        "5.json": b'{"caption": ',
        "6.json": b'{"caption": "surrogate \xed\xa0\x80"}',
        "7.json": b'{"captions": ["a", null, " ", 3]}',
    }
    _, index = indexed(members)
    assert index.rows["image_id"].tolist() == [7]
    without, encoded, malformed, unusable = index.excluded
    assert without == "6 images have no caption (keys 1, 2, 3, 4, 5, …)"
    assert encoded.startswith("5 texts are not UTF-8, so convert them first, or set ")
    assert "2.txt: invalid start byte, the byte 0xff of UTF-16" in encoded
    assert "3.txt: it holds zero bytes" in encoded
    assert malformed.startswith("1 texts are not well-formed JSON (files 5.json: ")
    assert unusable == ("1 texts have captions that are blank, null or no text (files 7.json: 3)")


def test_a_text_that_cannot_be_read_gives_way_to_another():
    _, index = indexed({"1.jpg": b"p", "1.json": b"{", "1.txt": b"a cat"})
    assert index.rows["text_kind"].tolist() == [1]
    assert len(index.excluded) == 1


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        # a dot in the stem, in directories, in all of the names; capitals
        (["v1.5 01.jpg", "v1.5 01.txt", "02.jpg", "02.txt"], ["v1.5 01", "02"]),
        (["v1.5/01.JPG", "v1.5/01.TXT"], ["v1.5/01"]),
        (["v1.5/a.b.jpeg", "v1.5/a.b.json"], ["v1.5/a.b"]),
        (["0.1.jpg", "0.1.txt", "0.2.jpg", "0.2.txt"], ["0.1", "0.2"]),
        # WebDataset's: what has another key to the first dot is a part of its sample
        (["a.jpg", "a.txt", "a.seg.png", "a.cls"], ["a"]),
        (["a.seg.png", "a.seg.txt", "a.jpg", "a.txt"], ["a"]),
        # two images of a sample, of which none is the sample's
        (["a.left.jpg", "a.right.jpg", "a.txt"], []),
        (["a.input.jpg", "a.output.txt"], []),
        # hidden files, such as those of macOS
        (["01.jpg", "01.txt", "._01.jpg", "._01.txt", "x/.a.b.jpg", "x/.a.b.txt"], ["01"]),
    ],
)
def test_a_key_goes_to_the_first_dot_or_to_the_last_where_only_that_gives_a_kind(names, keys):
    text = b'{"caption": "a"}'
    store, index = indexed(dict.fromkeys(names, text))
    found = [tar_names(store)[offset] for offset in index.rows["image_offset"].tolist()]
    assert [name.rpartition(".")[0] for name in found] == keys
    # Every image is read, or in a line with a count.
    visible = [name for name in names if not PurePosixPath(name).name.startswith(".")]
    images = [name for name in visible if name.lower().endswith(("jpg", "jpeg", "png"))]
    lines = [
        line
        for line in (*index.excluded, *index.report)
        if "images have no caption" in line or "images are parts" in line
    ]
    assert len(index.rows) + sum(int(line.split()[0]) for line in lines) == len(images)


def tar_names(store):
    """The members' names by where their content begins."""
    return {member.offset: member.name for member in tar_members(TarStream(store, "0.tar"))}


def test_a_tar_file_without_samples_says_what_it_holds():
    _, index = indexed(
        {"a.input.jpg": b"p", "a.output.txt": b"b", "b.input.jpg": b"p", "n.heic": b""}
    )
    assert index.excluded[-1] == "it holds 2 *.input.jpg, 1 *.output.txt, 1 *.heic"
    _, index = indexed({"a.jpg": b"p", "a.json": b'{"TEXT": "b", "url": "c"}'})
    assert index.excluded[-1] == "its JSON has the keys 'TEXT' (1), 'url' (1)"


rows = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        *(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**32 - 1)) * 2,
        st.integers(0, 1),
    ),
    max_size=5,
)


@given(rows)
def test_an_index_is_read_as_it_was_written(rows):
    index = of_rows(rows)
    again = read_index(index.to_bytes(), "a.index")
    assert again.rows.tolist() == index.rows.tolist()
    assert again.to_bytes() == index.to_bytes()


@given(rows, st.data())
def test_a_damaged_index_is_an_error_of_ours_or_another_index(rows, data):
    content = bytearray(of_rows(rows).to_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for damaged in (bytes(content), bytes(content[:cut])):
        try:
            read_index(damaged, "a.index")
        except UserError as error:
            assert str(error).startswith("a.index is not the index of a shard: ")  # noqa: PT017


@pytest.mark.parametrize("size", ["1e999", "9" * 400])
def test_sizes_that_no_file_has_are_refused(size):
    content = of_rows([(1, 0, 1, 0, 0, 1, 0, 0)], tar_bytes=77).to_bytes()
    with pytest.raises(UserError, match=r"a\.index is not the index of a shard"):
        read_index(content.replace(b'"tar_bytes": 77', f'"tar_bytes": {size}'.encode()), "a.index")


@pytest.mark.parametrize(
    "row", [(1, -1, 1, 0, 0, 1, 0, 0), (1, 0, 1, 0, 90, 20, 0, 0), (1, 0, 1, 0, 0, 1, 0, 2)]
)
def test_places_outside_of_the_tar_file_are_refused(row):
    with pytest.raises(UserError, match=r"points beyond the end|unknown kind"):
        read_index(of_rows([row], tar_bytes=100).to_bytes(), "a.index")


def test_the_images_of_a_text_are_those_that_it_counts():
    three = json.dumps({"caption": "a", "images": 3}).encode()
    members = {"a.jpg": b"0", "a.1.jpg": b"11", "a.2.png": b"222", "a.3.jpg": b"-", "a.json": three}
    members |= {"b.jpg": b"0", "b.json": three}  # of others, who mean something else
    members |= {"c.jpg": b"0", "c.1.jpg": b"1", "c.json": three}
    store, index = indexed(members)
    for kept in (index, read_index(index.to_bytes(), "0.index")):
        assert len(kept.rows) == 2
        parts = [store.read("0.tar", *place) for *place, _ in kept.further_images(0)]
        assert parts == [b"11", b"222"]
        assert kept.further_images(1) == []
    assert index.excluded == ("1 texts of several images lack the image 2 (files c.json)",)
    assert "2 images are parts" in index.report[0]


@pytest.mark.parametrize("row", [(1, 0, 1, 1), (-1, 0, 1, 1), (0, 10**6, 1, 1)])
def test_an_index_with_impossible_further_images_is_refused(row):
    index = of_rows([(1, 1, 1, 1, 1, 1, 1, 0)], tar_bytes=1000)
    index = replace(index, further=np.array([row], FURTHER_IMAGE))
    with pytest.raises(UserError, match=r"no sample|points beyond the end"):
        read_index(index.to_bytes(), "a")


def test_ten_thousand_samples_are_read_in_milliseconds():
    content = of_rows([(i, 1, 1, 1, 1, 1, 1, 0) for i in range(10000)]).to_bytes()
    read_index(content, "a")
    start = time.perf_counter()
    read_index(content, "a")
    assert time.perf_counter() - start < 0.05  # about 1 ms; ten times that under load


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        (b'{"captions": ["a", " ", "b"]}', ("a", "b")),
        (b'{"captions": "a"}', ("a",)),
        (b'{"caption": "a"}', ("a",)),
        (b'{"caption": "\\ud800"}', ("?",)),
        (b'{"caption": 3}', ()),
        (b"[]", ()),
    ],
)
def test_captions_of_json(content, captions):
    assert sample_text.parse(content, "json").captions == captions


@pytest.mark.parametrize(
    ("content", "kind", "error"),
    [
        (b"[" * 100000, "json", sample_text.MalformedError),
        (b"{", "json", sample_text.MalformedError),
        (b"\xff", "json", NotTextError),
        (b"\xff", "txt", NotTextError),
        (b"a\0", "txt", NotTextError),
    ],
)
def test_what_is_no_text_is_an_error(content, kind, error):
    with pytest.raises(error):
        sample_text.parse(content, kind)


def test_captions_of_plain_text_are_its_lines():
    assert sample_text.parse("\ufeffa cat\r\n\nzwei\n".encode(), "txt").captions == (
        "a cat",
        "zwei",
    )
