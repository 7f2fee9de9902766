import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.data.sources.json_stream import list_items
from virtex.errors import UserError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "a.json"


@given(
    content=st.dictionaries(st.text(), values, max_size=4),
    window=st.integers(1, 40),
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
)
def test_items_are_those_of_the_whole_file(path, content, window, indent, ascii_only):
    path.write_text(
        json.dumps(content, indent=indent, ensure_ascii=ascii_only),
        encoding="utf-8",
    )
    expected = [
        (key, item) for key, value in content.items() if isinstance(value, list) for item in value
    ]
    assert list(list_items(path, window)) == expected


@given(
    content=st.dictionaries(st.text(), values, min_size=1, max_size=3),
    window=st.integers(1, 40),
    cut=st.integers(1, 10_000),
)
def test_every_truncated_file_is_an_error(path, content, window, cut):
    text = json.dumps(content)
    path.write_text(text[: -1 - cut % len(text)])
    with pytest.raises(UserError, match=r"a\.json"):
        list(list_items(path, window))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'{' was expected, not ''"),
        ("[1]", r"'{' was expected, not '\['"),
        ('{"a": [1, 2,]}', "Expecting value"),
        ('{"a": [1 2]}', "',' was expected|']' was expected"),
        ('{"a": [1]} {', "followed by more"),
        ("{1: [1]}", "a key was expected"),
        ('{"a" [1]}', "':' was expected"),
        ('{"a": [1], }', "Expecting value"),
    ],
)
def test_malformed_files_are_an_error_with_the_place(path, text, reason):
    path.write_text(text)
    with pytest.raises(UserError, match=rf"a\.json.*({reason}).*\(character \d+\)"):
        list(list_items(path))


def test_other_encodings_are_an_error(path):
    path.write_bytes('{"a": ["é"]}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.json is not UTF-8"):
        list(list_items(path))


def test_a_byte_order_mark_is_skipped(path):
    path.write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert list(list_items(path)) == [("a", 1)]


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none\.json: No such file"):
        list(list_items(tmp_path / "none.json"))


def test_an_item_without_end_is_an_error_before_it_fills_the_memory(path):
    path.write_text('{"a": ["' + "x" * (1 << 24))
    with pytest.raises(UserError, match=r"one value is longer than 8388608 characters"):
        list(list_items(path, window=1 << 16))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_an_error(path, opening):
    path.write_text('{"a": [' + opening * 100_000)
    with pytest.raises(UserError, match=r"a\.json: an item is nested too deeply"):
        list(list_items(path))


def test_a_list_that_is_given_twice_is_an_error(path):
    path.write_text('{"a": [1], "b": 1, "b": 2, "a": [2]}')
    with pytest.raises(UserError, match="the list 'a' is given twice"):
        list(list_items(path))


def test_a_number_of_very_many_digits_is_an_error(path):
    path.write_text('{"a": [' + "9" * 100_000 + "]}")
    with pytest.raises(UserError, match="not a well-formed JSON object"):
        list(list_items(path))
