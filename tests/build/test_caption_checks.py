"""What a run says of its captions before it trains, for captions in a table."""

import json

import pytest

from virtex.build.caption_checks import check_captions
from virtex.config.data import Data
from virtex.data.sources.table import TableCaptions
from virtex.text.tokenizer import Tokenizer, train
from virtex.text.vocabulary import Categories

GERMAN = ["links ein hund", "rechts ein hund", "ein hund"]
ENGLISH = ["a dog left of a cat"] * 30 + ["a chain of links"]
JAPANESE = ["ボールとパン", "赤いボール"]
FIXED = ("center_crop", "normalize")
PANGRAM = ["the quick brown fox jumps over the lazy dog"]


def find(tmp_path, captions, *, remote=False, **settings):
    data = Data(**settings)
    rows = [{"image": f"{n}.jpg", "caption": text} for n, text in enumerate(captions)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = train(PANGRAM, 35, data.text_normalization)
    records = TableCaptions(str(tmp_path), "train")
    return check_captions(data, records, Tokenizer.from_bytes(model), remote=remote)


def test_words_of_another_language_are_a_warning(tmp_path):
    report, [line] = find(tmp_path, GERMAN)
    assert not report
    assert line.startswith("2 of 3 sampled training captions name left or right in German, such")
    assert "'links ein hund'" in line or "'rechts ein hund'" in line
    assert "DATA.MIRROR_WORDS (english) does not exchange" in line
    assert "add german to it, or remove horizontal_flip" in line


@pytest.mark.parametrize(
    ("captions", "settings"),
    [
        (GERMAN, {"mirror_words": ("german",)}),
        (GERMAN, {"mirror_words": ("english", "links/rechts")}),
        (GERMAN, {"image_transform_train": FIXED}),
        (ENGLISH, {}),
        (["ein hund", "a cat"], {"mirror_words": ()}),
    ],
)
def test_captions_that_fit_the_settings_are_passed_over(tmp_path, captions, settings):
    assert find(tmp_path, captions, **settings) == ((), ())


def test_captions_without_any_such_word_are_reported(tmp_path):
    [line], warnings = find(tmp_path, ["ein hund", "a cat"])
    assert not warnings
    assert "none of 2 sampled training captions has a word that DATA.MIRROR_WORDS (engl" in line


def test_changed_letters_are_a_warning_with_a_way_out(tmp_path):
    _, [line] = find(tmp_path, JAPANESE, image_transform_train=FIXED)
    assert "published changes 27.27% of the characters of 2 sampled" in line
    assert "ボ → ホ, パ → ハ; nfkc_lower keeps them" in line
    options = {"image_transform_train": FIXED, "text_normalization": "nfkc_lower"}
    report, warnings = find(tmp_path, JAPANESE, **options)
    assert not warnings
    assert all(line.startswith("sample predictions: ") for line in report)  # without its font


def test_few_changed_letters_are_reported(tmp_path):
    [line], warnings = find(
        tmp_path, [*["a plain caption"] * 20, "café"], image_transform_train=FIXED
    )
    assert not warnings
    assert "é → e" in line


def test_remote_captions_and_categories_are_not_read(tmp_path):
    [line], _ = find(tmp_path, GERMAN, remote=True)
    assert "remote shards are not checked" in line
    assert check_captions(Data(), None, Categories(("cat",)), remote=False) == ((), ())
