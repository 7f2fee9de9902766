"""The settings of evaluations during a run."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from virtex.config.section import Conflict, LocalPath, Section, reports_conflicts

RunProtocol = Literal["knn", "linear", "words", "captioning"]

LABELLED: tuple[RunProtocol, ...] = ("knn", "linear")
"""The protocols that need labelled images; the others read the captions of the run's data."""

_EXAMPLES: dict[RunProtocol, str] = {
    "knn": "knn/top1_k20",
    "linear": "linear/top1",
    "words": "words/mAP",
    "captioning": "captioning/CIDEr",
}


class Evaluate(Section):
    """Evaluations of the weights that a run saves, by protocols of `virtex evaluate`."""

    every: int = Field(
        default=0,
        ge=0,
        description="Evaluate every N iterations and after the last one; 0 never evaluates. It "
        "must be a multiple of --checkpoint-every, so that the weights that are judged are saved. "
        "Training does not depend on it.",
    )
    protocols: Annotated[tuple[RunProtocol, ...], Field(min_length=1)] = Field(
        default=("words",),
        description="Protocols of `virtex evaluate`. knn and linear judge the features of the "
        "labelled images in DATA; words judges the features, and captioning the generated "
        "captions, of the images in DATA.ROOT, or in all of DATA.SOURCES that are not shards.",
    )
    data: LocalPath | None = Field(
        default=None,
        description="Labelled images for knn and linear, in any form that `virtex evaluate` "
        "reads, such as a directory with train/CLASS/ and val/CLASS/.",
    )
    best: str | None = Field(
        default=None,
        description="Metric, PROTOCOL/METRIC such as knn/top1_k20, whose best value selects "
        "checkpoint_best.pth. null selects a metric of the first protocol: CIDEr for captioning, "
        "top-1 accuracy for images with one label each (knn: of 20 neighbours), otherwise mAP.",
    )

    @reports_conflicts
    def _conflicts(self) -> Iterator[Conflict]:
        if not self.every:
            return
        if len(set(self.protocols)) < len(self.protocols):
            yield ("EVALUATE.PROTOCOLS",), "expected each protocol once"
        labelled = [name for name in self.protocols if name in LABELLED]
        if labelled and self.data is None:
            yield (
                ("EVALUATE.PROTOCOLS", "EVALUATE.DATA"),
                f"expected labelled images for {' and '.join(labelled)}; set DATA to their path, "
                "or PROTOCOLS to words or captioning, which read the captions in DATA.ROOT",
            )
        if self.data is not None and not labelled:
            yield (
                ("EVALUATE.PROTOCOLS", "EVALUATE.DATA"),
                "expected labelled images only for knn or linear; add one of them to PROTOCOLS, or "
                "set DATA to null",
            )
        if self.best is not None and self.best.partition("/")[0] not in self.protocols:
            yield (
                ("EVALUATE.BEST", "EVALUATE.PROTOCOLS"),
                "expected a metric of one of the protocols, PROTOCOL/METRIC such as "
                f"{_EXAMPLES[self.protocols[0]]}",
            )
