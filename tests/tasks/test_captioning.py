"""The captioning task: captions to tokens, tokens to losses.

Networks run in float64, but the task computes cross-entropy in float32, which rounds each of some
20 costs to 6e-8 of it; so losses are compared at 1e-6.
"""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import small

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.tasks.captioning import CaptionEncoder
from virtex.text.tokenizer import Tokenizer, train

WORDS = ["a", "cat", "dog", "left", "right", "bright", "of"]
TOKENIZER = Tokenizer.from_bytes(train([" ".join(WORDS)] * 3, 45))
ENCODER = CaptionEncoder(CaptionTokens(TOKENIZER, max_length=30))
CLOSE = {"rtol": 1e-6, "atol": 0}


def encoded(*captions, encoder=ENCODER, mirrored=False, seed=0):
    record = Record(image_id=7, image=Path("unread.jpg"), captions=captions)
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    return encoder.encode(record, Augmented(image, mirrored), np.random.default_rng(seed))


def tokens_of(*captions, **options):
    (tokens,) = encoded(*captions, **options)["caption_tokens"]
    return tokens.tolist()


def text_of(*captions, **options):
    return TOKENIZER.decode(tokens_of(*captions, **options))


def test_tokens_stand_between_start_and_end():
    assert tokens_of("A Cat") == [1, *TOKENIZER.encode("a cat"), 2]


def test_captions_are_normalised():
    assert tokens_of("Ä CÁT") == tokens_of("a cat")


@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_a_mirrored_caption_has_left_and_right_exchanged(words):
    swapped = [{"left": "right", "right": "left"}.get(word, word) for word in words]
    assert text_of(" ".join(words), mirrored=True) == " ".join(swapped)
    assert text_of(" ".join(words)) == " ".join(words)


def test_capital_left_is_exchanged_too():
    assert text_of("LEFT of a bright dog", mirrored=True) == "right of a bright dog"


@given(length=st.integers(2, 12), words=st.lists(st.sampled_from(WORDS), max_size=10))
def test_long_captions_are_cut_on_the_right(length, words):
    whole = [1, *TOKENIZER.encode(" ".join(words)), 2]
    got = tokens_of(" ".join(words), encoder=CaptionEncoder(CaptionTokens(TOKENIZER, length)))
    assert got == whole[:length]
    assert got[0] == 1
    assert (got[-1] == 2) == (len(whole) <= length)


def test_unknown_words_are_the_unknown_token_in_their_place():
    assert tokens_of("a ж cat").count(TOKENIZER.unk_index) == 1
    assert text_of("a ж cat").split() == ["a", "cat"]


def test_an_empty_caption_is_start_and_end():
    assert tokens_of("") == [1, 2]


@given(seed=st.integers(0, 2**32))
def test_single_caption_is_always_the_first(seed):
    single = CaptionEncoder(CaptionTokens(TOKENIZER, 30, single_caption=True))
    assert text_of("cat", "dog", "a", encoder=single, seed=seed) == "cat"


def test_captions_are_drawn_alike_often():
    drawn = [text_of("cat", "dog", seed=seed) for seed in range(400)]
    # Five standard deviations of 400 fair coins are 50.
    assert 150 < drawn.count("cat") < 250


def test_a_draw_is_a_function_of_the_generator():
    captions = ["cat", "dog", "a"]
    assert all(text_of(*captions, seed=s) == text_of(*captions, seed=s) for s in range(20))


def test_a_pickled_encoder_encodes_the_same():
    copy = pickle.loads(pickle.dumps(ENCODER))
    assert tokens_of("a cat", "a dog", encoder=copy, seed=3) == tokens_of("a cat", "a dog", seed=3)


def test_a_batch_holds_both_directions_padded_on_the_right():
    examples = [encoded("a"), encoded("a cat of a dog"), encoded("bright dog")]
    batch = ENCODER.collate(examples)
    captions = [caption for example in examples for caption in example["caption_tokens"]]
    lengths = [len(caption) for caption in captions]
    assert batch["caption_lengths"].tolist() == lengths
    assert batch["image_id"].tolist() == [7, 7, 7]
    for row, caption in enumerate(captions):
        tokens, padding = caption.tolist(), [0] * (max(lengths) - lengths[row])
        assert batch["caption_tokens"][row].tolist() == tokens + padding
        assert batch["reversed_tokens"][row].tolist() == tokens[::-1] + padding


def test_a_batchs_images_are_the_examples_channels_first():
    batch = ENCODER.collate([encoded("a"), encoded("cat")])
    image = batch["image"]
    assert (image.dtype, image.shape) == (torch.uint8, (2, 3, 4, 4))
    assert image[1].permute(1, 2, 0).flatten().tolist() == list(range(48))
    assert image.is_contiguous(memory_format=torch.channels_last)


def model_of(both=True, norm_first=False, seed=0):
    return small.captioning(both=both, norm_first=norm_first, seed=seed).double().eval()


def plain_loss(model, head, image, tokens):
    """One caption: the sum of minus the logarithm of each next token's probability."""
    projected = head.project(model.visual(image.unsqueeze(0)))
    costs = []
    for length in range(1, len(tokens)):
        if tokens[length] != 0:
            seen = tokens[:length].unsqueeze(0)
            logits = head(projected, seen, torch.ones(length, length, dtype=torch.bool).tril())[
                0, -1
            ]
            costs.append(-torch.log_softmax(logits, dim=0)[tokens[length]])
    return torch.stack(costs).sum()


@pytest.mark.parametrize("norm_first", [False, True], ids=["postnorm", "prenorm"])
@torch.no_grad()
def test_losses_equal_one_token_after_another(norm_first):
    model, batch = model_of(norm_first=norm_first), small.batch(3)
    batch["caption_tokens"][1, 2] = batch["reversed_tokens"][1, 1] = 0  # an unknown word
    losses = model(batch)
    heads = {
        "captioning_forward": (model.textual, "caption_tokens"),
        "captioning_backward": (model.backward_textual, "reversed_tokens"),
    }
    assert losses.keys() == heads.keys()
    for name, (head, key) in heads.items():
        expected = sum(
            plain_loss(model, head, batch["image"][row], batch[key][row, :length])
            for row, length in enumerate(batch["caption_lengths"].tolist())
        )
        torch.testing.assert_close(losses[name].total.double(), expected, **CLOSE)
        assert int(losses[name].items) == int((batch[key][:, 1:] != 0).sum())


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(2, 5), seed=st.integers(0, 2**32), data=st.data())
@torch.no_grad()
def test_a_batchs_loss_is_the_token_weighted_mean_of_its_parts(rows, seed, data):
    """However it is divided: no row's loss depends on padding or on its mates."""
    model, batch = model_of(), small.batch(rows, seed)
    cut = data.draw(st.integers(1, rows - 1))
    order = data.draw(st.permutations(range(rows)))
    parts = [model(small.rows_of(batch, list(part))) for part in (order[:cut], order[cut:])]
    for name, whole in model(batch).items():
        assert int(whole.items) == sum(int(part[name].items) for part in parts)
        total = sum(part[name].total for part in parts)
        torch.testing.assert_close(whole.total, total, **CLOSE)
        mean = sum(part[name].mean * part[name].items for part in parts) / whole.items
        torch.testing.assert_close(whole.mean, mean, **CLOSE)


@torch.no_grad()
def test_more_padding_changes_no_loss():
    model, batch = model_of(), small.batch(3)
    longer = dict(batch)
    space = small.LENGTH + 1 - batch["caption_tokens"].shape[1]
    assert space > 0
    for name in ("caption_tokens", "reversed_tokens"):
        longer[name] = F.pad(batch[name], (0, space))
    before, after = model(batch), model(longer)
    for name in before:
        torch.testing.assert_close(after[name].total, before[name].total, **CLOSE)
        assert int(after[name].items) == int(before[name].items)


def gradients(model, losses):
    model.zero_grad()
    torch.stack([loss.mean for loss in losses]).sum().backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


def test_shared_parts_collect_the_gradients_of_both_heads():
    model, batch = model_of(), small.batch(3)
    both = gradients(model, model(batch).values())
    forward = gradients(model, [model(batch)["captioning_forward"]])
    backward = gradients(model, [model(batch)["captioning_backward"]])
    for name in both:
        # Gradients pass through the same float32 logits, and partly cancel.
        total = forward[name] + backward[name]
        torch.testing.assert_close(both[name], total, rtol=1e-5, atol=1e-7)
    alone = {name for name in both if not forward[name].any()}
    assert alone == {name for name in both if name.startswith("backward_textual")}
    assert all(backward[name].any() for name in alone if "self_attn.in_proj_bias" not in name)
    untouched = {name for name in both if not backward[name].any()}
    assert untouched == {name for name in both if name.startswith("textual.transformer")}


def test_heads_share_all_but_their_transformers():
    model = model_of()
    names = {name for name, _ in model.named_parameters() if name.startswith("backward_textual")}
    assert names
    assert all(name.startswith("backward_textual.transformer.") for name in names)
    state = model.state_dict()
    for shared in ("visual_projection.weight", "embedding.words.weight", "output.weight"):
        one, other = state[f"textual.{shared}"], state[f"backward_textual.{shared}"]
        assert one.data_ptr() == other.data_ptr()


def test_captioning_in_one_direction_has_no_backward_part():
    model = model_of(both=False)
    assert set(model(small.batch(2))) == {"captioning_forward"}
    assert not any("backward" in name for name in model.state_dict())


@torch.no_grad()
def test_one_direction_is_the_forward_half_of_both():
    batch = small.batch(2)
    one, both = model_of(both=False)(batch), model_of()(batch)
    forward = "captioning_forward"
    torch.testing.assert_close(one[forward].total, both[forward].total, rtol=0, atol=0)


@torch.no_grad()
def test_the_backward_head_reads_from_the_end():
    """With one transformer for both, exchanging the directions exchanges the losses."""
    model, batch = model_of(), small.batch(3)
    model.backward_textual.transformer.load_state_dict(model.textual.transformer.state_dict())
    turned = batch | {
        "caption_tokens": batch["reversed_tokens"],
        "reversed_tokens": batch["caption_tokens"],
    }
    losses, exchanged = model(batch), model(turned)
    assert float(losses["captioning_forward"].total) != float(losses["captioning_backward"].total)
    for one, other in [("forward", "backward"), ("backward", "forward")]:
        got, expected = exchanged[f"captioning_{one}"], losses[f"captioning_{other}"]
        torch.testing.assert_close(got.total, expected.total, rtol=0, atol=0)


def test_a_batch_of_unknown_words_has_a_finite_loss():
    model, batch = model_of(), small.batch(2)
    for name in ("caption_tokens", "reversed_tokens"):
        batch[name] = torch.zeros_like(batch[name])
    loss = model(batch)["captioning_forward"]
    assert (loss.mean.item(), int(loss.items)) == (0.0, 0)
    loss.mean.backward()
    grads = [p.grad for p in model.textual.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
