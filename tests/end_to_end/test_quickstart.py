"""The quickstart: every step runs, ends in a judgement, and is not done twice."""

import json
from pathlib import Path

import pytest

from virtex.cli import main
from virtex.synthetic.coco_tree import read_objects
from virtex.synthetic.reading import is_true

CONFIG = Path(__file__).parents[2] / "src" / "virtex" / "configs" / "scenes" / "bicaptioning.yaml"
SMALL = [
    *("--train", "120", "--config", str(CONFIG), "--config-override"),
    *("OPTIM.NUM_ITERATIONS", "2", "OPTIM.WARMUP_STEPS", "1", "OPTIM.BATCH_SIZE", "8"),
    *("MODEL.TEXTUAL.NAME", "transdec_postnorm::L1_H32_A2_F64"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("quickstart") / "run"
    assert main(["quickstart", str(path), *SMALL]) == 0
    return path


def test_the_report_counts_the_captions_that_are_true(directory):
    report = directory / "report"
    lines = [json.loads(line) for line in (report / "captions.jsonl").read_text().splitlines()]
    objects = read_objects(directory / "scenes" / "annotations" / "instances_val2017.json")
    ids = {Path(line["path"]).stem: line for line in lines}
    assert len(ids) == 100
    for stem, line in ids.items():
        assert line["true"] == is_true(line["caption"], objects[int(stem)])
    results = json.loads((report / "results.json").read_text())
    assert results["true"] == sum(line["true"] for line in lines) / 100
    # Shapes are equally frequent, so anything near 1 after two iterations would be a leak.
    assert 0 < results["linear_classifier_random"] < 0.9
    assert (report / "captions.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_done_is_not_done_again(directory, capfd):
    checkpoint = directory / "run" / "checkpoint_2.pth"
    before = checkpoint.stat().st_mtime_ns
    assert main(["quickstart", str(directory), *SMALL]) == 0
    assert checkpoint.stat().st_mtime_ns == before
    printed = capfd.readouterr().out
    assert printed.count("exists already") == 3
    assert "every stated shape and colour is in the image" in printed


def test_results_of_other_settings_are_not_mixed(directory, capsys):
    other = ["60" if word == "120" else word for word in SMALL]
    assert main(["quickstart", str(directory), *other]) == 2
    assert "holds a quickstart with other settings" in capsys.readouterr().err
