"""The largest vocabulary in which every piece of several characters occurs often enough."""

import random

import pytest

from virtex.errors import UserError
from virtex.text.normalize import normalize_caption
from virtex.text.tokenizer import Tokenizer, train
from virtex.text.vocabulary_size import train_supported

_GERMAN = [
    "kleine",
    "große",
    "rundliche",
    "verschattung",
    "im",
    "linken",
    "rechten",
    "feld",
    "kein",
    "erguss",
    "hinweis",
]
_JAPANESE = ["赤い", "青い", "車が", "犬が", "道路に", "公園で", "止まって", "走って", "いる。"]


def captions(words, number, joined):
    drawn = random.Random(0)
    return [joined.join(drawn.choices(words, k=5)) for _ in range(number)]


def merged(model):
    """The pieces of several characters."""
    tokenizer = Tokenizer.from_bytes(model)
    pieces = [tokenizer.token(index) for index in tokenizer.ordinary_ids.tolist()]
    return [piece for piece in pieces if len(piece) > 1]


def occurrences(piece, texts):
    """How often a piece occurs in the words of some texts, counted place by place."""
    words = [f"▁{word}" for text in texts for word in text.split(" ")]
    return sum(word[at:].startswith(piece) for word in words for at in range(len(word)))


@pytest.mark.parametrize(
    ("words", "joined", "normalization"),
    [(_GERMAN, " ", "nfkc_lower"), (_JAPANESE, "", "nfc"), (_GERMAN, " ", "published")],
)
@pytest.mark.parametrize("number", [3, 40, 150])
def test_every_piece_occurs_often_enough_and_one_of_the_next_size_does_not(
    words, joined, normalization, number
):
    given = captions(words, number, joined)
    texts = [normalize_caption(text, normalization) for text in given]
    model = train_supported(given, normalization, occurrences=20, most=1000)
    assert all(occurrences(piece, texts) >= 20 for piece in merged(model))
    size = Tokenizer.from_bytes(model).vocab_size
    larger, refusal = next_size(given, size + 1, normalization)
    assert "the largest possible size" in refusal or any(
        occurrences(piece, texts) < 20 for piece in larger
    )


def next_size(given, size, normalization):
    """The pieces of a vocabulary of this size, and the message if it is refused."""
    try:
        return merged(train(given, size, normalization)), ""
    except UserError as error:
        return [], str(error)


def test_the_size_is_bounded_and_all_characters_are_kept():
    given = captions(_GERMAN, 400, " ")
    tokenizer = Tokenizer.from_bytes(train_supported(given, "nfkc_lower", occurrences=1, most=60))
    assert tokenizer.vocab_size == 60
    rare = [*given, "ŵ"]
    for most in (5, 60):
        tokenizer = Tokenizer.from_bytes(
            train_supported(rare, "nfkc_lower", occurrences=20, most=most)
        )
        assert tokenizer.unk_index not in tokenizer.encode("ŵ")


def test_captions_without_text_are_refused():
    with pytest.raises(UserError, match="no caption with any text"):
        train_supported(["", " "], "nfc", occurrences=20, most=100)
