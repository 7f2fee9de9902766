"""Classification of images by the log-likelihood of a prompt for each class."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.plain_text import text_lines
from virtex.data.sources.labelled import LabelledData, read_labelled
from virtex.errors import UserError, first_few, printable
from virtex.evaluation.features import data_hash
from virtex.evaluation.figures import Figure, prediction_statistics
from virtex.evaluation.heads import EvaluatedModel, HeadEvaluation, HeadSettings, image_grids
from virtex.evaluation.likelihood import Floats, TextScorer, text_scorer, without_prior
from virtex.evaluation.options import naming_options
from virtex.files import reading

DEFAULT_TEMPLATES = ("a photo of a {}",)


def open_zero_shot(
    root: Path,
    *,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    class_names: Path | None = None,
    seed: int = 0,
) -> HeadEvaluation:
    """The test images of labelled data, with a prompt of each template for each class.

    `class_names` has a name a line, in the order of the data's classes; without it the data's own
    names are used, with blanks in place of underscores. `seed` draws the test split of a table that
    names none. Raises `UserError` for images with several
    labels, a template without `{}`, and names that do not fit the classes.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(
                f"--template {template!r} must have {{}} once, in the place of the class, as in "
                f"{DEFAULT_TEMPLATES[0]!r}"
            )
    with naming_options():
        data = read_labelled(root, seed)
    if data.several:
        raise UserError(
            f"--data {root} has any number of labels an image ({data.kind}); zero-shot needs one "
            "label an image, such as train/CLASS/ and val/CLASS/"
        )
    if class_names is None:
        names = [printable(name).replace("_", " ") for name in data.classes]
    else:
        names = read_class_names(class_names, data)
    prompts = [template.replace("{}", name) for name in names for template in templates]
    labels = np.asarray(data.test.labels, np.int64)

    def figures(model: EvaluatedModel, settings: HeadSettings) -> list[Figure]:
        scorer = text_scorer(model)
        for line in (*scorer.findings(prompts, "prompts"), *_same_prompts(scorer, prompts)):
            settings.say(line)
        tokens = scorer.tokens(prompts)
        rows: list[Floats] = []
        kept: list[int] = []
        for positions, grid in image_grids(model, data.test.paths, settings):
            with settings.precision.autocast():
                scores = scorer.log_likelihoods(grid, tokens)
            # The mean over the templates of a class.
            rows.append(scores.reshape(len(grid), len(names), len(templates)).mean(axis=2))
            kept += positions.tolist()
        return zero_shot(np.concatenate(rows), labels[kept], templates)

    words = "\n".join(prompts).encode()
    return HeadEvaluation(
        root,
        data.test.paths,
        data_hash(
            data.directory,
            data.test.paths,
            np.concatenate([labels.view(np.uint8), np.frombuffer(words, np.uint8)]),
        ),
        (
            f"{len(data.test):,} test images of {len(names)} classes ({data.kind}); prompts such "
            f"as {first_few([repr(prompt) for prompt in prompts], 3)}",
            *data.report,
        ),
        figures,
    )


def read_class_names(path: Path, data: LabelledData) -> list[str]:
    """A name a line for each class of the data; raises `UserError`."""
    with reading(path):
        names = [line.strip() for _, line in text_lines(path)]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise UserError(f"--class-names {path}, line {names.index('') + 1} is blank")
    if len(names) != len(data.classes):
        raise UserError(
            f"--class-names {path} has {len(names)} names for {len(data.classes)} classes; write a "
            f"name a line, in the order of the classes: {first_few(data.classes)}"
        )
    return names


def zero_shot(
    scores: Floats,
    labels: npt.NDArray[np.int64],
    templates: Sequence[str],
) -> list[Figure]:
    """Figures of scores (N, K) of each class, as they are and less the prior."""
    settings: dict[str, object] = {"templates": tuple(templates), "test_images": len(labels)}
    return [
        figure
        for suffix, values in (("", scores), ("_less_prior", without_prior(scores)))
        for figure in prediction_statistics(values.argmax(axis=1), labels).figures(
            settings, suffix=suffix
        )
    ]


def _same_prompts(scorer: TextScorer, prompts: Sequence[str]) -> list[str]:
    """A line that names prompts of equal tokens, if there are any."""
    same = defaultdict(list)
    for prompt, tokens in zip(prompts, scorer.tokens(prompts), strict=True):
        same[tokens].append(repr(prompt))
    groups = [" = ".join(group) for group in same.values() if len(group) > 1]
    if not groups:
        return []
    return [f"prompts that the model cannot tell apart: {first_few(groups, 3)}"]
