import pytest
import torch
from tests import small

from virtex.decoding.captioner import BeamSearch, Caption, Captioner, NucleusSampling
from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer, train

TOKENIZER = Tokenizer.from_bytes(train(["ab ba"], 9))
BEAMS = BeamSearch(3)
SAMPLES = NucleusSampling(nucleus_size=0.9, samples=3, seed=5)
STRATEGIES = pytest.mark.parametrize("strategy", [BEAMS, SAMPLES], ids=["beams", "samples"])


@pytest.fixture
def model():
    assert TOKENIZER.vocab_size <= small.VOCABULARY
    built = small.captioning()
    # Only what the tokenizer knows can be said.
    with torch.no_grad():
        built.textual.output.bias[TOKENIZER.vocab_size :] = -1e4
    return built


def captioner_of(model, strategy=BEAMS, max_tokens=small.LENGTH - 1):
    return Captioner(model.visual, model.textual, TOKENIZER, strategy, max_tokens)


@STRATEGIES
def test_every_image_gets_its_captions_best_first(model, strategy):
    captions = captioner_of(model, strategy).caption(small.batch(4)["image"])
    assert [len(of_image) for of_image in captions] == [3] * 4
    for of_image in captions:
        scores = [caption.score for caption in of_image]
        assert scores == sorted(scores, reverse=True)


@STRATEGIES
def test_an_images_captions_do_not_depend_on_its_batch(model, strategy):
    """As batch norm in training mode would make them, or numbers drawn for the whole batch."""
    images, keys = small.batch(4)["image"], [4, 3, 9, 7]
    captioner = captioner_of(model, strategy)
    together = captioner.caption(images, keys)
    alone = [
        captioner.caption(image.unsqueeze(0), [key])[0]
        for image, key in zip(images, keys, strict=True)
    ]
    for one, other in zip(together, alone, strict=True):
        assert [caption.tokens for caption in one] == [caption.tokens for caption in other]
        # Float32 products of other shapes, summed in another order.
        scores = [caption.score for caption in other]
        assert [caption.score for caption in one] == pytest.approx(scores, rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_modes_and_statistics_are_left_as_they_came(model, training):
    model.train(training)
    before = small.state_of(model)
    captioner_of(model).caption(small.batch(2)["image"])
    assert {part.training for part in model.modules()} == {training}
    small.assert_same(model.state_dict(), before)


def test_modes_are_left_as_they_came_after_an_error(model):
    with pytest.raises(RuntimeError):
        captioner_of(model).caption(torch.zeros(1, 4, 16, 16, dtype=torch.uint8))
    assert all(part.training for part in model.modules())


def test_samples_are_a_function_of_seed_and_key(model):
    images = small.batch(3)["image"]
    images[:] = images[:1].clone()

    def texts(seed, keys=None):
        strategy = NucleusSampling(nucleus_size=1.0, samples=4, seed=seed)
        captions = captioner_of(model, strategy).caption(images, keys)
        return [[caption.tokens for caption in of_image] for of_image in captions]

    first, second, third = texts(seed=1)
    assert first != second != third != first
    assert texts(seed=1, keys=[2, 0, 1]) == [third, first, second]
    assert texts(seed=2) != texts(seed=1)


def test_a_caption_ends_at_the_end_token(model):
    a, b = TOKENIZER.encode("ab")[-1], TOKENIZER.encode("ba")[-1]
    assert "" != TOKENIZER.decode([a]) != TOKENIZER.decode([b]) != ""
    sos, eos = TOKENIZER.sos_index, TOKENIZER.eos_index
    captioner = captioner_of(model)
    ended = captioner._caption([a, eos, b, eos], -1.5)
    assert ended == Caption(TOKENIZER.decode([a]), -1.5, (a,))
    assert captioner._caption([eos, eos], 0.0) == Caption("", 0.0, ())
    unended = captioner._caption([a, 0, b, sos], 0.0)
    assert unended == Caption(TOKENIZER.decode([a, b]), 0.0, (a, 0, b, sos))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: BeamSearch(0), "a beam size of 0 .* at least 1"),
        (lambda _: NucleusSampling(0.0, 1, 0), r"a nucleus size of 0\.0 .* above 0 and at most 1"),
        (lambda _: NucleusSampling(1.1, 1, 0), r"a nucleus size of 1\.1 "),
        (lambda _: NucleusSampling(float("nan"), 1, 0), "a nucleus size of nan "),
        (lambda _: NucleusSampling(0.9, 0, 0), "0 samples .* at least 1"),
        (lambda _: NucleusSampling(0.9, 1, -1), "seed -1 .* from 0"),
        (lambda model: captioner_of(model, max_tokens=0), "at most 0 tokens .* 1 to 10"),
        (lambda model: captioner_of(model, max_tokens=11), "at most 11 tokens .* 1 to 10"),
        (lambda model: captioner_of(model, BeamSearch(12)), "a beam size of 12 .* at most 11"),
        (
            lambda model: captioner_of(model).caption(small.batch(3)["image"], [1, 2]),
            "2 keys for 3 images; give one for each image",
        ),
    ],
)
def test_what_finds_no_caption_is_refused(model, make, message):
    with pytest.raises(UserError, match=message):
        make(model)


@STRATEGIES
def test_the_limits_of_a_captioner_work(model, strategy):
    for max_tokens in (1, small.LENGTH):
        captioner = captioner_of(model, strategy, max_tokens)
        for of_image in captioner.caption(small.batch(2)["image"]):
            assert all(len(caption.tokens) <= max_tokens for caption in of_image)
