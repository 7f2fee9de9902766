import pytest
import torch
from tests import small

from virtex.decoding.captioner import Captioner
from virtex.text.tokenizer import Tokenizer, train

TOKENIZER = Tokenizer.from_bytes(train(["ab ba"], 9))


@pytest.fixture
def model():
    assert TOKENIZER.vocab_size <= small.VOCABULARY
    built = small.captioning()
    # Only what the tokenizer knows can be said.
    with torch.no_grad():
        built.textual.output.bias[TOKENIZER.vocab_size :] = -1e4
    return built


def captioner_of(model, beam_size=3, max_tokens=small.LENGTH - 1):
    return Captioner(model.visual, model.textual, TOKENIZER, beam_size, max_tokens)


def test_every_image_gets_its_beams_best_first(model):
    captions = captioner_of(model).caption(small.batch(4)["image"])
    assert [len(beams) for beams in captions] == [3] * 4
    for beams in captions:
        scores = [caption.score for caption in beams]
        assert scores == sorted(scores, reverse=True)


def test_an_images_captions_do_not_depend_on_its_batch(model):
    """As batch norm in training mode would make them."""
    images = small.batch(4)["image"]
    together = captioner_of(model).caption(images)
    alone = [captioner_of(model).caption(image.unsqueeze(0))[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        assert [caption.text for caption in one] == [caption.text for caption in other]
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


def test_text_ends_at_the_end_token(model):
    a, b = TOKENIZER.encode("ab")[-1], TOKENIZER.encode("ba")[-1]
    assert "" != TOKENIZER.decode([a]) != TOKENIZER.decode([b]) != ""
    sos, eos = TOKENIZER.sos_index, TOKENIZER.eos_index
    captioner = captioner_of(model)
    assert captioner._text([a, eos, b, eos]) == TOKENIZER.decode([a])
    assert captioner._text([eos, eos]) == ""
    assert captioner._text([a, 0, b, sos]) == TOKENIZER.decode([a, b])
