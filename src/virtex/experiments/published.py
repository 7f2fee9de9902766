"""The figures that the VirTex paper reports for its own runs (Desai and Johnson 2021, 2006.06666).

Two protocols: a linear SVM for each class of PASCAL VOC 2007, in mAP, and a linear classifier on
ImageNet, in top-1 accuracy; both in percent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from virtex.config import loading as settings
from virtex.config.schema import Config

SOURCE = (
    "published figures are those of the paper's own runs of 500,000 iterations on COCO "
    "(arXiv 2006.06666), not results of this code"
)
IMAGENET_CAVEAT = (
    "the paper's ImageNet classifier was trained by SGD on augmented crops; that of `linear` is "
    "fitted to features of central crops, so the protocols of the two figures differ"
)

# By task, network and head: VOC07 mAP, and ImageNet top-1.
PUBLISHED: Mapping[tuple[str, str, str], tuple[float, float]] = {
    ("virtex", "resnet50", "L1_H512_A8_F2048"): (88.4, 51.8),
    ("virtex", "resnet50", "L1_H768_A12_F3072"): (88.3, 52.3),
    ("virtex", "resnet50", "L1_H1024_A16_F4096"): (88.3, 53.2),
    ("virtex", "resnet50", "L1_H2048_A32_F8192"): (88.7, 53.8),
    ("virtex", "resnet50", "L2_H1024_A16_F4096"): (88.8, 53.8),
    ("virtex", "resnet50", "L3_H1024_A16_F4096"): (88.7, 53.9),
    ("virtex", "resnet50", "L4_H1024_A16_F4096"): (88.7, 53.9),
    ("virtex", "wide_resnet50_2", "L1_H1024_A16_F4096"): (88.5, 52.9),
    ("virtex", "resnet101", "L1_H1024_A16_F4096"): (88.7, 52.1),
    ("captioning", "resnet50", "L1_H2048_A32_F8192"): (88.6, 50.8),
    ("masked_lm", "resnet50", "L1_H2048_A32_F8192"): (86.4, 46.7),
    ("token_classification", "resnet50", "none"): (88.8, 48.6),
    ("multilabel_classification", "resnet50", "none"): (86.2, 46.2),
}

_OF_CLASSIFICATION = {"OPTIM.NO_DECAY": "none"}
_SIZES = {
    "DATA.VOCAB_SIZE": 10000,
    **{"DATA.UNK_INDEX": 0, "DATA.SOS_INDEX": 1, "DATA.EOS_INDEX": 2, "DATA.MASK_INDEX": 3},
    "MODEL.VISUAL.FEATURE_SIZE": 2048,
}
"""Settings that the vocabulary and the network tell."""
_CATEGORIES = 81  # of COCO, with the background
_KEYS = ("MODEL.NAME", "MODEL.VISUAL.NAME", "MODEL.TEXTUAL.NAME")
_WITHOUT_EFFECT = re.compile(
    "RANDOM_SEED|AMP|CUDNN_.*|SYNC_BN|CHANNELS_LAST|OPTIM.ACCUMULATE|MODEL.DECODER.*|EVALUATE.*|"
    "DATA.(FORMAT|ROOT|CACHE_.*|SHUFFLE_WINDOW|TOKENIZER_MODEL|ON_BAD_IMAGE|MAX_PIXELS|MAX_IMAGE_MB"
    "|MASKED_LM.*)"
)
"""Settings in which a run may differ from the published one: where and how it computes."""


@dataclass(frozen=True)
class _Measure:
    """A metric of `virtex evaluate`, and what the path of its data must contain."""

    metric: str
    data: re.Pattern[str]
    column: int


_MEASURES = (
    _Measure("voc07/mAP", re.compile("voc_?(20)?07"), 0),
    _Measure("linear/top1", re.compile("imagenet|ilsvrc"), 1),
)


def published_figure(flat: Mapping[str, object], metric: str, root: str) -> float | None:
    """The published figure of a configuration's settings, by dotted key; None if there is none.

    `metric` is PROTOCOL/METRIC, `root` the path of the data that it was measured on, whose name
    must be that of the paper's data.
    """
    figures = _figures(flat)
    for measure in _MEASURES:
        if metric == measure.metric and measure.data.search(root.lower()) and figures is not None:
            return figures[measure.column]
    return None


def is_of_imagenet(metric: str) -> bool:
    """Whether a metric that has a published figure is that of ImageNet."""
    return metric.partition("@")[0] == _MEASURES[1].metric


def _figures(flat: Mapping[str, object]) -> tuple[float, float] | None:
    task, network, head = (str(flat[key]).rpartition("::")[2] for key in _KEYS)
    task = "virtex" if task == "bicaptioning" else task
    figures = PUBLISHED.get((task, network, head))
    expected = settings.flat(Config())
    if head == "none":
        expected |= _OF_CLASSIFICATION
    sizes = dict(_SIZES)
    if task == "multilabel_classification":
        sizes["DATA.VOCAB_SIZE"] = _CATEGORIES
    expected |= sizes
    same = all(
        flat.get(key) == value or (key in sizes and flat.get(key) is None)
        for key, value in expected.items()
        if key not in _KEYS and not _WITHOUT_EFFECT.fullmatch(key)
    )
    return figures if same and str(flat[_KEYS[2]]).startswith(("transdec_post", "none")) else None
