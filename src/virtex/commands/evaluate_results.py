"""Where `virtex evaluate` keeps the results of a backbone or model."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtex.evaluation.backbones import EvaluatedBackbone
    from virtex.evaluation.heads import EvaluatedModel
    from virtex.evaluation.results import Result
    from virtex.evaluation.starting_backbone import StartingBackbone

    Evaluated = EvaluatedBackbone | EvaluatedModel | StartingBackbone


def results_path(evaluated: "Evaluated", output: Path | None) -> Path | None:
    """The file to which the results of a backbone or model are added, if there is one."""
    from virtex.evaluation.results import RESULTS

    beside = None if evaluated.path is None else evaluated.path.parent / RESULTS
    return beside if output is None else output


def check_results_of(evaluated: "Evaluated", output: Path | None) -> None:
    """Raise `UserError` if the results of a backbone or model cannot be added to their file."""
    from virtex.evaluation.results import check_results

    path = results_path(evaluated, output)
    if path is not None:
        check_results(path)


def keep_results(
    evaluated: "Evaluated", results: "list[Result]", output: Path | None = None
) -> None:
    """Add results to their file, and to TensorBoard for the checkpoint of a run."""
    from virtex.evaluation.results import add_results
    from virtex.training.logger import log_evaluation

    path, output = evaluated.path, results_path(evaluated, output)
    if output is not None:
        add_results(output, results)
    writable = path is not None and os.access(path.parent, os.W_OK)
    if path is not None and writable and evaluated.iteration is not None:
        values = {f"evaluate/{one.protocol}/{one.metric}": one.value for one in results}
        log_evaluation(path.parent, evaluated.iteration, values)
