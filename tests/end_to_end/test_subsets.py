"""Data efficiency: which images a run sees, whatever the task, the file's order, the machine."""

import json
import shutil

import pytest
import torch
from tests.end_to_end.conftest import scalars

from virtex.build.data import open_data, training_batches
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.data import subset
from virtex.distributed.world import World

TASKS = {
    "bicaptioning": (),
    "masked_lm": (),
    "parallel_captioning": (),
    "token_classification": ("MODEL.TEXTUAL.NAME", "none"),
    "multilabel_classification": ("MODEL.TEXTUAL.NAME", "none", "DATA.VOCAB_SIZE", "7"),
}


@pytest.fixture(scope="module")
def shuffled(scenes, tmp_path_factory):
    """The scenes with both lists of each annotation file turned round."""
    root = tmp_path_factory.mktemp("shuffled") / "scenes"
    shutil.copytree(scenes.root / "scenes", root)
    for path in (root / "annotations").glob("*_train2017.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for key in ("images", "annotations"):
            content[key].reverse()
        path.write_text(json.dumps(content), encoding="utf-8")
    return root


def config_of(scenes, task, *overrides):
    named = ("MODEL.NAME", task, *TASKS[task], "OPTIM.BATCH_SIZE", "2", *overrides)
    return settings.load(Config, scenes.config, list(named))


def seen(config, *, processes, workers):
    """The images of one epoch over all processes, and the manifest."""
    images = set()
    for rank in range(processes):
        data = open_data(config)
        world = World(rank=rank, size=processes, device=torch.device("cpu"))
        batches = training_batches(config, data, world, workers=workers, first=1)
        for _ in range(len(data.training) // config.optim.batch_size):
            images |= set(next(batches).batch["image_id"].tolist())
    return images, data.subset


@pytest.mark.parametrize("task", TASKS)
def test_percentages_are_nested_and_the_same_in_any_order_of_the_annotations(
    scenes, shuffled, task
):
    subsets = []
    for percentage in (10, 20, 50):
        names = ("DATA.USE_PERCENTAGE", str(percentage))
        one = open_data(config_of(scenes, task, *names))
        other = open_data(config_of(scenes, task, *names, "DATA.ROOT", str(shuffled)))
        assert one.subset == other.subset
        assert one.subset.of == 64
        assert len(one.subset.ids) == len(one.training) == 64 * percentage // 100
        assert len(one.validation) == 10
        subsets.append(set(one.subset.ids))
    assert subsets[0] < subsets[1] < subsets[2]


def test_every_task_trains_on_the_same_images(scenes):
    found = [open_data(config_of(scenes, t, "DATA.USE_PERCENTAGE", "25")).subset for t in TASKS]
    assert found == [found[0]] * len(TASKS)


@pytest.mark.parametrize("task", ["bicaptioning", "multilabel_classification"])
@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (1, 4), (2, 0), (2, 4)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of two cores
def test_what_is_loaded_is_what_the_manifest_says(scenes, task, processes, workers):
    config = config_of(scenes, task, "DATA.USE_PERCENTAGE", "25")
    images, manifest = seen(config, processes=processes, workers=workers)
    assert images == set(manifest.ids)
    assert manifest == open_data(config).subset


def test_a_run_writes_its_manifest_and_another_takes_it(scenes, run, tmp_path):
    short = ("OPTIM.NUM_ITERATIONS", "4")
    share = ("DATA.USE_PERCENTAGE", "25")
    assert scenes.pretrain(run, override=(*short, *share)) == 0
    written = subset.read(run / "subset.json")
    assert (written.percentage, written.seed, written.of, len(written.ids)) == (25, 0, 64, 16)
    given = ("DATA.SUBSET_MANIFEST", str(run / "subset.json"))
    other = tmp_path / "other"
    assert scenes.pretrain(other, override=(*short, *given)) == 0
    assert subset.read(other / "subset.json").sha256 == written.sha256
    assert scalars(other) == scalars(run)
    shutil.rmtree(other)


def test_a_run_does_not_go_on_with_other_images(scenes, run, tmp_path, capsys):
    root = tmp_path / "scenes"
    shutil.copytree(scenes.root / "scenes", root)
    named = ("DATA.ROOT", str(root), "DATA.USE_PERCENTAGE", "25", "OPTIM.NUM_ITERATIONS", "4")
    assert scenes.pretrain(run, override=named) == 0
    first = subset.read(run / "subset.json").ids[0]
    path = root / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["images"] = [image for image in content["images"] if image["id"] != first]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != first]
    path.write_text(json.dumps(content), encoding="utf-8")
    capsys.readouterr()
    assert scenes.pretrain(run, "--resume-from", "latest", override=named) == 2
    message = capsys.readouterr().err
    assert f"this run trained on the 16 images of {run / 'subset.json'}" in message
    assert f"1 left out (image ids {first})" in message


def test_a_percentage_of_less_than_one_image_is_an_error(scenes, run, capsys):
    assert scenes.pretrain(run, override=("DATA.USE_PERCENTAGE", "1")) == 2
    message = capsys.readouterr().err
    assert "DATA.USE_PERCENTAGE is 1.0, which of 64 training images is 0.64" in message
    assert not run.exists()


def test_a_single_caption_is_for_training_alone(scenes):
    config = config_of(scenes, "bicaptioning", "DATA.USE_SINGLE_CAPTION", "true")
    data = open_data(config)

    def captions(dataset, epochs):
        return {tuple(dataset[epoch, 3]["caption_tokens"][0].tolist()) for epoch in epochs}

    tokens = data.vocabulary
    first = data.training.records[3].captions[0]
    [only] = captions(data.training, range(20))
    assert tokens.decode(only) in (first, first.replace("left", "right"))
    assert len(captions(data.validation, range(20))) > 1
