"""The training loop: exact continuation, bad gradients, clipping, precision."""

import copy
import itertools

import pytest
import torch
from tests import small
from tests.small import assert_same, state_of

from virtex.distributed.world import World
from virtex.optim import schedules
from virtex.optim.groups import parameter_groups
from virtex.optim.lookahead import Lookahead
from virtex.training.loop import Diverged, TrainState, _optimizer_step, optimize, validate
from virtex.training.precision import Precision, choose_precision

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, device=CPU)
FLOAT32 = choose_precision(False, CPU)
BFLOAT16 = Precision(torch.bfloat16, "cpu", "asked for")
LAST = 8


def optimizer_of(model, momentum=0.9, rate=0.05):
    groups = parameter_groups(
        model, visual_lr=rate, textual_lr=rate / 2, weight_decay=1e-3, no_decay=".*bias"
    )
    return Lookahead(
        torch.optim.SGD([dict(group) for group in groups], lr=rate, momentum=momentum),
        alpha=0.5,
        steps=3,
    )


def batches_from(first):
    """Endless; a function of the iteration, as the loader's are."""
    return (small.batch(3, seed=iteration) for iteration in itertools.count(first))


def spoilt(batches, bad, first=1):
    """The batches, with pixels that are not finite in the iterations `bad`."""
    for iteration, batch in enumerate(batches, first):
        if iteration in bad:
            batch["image"] = torch.full(batch["image"].shape, torch.inf)
        yield batch


def steps_of(model, optimizer, *, first=1, last=LAST, batches=None, **changes):
    options = {
        "schedule": schedules.cosine(2, LAST),
        "precision": FLOAT32,
        "clip_grad_norm": 10.0,
        "max_nonfinite_steps": 0,
        "seed": 0,
        "world": ALONE,
        "parallel": model,
    } | changes
    schedule, precision = options.pop("schedule"), options.pop("precision")
    scaler, parallel = precision.gradient_scaler(), options.pop("parallel")
    return optimize(
        TrainState(model, parallel, optimizer, schedule, scaler, precision),
        batches_from(first) if batches is None else batches,
        first=first,
        last=last,
        **options,
    )


def figures(steps):
    """What a repeated run must repeat."""
    return [
        (
            step.iteration,
            {name: value.item() for name, value in step.losses.items()},
            step.gradient_norm.item(),
            step.learning_rates,
        )
        for step in steps
    ]


def validate_on(model, batch):
    return validate(model, [batch], precision=FLOAT32, sum_over_processes=lambda tensor: tensor)


@pytest.mark.parametrize("cut", range(LAST + 1))
def test_two_parts_equal_the_whole_run(cut):
    """With dropout, momentum, batch norm and Lookahead in the middle of its cycle."""
    model = small.captioning(dropout=0.2)
    expected = figures(steps_of(model, optimizer_of(model)))

    begun = small.captioning(dropout=0.2)
    optimizer = optimizer_of(begun)
    got = figures(steps_of(begun, optimizer, last=cut))
    resumed = small.captioning(dropout=0.2, seed=5)
    resumed.load_state_dict(begun.state_dict())
    fresh = optimizer_of(resumed)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    torch.manual_seed(cut)  # another process has another random state
    got += figures(steps_of(resumed, fresh, first=cut + 1))

    assert got == expected
    assert_same(resumed.state_dict(), model.state_dict())


def test_how_often_one_validates_changes_nothing():
    runs = []
    for every in (1, 3, LAST + 1):
        model = small.captioning(dropout=0.2)
        steps = []
        for step in steps_of(model, optimizer_of(model)):
            steps.append(step)
            if step.iteration % every == 0:
                validate_on(model, small.batch(2, seed=99))
        runs.append((figures(steps), state_of(model)))
    for steps, state in runs[1:]:
        assert steps == runs[0][0]
        assert_same(state, runs[0][1])


def test_dropout_is_a_function_of_the_examples_keys():
    def loss(key, iteration, seed):
        model = small.captioning(dropout=0.5)
        torch.manual_seed(12345 + iteration)  # what came before does not matter
        batch = small.batch(3) | {"dropout_key": torch.tensor(key)}
        (step,) = steps_of(
            model,
            optimizer_of(model),
            first=iteration,
            last=iteration,
            seed=seed,
            batches=itertools.repeat(batch),
        )
        return sum(value.item() for value in step.losses.values())

    keys = [[1, 2, 3], [1, 2, 4], [2, 1, 3], [1 + 2**40, 2, 3]]
    losses = [loss(key, 1, 0) for key in keys]
    assert losses == [loss(key, 2, 5) for key in keys]
    assert len(set(losses)) == len(keys)


@pytest.mark.parametrize("accumulate", [2, 3, 6])
def test_accumulation_gives_the_gradient_of_the_whole_batch(accumulate):
    """With dropout; captions of other lengths in each part, so that no mean of means would do."""
    figures_of = {}
    for parts in (1, accumulate):
        model = small.captioning(dropout=0.3, frozen=True)  # batch norm sees the parts
        steps = steps_of(
            model,
            optimizer_of(model),
            last=3,
            batches=(small.batch(6, seed=n) for n in itertools.count()),
            accumulate=parts,
        )
        figures_of[parts] = [
            [step.gradient_norm.item(), *(value.item() for value in step.losses.values())]
            for step in steps
        ]
    # The sums are rounded in another order.
    assert figures_of[accumulate] == [pytest.approx(row, rel=2e-5) for row in figures_of[1]]
    assert figures_of[accumulate] != figures_of[1]


def test_each_iteration_uses_the_rate_after_the_steps_before_it():
    model = small.captioning()
    schedule = schedules.linear(3, LAST)
    for step in steps_of(model, optimizer_of(model), schedule=schedule):
        factor = schedule(step.iteration - 1)
        assert step.learning_rates["visual_decayed"] == pytest.approx(0.05 * factor, rel=1e-15)
        assert step.learning_rates["textual_decayed"] == pytest.approx(0.025 * factor, rel=1e-15)


def test_a_rate_of_zero_moves_no_weight():
    model = small.captioning()
    before = state_of(model)
    list(steps_of(model, optimizer_of(model), last=1))  # warm-up starts at zero
    parameters = dict(model.named_parameters())
    assert_same(
        {name: value.detach() for name, value in parameters.items()},
        {name: before[name] for name in parameters},
    )
    assert int(model.visual.cnn.bn1.num_batches_tracked) == 1


def test_steps_have_the_figures_of_the_iteration():
    model = small.captioning()
    steps = list(steps_of(model, optimizer_of(model), first=4, last=6))
    assert [step.iteration for step in steps] == [4, 5, 6]
    for step in steps:
        assert (step.applied, step.images) == (True, 3)
        assert set(step.losses) == {"captioning_forward", "captioning_backward"}
        assert not any(value.requires_grad for value in step.losses.values())
        assert 0 <= step.data_seconds <= step.seconds


@pytest.mark.parametrize("clip", [0.1, 1e6], ids=["clipped", "free"])
def test_gradients_are_clipped_by_their_whole_norm(clip):
    model, again = small.captioning(), small.captioning()
    rate = schedules.constant(0)
    (step,) = steps_of(
        model, optimizer_of(model, momentum=0.0), last=1, schedule=rate, clip_grad_norm=clip
    )
    again.train()
    losses = again(small.batch(3, seed=1))
    sum(loss.mean for loss in losses.values()).backward()
    free = dict(again.named_parameters())
    norm = torch.cat([p.grad.flatten() for p in free.values()]).norm()
    # The norm of a few thousand float32 squares, added up in another order.
    torch.testing.assert_close(step.gradient_norm, norm, rtol=1e-5, atol=0)
    assert norm > 0.1
    for name, parameter in model.named_parameters():
        expected = free[name].grad * min(1.0, clip / float(norm))
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-8)


def test_training_lowers_the_loss():
    model = small.captioning()
    batches = itertools.repeat(small.batch(3))
    steps = figures(
        steps_of(
            model,
            optimizer_of(model),
            last=30,
            schedule=schedules.constant(0),
            batches=batches,
        )
    )
    assert sum(steps[-1][1].values()) < 0.7 * sum(steps[0][1].values())


def test_a_gradient_that_is_not_finite_leaves_everything_alone():
    """Weights, momentum, Lookahead's counter, and the statistics of batch norm."""
    model = small.captioning()
    optimizer = optimizer_of(model)
    before, counter = state_of(model), []
    applied = []
    batches = spoilt(batches_from(1), bad={3, 4})
    for step in steps_of(model, optimizer, batches=batches, max_nonfinite_steps=2):
        applied.append(step.applied)
        counter.append(optimizer.counter)
        if step.iteration in {3, 4}:
            assert not step.gradient_norm.isfinite()
            assert_same(model.state_dict(), before)
        before = state_of(model)
    assert applied == [iteration not in {3, 4} for iteration in range(1, LAST + 1)]
    assert counter == [1, 2, 2, 2, 0, 1, 2, 0]
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert int(model.visual.cnn.bn1.num_batches_tracked) == LAST - 2


@pytest.mark.parametrize(("bad", "most", "ends"), [
    ({2, 3, 4}, 2, 4),
    ({2, 3, 5, 6}, 2, None),
    ({1}, 0, 1),
    ({7, 8}, 1, 8),
    ({1, 3, 5, 7}, 1, None),
])  # fmt: skip
def test_only_too_many_bad_steps_in_a_row_end_the_run(bad, most, ends):
    model = small.captioning()
    batches = spoilt(batches_from(1), bad)
    steps = steps_of(model, optimizer_of(model), batches=batches, max_nonfinite_steps=most)
    for expected in range(1, ends or LAST + 1):
        assert next(steps).iteration == expected
    with pytest.raises(Diverged if ends else StopIteration):
        next(steps)


def test_diagnosis_names_losses_rates_parameters_and_images():
    model = small.captioning()
    with pytest.raises(Diverged) as caught:
        list(steps_of(model, optimizer_of(model), batches=spoilt(batches_from(1), {1, 2, 3}),
                      max_nonfinite_steps=2))  # fmt: skip
    message = str(caught.value)
    assert "3 iterations in a row, up to iteration 3" in message
    assert "captioning_forward nan" in message
    assert "captioning_backward nan" in message
    assert "visual_decayed 0.05" in message
    assert "visual.cnn.conv1.weight" in message
    assert "all weights are finite" in message
    assert "images of the last batch: 100, 101, 102\n" in message
    assert "OPTIM.LR" in message


def test_diagnosis_names_weights_that_are_not_finite():
    model = small.captioning()
    with torch.no_grad():
        model.textual.output.bias[3] = torch.nan
    with pytest.raises(Diverged, match=r"weights not finite: textual\.output\.bias"):
        list(steps_of(model, optimizer_of(model)))


def test_a_frozen_backbone_is_left_alone_by_training_and_validation():
    model = small.captioning(frozen=True)
    before = state_of(model.visual)
    for _ in steps_of(model, optimizer_of(model)):
        validate_on(model, small.batch(2))
    assert_same(model.visual.state_dict(), before)


@pytest.mark.parametrize("channels_last", [False, True])
def test_mixed_precision_steps_stay_near_float32(channels_last):
    runs = []
    for precision in (FLOAT32, BFLOAT16):
        model = small.captioning(channels_last=channels_last)
        runs.append(figures(steps_of(model, optimizer_of(model), last=4, precision=precision)))
        assert all(p.dtype is torch.float32 for p in model.parameters())
    for exact, rounded in zip(*runs, strict=True):
        # bfloat16 rounds by 2^-9, in some ten layers: 0.2 % at worst over 40 seeds, and more from
        # step to step.
        assert rounded[1] == pytest.approx(exact[1], rel=0.02)
    assert runs[0][0][1] != runs[1][0][1]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("value", "applied", "scale"),
    [(1.0, True, 1.0), (3e38, False, 1.0), (torch.inf, False, 0.5), (torch.nan, False, 0.5)],
)
def test_a_step_is_applied_where_the_norm_is_finite(fused, scaled, value, applied, scale):
    """3e38 is finite in float32, but the norm of two of them is not; no gradient overflowed."""
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.full((2,), value)
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0, enabled=scaled)
    scaler.scale(torch.ones(()))
    _, reported = _optimizer_step(optimizer, scaler, [weight], 10.0)
    assert reported is applied
    assert bool(weight.any()) is applied
    assert scaler.get_scale() == (scale if scaled else 1.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_training_on_a_gpu_stays_near_the_cpu(dtype):
    """float16 goes through a loss scaler, whose first scale may be too large for a step or two."""
    precision = Precision(dtype, "cuda", "asked for")
    exact, model = small.captioning(), small.captioning().cuda()
    batches = ({name: value.cuda() for name, value in batch.items()} for batch in batches_from(1))
    got = list(
        steps_of(
            model,
            optimizer_of(model),
            last=1,
            precision=precision,
            batches=batches,
            max_nonfinite_steps=5,
        )
    )
    (expected,) = figures(steps_of(exact, optimizer_of(exact), last=1))
    # TF32 and bfloat16 keep 10 and 8 bits; some ten layers.
    losses = {name: value.item() for name, value in got[0].losses.items()}
    assert losses == pytest.approx(expected[1], rel=0.02)
