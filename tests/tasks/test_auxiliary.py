"""Auxiliary losses: they share the grid of a task, and change nothing of the task itself."""

import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import small

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.distributed.world import World
from virtex.optim import schedules
from virtex.optim.groups import parameter_groups
from virtex.tasks.base import Auxiliary
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.tasks.captioning import BICAPTIONING, CaptionEncoder
from virtex.text.tokenizer import Tokenizer, train
from virtex.training.loop import TrainState, optimize, validate
from virtex.training.precision import choose_precision

TOKENIZER = Tokenizer.from_bytes(train(["a cat of a bright dog"] * 3, 30))
CPU = torch.device("cpu")
FLOAT32 = choose_precision(False, CPU)
MAIN = {"captioning_forward", "captioning_backward"}
WEIGHT = 0.25


class BrightnessEncoder:
    """The mean of the pixels and a random number, as an image's own targets."""

    def encode(self, record, augmented, rng):  # noqa: ARG002
        return {"brightness": float(augmented.image.mean()), "number": rng.random()}

    def collate(self, examples):
        return {
            name: torch.tensor([example[name] for example in examples])
            for name in ("brightness", "number")
        }


TASK = replace(
    BICAPTIONING,
    main_encoder=lambda tokenizer, _settings, _training: CaptionEncoder(
        CaptionTokens(tokenizer, max_length=10)
    ),
    main_objective=lambda visual, _: small.captioning(frozen=visual.frozen),
)
LENGTH = Auxiliary(
    name="length",
    encoder=lambda _tokenizer, _settings, _training: BrightnessEncoder(),
    head=lambda _: small.LengthHead(),
    weight=WEIGHT,
)
WITH_LENGTH = replace(TASK, auxiliaries=(LENGTH,))


def models(*, frozen=False):
    """The task's objective without and with the auxiliary loss."""
    visual = small.backbone(frozen=frozen)
    return TASK.objective(visual, None), WITH_LENGTH.objective(visual, None)


def first_step(model, batch, accumulate=1):
    """One step at a rate of zero, which leaves its gradient."""
    groups = parameter_groups(
        model, visual_lr=0.0, textual_lr=0.0, weight_decay=0.0, no_decay="none"
    )
    optimizer = torch.optim.SGD([dict(group) for group in groups], lr=0.0)
    scaler = FLOAT32.gradient_scaler()
    steps = optimize(
        TrainState(model, model, optimizer, schedules.constant(0), scaler, FLOAT32),
        itertools.repeat(batch),
        clip_grad_norm=1e9,
        max_nonfinite_steps=0,
        seed=0,
        world=World(rank=0, size=1, device=CPU),
        accumulate=accumulate,
        first=1,
        last=1,
    )
    return next(steps)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


def test_names_of_the_task_stay_and_those_of_the_auxiliary_have_a_prefix():
    plain, model = models()
    names, ours = list(plain.state_dict()), list(model.state_dict())
    assert ours[: len(names)] == names
    prefix = "auxiliaries.length."
    assert ours[len(names) :] == [f"{prefix}output.weight", f"{prefix}output.bias"]
    assert (*plain.loss_names, "length") == model.loss_names
    assert TASK.captioning_head(model) is model.textual


def test_training_and_validation_have_both_losses_and_the_task_has_its_own_ones():
    plain, model = models()
    batch = small.batch(5)
    trained = [first_step(one, batch).losses for one in (plain, model)]
    assert set(trained[1]) == MAIN | {"length"}
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in MAIN)
    means = [
        validate(one, [batch], precision=FLOAT32, sum_over_processes=lambda sums: sums)
        for one in (plain, model)
    ]
    assert {name: means[1][name] for name in MAIN} == means[0]
    assert means[1].keys() == MAIN | {"length"}
    assert model.weighted(means[1])["length"] == WEIGHT * means[1]["length"]
    assert model.total(means[1]) == sum(means[0].values()) + WEIGHT * means[1]["length"]


def test_the_loss_is_a_mean_over_its_own_items():
    _, model = models()
    batch = small.batch(6)
    model.eval()
    loss = model(batch)["length"]
    long = batch["caption_lengths"] > 5
    assert 0 < int(loss.items) == int(long.sum()) < 6
    predicted = model.auxiliaries["length"].output(model.visual(batch["image"]).mean(dim=(2, 3)))
    expected = (predicted.squeeze(1) - batch["caption_lengths"])[long].square().mean()
    torch.testing.assert_close(loss.mean, expected)


def test_the_gradient_is_that_of_the_weighted_sum():
    _, model = models()
    batch = small.batch(5)
    first_step(model, batch)
    got = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.train()
    main = gradients(model, sum(model(batch)[name].mean for name in MAIN))
    auxiliary = gradients(model, model(batch)["length"].mean)
    assert any(auxiliary[name].any() for name in main if name.startswith("visual."))
    for name, gradient in got.items():
        # Sums of float32 in another order.
        expected = main[name] + WEIGHT * auxiliary[name]
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("accumulate", [2, 3, 6])
def test_accumulation_gives_the_same_gradient(accumulate):
    figures = []
    for parts in (1, accumulate):
        _, model = models(frozen=True)  # batch norm sees the parts
        step = first_step(model, small.batch(6), parts)
        gradient = model.auxiliaries["length"].output.weight.grad.flatten().tolist()
        losses = [value.item() for value in step.losses.values()]
        figures.append([step.gradient_norm.item(), *losses, *gradient])
    assert figures[1] == pytest.approx(figures[0], rel=2e-5)  # sums are rounded in another order


def test_targets_join_the_batch_and_change_no_draw_of_the_task():
    encoders = [
        pickle.loads(pickle.dumps(task.encoder(TOKENIZER, None, True)))
        for task in (TASK, WITH_LENGTH)
    ]
    image = Augmented(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    record = Record(7, Path("unread.jpg"), ("a cat", "a dog", "bright dog"))
    batches = [
        encoder.collate(
            [encoder.encode(record, image, np.random.default_rng(seed)) for seed in range(4)]
        )
        for encoder in encoders
    ]
    assert batches[1].pop("brightness").tolist() == [23.5] * 4
    assert batches[1].pop("number").unique().numel() == 4
    small.assert_same(batches[0], batches[1])
