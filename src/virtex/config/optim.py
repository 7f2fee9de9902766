"""The settings of the optimizer and its schedule."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from virtex.config.section import Conflict, Section, parsed_by, reports_conflicts
from virtex.config.specs import parse_pattern

_ITERATIONS = 500_000


class Lookahead(Section):
    """Slow weights that follow the fast ones (Zhang et al. 2019, arXiv 1907.08610)."""

    use: bool = Field(default=True, description="Use Lookahead around the optimizer.")
    alpha: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Step size of the slow weights towards the fast weights, as a fraction.",
    )
    steps: int = Field(
        default=5, ge=1, description="Number of iterations between updates of the slow weights."
    )


class Ema(Section):
    """The exponential moving average of the weights."""

    decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of an average of the weights, such as 0.999, beside the weights "
        "themselves; 0 keeps none. It is validated too and saved in the checkpoints, and training "
        "does not depend on it.",
    )


class Optim(Section):
    """The optimizer and its schedule."""

    optimizer_name: Literal["sgd", "adamw"] = Field(default="sgd", description="Optimizer.")
    sgd_momentum: float = Field(
        default=0.9, ge=0, lt=1, description="Momentum of sgd; adamw does not use it."
    )
    weight_decay: float = Field(default=1e-4, ge=0, description="Weight decay.")
    no_decay: Annotated[str, parsed_by(parse_pattern)] = Field(
        default=".*textual.(embedding|transformer).*(norm.*|bias)",
        description="Regular expression for parameters without weight decay, matched at the "
        "beginning of their names.",
    )
    clip_grad_norm: float = Field(
        default=10.0,
        gt=0,
        description="Maximum norm of the gradient over all parameters; a huge value disables "
        "clipping.",
    )
    lookahead: Lookahead = Lookahead()
    ema: Ema = Ema()
    batch_size: int = Field(
        default=256, ge=1, description="Number of images per iteration, over all processes."
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Number of microbatches into which each process splits its images, to save "
        "memory. The gradient is the same, except that batch norm computes its statistics per "
        "microbatch.",
    )
    cnn_lr: float = Field(default=0.2, ge=0, description="Peak learning rate of the backbone.")
    lr: float = Field(default=1e-3, ge=0, description="Peak learning rate of all other parameters.")
    # Before the iterations, whose default depends on it.
    num_epochs: float | None = Field(
        default=None,
        gt=0,
        description="Number of passes over the training images, in place of NUM_ITERATIONS: the "
        "run then has as many iterations as these passes have batches of BATCH_SIZE, rounded up.",
    )
    num_iterations: int | None = Field(
        default_factory=lambda given: _default_iterations(given),
        ge=1,
        description="Number of iterations of the run; null if NUM_EPOCHS gives the length.",
        json_schema_extra={"default": _ITERATIONS},
    )
    warmup_steps: int = Field(
        default=10000,
        ge=0,
        description="Number of iterations in which the learning rates grow from 0 to their peak.",
    )
    lr_decay_name: Literal["none", "linear", "cosine", "multistep"] = Field(
        default="cosine", description="Decay of the learning rates after the warm-up."
    )
    lr_steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(),
        description="Iterations at which multistep lowers the learning rates: in increasing "
        "order, after the warm-up and before the end of the run.",
    )
    lr_gamma: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Factor by which the learning rates are multiplied at each of LR_STEPS.",
    )
    max_nonfinite_steps: int = Field(
        default=10,
        ge=1,
        description="Maximum number of consecutive iterations that are skipped because their "
        "gradient is not finite; one more stops the run.",
    )

    @reports_conflicts
    def _conflicts(self) -> Iterator[Conflict]:
        lengths = ("OPTIM.NUM_ITERATIONS", "OPTIM.NUM_EPOCHS")
        if self.num_iterations is None and self.num_epochs is None:
            yield lengths, "expected the length of the run; set one of them"
        if self.num_iterations is not None and self.num_epochs is not None:
            yield lengths, "expected one length of the run, not two; set one of them to null"
        elif self.num_iterations is not None and self.warmup_steps >= self.num_iterations:
            yield (
                ("OPTIM.WARMUP_STEPS", "OPTIM.NUM_ITERATIONS"),
                "expected a warm-up shorter than the run; set WARMUP_STEPS to at most "
                f"{self.num_iterations - 1}, or NUM_ITERATIONS to at least {self.warmup_steps + 1}",
            )
        if self.batch_size % self.accumulate:
            yield (
                ("OPTIM.BATCH_SIZE", "OPTIM.ACCUMULATE"),
                "expected a batch size that is divisible by the number of microbatches; set "
                f"BATCH_SIZE to {multiples_around(self.batch_size, self.accumulate)}",
            )
        ascending = sorted(set(self.lr_steps))
        if list(self.lr_steps) != ascending:
            yield (
                ("OPTIM.LR_STEPS",),
                f"expected iterations in increasing order, each once: {ascending}",
            )
        keys = ("OPTIM.LR_DECAY_NAME", "OPTIM.LR_STEPS")
        if self.lr_decay_name == "multistep" and not self.lr_steps:
            yield keys, "expected the iterations of multistep, such as LR_STEPS: [300000, 400000]"
        if self.lr_decay_name != "multistep" and self.lr_steps:
            yield (
                keys,
                "expected LR_STEPS only with multistep; set LR_DECAY_NAME to multistep, or "
                "LR_STEPS to []",
            )

    @property
    def iterations(self) -> int:
        """The number of iterations, which NUM_EPOCHS gives only when the data have been read."""
        assert self.num_iterations is not None, "the data have not been read"
        return self.num_iterations

    def useless_steps(self) -> Iterator[Conflict]:
        """The steps of multistep that lie in the warm-up, or after the end of the run.

        A new run is refused for them; the settings of earlier runs may have them.
        """
        if self.lr_decay_name != "multistep":
            return
        early = [step for step in self.lr_steps if step < self.warmup_steps]
        length = math.inf if self.num_iterations is None else self.num_iterations
        late = [step for step in self.lr_steps if step >= length]
        if early:
            yield (
                ("OPTIM.LR_STEPS", "OPTIM.WARMUP_STEPS"),
                "expected no step before the end of the warm-up; remove "
                f"{_listed(early)} from LR_STEPS, or set WARMUP_STEPS to at most {min(early)}",
            )
        if late:
            yield (
                ("OPTIM.LR_STEPS", "OPTIM.NUM_ITERATIONS"),
                "expected steps before the end of the run; remove "
                f"{_listed(late)} from LR_STEPS, or set NUM_ITERATIONS to at least {max(late) + 1}",
            )


def multiples_around(batch_size: int, divisor: int) -> str:
    """The nearest batch sizes, at least 1, that are divisible: `8 or 12`."""
    below = batch_size - batch_size % divisor
    return " or ".join(str(size) for size in (below, below + divisor) if size)


def _default_iterations(given: Mapping[str, Any]) -> int | None:
    """The published number of iterations, unless epochs are `given`."""
    return _ITERATIONS if given.get("num_epochs") is None else None


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
