"""Figures recorded from the published system, and the weights and inputs that they belong to.

A case's weights follow from each tensor's name and shape alone, its images from a seed.
"""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
CASES = (
    "base_config_R_50_L1_H1024",
    "bicaptioning_postnorm",
    "captioning_prenorm",
    "decode_bicaptioning_sharp",
    "masked_lm",
    "multilabel_classification",
    "token_classification",
)


def figures(name: str) -> dict[str, Any]:
    """The recorded figures of a case."""
    case: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return case


def overrides(case: dict[str, Any]) -> list[str]:
    """The case's KEY VALUE pairs, as a command line would hold them.

    The memory layout is the recorded one: in the other, a value that lies near zero before a ReLU
    can come out on the other side of it, which moves single gradients by up to 3e-3.
    """
    return [*map(str, case["config_override"]), "CHANNELS_LAST", "false"]


def batch(case: dict[str, Any]) -> dict[str, Tensor]:
    """The case's inputs; images are already normalised."""
    given = case["batch"]
    shape, seed = given["image"]["shape"], given["image"]["seed"]
    tokens = {name: torch.tensor(value) for name, value in given.items() if name != "image"}
    images = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    rows = torch.arange(shape[0])
    return {"image": images, "image_id": rows, "dropout_key": rows, **tokens}


@torch.no_grad()
def set_weights(module: nn.Module, weight_std: float) -> None:
    """Give every parameter and persistent buffer the value that its name prescribes."""
    names = module.state_dict().keys()
    tensors = list(module.named_parameters())
    tensors += [(name, buffer) for name, buffer in module.named_buffers() if name in names]
    for name, tensor in tensors:
        if not name.endswith("num_batches_tracked"):
            tensor.copy_(_value(name, tensor.shape, weight_std))
    embedding = "textual.embedding.words.weight"
    if embedding in names:
        module.get_parameter(embedding)[0].zero_()


def _value(name: str, shape: torch.Size, weight_std: float) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=generator)
    normal = torch.randn(shape, generator=generator)
    if name.endswith("running_mean"):
        return 0.1 * normal
    if name.endswith("bias"):
        return 0.02 * normal
    if len(shape) == 1:
        return 1 + 0.1 * normal
    if len(shape) == 4:
        return math.sqrt(2 / math.prod(shape[1:])) * normal
    return weight_std * normal
