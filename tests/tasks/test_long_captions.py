"""Captions with more tokens than the model takes."""

from pathlib import Path

import numpy as np
import pytest
from tests.tasks.test_captioning import TOKENIZER

from virtex.build.caption_lengths import describe_captions
from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.text.sentences import split_sentences
from virtex.text.tokenizer import Tokenizer, train

IMAGE = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("a cat. a dog! left? right", ["a cat.", "a dog!", "left?", "right"]),
        ("3.5 cm of it", ["3.5 cm of it"]),
        ("犬がいる。猫がいる。", ["犬がいる。", "猫がいる。"]),
        ('he said "no." then left.', ['he said "no."', "then left."]),
        ("a\nb\r\n\nc", ["a", "b", "c"]),
        ("", [""]),
        ("... ", ["..."]),
    ],
)
def test_sentences_by_hand(text, sentences):
    assert split_sentences(text) == sentences


def drawn(caption, seed, *, whole_sentences, length=12):
    captions = CaptionTokens(TOKENIZER, length, whole_sentences=whole_sentences)
    record = Record(1, Path("unread.jpg"), (caption,))
    (tokens,) = captions.draw(record, Augmented(IMAGE), np.random.default_rng(seed))
    return tokens


SENTENCES = ["a cat left", "a dog of a cat", "a cat", "right of a dog"]
LONG = ". ".join(SENTENCES) + "."


def test_a_long_caption_gives_whole_sentences_that_follow_each_other():
    found = set()
    for seed in range(60):
        tokens = drawn(LONG, seed, whole_sentences=True)
        assert len(tokens) <= 12
        assert tokens[-1] == TOKENIZER.eos_index
        found.add(TOKENIZER.decode(tokens))
    starts = {start for start in range(4) for text in found if text.startswith(SENTENCES[start])}
    assert starts == {0, 1, 2, 3}
    whole = TOKENIZER.decode(TOKENIZER.encode(LONG.lower()))
    assert all(text in whole for text in found)


@pytest.mark.parametrize("caption", ["a cat of a dog", "a cat " * 40])
def test_a_caption_that_fits_or_has_one_sentence_is_as_without(caption):
    plain = [drawn(caption, seed, whole_sentences=False) for seed in range(5)]
    assert [drawn(caption, seed, whole_sentences=True) for seed in range(5)] == plain


class Records:
    def __init__(self, captions):
        self.captions = captions

    def __len__(self):
        return len(self.captions)

    def __getitem__(self, index):
        return Record(index, Path("unread.jpg"), self.captions[index])


def test_lengths_and_what_is_cut_by_hand():
    # 3, 6 and 12 tokens with [SOS] and [EOS]; the last in a second caption.
    records = Records([("cat",), ("cat cat cat cat", "cat " * 10)])
    [line] = describe_captions(records, CaptionTokens(TOKENIZER, 8))
    assert line == (
        "3 captions in tokens: 50% have at most 6, 90% have at most 12, 99% have at most 12, the"
        " longest 12; DATA.MAX_CAPTION_LENGTH 8 cuts 33.3% of them, and 19.0% of all tokens"
    )
    [first] = describe_captions(records, CaptionTokens(TOKENIZER, 8, single_caption=True))
    assert first.endswith("cuts 0.0% of them, and 0.0% of all tokens")
    [whole] = describe_captions(records, CaptionTokens(TOKENIZER, 8, whole_sentences=True))
    assert whole.endswith("replaces 33.3% by some of their sentences")


def test_tokens_are_counted_in_the_normalization_of_the_vocabulary():
    text = "Ein Café links. Ein Ball rechts."
    captions = CaptionTokens(Tokenizer.from_bytes(train([text] * 3, 28, "nfc")), 100)
    assert captions.count_tokens(text) == len(captions.tokens(text))
    assert captions.count_tokens(text) != captions.count_tokens(text.lower())


@pytest.mark.parametrize(("per_image", "lines"), [(1, 1), (2, 1), (3, 2), (None, 1)])
def test_more_captions_than_any_image_has_are_reported(per_image, lines):
    records = Records([("cat",), ("cat", "cat cat")])
    found = describe_captions(records, CaptionTokens(TOKENIZER, 8, per_image=per_image))
    assert len(found) == lines
    assert lines == 1 or found[1] == (
        "DATA.CAPTIONS_PER_IMAGE is 3, and none of 2 images has more than 2; each gives all"
        " captions that it has"
    )


def test_of_many_captions_a_part_is_measured():
    [line] = describe_captions(Records([("cat",)] * 5000), CaptionTokens(TOKENIZER, 8))
    assert line.startswith("2,000 captions in tokens: 50% have at most 3")
