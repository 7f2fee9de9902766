import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.decoding.attention import Word, split_words
from virtex.text.tokenizer import Tokenizer, train

CAPTIONS = ["a red circle", "two green squares", "a triangle left of a red square", "grey stars"]
TOKENIZER = Tokenizer.from_bytes(train(CAPTIONS, 45))
PIECES = {TOKENIZER.token(index): index for index in range(TOKENIZER.vocab_size)}
ids = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=12)


@given(ids)
def test_words_are_those_of_the_decoded_text(tokens):
    words = split_words(TOKENIZER, tokens)
    assert [word.text for word in words] == TOKENIZER.decode(tokens).split()


@given(ids)
def test_every_piece_is_in_one_word_and_no_special_token_is(tokens):
    positions = [position for word in split_words(TOKENIZER, tokens) for position in word.positions]
    assert positions == sorted(set(positions))
    left_out = {tokens[position] for position in set(range(len(tokens))) - set(positions)}
    assert left_out <= {0, 1, 2, 3, PIECES["▁"]}
    assert not {tokens[position] for position in positions} & {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], []),
        ([0, 1, 3], []),
        (["▁"], []),
        (["▁red"], [Word("red", (0,))]),
        (["r", "e"], [Word("re", (0, 1))]),
        (["▁red", "s", "▁a"], [Word("reds", (0, 1)), Word("a", (2,))]),
        (["▁", "s", "▁a"], [Word("s", (0, 1)), Word("a", (2,))]),
        # What is unknown does not end a word, as in the decoded text.
        (["▁red", 0, "s"], [Word("reds", (0, 2))]),
    ],
)
def test_words_by_hand(tokens, expected):
    tokens = [PIECES[token] if isinstance(token, str) else token for token in tokens]
    assert split_words(TOKENIZER, tokens) == expected


@pytest.mark.parametrize("text", ["赤いボールと犬", "น้ำไม่มี", "a 赤い ball"])
def test_pieces_are_words_in_scripts_without_spaces(text):
    tokenizer = Tokenizer.from_bytes(train([text], len(set(text)) + 6, "nfc"))
    words = split_words(tokenizer, tokenizer.encode(text))
    assert "".join(word.text for word in words) == text.replace(" ", "")
    assert len(words) > len(text.split())
    assert not any(unicodedata.category(word.text[0])[0] == "M" for word in words)
    assert ("ball" in text) == ("ball" in [word.text for word in words])
