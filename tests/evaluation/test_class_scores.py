"""The answers that are recorded are those of the model, in whatever parts they come."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from tests import small

from virtex.evaluation.class_scores import ClassScores, class_statistics
from virtex.models.heads import LabelHead
from virtex.tasks import find_task
from virtex.tasks.image_classification import ImageClassification
from virtex.text.vocabulary import Classes

NAMES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def objective():
    head = LabelHead(small.CHANNELS, len(NAMES))
    small.spread(head, seed=5)
    return ImageClassification(small.backbone(), head).eval()


def answers(objective, batches):
    scores = ClassScores(find_task("image_classification"), objective)
    with scores.recording(), torch.no_grad():
        for batch in scores.watch(batches):
            objective(batch)
    return scores.answers


def parts(batch, *sizes):
    starts = np.cumsum([0, *sizes])
    return [
        {name: value[start:stop] for name, value in batch.items()}
        for start, stop in pairwise(starts)
    ]


def batch_of(labels):
    return {"image": small.batch(len(labels))["image"], "labels": labels}


@torch.no_grad()
def test_accuracies_are_those_of_the_predicted_classes(objective):
    batch = batch_of(torch.arange(12) % 3)
    first, *rest = parts(batch, 5, 3, 4)
    found = class_statistics(
        [answers(objective, [first]), None, answers(objective, rest)], Classes(NAMES)
    ).values()
    predicted = objective.textual(objective.visual(batch["image"])).argmax(1).numpy()
    truth = batch["labels"].numpy()
    assert found["top1"] == pytest.approx(100 * (predicted == truth).mean())
    assert found["balanced_accuracy"] == pytest.approx(
        100 * balanced_accuracy_score(truth, predicted)
    )


@torch.no_grad()
def test_map_is_that_of_the_scores_without_unknown_labels(objective):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(-1, 2, (12, 3), generator=generator).to(torch.int8)
    batch = batch_of(labels)
    given = answers(objective, parts(batch, 7, 5))
    found = class_statistics([given], Classes(NAMES, several=True)).values()
    scores = objective.textual(objective.visual(batch["image"])).numpy()
    plain = [
        average_precision_score(column[known] == 1, score[known])
        for column, score in zip(labels.numpy().T, scores.T, strict=True)
        for known in [column != 0]
    ]
    assert found["mAP"] == pytest.approx(100 * np.mean(plain))


def test_without_answers_or_negatives_there_are_no_figures(objective):
    assert class_statistics([None], Classes(NAMES)) is None
    given = answers(objective, [batch_of(torch.ones(4, 3, dtype=torch.int8))])
    assert class_statistics([given], Classes(NAMES, several=True)) is None


def test_another_task_records_nothing():
    captioning = small.captioning().eval()
    scores = ClassScores(find_task("bicaptioning"), captioning)
    with scores.recording(), torch.no_grad():
        for batch in scores.watch([small.batch(2)]):
            captioning(batch)
    assert scores.answers is None
