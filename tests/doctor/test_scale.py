"""The size of a run by the number of images and the machine."""

import pytest

from virtex.doctor import scale
from virtex.doctor.scale import Machine
from virtex.doctor.validation import share_choice, validation_share

CPU, GPU = Machine(0, 4), Machine(1, 16)
NUMBERS = [1, 2, 7, 30, 267, 999, 5000, 8000, 20_000, 118_000, 3_000_000]


@pytest.mark.parametrize("machine", [CPU, GPU])
@pytest.mark.parametrize("images", NUMBERS)
def test_a_batch_is_a_power_of_two_that_the_data_and_the_memory_allow(images, machine):
    for fitting in (None, 1, 6, 100):
        batch, reason = scale.choose_batch(images, machine, fitting)
        assert batch.bit_count() == 1
        assert batch <= min(images, fitting or images)
        assert reason
    batch, _ = scale.choose_batch(images, machine, None)
    assert images < 8 or images // batch >= 1
    assert images < 200 or images // batch >= 16


@pytest.mark.parametrize("images", NUMBERS)
def test_warm_up_and_intervals_lie_within_the_run(images):
    epochs, _ = scale.choose_epochs(images)
    batch, _ = scale.choose_batch(images, CPU, None)
    iterations = -(-epochs * images // batch)
    warmup, _ = scale.choose_warmup(iterations)
    assert 0 < warmup < iterations
    assert scale.choose_interval(iterations) > 0


def test_fewer_images_get_more_epochs_and_fewer_iterations():
    epochs = [scale.choose_epochs(images)[0] for images in NUMBERS]
    assert epochs == sorted(epochs, reverse=True)
    seen = [count * images for count, images in zip(epochs, NUMBERS, strict=True)]
    assert seen == sorted(seen)


def test_rates_follow_the_square_root_of_the_batch():
    assert scale.scaled_rates(64)[0] == {"OPTIM.CNN_LR": 1e-3, "OPTIM.LR": 4e-4}
    assert scale.scaled_rates(256)[0] == {"OPTIM.CNN_LR": 2e-3, "OPTIM.LR": 8e-4}
    assert scale.scaled_rates(16)[0] == {"OPTIM.CNN_LR": 5e-4, "OPTIM.LR": 2e-4}


@pytest.mark.parametrize("machine", [CPU, GPU])
def test_a_crop_is_a_multiple_of_the_stride_within_the_images(machine):
    for short_side in range(8, 3000, 37):
        crop, _ = scale.choose_crop(short_side, machine)
        assert crop % 32 == 0
        assert 96 <= crop <= (224 if machine.gpus else 128)
        assert crop <= max(short_side, 96)


def test_the_network_follows_images_and_device():
    assert scale.choose_network(1_000_000, CPU)[0] == "resnet18"
    assert scale.choose_network(500, GPU)[0] == "resnet18"
    assert scale.choose_network(50_000, GPU)[0] == "resnet50"


def test_validation_has_200_images_where_that_is_at_most_a_tenth():
    shares = {images: validation_share(images) for images in NUMBERS}
    assert all(0 < share <= 0.1 for share in shares.values())
    drawn = {images: share * images for images, share in shares.items()}
    assert all(180 <= number <= 5500 for images, number in drawn.items() if images >= 2000)
    assert drawn[267] == pytest.approx(26.7)


def test_few_groups_get_a_share_that_draws_some():
    choice = share_choice(1000, groups=10)
    assert choice.value == 0.3
    assert "only 10" in choice.reason
