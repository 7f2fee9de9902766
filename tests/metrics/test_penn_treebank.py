"""Tokens against those of Java's PTBTokenizer, recorded from CoreNLP 3.4.1, and laws of them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.metrics.penn_treebank import penn_treebank_tokens

RECORDED = json.loads((Path(__file__).parent / "penn_treebank.json").read_text("utf-8"))
PUNCTUATION = {*"' ` . ? ! , : - ;".split(), "''", "``", "--", "..."}  # noqa: SIM905


@pytest.mark.parametrize(("caption", "tokens"), RECORDED)
def test_tokens_equal_those_of_java(caption, tokens):
    assert penn_treebank_tokens(caption) == tokens.split()


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A dog runs.", ["a", "dog", "runs"]),
        ("It isn't John's.", ["it", "is", "n't", "john", "'s"]),
        ("cannot", ["can", "not"]),
        ("a <unk> dog", ["a", "<unk>", "dog"]),
        ("", []),
        (" . , ; : ! ? - ' \" ", []),
    ],
)
def test_tokens_by_hand(caption, tokens):
    assert penn_treebank_tokens(caption) == tokens


@given(st.text())
def test_any_text_has_tokens_without_blanks_and_punctuation(caption):
    tokens = penn_treebank_tokens(caption)
    assert all(token and token.split() == [token] for token in tokens)
    assert PUNCTUATION.isdisjoint(tokens)
    assert [token.lower() for token in tokens] == tokens


WORDS = st.lists(st.sampled_from("a dog's isn't U.S. 3.5 close-up (it) etc. 'em no. X".split()))  # noqa: SIM905


@given(WORDS, WORDS)
def test_a_caption_after_a_full_stop_changes_no_tokens_before_it(one, other):
    first, second = " ".join([*one, "dog ."]), " ".join(other)
    together = penn_treebank_tokens(f"{first} {second}")
    assert together == penn_treebank_tokens(first) + penn_treebank_tokens(second)


@given(WORDS)
def test_blanks_around_a_caption_do_not_matter(words):
    caption = " ".join(words)
    assert penn_treebank_tokens(f"\t {caption} \n") == penn_treebank_tokens(caption)
