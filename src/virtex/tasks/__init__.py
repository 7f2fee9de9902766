"""Tasks, a file each; `find_task` is the only place that knows which there are."""

from typing import Any, assert_never

from virtex.config.schema import TaskName
from virtex.tasks.base import Task
from virtex.tasks.captioning import BICAPTIONING, CAPTIONING
from virtex.tasks.classification import MULTILABEL_CLASSIFICATION, TOKEN_CLASSIFICATION
from virtex.tasks.image_classification import IMAGE_CLASSIFICATION
from virtex.tasks.masked_lm import MASKED_LM
from virtex.tasks.parallel_captioning import PARALLEL_CAPTIONING


def find_task(name: TaskName) -> Task[Any, Any]:
    """The task that a configuration names."""
    match name:
        case "virtex" | "bicaptioning":
            return BICAPTIONING
        case "captioning":
            return CAPTIONING
        case "masked_lm":
            return MASKED_LM
        case "parallel_captioning":
            return PARALLEL_CAPTIONING
        case "token_classification":
            return TOKEN_CLASSIFICATION
        case "multilabel_classification":
            return MULTILABEL_CLASSIFICATION
        case "image_classification":
            return IMAGE_CLASSIFICATION
        case _:
            assert_never(name)
