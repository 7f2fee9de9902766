import json
import math
import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.metrics import slow

from virtex.errors import UserError
from virtex.metrics import caption_scores
from virtex.metrics.ngrams import count_ngrams
from virtex.metrics.rouge import rouge_l

METRICS = os.environ.get("VIRTEX_METRICS")

captions = st.lists(st.sampled_from("abcde"), min_size=1, max_size=8)
corpora = st.lists(
    st.tuples(captions, st.lists(captions, min_size=1, max_size=3)), min_size=1, max_size=4
)
# Rounding of some dozen sums and products of numbers up to 10.
CLOSE = {"rel": 1e-12, "abs": 1e-14}


def scored(corpus):
    predictions = {n: " ".join(prediction) for n, (prediction, _) in enumerate(corpus)}
    references = {n: [" ".join(r) for r in image] for n, (_, image) in enumerate(corpus)}
    return caption_scores(predictions, references)


@given(corpora)
@settings(max_examples=60)
def test_all_scores_equal_their_formulas(corpus):
    scores = scored(corpus)
    for order in range(1, 5):
        name = f"Bleu_{order}"
        assert scores.corpus[name] == pytest.approx(slow.bleu(corpus, order), **CLOSE)
        for image, pair in enumerate(corpus):
            assert scores.per_image[image][name] == pytest.approx(slow.bleu([pair], order), **CLOSE)
    for image, (prediction, references) in enumerate(corpus):
        got = scores.per_image[image]
        assert got["ROUGE_L"] == pytest.approx(slow.rouge_l(prediction, references), **CLOSE)
        assert got["CIDEr"] == pytest.approx(slow.cider_d(corpus, image), **CLOSE)
    for name in ("ROUGE_L", "CIDEr"):
        mean = sum(row[name] for row in scores.per_image.values()) / len(corpus)
        assert scores.corpus[name] == pytest.approx(mean, **CLOSE)


@given(corpora, st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_the_order_of_images_and_references(corpus, generator):
    predictions = {n: " ".join(prediction) for n, (prediction, _) in enumerate(corpus)}
    references = {n: [" ".join(r) for r in image] for n, (_, image) in enumerate(corpus)}
    order = list(predictions)
    generator.shuffle(order)
    shuffled = {n: generator.sample(references[n], len(references[n])) for n in reversed(order)}
    one = caption_scores(predictions, references)
    other = caption_scores({n: predictions[n] for n in order}, shuffled)
    assert one == other  # bit by bit
    assert list(other.per_image) == order


@given(st.lists(st.integers(4, 12), min_size=2, max_size=5))
def test_captions_equal_to_their_references_have_the_best_scores(lengths):
    captions = {n: " ".join(f"w{n}x{k}" for k in range(length)) for n, length in enumerate(lengths)}
    scores = caption_scores(captions, {n: [caption] for n, caption in captions.items()})
    for values in (scores.corpus, *scores.per_image.values()):
        assert values["ROUGE_L"] == 1.0
        assert values["CIDEr"] == pytest.approx(10.0, rel=1e-14)
        for order in range(1, 5):
            # The published constants take 1e-9 of one part in a denominator of 1 or more.
            assert 1 - 3e-9 < values[f"Bleu_{order}"] <= 1


@given(corpora)
def test_scores_lie_between_their_bounds(corpus):
    scores = scored(corpus)
    for values in (scores.corpus, *scores.per_image.values()):
        for name, value in values.items():
            assert 0 <= value <= (10 + 1e-13 if name == "CIDEr" else 1)


def test_matches_are_clipped():
    """The example of Papineni et al., section 2.1."""
    references = {0: ["the cat is on the mat", "there is a cat on the mat"]}
    scores = caption_scores({0: "the the the the the the the"}, references)
    assert scores.bleu_counts.matches[0] == 2
    assert scores.bleu_counts.guesses == (7, 6, 5, 4)
    assert scores.corpus["Bleu_1"] == pytest.approx(2 / 7, abs=1e-9)


@pytest.mark.parametrize(("length", "penalty"), [(5, math.exp(1 - 8 / 5)), (8, 1), (10, 1)])
def test_only_short_captions_have_a_brevity_penalty(length, penalty):
    words = [f"w{k}" for k in range(8)]
    prediction = " ".join([*words, "new", "words"][:length])
    precision = min(length, 8) / length
    score = caption_scores({0: prediction}, {0: [" ".join(words)]}).corpus["Bleu_1"]
    assert score == pytest.approx(penalty * precision, abs=3e-9)


def test_the_reference_of_closest_length_counts_and_the_shorter_of_two():
    scores = caption_scores({0: "a b c d"}, {0: ["a b c d e f", "a b", "a b c d e f g"]})
    assert scores.bleu_counts.reference_length == 2


def test_a_corpus_of_one_image_has_no_cider():
    """Every n-gram occurs in all images, so none tells one from another."""
    assert caption_scores({0: "a red dog runs"}, {0: ["a red dog runs"]}).corpus["CIDEr"] == 0


def test_an_ngram_of_all_images_weighs_nothing_in_cider():
    references = {0: ["a dog"], 1: ["a cat"]}
    assert caption_scores({0: "a", 1: "a"}, references).corpus["CIDEr"] == 0


def test_rouge_takes_precision_and_recall_from_different_references():
    score = rouge_l("abcd", ["abcdwxyz", "ab"])  # precision of the first, recall of the second
    assert score == 1.0


@given(captions, captions)
def test_the_common_subsequence_is_that_of_the_table(one, other):
    assert rouge_l(one, [other]) == pytest.approx(slow.rouge_l(one, [other]), **CLOSE)


@given(captions)
def test_ngrams_are_counted_by_order(tokens):
    for order, counts in enumerate(count_ngrams(tokens), 1):
        assert sorted(counts.elements()) == sorted(slow.ngrams(tokens, order))


def test_a_prediction_without_words_scores_nothing_and_is_named():
    scores = caption_scores({7: " . ", 8: "a dog"}, {7: ["a cat"], 8: ["a dog"]})
    assert scores.without_words == (7,)
    assert scores.per_image[7]["ROUGE_L"] == scores.per_image[7]["CIDEr"] == 0
    assert scores.per_image[7]["Bleu_1"] < 1e-6


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({}, {}, "the predictions hold no caption"),
        ({1: "a"}, {2: ["a"]}, "images with a prediction and no reference: 1 .1 in all"),
        ({1: "a"}, {1: ["a"], 2: ["a"]}, "with references and no prediction: 2"),
        ({1: "a"}, {1: []}, "an empty list of references: 1"),
        ({1: " \n"}, {1: ["a"]}, "a blank prediction: 1"),
        ({1: "a"}, {1: ["a", ""]}, "a blank reference: 1"),
    ],
)
def test_captions_that_do_not_match_are_an_error(predictions, references, message):
    with pytest.raises(UserError, match=message):
        caption_scores(predictions, references)


HASHED = """
from virtex.metrics import caption_scores
p = {n: f"a b c {n % 3} d e" for n in range(20)}
r = {n: [f"a c b {n % 4} d", f"d e {n % 2} a b c"] for n in range(20)}
print(repr(caption_scores(p, r)))
"""


@pytest.mark.cold
def test_scores_do_not_depend_on_the_hash_seed():
    printed = {
        subprocess.run(
            [sys.executable, "-c", HASHED],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1


def coco(path):
    items = json.loads(Path(METRICS, path).read_text())
    grouped = defaultdict(list)
    for item in items["annotations"] if isinstance(items, dict) else items:
        grouped[item["image_id"]].append(item["caption"])
    return grouped


needs_metrics = pytest.mark.skipif(METRICS is None, reason="VIRTEX_METRICS names no directory")


@needs_metrics
def test_scores_equal_the_published_ones():
    expected = json.loads(Path(METRICS, "expected.json").read_text())
    expected = expected["references_973.json + hypotheses_973.json"]
    predictions = {n: one for n, (one,) in coco("hypotheses_973.json").items()}
    scores = caption_scores(predictions, coco("references_973.json"))
    counts = scores.bleu_counts
    assert counts.length == expected["hypothesis_length"]
    assert counts.reference_length == expected["effective_reference_length"]
    assert list(counts.guesses) == expected["ngram_guesses"]
    assert list(counts.matches) == expected["ngram_matches"]
    for name, value in expected["published_three_decimals"].items():
        if name != "METEOR":
            assert round(scores.corpus[name], 3) == value
    for name, value in expected["recomputed"].items():
        # Java's tokenizer with the published code gives the CIDEr below, not the recomputed one.
        assert scores.corpus[name] == pytest.approx(value, abs=1e-5 if name == "CIDEr" else 1e-12)
    assert scores.corpus["CIDEr"] == pytest.approx(0.034289199296315666, rel=1e-12)


@needs_metrics
def test_the_tokens_of_generated_captions_are_counted_as_published():
    captions = {n: one for n, (one,) in coco("tokenizer_hypotheses_1000.json").items()}
    expected = json.loads(Path(METRICS, "expected.json").read_text())
    counts = caption_scores(captions, {n: [one] for n, one in captions.items()}).bleu_counts
    assert list(counts.guesses) == expected["tokenizer_hypotheses_1000.json"]["ngram_guesses"]


@needs_metrics
def test_a_shuffled_real_corpus_has_the_same_scores():
    predictions = {n: one for n, (one,) in coco("hypotheses_973.json").items()}
    references = coco("references_973.json")
    order = random.Random(0).sample(list(predictions), len(predictions))
    shuffled = caption_scores({n: predictions[n] for n in order}, references)
    assert shuffled == caption_scores(predictions, references)
