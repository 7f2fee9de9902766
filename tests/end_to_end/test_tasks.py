"""Every pretraining task through the command line, on drawn scenes."""

import pytest
from tests.end_to_end.conftest import scalars
from tests.small import assert_same

from virtex.checkpoints import file as checkpoint
from virtex.data.sources.coco_objects import CocoCategories
from virtex.errors import UserError
from virtex.evaluation.backbones import open_backbones
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


MORE = ("MODEL.AUXILIARY.TOKENS.WEIGHT", "0.5", "DATA.CAPTIONS_PER_IMAGE", "3")
SIZES = ("DATA.IMAGE_SIZES", "[[0.75, 32]]")
LEARN_MORE = (*SHORT, *MORE, *SIZES, "OPTIM.ACCUMULATE", "2", "OPTIM.EMA.DECAY", "0.5")


def test_what_learns_more_is_logged_and_resumed_bit_for_bit(scenes, run, capsys):
    flags = ("--checkpoint-every", 2, "--cpu-workers", 1)
    assert scenes.pretrain(run, *flags, override=LEARN_MORE) == 0
    log = capsys.readouterr().out
    assert "weights of tokens: counted in 64 of 64 training images" in log
    assert "training: images of 32 pixels up to iteration 3\n" in log
    steps = scalars(run, "train/")
    for line in steps:
        parts = ("captioning_forward", "captioning_backward")
        total = sum(line[f"train/{name}"] for name in parts) + 0.5 * line["train/tokens"]
        assert line["train/loss"] == pytest.approx(total)
    assert all(line["val/tokens"] > 0 for line in scalars(run, "val/loss"))
    whole = checkpoint.load(run / "checkpoint_4.pth")
    counts = {name: value for name, value in whole["model"].items() if ".label_counts." in name}
    images, images_with = counts.values()
    assert int(images) == 64
    assert 0 < int(images_with.max()) <= 64
    (run / "checkpoint_4.pth").unlink()
    assert scenes.pretrain(run, "--resume-from", "latest", *flags, override=LEARN_MORE) == 0
    assert "weights of tokens" not in capsys.readouterr().out
    assert scalars(run, "train/") == steps
    assert_same(checkpoint.load(run / "checkpoint_4.pth")["model"], whole["model"])

    saved = checkpoint.load(run / "checkpoint_4.pth")["average"]
    assert_same(saved["model"], whole["average"]["model"])
    assert saved["updates"] == 4
    losses = scalars(run, "val/average/")
    assert losses[-1]["val/average/loss"] != scalars(run, "val/loss")[-1]["val/loss"]

    averaged = load(run / "checkpoint_4.pth", average=True)
    held = averaged.objective.state_dict()
    assert_same({name: held[name] for name in saved["model"]}, saved["model"])
    hashes = {
        open_backbones([str(run / "checkpoint_4.pth")], average=average)[0].sha256
        for average in (False, True)
    }
    assert len(hashes) == 2
    model = load(run / "checkpoint_4.pth")
    images = sorted((scenes.root / "scenes" / "val2017").iterdir())[:2]
    assert len(model.caption(images)) == 2
    without = run / "without"
    initial = ("--init-from", run / "checkpoint_4.pth", "--checkpoint-every", 2)
    assert scenes.pretrain(without, *initial, override=SHORT) == 0
    begun = checkpoint.load(without / "checkpoint_0.pth")["model"]
    assert_same(begun, {name: whole["model"][name] for name in begun})
    with pytest.raises(UserError, match=r"checkpoint_0\.pth holds no average of the weights"):
        load(without / "checkpoint_0.pth", average=True)
    assert {name for name in whole["model"] if name not in begun} == {
        name for name in whole["model"] if name.startswith("auxiliaries.tokens.")
    }
