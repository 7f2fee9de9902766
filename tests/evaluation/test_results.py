import json

import pytest

from virtex.errors import UserError
from virtex.evaluation.results import (
    Result,
    add_results,
    check_results,
    read_results,
    results_table,
)


def result(**changes):
    common = {
        "checkpoint": "c",
        "data": "d",
        "protocol": "knn",
        "settings": {"k": 10},
        "metric": "top1_k10",
        "value": 50.0,
        "seed": 0,
        "name": "runs/a/checkpoint_5.pth",
        "root": "images",
    }
    return Result(**common | changes)


def test_results_of_the_same_key_are_replaced_and_others_kept(tmp_path):
    path = tmp_path / "new" / "results.json"
    others = [
        result(**{name: value})
        for name, value in {
            "checkpoint": "x",
            "data": "x",
            "protocol": "linear",
            "settings": {"k": 20},
            "metric": "x",
            "seed": 1,
        }.items()
    ]
    add_results(path, [result(), *others])
    add_results(path, [result(value=60.0, name="moved.pth", settings={"k": 10})])
    assert read_results(path) == [result(value=60.0, name="moved.pth"), *others]


def test_a_record_survives_its_file_and_has_all_fields(tmp_path):
    written = result(interval=(1.0, 2.0), iteration=5, settings={"left_out": ["a"], "T": 0.07})
    add_results(tmp_path / "r.json", [written])
    assert read_results(tmp_path / "r.json") == [written]
    (record,) = json.loads((tmp_path / "r.json").read_text())
    fields = {"checkpoint", "data", "protocol", "settings", "metric", "value", "seed"}
    assert fields <= record.keys()


def test_settings_that_are_tuples_have_the_key_of_their_lists(tmp_path):
    add_results(tmp_path / "r.json", [result(settings={"classes": ("a", "b")})])
    add_results(tmp_path / "r.json", [result(settings={"classes": ("a", "b")})])
    assert len(read_results(tmp_path / "r.json")) == 1


@pytest.mark.parametrize("content", ["", "{}", '{"true": 0.5}', "[1]", '[{"metric": "a"}]'])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(UserError, match=r"r\.json does not hold the results of `virtex evaluate`"):
        check_results(tmp_path / "r.json")


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot"):
        check_results(tmp_path / "file" / "r.json")


def test_the_table_has_a_column_for_each_checkpoint():
    results = [
        result(interval=(40.0, 60.0)),
        result(metric="top1_k20", value=7.0, deviation=1.5),
        result(metric="top1_k20", value=8.0, name="random"),
    ]
    rows = [line.split("  ") for line in results_table(results).splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["protocol", "metric", "a/checkpoint_5.pth", "random"],
        ["knn", "top1_k10", "50.00 [40.00, 60.00]"],
        ["knn", "top1_k20", "7.00 ± 1.50", "8.00"],
    ]


def test_checkpoints_of_equal_endings_are_told_apart():
    names = ["x/run/c.pth", "y/run/c.pth"]
    header = results_table([result(name=name) for name in names]).splitlines()[0]
    assert header.split() == ["protocol", "metric", *names]
    header = results_table([result(name="x/run/c.pth"), result(name="x/other/c.pth")])
    assert header.split()[2:4] == ["run/c.pth", "other/c.pth"]
