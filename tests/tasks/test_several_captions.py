"""Several captions of an image in a batch: the losses are those of separate examples."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import small

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.tasks.base import Masking, select_images
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.tasks.captioning import CaptionEncoder
from virtex.tasks.classification import TokenLabelEncoder
from virtex.tasks.masked_lm import MaskedCaptionEncoder, MaskedLanguageModel
from virtex.tasks.parallel_captioning import ParallelCaptionEncoder, ParallelCaptioning
from virtex.text.tokenizer import Tokenizer, train

TOKENIZER = Tokenizer.from_bytes(train(["a b c ab"] * 3, small.VOCABULARY))
CAPTIONS = ["a b c a b", "c", "b a", "c c a b a c", "a c b"]
KINDS = ["captioning", "masked_lm", "parallel_captioning"]
# Cross-entropy is summed in float32, in another order.
CLOSE = {"rtol": 1e-6, "atol": 0}


def encoder_of(kind, per_image):
    captions = CaptionTokens(TOKENIZER, small.LENGTH, per_image=per_image)
    match kind:
        case "captioning":
            return CaptionEncoder(captions)
        case "masked_lm":
            return MaskedCaptionEncoder(captions, Masking(0.5, 0.85, 0.1))
        case "parallel_captioning":
            return ParallelCaptionEncoder(captions, parallel_share=0.5)


def model_of(kind, dropout=0.0):
    decoder = small.decoder(dropout=dropout)
    visual = small.backbone(frozen=True)
    match kind:
        case "captioning":
            model = small.captioning(frozen=True, dropout=dropout)
        case "masked_lm":
            model = MaskedLanguageModel(visual, decoder)
        case "parallel_captioning":
            model = ParallelCaptioning(visual, decoder, TOKENIZER.mask_index)
    return model.double()


def examples_of(encoder, images=4):
    """Images with 1, 2, … captions."""
    rng = np.random.default_rng(0)
    for number in range(1, images + 1):
        pixels = rng.integers(0, 256, (small.SIDE, small.SIDE, 3), dtype=np.uint8)
        record = Record(number, Path("unread.jpg"), tuple(CAPTIONS[:number]))
        yield encoder.encode(record, Augmented(pixels), np.random.default_rng(number))


def as_separate_examples(batch):
    """The same captions, each with an image of its own."""
    separate = dict(batch)
    counts = separate.pop("captions_per_image")
    for name in ("image", "image_id"):
        separate[name] = batch[name].repeat_interleave(counts, dim=0)
    return separate


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "dropout"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_image", [2, None], ids=["two", "all"])
@torch.no_grad()
def test_the_loss_is_that_of_separate_examples(kind, per_image, training):
    """Also with dropout, whose mask follows from the key of the caption."""
    encoder = encoder_of(kind, per_image)
    batch = encoder.collate(list(examples_of(encoder)))
    counts = [1, 2, 2, 2] if per_image == 2 else [1, 2, 3, 4]
    assert batch["captions_per_image"].tolist() == counts
    assert len(batch["image"]) == 4
    assert len(batch["dropout_key"]) == len(batch["dropout_key"].unique()) == sum(counts)
    model = model_of(kind, dropout=0.3).train(training)
    losses, expected = model(batch), model(as_separate_examples(batch))
    for name in model.loss_names:
        assert losses[name].items == expected[name].items
        torch.testing.assert_close(losses[name].mean, expected[name].mean, **CLOSE)


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_one_pass_a_caption(kind):
    """Passes over the first, the second, … caption of every image, with the same dropout."""
    encoder = encoder_of(kind, None)
    examples = [*examples_of(encoder), *examples_of(encoder, images=5)][2:]  # 3 … 5 captions
    batch = encoder.collate(examples)
    together, apart = (model_of(kind, dropout=0.3).train() for _ in range(2))
    together.visual.requires_grad_(True)
    apart.visual.requires_grad_(True)
    sum(loss.total for loss in together(batch).values()).backward()
    for number in range(5):
        single = [
            {
                name: value[number : number + 1] if isinstance(value, list | tuple) else value
                for name, value in example.items()
            }
            for example in examples
            if len(example["caption_tokens"]) > number
        ]
        sum(loss.total for loss in apart(encoder.collate(single)).values()).backward()
    ours, theirs = gradients(together), gradients(apart)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("visual.") for name in ours)
    for name, gradient in ours.items():
        # Losses are summed in float32.
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_several_captions_keep_no_more_for_the_backward_pass_than_one(kind):
    """Besides the keys and values of the grid, and some indices."""
    kept = {}
    for per_image in (1, 4):
        encoder = encoder_of(kind, per_image)
        batch = encoder.collate(list(examples_of(encoder, images=5))[3:] * 4)
        model, sizes = model_of(kind, dropout=0.3).train(), {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.setdefault(tensor.data_ptr(), tensor), lambda t: t
        ):
            losses = model(batch)
        kept[per_image] = sum(tensor.nbytes for tensor in sizes.values())
        assert losses
    assert kept[4] < 1.3 * kept[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [2, 4])
@torch.no_grad()
def test_parts_of_a_batch_have_all_its_captions(kind, parts):
    encoder = encoder_of(kind, None)
    batch = encoder.collate(list(examples_of(encoder)))
    model = model_of(kind).eval()
    images = 4 // parts
    losses = [model(select_images(batch, at, at + images)) for at in range(0, 4, images)]
    for name, whole in model(batch).items():
        assert whole.items == sum(part[name].items for part in losses)
        torch.testing.assert_close(whole.total, sum(part[name].total for part in losses), **CLOSE)


def test_selected_images_keep_their_captions():
    encoder = encoder_of("captioning", None)
    examples = list(examples_of(encoder))
    batch = encoder.collate(examples)
    for start, stop in itertools.combinations(range(5), 2):
        part, expected = select_images(batch, start, stop), encoder.collate(examples[start:stop])
        for name in ("image", "image_id", "dropout_key", "caption_lengths"):
            assert torch.equal(part[name], expected[name])
        assert part["captions_per_image"].sum() == len(part["caption_tokens"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_caption_an_image_needs_no_counts(kind):
    encoder = encoder_of(kind, 1)
    batch = encoder.collate(list(examples_of(encoder)))
    assert "captions_per_image" not in batch


def test_one_caption_is_drawn_with_the_same_numbers_as_ever():
    encoder = encoder_of("captioning", 1)
    record = Record(1, Path("unread.jpg"), tuple(CAPTIONS))
    image = Augmented(np.zeros((4, 4, 3), np.uint8))
    for seed in range(20):
        example = encoder.encode(record, image, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        assert TOKENIZER.decode(example["caption_tokens"][0].tolist()) == CAPTIONS[rng.integers(5)]
        assert example["dropout_key"] == [rng.integers(2**63)]


@pytest.mark.parametrize(("per_image", "count"), [(2, 2), (5, 5), (9, 5), (None, 5)])
def test_captions_are_drawn_without_replacement(per_image, count):
    captions = CaptionTokens(TOKENIZER, small.LENGTH, per_image=per_image)
    record = Record(1, Path("unread.jpg"), tuple(CAPTIONS))
    image = Augmented(np.zeros((4, 4, 3), np.uint8))
    firsts = set()
    for seed in range(40):
        drawn = captions.draw(record, image, np.random.default_rng(seed))
        texts = [TOKENIZER.decode(tokens) for tokens in drawn]
        assert len(texts) == len(set(texts)) == count
        firsts.add(texts[0])
    assert firsts == set(CAPTIONS)


def test_labels_are_the_tokens_of_all_drawn_captions():
    encoder = TokenLabelEncoder(CaptionTokens(TOKENIZER, small.LENGTH, per_image=None))
    batch = encoder.collate(list(examples_of(encoder)))
    assert len(batch["labels"]) == 4
    for number, labels in enumerate(batch["labels"].tolist(), start=1):
        texts = CAPTIONS[:number]
        expected = {token for text in texts for token in [1, *TOKENIZER.encode(text), 2]}
        assert set(labels) - {0} == expected
