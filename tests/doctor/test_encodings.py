"""Encodings of texts whose author did not name them."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doctor.data_sets import ENCODINGS, TEXTS

from virtex.doctor.encodings import find_encoding
from virtex.errors import UserError


@pytest.mark.parametrize(("language", "encoding"), ENCODINGS)
def test_one_short_line_is_enough(tmp_path, language, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes(f"a.png;{TEXTS[language][2]}\n".encode(encoding))
    found = find_encoding(path)
    assert path.read_bytes().decode("utf-8-sig" if found.name == "utf-8" else found.name)
    assert path.read_text(found.name).endswith(f"{TEXTS[language][2]}\n")
    if found.example is not None:
        assert found.example in f"a.png;{TEXTS[language][2]}"


def test_letters_after_the_first_thousands_of_lines_count(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a.png;a dog\n" * 20_000 + "b.png;größer\n".encode("cp1252"))
    assert find_encoding(path).name == "cp1252"


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_the_whole_file_is_text_of_the_encoding_that_is_found(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(content)
    with suppress(UserError):
        found = find_encoding(path)
        if not found.name.startswith("utf-16"):  # which the reader checks
            content.decode(found.name)
