"""Every pretraining task through the command line, on drawn scenes."""

import pytest
from tests.end_to_end.conftest import scalars
from tests.small import assert_same

from virtex.checkpoints import file as checkpoint
from virtex.data.sources.coco_objects import CocoCategories
from virtex.inference.pretrained import load
from virtex.synthetic.words import SHAPES
from virtex.text.vocabulary import Categories

SHORT = ("OPTIM.NUM_ITERATIONS", "4")
LOSSES = {
    "captioning": {"captioning_forward"},
    "masked_lm": {"masked_lm"},
    "parallel_captioning": {"parallel_captioning"},
    "token_classification": {"classification"},
    "multilabel_classification": {"classification"},
}
CLASSIFICATION = ("MODEL.TEXTUAL.NAME", "none", "OPTIM.NO_DECAY", "none")
OBJECTS = ("DATA.VOCAB_SIZE", str(1 + len(SHAPES)))


def overrides(task):
    named = ("MODEL.NAME", task, *SHORT)
    if task.endswith("classification"):
        named += CLASSIFICATION
    return named + OBJECTS if task.startswith("multilabel") else named


@pytest.mark.parametrize("task", LOSSES)
def test_a_task_trains_validates_and_resumes_bit_for_bit(task, scenes, run):
    flags = ("--checkpoint-every", 2, "--log-every", 1, "--cpu-workers", 1)
    assert scenes.pretrain(run, *flags, override=overrides(task)) == 0
    steps = scalars(run, "train/")
    names = {name.removeprefix("train/") for name in steps[0] if name.startswith("train/")}
    assert names == {"loss", "gradient_norm"} | LOSSES[task]
    assert len(scalars(run, "val/")) == 2
    whole = checkpoint.load(run / "checkpoint_4.pth")
    (run / "checkpoint_4.pth").unlink()
    resume = ("--resume-from", "latest", *flags)
    assert scenes.pretrain(run, *resume, override=overrides(task)) == 0
    assert scalars(run, "train/") == steps
    assert_same(checkpoint.load(run / "checkpoint_4.pth")["model"], whole["model"])


def test_categories_are_in_the_checkpoint_and_must_be_those_of_the_data(scenes, run, capsys):
    task = "multilabel_classification"
    assert scenes.pretrain(run, override=overrides(task)) == 0
    assert load(run / "checkpoint_4.pth").vocabulary == Categories(SHAPES)
    capsys.readouterr()
    named = overrides(task)[: -len(OBJECTS)]
    assert scenes.pretrain(run / "other", override=named) == 2
    message = capsys.readouterr().err
    assert "DATA.VOCAB_SIZE is 110, but there are 6 categories" in message
    assert "set DATA.VOCAB_SIZE 7" in message


def test_scenes_objects_are_what_their_drawings_hold(scenes):
    records = CocoCategories(scenes.root / "scenes", "train")
    assert len(records) == 64
    assert all(1 <= len(record.categories) <= 3 for record in records)
