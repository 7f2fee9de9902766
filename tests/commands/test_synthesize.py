import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtex.cli import main
from virtex.commands import synthesize

FEW = ["--train", "6", "--val", "4", "--evaluation-train", "6", "--evaluation-val", "6"]


def digest(root: Path) -> str:
    """Of every file's name and bytes."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_writes_the_three_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "scenes"
    assert main(["synthesize", str(output), *FEW]) == 0
    assert {path.name for path in output.iterdir()} == {
        "annotations",
        "train2017",
        "val2017",
        "imagefolder",
        "VOCdevkit",
        "scenes.json",
    }
    assert len(list(output.rglob("*.jpg"))) == 6 + 4 + 12 + 12
    listed = json.loads((output / "scenes.json").read_text())["files"]
    assert set(listed) | {"scenes.json"} == {
        path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()
    }
    assert capsys.readouterr().out == f"scenes written to {output}\n"


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["coco"], {"annotations", "train2017", "val2017"}),
        (["imagefolder"], {"imagefolder"}),
        (["voc", "imagefolder"], {"imagefolder", "VOCdevkit"}),
    ],
)
def test_only_some_trees(tmp_path: Path, only: list[str], expected: set[str]) -> None:
    chosen = [part for tree in only for part in ("--only", tree)]
    assert main(["synthesize", str(tmp_path), *FEW, *chosen]) == 0
    assert {path.name for path in tmp_path.iterdir()} == expected | {"scenes.json"}


def test_same_bytes_in_every_process(tmp_path: Path) -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        output = tmp_path / hash_seed
        subprocess.run(
            [sys.executable, "-m", "virtex", "synthesize", output, *FEW],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        )
        digests.add(digest(output))
    assert main(["synthesize", str(tmp_path / "here"), *FEW]) == 0
    assert digests == {digest(tmp_path / "here")}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--train", "-1"], "-1 training images"),
        (["--val", "0"], "0 held-out images"),
        (["--train", "500000"], "500000 training images"),
        (["--evaluation-val", "5"], "5 held-out images for each evaluation tree"),
        (["--size", "8"], "8 pixels"),
        (["--size", "5000"], "5000 pixels"),
        (["--max-objects", "4"], "objects in a scene is 4"),
        (["--max-objects", "0"], "objects in a scene is 0"),
        (["--seed", "-3"], "the seed is -3"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], message: str
) -> None:
    assert main(["synthesize", str(tmp_path / "scenes"), *FEW, *wrong]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_evaluation_counts_matter_only_for_evaluation_trees(tmp_path: Path) -> None:
    assert main(["synthesize", str(tmp_path), *FEW, "--evaluation-val", "1", "--only", "coco"]) == 0


def test_full_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    for extra in ([], ["--overwrite"]):
        assert main(["synthesize", str(tmp_path), *FEW, *extra]) == 2
        assert "virtex synthesize: error:" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_defaults_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    synthesize.add_arguments(parser)
    arguments = vars(parser.parse_args(["scenes"]))
    assert arguments.pop("output") == Path("scenes")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    for value in arguments.values():
        assert isinstance(value, bool) or value is None or f"(default: {value}" in text
