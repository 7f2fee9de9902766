"""The evaluation of backbones by a protocol that trains a head, as the command and Python do it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from virtex.evaluation.backbones import EvaluatedBackbone
from virtex.evaluation.dense.detection_run import detector_results, open_detectors
from virtex.evaluation.dense.options import DenseOptions
from virtex.evaluation.dense.reporting import SILENT, Reporting
from virtex.evaluation.dense.segmentation_run import classifier_results, open_classifiers
from virtex.evaluation.options import naming_options
from virtex.evaluation.results import Result

DenseProtocol = Literal["detection", "linear-segmentation"]


@dataclass(frozen=True)
class DenseEvaluation:
    """Backbones, and a function that gives the results of each, as they are found."""

    backbones: tuple[EvaluatedBackbone, ...]
    results: Callable[[], Iterator[list[Result]]]


def open_dense(
    protocol: DenseProtocol, options: DenseOptions, reporting: Reporting = SILENT
) -> DenseEvaluation:
    """Read the data and the backbones, and check everything; raises `UserError`."""
    results: Callable[[], Iterator[list[Result]]]
    with naming_options():
        if protocol == "detection":
            detectors = open_detectors(options, reporting)
            backbones = tuple(job.backbone for job in detectors)
            results = partial(detector_results, detectors, options.device, reporting)
        else:
            classifiers = open_classifiers(options, reporting)
            backbones = tuple(job.backbone for job in classifiers)
            results = partial(classifier_results, classifiers, options.device, reporting)
    return DenseEvaluation(backbones, results)
