"""Features of images with their labels, and the checks that all protocols share."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from virtex.errors import UserError, first_few


@dataclass(frozen=True)
class Split:
    """Features (N, C) float32 of images, and their labels.

    `labels` is (N,) int64 for one label an image, or (N, K) int8 for several: 1 positive,
    -1 negative, 0 ignored. `classes` are the names of the classes, if they have any.
    """

    features: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2

    def name(self, label: int) -> str:
        """The name of a class, or its number."""
        return self.classes[label] if self.classes else str(label)

    def one_against_rest(self) -> "Split":
        """The same with several labels an image: its own is positive, the others are negative.

        Labels are 0 to K - 1, as `prepare` numbers them.
        """
        if self.multilabel:
            return self
        own = torch.nn.functional.one_hot(self.labels).to(torch.int8)
        return replace(self, labels=2 * own - 1)


def prepare(train: Split, test: Split) -> tuple[Split, Split, dict[str, object]]:
    """Check both splits, and number or select their classes; also gives settings for the figures.

    Single labels are numbered from 0 in their order. Of several labels, those without a positive or
    without a negative in either split are left out and named in the settings. Raises `UserError`
    for splits that cannot be judged.
    """
    assert train.multilabel == test.multilabel
    check_features(train.features, test.features)
    settings: dict[str, object] = {
        "train_images": len(train.features),
        "test_images": len(test.features),
    }
    if train.multilabel:
        train, test, left_out = _select_classes(train, test)
        settings |= {"classes": train.labels.shape[1], "left_out": left_out}
    else:
        train, test = _number_classes(train, test)
        settings["classes"] = int(train.labels.max()) + 1
    return train, test, settings


def check_features(train: Tensor, test: Tensor) -> None:
    """Raise `UserError` for an empty split, NaN or infinite values, or different widths."""
    for name, features in (("training", train), ("test", test)):
        if not len(features):
            raise UserError(f"the {name} split has no image")
        bad = (~features.isfinite().all(dim=1)).sum()
        if bad:
            raise UserError(
                f"the features of {bad} of {len(features)} {name} images have NaN or infinite "
                "values; the backbone or its precision is at fault"
            )
    if train.shape[1] != test.shape[1]:
        raise UserError(
            f"training features have {train.shape[1]} values an image and test features have "
            f"{test.shape[1]}; both must come from the same backbone"
        )


def keep_classes(train: Split, test: Split, kept: Tensor) -> tuple[Split, Split, tuple[str, ...]]:
    """Both splits with the classes where `kept` (K,) is true, and the names of the others."""
    classes = tuple(train.name(k) for k in kept.nonzero().flatten().tolist())
    left_out = tuple(train.name(k) for k in (~kept).nonzero().flatten().tolist())
    return (
        Split(train.features, train.labels[:, kept], classes),
        Split(test.features, test.labels[:, kept], classes),
        left_out,
    )


def stratified_subset(
    labels: npt.NDArray[np.int64], share: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Draw a share of the images of each class, at least one if the class has two or more."""
    drawn = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = shuffled_members(labels, int(label), seed)
        drawn[members[: max(round(share * len(members)), min(len(members) - 1, 1))]] = True
    return drawn


def shuffled_members(
    labels: npt.NDArray[np.int64], label: int, *seeds: int
) -> npt.NDArray[np.int64]:
    """The positions of a class's images in an order that depends on label and seeds alone."""
    # Seeds are not negative; labels may be -1.
    rng = np.random.default_rng([*seeds, label + 1])
    return rng.permutation(np.flatnonzero(labels == label))


def _number_classes(train: Split, test: Split) -> tuple[Split, Split]:
    known, labels = torch.unique(train.labels, return_inverse=True)
    tested, test_labels = torch.unique(test.labels, return_inverse=True)
    _refuse_classes(train, known, tested, "training images but no test image")
    _refuse_classes(train, tested, known, "test images but no training image")
    if len(known) < 2:
        raise UserError(
            f"all images have the class {train.name(int(known[0]))}; at least two classes are "
            "needed"
        )
    classes = tuple(train.name(label) for label in known.tolist())
    return (
        Split(train.features, labels, classes),
        Split(test.features, test_labels, classes),
    )


def _refuse_classes(split: Split, present: Tensor, required: Tensor, problem: str) -> None:
    missing = [
        split.name(label) for label in sorted(set(present.tolist()) - set(required.tolist()))
    ]
    if missing:
        many = len(missing) > 1
        raise UserError(
            f"{len(missing)} classes have {problem}: {first_few(missing)}"
            if many
            else f"class {missing[0]} has {problem}"
        )


def _select_classes(train: Split, test: Split) -> tuple[Split, Split, tuple[str, ...]]:
    assert train.labels.shape[1] == test.labels.shape[1]
    kept = torch.ones(train.labels.shape[1], dtype=torch.bool)
    for labels in (train.labels, test.labels):
        kept &= (labels == 1).any(0) & (labels == -1).any(0)
    if not kept.any():
        raise UserError("no class has positive and negative images in both splits")
    return keep_classes(train, test, kept)
