"""Training on shards is training on the files that they were packed from."""

import shutil

import pytest
from tests.end_to_end.conftest import scalars

from virtex.cli import main

FEW = ("OPTIM.NUM_ITERATIONS", 3, "OPTIM.WARMUP_STEPS", 1)
MULTILABEL = (
    *("MODEL.NAME", "multilabel_classification", "MODEL.TEXTUAL.NAME", "none"),
    *("DATA.VOCAB_SIZE", 7, *FEW),
)


def packed(scenes, output, *options):
    words = ("--samples-per-shard", "10", "--workers", "1", *options)
    assert main(["pack", "--from", "coco", str(scenes.root / "scenes"), str(output), *words]) == 0
    return ("DATA.FORMAT", "shards", "DATA.ROOT", output)


def test_a_run_on_shards_is_the_run_on_files(scenes, reference, run, tmp_path):
    shards = packed(scenes, tmp_path / "shards")
    for workers, override in ((2, ()), (0, ("DATA.USE_PERCENTAGE", 50))):
        on_files = reference
        if override:
            on_files = tmp_path / "files"
            options = ("--cpu-workers", workers)
            assert scenes.pretrain(on_files, *options, override=(*override, *FEW)) == 0
            override = (*override, *FEW)
        options = ("--cpu-workers", workers, "--checkpoint-every", 7)
        assert scenes.pretrain(run, *options, override=(*shards, *override)) == 0
        assert scalars(run, "train/") == scalars(on_files, "train/")
        shutil.rmtree(run)


def test_categories_in_shards_train_as_those_of_files(scenes, run, tmp_path):
    shards = packed(scenes, tmp_path / "shards", "--labels", "categories")
    assert scenes.pretrain(tmp_path / "files", override=MULTILABEL) == 0
    assert scenes.pretrain(run, override=(*MULTILABEL, *shards)) == 0
    assert scalars(run) == scalars(tmp_path / "files")


@pytest.mark.parametrize("task", [MULTILABEL, FEW])
def test_shards_of_other_labels_are_refused(scenes, run, tmp_path, capsys, task):
    other = ("--labels", "categories") if task is FEW else ()
    shards = packed(scenes, tmp_path / "shards", *other)
    assert scenes.pretrain(run, override=(*task, *shards)) == 2
    assert "and MODEL.NAME needs" in capsys.readouterr().err
