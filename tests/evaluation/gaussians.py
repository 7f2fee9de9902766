"""Features drawn from a normal distribution a class."""

import torch

from virtex.evaluation.protocols.split import Split


def split(images, classes=3, width=6, distance=1.0, seed=0, names=()):
    """Classes take turns; their means are the same for every seed, `distance` apart in scale."""
    means = distance * normal(classes, width, seed=1000)
    labels = torch.arange(images) % classes
    return Split(means[labels] + normal(images, width, seed=seed), labels, names)


def several_labels(images, classes=3, width=6, seed=0, ignored=0.0, names=()):
    """A label is positive where a noisy linear function of the features exceeds a threshold."""
    features = normal(images, width, seed=seed)
    scores = features @ normal(width, classes, seed=1001) + normal(images, classes, seed=seed + 1)
    labels = torch.where(scores > 1, 1, -1).to(torch.int8)
    skipped = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed)) < ignored
    return Split(features, torch.where(skipped, 0, labels).to(torch.int8), names)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
