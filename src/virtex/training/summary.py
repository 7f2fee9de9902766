"""What a run has learnt, in a few lines at its end, and the commands that come next."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from virtex.training.scalars import Curve

_LOSS = "val/loss"
_DISTINCT = "samples/distinct_captions"


def summarize(curves: Mapping[str, Curve], checkpoint: Path, *, captions: bool) -> Iterator[str]:
    """Lines on the best validation, overfitting, distinct captions, and what to do next.

    `curves` are those of `scalars.jsonl`; `captions` is whether the model can caption.
    """
    losses = curves.get(_LOSS, {})
    if losses:
        first, last = min(losses), max(losses)
        best = min(losses, key=lambda iteration: losses[iteration])
        yield (
            f"learnt: the lowest validation loss is {losses[best]:.4f}, after iteration {best:,}"
            f" (the first was {losses[first]:.4f}, after iteration {first:,})"
        )
        yield _overfitting(losses, best, last)
    distinct = curves.get(_DISTINCT, {})
    if distinct:
        last = max(distinct)
        yield (
            f"learnt: after iteration {last:,}, {distinct[last]:.0f} % of the captions of sampled"
            " validation images are distinct"
        )
    yield "next: " + _next(checkpoint, captions=captions)


def _overfitting(losses: Curve, best: int, last: int) -> str:
    if best == last:
        if len(losses) == 1:
            return "learnt: with one validation, nothing tells whether the model overfits"
        return (
            "learnt: no overfitting so far, as the last validation is the best; a longer run may"
            " learn more"
        )
    rise = 100 * (losses[last] / losses[best] - 1)
    return (
        f"learnt: overfitting since iteration {best:,}; the validation loss is {rise:.1f} % higher"
        " at the end. Evaluate earlier checkpoints too, or train for fewer epochs"
    )


def _next(checkpoint: Path, *, captions: bool) -> str:
    command = f"virtex evaluate knn --data LABELLED_IMAGES --checkpoint {checkpoint}"
    if not captions:
        return command
    return f"virtex caption IMAGES --checkpoint {checkpoint}, or {command}"
