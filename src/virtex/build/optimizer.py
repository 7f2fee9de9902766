"""The optimizer and its learning-rate schedule, from the configuration."""

from typing import assert_never

import torch
from torch import nn

from virtex.config.schema import Config
from virtex.optim import schedules
from virtex.optim.averaging import WeightAverage
from virtex.optim.groups import parameter_groups
from virtex.optim.lookahead import AnyOptimizer, Lookahead


def build_optimizer(config: Config, model: nn.Module) -> AnyOptimizer:
    """SGD or AdamW over the parameter groups, wrapped in Lookahead if configured."""
    optim = config.optim
    groups = parameter_groups(
        model,
        visual_lr=optim.cnn_lr,
        textual_lr=optim.lr,
        weight_decay=optim.weight_decay,
        no_decay=optim.no_decay,
    )
    parameters = [dict(group) for group in groups]
    inner: torch.optim.Optimizer
    match optim.optimizer_name:
        case "sgd":
            inner = torch.optim.SGD(
                parameters, lr=optim.lr, momentum=optim.sgd_momentum, fused=True
            )
        case "adamw":
            inner = torch.optim.AdamW(parameters, lr=optim.lr, fused=True)
        case _:
            assert_never(optim.optimizer_name)
    if not optim.lookahead.use:
        return inner
    return Lookahead(inner, alpha=optim.lookahead.alpha, steps=optim.lookahead.steps)


def build_schedule(config: Config) -> schedules.Schedule:
    """The factor of the learning rates as a function of the number of steps."""
    optim = config.optim
    warmup, total = optim.warmup_steps, optim.iterations
    match optim.lr_decay_name:
        case "none":
            return schedules.constant(warmup)
        case "linear":
            return schedules.linear(warmup, total)
        case "cosine":
            return schedules.cosine(warmup, total)
        case "multistep":
            return schedules.multistep(warmup, optim.lr_steps, optim.lr_gamma)
        case _:
            assert_never(optim.lr_decay_name)


def build_average(config: Config, model: nn.Module) -> WeightAverage | None:
    """The average of the weights, if configured."""
    decay = config.optim.ema.decay
    return WeightAverage(model, decay) if decay else None


def estimate_checkpoint_bytes(config: Config, model: nn.Module) -> int:
    """The size of a checkpoint: weights, their average, those of the gradients, slow weights."""
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    weights *= 2 if config.optim.ema.decay else 1
    trained = sum(each.nbytes for each in model.parameters() if each.requires_grad)
    averages = 2 if config.optim.optimizer_name == "adamw" else 1
    size: int = weights + (averages + config.optim.lookahead.use) * trained
    return size
