"""What a run evaluates: its data, opened and checked before training, and the metric of the best.

The seed of everything drawn is 0, as by default for `virtex evaluate`, so that runs of different
seeds are judged alike.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from virtex.config.data import Data
from virtex.config.schema import Config
from virtex.data.sources.labelled import LabelledImages, read_labelled
from virtex.errors import UserError
from virtex.evaluation.captioning import open_captioning
from virtex.evaluation.evaluate import (
    EvaluationData,
    ProtocolName,
    captioned_evaluation,
    labelled_evaluation,
)
from virtex.evaluation.features import check_images
from virtex.evaluation.heads import HeadEvaluation
from virtex.evaluation.protocols.knn import KS
from virtex.evaluation.protocols.split import Split, prepare
from virtex.evaluation.results import RESULTS, read_results

CAPTIONING = "captioning"
LOWER_IS_BETTER = "captioning/most_frequent_caption"
"""The only metric of which a lower value is better."""

_SETTINGS = {
    "give --on-bad-image": "set DATA.ON_BAD_IMAGE to",
    "--data": "the path",
    "name another file with --output": "rename it",
}
"""The options of `virtex evaluate` that its messages name, in the words of a run."""

_CAPTION_METRICS = (
    *("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"),
    *("distinct_captions", "most_frequent_caption"),
)
_HEADLINES = ("CIDEr", "top1_k20", "mAP_k20", "top1", "mAP")
"""The metric of a protocol that stands for it in a line, and by default selects the best."""


@dataclass(frozen=True)
class EvaluationPlan:
    """The data of each protocol, the metrics that it gives, and the metric of the best.

    `metrics` and `best` are names of the form PROTOCOL/METRIC. `report` has a line for each
    finding in the data.
    """

    backbones: Mapping[ProtocolName, EvaluationData]
    captioning: HeadEvaluation | None
    metrics: tuple[str, ...]
    best: str
    report: tuple[str, ...]

    @property
    def headlines(self) -> tuple[str, ...]:
        """One metric of each protocol, and the metric of the best."""
        protocols = dict.fromkeys(metric.partition("/")[0] for metric in self.metrics)
        names = [_headline(protocol, self.metrics) for protocol in protocols]
        return tuple(dict.fromkeys([self.best, *names]))


def open_plan(config: Config, directory: Path) -> EvaluationPlan:
    """Open and check the data of the evaluations of a run in `directory`.

    Raises `UserError` with everything for which an evaluation would fail.
    """
    settings, root = config.evaluate, _root(config.data)
    opening = _Opening()
    opening.attempt("results of earlier evaluations", lambda: read_results(directory / RESULTS))
    opened = _Opened({}, None, {})
    if settings.data is not None:
        path = settings.data
        opening.attempt("EVALUATE.DATA", lambda: _open_labelled(config, path, opened))
    if "words" in settings.protocols:
        opening.attempt("EVALUATE.PROTOCOLS words", lambda: _open_words(config, root, opened))
    if CAPTIONING in settings.protocols:
        opening.attempt(
            "EVALUATE.PROTOCOLS captioning", lambda: _open_captioning(config, root, opened)
        )
    opening.finish()
    names = tuple(
        f"{protocol}/{metric}"
        for protocol in settings.protocols
        for metric in opened.metrics[protocol]
    )
    best = _headline(settings.protocols[0], names) if settings.best is None else settings.best
    if best not in names:
        raise UserError(
            f"EVALUATE.BEST is {best!r}, which no protocol gives for these data; expected one of "
            f"{', '.join(names)}"
        )
    lines = [line for data in opened.backbones.values() for line in data.report]
    lines += opened.captioning.report if opened.captioning is not None else ()
    report = tuple(f"evaluation: {line}" for line in dict.fromkeys(lines))
    return EvaluationPlan(opened.backbones, opened.captioning, names, best, report)


@dataclass
class _Opened:
    """The data that are open already, and the names of the metrics of each protocol."""

    backbones: dict[ProtocolName, EvaluationData]
    captioning: HeadEvaluation | None
    metrics: dict[str, tuple[str, ...]]


@dataclass
class _Opening:
    """Collects the errors of several attempts, so that one message has all of them."""

    problems: list[str] = field(default_factory=list)

    def attempt(self, setting: str, make: Callable[[], object]) -> None:
        """Call `make`, and keep the `UserError` that it raises."""
        try:
            make()
        except UserError as error:
            message = str(error).removeprefix("--data ")
            for option, name in _SETTINGS.items():
                message = message.replace(option, name)
            self.problems.append(f"{setting}: {message}")

    def finish(self) -> None:
        """Raise `UserError` if there were problems."""
        if len(self.problems) > 1:
            lines = "\n  ".join(self.problems)
            raise UserError(f"{len(self.problems)} problems of the evaluation:\n  {lines}")
        if self.problems:
            raise UserError(self.problems[0])


def _open_labelled(config: Config, path: Path, opened: _Opened) -> None:
    data = read_labelled(path)
    check_images((*data.train.paths, *data.test.paths), config.data.on_bad_image)

    def split(images: LabelledImages) -> Split:
        return Split(torch.zeros(len(images), 1), torch.from_numpy(images.labels), data.classes)

    prepare(split(data.train), split(data.test))
    names = ("mAP", "AUROC") if data.several else ("top1", "balanced_accuracy")
    for protocol in config.evaluate.protocols:
        if protocol == "linear":
            opened.metrics[protocol] = names
        elif protocol == "knn":
            opened.metrics[protocol] = tuple(
                f"{name}_k{k}" for k in KS if k <= len(data.train) for name in names
            )
        else:
            continue
        opened.backbones[protocol] = labelled_evaluation(protocol, path, data)


def _open_words(config: Config, root: Path, opened: _Opened) -> None:
    data = captioned_evaluation(root, settings=config.data)
    check_images((*data.train, *data.test), config.data.on_bad_image)
    opened.backbones["words"] = data
    opened.metrics["words"] = ("mAP", "AUROC")


def _open_captioning(config: Config, root: Path, opened: _Opened) -> None:
    opened.captioning = open_captioning(root, settings=config.data)
    check_images(opened.captioning.paths, config.data.on_bad_image)
    opened.metrics[CAPTIONING] = _CAPTION_METRICS


def _root(data: Data) -> Path:
    """The directory of the captioned images; of several sources that in which all of them are."""
    if not data.sources:
        root = Path(data.root)
        return root.parent if root.is_file() else root
    roots = [Path(source.root).absolute() for source in data.sources if "://" not in source.root]
    return Path(os.path.commonpath(roots)) if roots else Path(data.root)


def _headline(protocol: str, metrics: tuple[str, ...]) -> str:
    own = [metric for metric in metrics if metric.startswith(f"{protocol}/")]
    return next(
        (f"{protocol}/{name}" for name in _HEADLINES if f"{protocol}/{name}" in own), own[0]
    )
