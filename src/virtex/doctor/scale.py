"""The size of a run that suits a number of images on a device: network, batch, rates and length.

The rules start from the preset `recipes/small`, which is at 64 images a batch. They are starting
points by experience, not results of a search.
"""

import math
from dataclasses import dataclass

PRESET_BATCH = 64
_PRESET_RATES = {"OPTIM.CNN_LR": 1.0e-3, "OPTIM.LR": 4.0e-4}
_EPOCHS = ((1_000, 60), (5_000, 50), (20_000, 40), (100_000, 30), (500_000, 20))
_MOST_EPOCHS = 10
_FEW = 10_000
"""Images below which the smaller network is enough."""
_MANY = 100_000
"""Images from which on trained weights matter less."""


@dataclass(frozen=True)
class Machine:
    """What trains: the number of GPUs, 0 for the CPU, and of CPU cores."""

    gpus: int
    cores: int

    @property
    def name(self) -> str:
        """The words of a reason."""
        if not self.gpus:
            return "on a CPU"
        return "on a GPU" if self.gpus == 1 else f"on {self.gpus} GPUs"


def choose_network(images: int, machine: Machine) -> tuple[str, str]:
    """The network's name in torchvision, and the reason."""
    if not machine.gpus:
        return "resnet18", "a GPU would make resnet50 possible, which takes about 3 times as long"
    if images < _FEW:
        return "resnet18", f"{images:,} images are few for a larger network, such as resnet50"
    return "resnet50", f"{images:,} images, trained {machine.name}"


def pretrained_advice(images: int) -> str:
    """The comment on weights to start from."""
    better = "is better for so few images: it" if images < _MANY else "often learns faster: it"
    return (
        f"true {better} starts from weights for ImageNet, which torchvision downloads once; then"
        " set OPTIM.CNN_LR to a tenth as well"
    )


def choose_crop(short_side: int, machine: Machine) -> tuple[int, str]:
    """The side of the input images, a multiple of 32 from 96 to 224, and the reason."""
    most = 224 if machine.gpus else 128
    crop = min(max(short_side // 32 * 32, 96), most)
    reason = f"the median short side of the images is {short_side}"
    if short_side < 96:
        return crop, f"{reason}, and fewer pixels would leave a grid of less than 3 x 3"
    if crop == most:
        limit = "the published size" if machine.gpus else "larger ones take long on a CPU"
        return crop, f"{reason}; {limit}"
    return crop, f"{reason}; a multiple of the network's stride"


def choose_batch(images: int, machine: Machine, fitting: int | None) -> tuple[int, str]:
    """The number of images per iteration, a power of two, and the reason.

    `fitting` is the largest batch that fits the memory of one device, None if it is not known.
    """
    if fitting is not None:
        fitting *= max(machine.gpus, 1)
    most = 256 if machine.gpus else PRESET_BATCH
    wanted = _power_of_two(max(images // 16, 1))
    batch = min(max(wanted, 8), most, _power_of_two(images))
    if fitting is not None and fitting < batch:
        return _power_of_two(fitting), f"the largest that fits the memory is {fitting}"
    if batch == most:
        return batch, f"{images // batch:,} iterations per epoch {machine.name}"
    return batch, f"so that {images:,} images give at least {images // batch} iterations per epoch"


def scaled_rates(batch: int) -> tuple[dict[str, float], str]:
    """The learning rates by key, and the reason."""
    factor = math.sqrt(batch / PRESET_BATCH)
    rates = {key: float(f"{rate * factor:.2g}") for key, rate in _PRESET_RATES.items()}
    reason = f"that of recipes/small, for {PRESET_BATCH} images per batch"
    if batch != PRESET_BATCH:
        reason += f", times the square root of {batch}/{PRESET_BATCH}, as AdamW needs it"
    return rates, reason


def choose_epochs(images: int) -> tuple[int, str]:
    """The number of passes over the images, and the reason."""
    epochs = next((number for most, number in _EPOCHS if images < most), _MOST_EPOCHS)
    return epochs, f"fewer images need more passes; here {epochs * images:,} images are seen"


def choose_warmup(iterations: int) -> tuple[int, str]:
    """The number of iterations of the warm-up, and the reason."""
    return min(max(iterations // 20, 1), 2000), f"a twentieth of {iterations:,} iterations"


def choose_interval(iterations: int) -> int:
    """Iterations between two validations and checkpoints: ten in a run, and at least 20 apart."""
    interval = max(iterations // 10, 20)
    return int(float(f"{interval:.1g}"))


def _power_of_two(number: int) -> int:
    """The largest power of two up to a number from 1 on."""
    return 1 << (number.bit_length() - 1)
