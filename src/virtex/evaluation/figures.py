"""Metrics of predictions and rankings in percent, with bootstrap intervals over the test images.

A statistic is a function of how often each test image counts: once for the value itself, and as
often as it was drawn for a resample of the bootstrap. Average precision is that of scikit-learn's
`average_precision_score`: images with equal scores share one threshold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

# (N, R): how often each of N images counts in each of R resamples. Whole numbers, whose sums are
# exact in float32 up to 2^24 images.
Counts = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_RESAMPLES_AT_ONCE = 32


@dataclass(frozen=True)
class Figure:
    """A number in percent.

    `interval` holds the middle 95 % of the values that the bootstrap over the test images gives.
    `deviation` is the standard deviation over draws of training images. `settings` are what the
    number depends on.
    """

    metric: str
    value: float
    interval: tuple[float, float] | None = None
    deviation: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Statistics:
    """Several metrics of the same test images, from 0 to 1.

    `compute` maps counts (N, R) to (metrics, R), with NaN where a resample has no value. `left_out`
    names the classes that the metrics do not cover.
    """

    metrics: tuple[str, ...]
    images: int
    compute: Callable[[Counts], Floats]
    left_out: tuple[str, ...] = ()

    def values(self) -> dict[str, float]:
        """Each metric in percent, without an interval."""
        once = self.compute(np.ones((self.images, 1), np.float32))
        return {metric: 100 * float(row[0]) for metric, row in zip(self.metrics, once, strict=True)}

    def figures(
        self,
        settings: Mapping[str, object],
        *,
        suffix: str = "",
        seed: int = 0,
        resamples: int = 1000,
    ) -> list[Figure]:
        """Each metric with its bootstrap interval; `suffix` is appended to the metric's name."""
        drawn = 100 * np.concatenate(
            [self.compute(counts) for counts in _resamples(self.images, seed, resamples)], axis=1
        )
        low, high = np.nanquantile(drawn, (0.025, 0.975), axis=1)
        left_out = (*_strings(settings.get("left_out", ())), *self.left_out)
        if left_out:
            settings = {**settings, "left_out": left_out, "classes_left_out": len(left_out)}
        settings = {**settings, "bootstrap_resamples": resamples, "bootstrap_seed": seed}
        return [
            Figure(metric + suffix, value, (float(low[row]), float(high[row])), None, settings)
            for row, (metric, value) in enumerate(self.values().items())
        ]


def prediction_statistics(
    predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]
) -> Statistics:
    """Top-1 accuracy and balanced accuracy of (N,) predicted classes.

    Balanced accuracy is the mean of the accuracies of the classes that have an image.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=labels.min() - 1))
    correct = predicted == labels
    wrong_excluded = order[correct[order]]
    correct_starts = np.searchsorted(labels[wrong_excluded], labels[order][starts])

    def compute(counts: Counts) -> Floats:
        of_class = _stretch_sums(counts, order, starts)
        right = _stretch_sums(counts, wrong_excluded, correct_starts)
        return np.stack(
            [_ratio(right.sum(1), of_class.sum(1)), _mean_over_classes(_ratio(right, of_class))]
        )

    return Statistics(("top1", "balanced_accuracy"), len(labels), compute)


def mean_statistics(metrics: Sequence[str], values: npt.ArrayLike) -> Statistics:
    """The mean over N test images of each metric; `values` is (metrics, N)."""
    of_images = np.asarray(values, np.float64)

    def compute(counts: Counts) -> Floats:
        means: Floats = of_images @ counts / counts.sum(axis=0)
        return means

    return Statistics(tuple(metrics), of_images.shape[1], compute)


def ranking_statistics(
    scores: Floats, labels: npt.NDArray[np.int8], classes: Sequence[str] = ()
) -> Statistics:
    """The means over classes of average precision and of the area under the ROC curve.

    `scores` is (N, K); `labels` (N, K) has 1 for a positive, -1 for a negative, and 0 for an image
    that does not count for the class. Classes without a positive or without a negative are left
    out; at least one class must have both.
    """
    both = (labels == 1).any(0) & (labels == -1).any(0)
    rankings = [
        _Ranking.of(scores[counted, column], labels[counted, column] == 1, counted)
        for column in np.flatnonzero(both)
        for counted in [np.flatnonzero(labels[:, column])]
    ]

    def compute(counts: Counts) -> Floats:
        measured = np.stack([ranking.measure(counts) for ranking in rankings], axis=2)
        return np.stack([_mean_over_classes(of_classes) for of_classes in measured])

    left_out = tuple(classes[k] if classes else str(k) for k in np.flatnonzero(~both).tolist())
    return Statistics(("mAP", "AUROC"), len(labels), compute, left_out)


def average_precision(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Average precision of one class, from 0 to 1; NaN without a positive or a negative."""
    return _measure_once(scores, positive)[0]


def auroc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """The probability that a positive has a higher score than a negative; equal scores count half.

    NaN without a positive or a negative.
    """
    return _measure_once(scores, positive)[1]


def voc2007_average_precision(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """The mean, over the recalls 0, 0.1, …, 1, of the highest precision at that recall or above.

    From 0 to 1, as the PASCAL VOC challenge computed it until 2009; NaN without a positive.
    """
    if not positive.any():
        return float("nan")
    ranking = _Ranking.of(scores, positive, np.arange(len(scores)))
    positives, images = ranking.positives_and_images(np.ones((len(scores), 1), np.float32))
    found, seen = positives[0].cumsum(), images[0, :-1].cumsum()
    precision, recall = found / seen, found / found[-1]
    return float(np.mean([precision[recall >= tenth / 10].max() for tenth in range(11)]))


@dataclass(frozen=True)
class _Ranking:
    """The images that count for a class, highest score first, in stretches.

    A *tie* is all images of one score, if a positive is among them. G ties cut the ranking into
    G + 1 stretches: down to the end of the first tie, from there to the end of the second, and so
    on. Positives, and the negatives within ties, are cut at the same places.
    """

    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    positives: npt.NDArray[np.int64]
    positive_starts: npt.NDArray[np.int64]
    tied_negatives: npt.NDArray[np.int64]
    tied_starts: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, scores: Floats, positive: npt.NDArray[np.bool_], images: npt.NDArray[np.int64]
    ) -> "_Ranking":
        """Rank `images`, whose scores and labels are given in the same order."""
        order = np.argsort(-scores, kind="stable")
        hit = positive[order]
        begins = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
        lengths = np.diff(begins, append=len(order))
        tie = np.add.reduceat(hit.astype(np.int64), begins) > 0
        hits = np.flatnonzero(hit)
        tied = np.flatnonzero(np.repeat(tie, lengths) & ~hit)
        return cls(
            order=images[order],
            starts=np.append(0, (begins + lengths)[tie]),
            positives=images[order[hits]],
            positive_starts=np.searchsorted(hits, begins[tie]),
            tied_negatives=images[order[tied]],
            tied_starts=np.searchsorted(tied, begins[tie]),
        )

    def positives_and_images(self, counts: Counts) -> tuple[Floats, Floats]:
        """The positives (R, G) and all images (R, G + 1) of each stretch."""
        positives = _stretch_sums(counts, self.positives, self.positive_starts)
        return positives, _stretch_sums(counts, self.order, self.starts)

    def measure(self, counts: Counts) -> Floats:
        """Average precision and area under the ROC curve, (2, R)."""
        positives, images = self.positives_and_images(counts)
        found, seen = positives.cumsum(1), images.cumsum(1)
        total = found[:, -1]
        negatives = seen[:, -1] - total
        seen = seen[:, :-1]
        # Down to the first image that a resample drew there is no positive: any divisor gives 0.
        precision = found / np.maximum(seen, 1)
        average_precision = _ratio(
            np.einsum("rg,rg->r", positives, precision), total * (negatives > 0)
        )
        below = negatives[:, None] - (seen - found)
        if len(self.tied_negatives):
            below += _stretch_sums(counts, self.tied_negatives, self.tied_starts) / 2
        area = _ratio(np.einsum("rg,rg->r", positives, below), total * negatives)
        return np.stack([average_precision, area])


def _measure_once(scores: Floats, positive: npt.NDArray[np.bool_]) -> tuple[float, float]:
    if positive.all() or not positive.any():
        return float("nan"), float("nan")
    ranking = _Ranking.of(scores, positive, np.arange(len(scores)))
    precision, area = ranking.measure(np.ones((len(scores), 1), np.float32))[:, 0]
    return float(precision), float(area)


def _resamples(images: int, seed: int, resamples: int) -> list[Counts]:
    """Counts of images drawn with replacement, a few resamples at a time."""
    rng = np.random.default_rng(seed)
    parts = []
    for first in range(0, resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, resamples - first)
        drawn = rng.integers(images, size=(images, size)) * size + np.arange(size)
        counts = np.bincount(drawn.ravel(), minlength=images * size)
        parts.append(counts.reshape(images, size).astype(np.float32))
    return parts


def _stretch_sums(
    counts: Counts, order: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]
) -> Floats:
    """Sum the counts of consecutive stretches of `order`, (R, stretches).

    A stretch reaches from its start to the next one's, and may be empty.
    """
    # The only operation that gathers rows and sums them in one pass; the sums are exact.
    sums = F.embedding_bag(
        torch.from_numpy(order), torch.from_numpy(counts), torch.from_numpy(starts), mode="sum"
    )
    # NumPy adds up along the last axis many times faster than along the first.
    return np.ascontiguousarray(sums.numpy().T, dtype=np.float64)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, with NaN where the denominator is 0."""
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _mean_over_classes(values: Floats) -> Floats:
    """The mean of values (R, K) over the classes that have one."""
    return _ratio(np.nansum(values, axis=1), (~np.isnan(values)).sum(1).astype(np.float64))


def _strings(names: object) -> tuple[str, ...]:
    assert isinstance(names, tuple)
    return names
