import sys

import pytest

from virtex.errors import UserError
from virtex.metrics import caption_scores
from virtex.metrics.tokenizers import find_tokenizer

sacrebleu = pytest.importorskip("sacrebleu", reason="the extra metrics is not installed")

PREDICTIONS = {1: "Ein Hund, braun.", 2: "两只狗在草地上。", 3: "Deux chats dorment ici"}
REFERENCES = {
    1: ["Ein brauner Hund.", "Der Hund ist braun, nicht?"],
    2: ["草地上有两只狗。"],
    3: ["Deux chats dorment ici", "Des chats", "Ici dorment deux chats"],
}


def test_tokens_of_other_languages_keep_their_punctuation():
    assert find_tokenizer("international")("Ein Hund, braun.") == ["ein", "hund", ",", "braun", "."]
    assert find_tokenizer("characters")("两只 Dog。") == ["两", "只", "d", "o", "g", "。"]


@pytest.mark.parametrize(("name", "theirs"), [("international", "intl"), ("characters", "char")])
def test_bleu_equals_that_of_sacrebleu(name, theirs):
    scores = caption_scores(PREDICTIONS, REFERENCES, name)
    columns = [
        [image[n] if n < len(image) else None for image in REFERENCES.values()] for n in (0, 1, 2)
    ]
    metric = sacrebleu.BLEU(lowercase=True, tokenize=theirs, smooth_method="none")
    expected = metric.corpus_score(list(PREDICTIONS.values()), columns)
    assert scores.tokenize == name
    assert scores.bleu_counts.matches == tuple(expected.counts)
    assert scores.bleu_counts.guesses == tuple(expected.totals)
    assert scores.bleu_counts.reference_length == expected.ref_len
    assert 100 * scores.corpus["Bleu_4"] == pytest.approx(expected.score, rel=1e-6, abs=0.1)


def test_chrf_is_that_of_sacrebleu_for_each_image_and_all():
    scores = caption_scores(PREDICTIONS, REFERENCES, chrf=True)
    assert scores.per_image[3]["chrF"] == pytest.approx(100)
    metric = sacrebleu.CHRF()
    assert scores.per_image[1]["chrF"] == metric.sentence_score(PREDICTIONS[1], REFERENCES[1]).score
    columns = [
        [image[n] if n < len(image) else None for image in REFERENCES.values()] for n in (0, 1, 2)
    ]
    expected = metric.corpus_score(list(PREDICTIONS.values()), columns).score
    assert scores.corpus["chrF"] == pytest.approx(expected)
    assert 0 < scores.corpus["chrF"] < 100


@pytest.mark.parametrize(
    "options", [{"tokenize": "international"}, {"tokenize": "characters"}, {"chrf": True}]
)
def test_a_library_that_is_not_installed_is_named(monkeypatch, options):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(UserError, match=r"pip install 'virtex-pretraining\[metrics\]'"):
        caption_scores({1: "a"}, {1: ["a"]}, **options)
