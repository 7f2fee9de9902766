"""Protocols on the pixels of aerial photographs; VIRTEX_RSICD has {train,val}2017/CLASS/*.jpg."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from virtex.evaluation.preprocessing import center_crops
from virtex.evaluation.protocols.knn import knn
from virtex.evaluation.protocols.linear import linear
from virtex.evaluation.protocols.split import Split

ROOT = os.environ.get("VIRTEX_RSICD")
CLASSES = ("beach", "desert", "forest", "parking", "port", "stadium")
CHANCE = 100 / len(CLASSES)

pytestmark = pytest.mark.skipif(ROOT is None, reason="VIRTEX_RSICD names no directory of RSICD")


def split(directory, count):
    """Each image as the colours of 4 x 4 patches."""
    images, labels = [], []
    for label, name in enumerate(CLASSES):
        found = sorted((Path(ROOT) / directory / name).glob("*.jpg"))[:count]
        assert len(found) == count
        images += found
        labels += [label] * count
    pixels = center_crops(images, 4).flatten(1).float()
    return Split(pixels, torch.tensor(labels), CLASSES)


@pytest.mark.parametrize(("protocol", "metric"), [(knn, "top1_k10"), (linear, "top1")])
def test_colours_tell_landscapes_apart_and_shuffled_labels_do_not(protocol, metric):
    train, test = split("train2017", 24), split("val2017", 12)
    found = protocol(train, test)
    assert protocol(train, test) == found
    top1 = next(figure for figure in found if figure.metric == metric)
    assert 2.5 * CHANCE < top1.value < 95
    low, high = top1.interval
    assert low < top1.value < high
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(train.labels)))
    found = protocol(replace(train, labels=train.labels[order]), test)
    top1 = next(figure for figure in found if figure.metric == metric)
    # Three standard deviations of a guess on 72 images are 13 points.
    assert abs(top1.value - CHANCE) < 14
