"""Reference curves: read, the nearest one found, and a run judged beside it."""

import json
import math

import pytest

from virtex.cli import main
from virtex.config import loading
from virtex.config.schema import Config
from virtex.errors import UserError
from virtex.experiments.reference import (
    find_reference,
    interpolate,
    judge,
    read_references,
)
from virtex.training.scalars import read_curves

LOSSES = {100: 5.0, 200: 4.0, 300: 3.5, 400: 3.4}


def write_run(directory, losses, **overrides):
    directory.mkdir(parents=True)
    config = directory / "config.yaml"
    config.write_text("{}", encoding="utf-8")
    pairs = [word for key, value in overrides.items() for word in (key, value)]
    config.write_text(loading.dump(loading.load(Config, config, pairs)), encoding="utf-8")
    lines = [json.dumps({"iteration": i, "val/loss": loss}) for i, loss in losses.items()]
    (directory / "scalars.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def write_curve(path, losses, accuracies=(), **settings):
    known = loading.flat(Config()) | settings
    lines = [json.dumps({"reference": "a run that went well", "settings": known})]
    lines += [json.dumps({"iteration": i, "val/loss": loss}) for i, loss in losses.items()]
    lines += [
        json.dumps({"iteration": i, "evaluate/knn/top1_k20": value})
        for i, value in dict(accuracies).items()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_between_iterations_it_is_linear_and_then_constant():
    assert interpolate(LOSSES, 150) == 4.5
    assert interpolate(LOSSES, 200) == 4.0
    assert interpolate(LOSSES, 900) == 3.4


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ({100: 5.0, 200: 4.05}, "on track: val/loss 4.05 at iteration 200"),  # within 3 %
        ({300: 3.9}, "behind: val/loss 3.9 at iteration 300; the reference had 3.5"),
        # A fifth of the iterations ago the reference was no better.
        ({150: 4.7}, "on track"),
        ({150: 4.9}, "behind"),
        ({400: 2.0}, "on track"),  # better than it ever was
        ({400: math.nan}, "behind: val/loss nan"),
        ({200: 4.0, 50: 9.0}, "on track"),  # before the reference's first value nothing is said
    ],
)
def test_a_run_is_judged_at_its_latest_iteration(tmp_path, losses, words):
    (reference,) = read_references(write_curve(tmp_path / "one.jsonl", LOSSES))
    run = write_run(tmp_path / "run", losses)
    (judgement,) = judge(read_curves(run / "scalars.jsonl"), reference)
    assert str(judgement).startswith(words)


def test_of_each_part_of_the_loss_less_is_better(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text(
        json.dumps({"reference": "a run", "settings": {}})
        + '\n{"iteration": 100, "val/masked_lm": 3.0, "val/mAP": 30.0}'
        + '\n{"iteration": 200, "val/masked_lm": 2.0, "val/mAP": 40.0}\n',
        encoding="utf-8",
    )
    (reference,) = read_references(path)
    for loss, precision, words in [
        (4.0, 41.0, ["behind", "on track"]),
        (1.9, 20.0, ["on track", "behind"]),
    ]:
        own = {"val/masked_lm": {200: loss}, "val/mAP": {200: precision}, "train/masked_lm": {}}
        assert [str(one).split(":")[0] for one in judge(own, reference)] == words


def test_of_an_accuracy_more_is_better(tmp_path):
    accuracies = {100: 30.0, 200: 40.0, 300: 50.0}
    (reference,) = read_references(write_curve(tmp_path / "one.jsonl", LOSSES, accuracies))
    own = {"evaluate/knn/top1_k20": {300: 35.0}}
    assert [str(one) for one in judge(own, reference)] == [
        "behind: evaluate/knn/top1_k20 35 at iteration 300; the reference had 50 and passed this "
        "value at iteration 150"
    ]
    own = {"evaluate/knn/top1_k20": {300: 60.0}}
    assert judge(own, reference)[0].on_track


def test_the_command_takes_the_nearest_curve_and_names_settings_that_differ(
    tmp_path, capsys, monkeypatch
):
    curves = tmp_path / "docs" / "reference-curves"
    curves.mkdir(parents=True)
    write_curve(curves / "a.jsonl", LOSSES, **{"OPTIM.BATCH_SIZE": 32, "OPTIM.LR": 0.5})
    write_curve(curves / "b.jsonl", LOSSES, **{"OPTIM.BATCH_SIZE": 64, "RANDOM_SEED": 9})
    write_curve(curves / "c.jsonl", LOSSES, **{"MODEL.NAME": "masked_lm"})
    run = write_run(tmp_path / "run", {100: 5.1, 200: 3.9})
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "run", "--reference"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run"
    assert lines[1] == "reference: docs/reference-curves/b.jsonl: a run that went well"
    assert lines[2] == "settings that differ: OPTIM.BATCH_SIZE 256 (reference 64)"
    assert [line.split() for line in lines[3:6]] == [
        ["iteration", "val/loss", "reference"],
        ["100", "5.1000", "5.0000"],
        ["200", "3.9000", "4.0000"],
    ]
    assert lines[6].startswith("on track: val/loss 3.9 at iteration 200; the reference had 4")
    assert main(["compare", str(run), "--reference", str(curves / "a.jsonl")]) == 0
    assert "OPTIM.LR 0.001 (reference 0.5)" in capsys.readouterr().out


def test_what_cannot_be_compared_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run", {10: 5.0})
    empty = tmp_path / "empty"
    empty.mkdir()
    other = write_curve(tmp_path / "other.jsonl", LOSSES, **{"MODEL.NAME": "masked_lm"})
    curve = write_curve(tmp_path / "curve.jsonl", LOSSES)
    cases = {
        ("run", "--reference"): "no curve at docs/reference-curves; give the file of a curve",
        ("run", "--reference", str(run / "scalars.jsonl")): "is not a reference curve",
        ("run", "--reference", str(other)): "no curve is of a run of MODEL.NAME virtex, only of",
        ("empty", "--reference", str(curve)): "is not a run of `virtex pretrain`",
        ("run", "--reference", str(curve)): "no metric yet at which the reference can be read",
        ("run", "--reference", str(curve), "--json"): "leave out --metric and --json",
    }
    for words, message in cases.items():
        assert main(["compare", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_bicaptioning_and_virtex_are_one_task(tmp_path):
    references = read_references(
        write_curve(tmp_path / "one.jsonl", LOSSES, **{"MODEL.NAME": "bicaptioning"})
    )
    run = write_run(tmp_path / "run", LOSSES)
    assert find_reference(run, references) is references[0]


def test_a_truncated_first_line_is_no_curve(tmp_path):
    (tmp_path / "one.jsonl").write_text('{"reference": "x"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="is not a reference curve"):
        read_references(tmp_path / "one.jsonl")
