"""`virtex init`, from a directory of images to a run."""

import shlex
import subprocess
import sys

import pytest
from tests import tiny_network
from tests.doctor.data_sets import files_of, write_images, write_reports, write_table

from virtex.build.model import load_config
from virtex.cli import main

FAST = "--no-measure"
SMALL = (
    *("DATA.IMAGE_CROP_SIZE", "32", "OPTIM.NUM_EPOCHS", "0.1", "OPTIM.WARMUP_STEPS", "0"),
    *("MODEL.VISUAL.NAME", f"torchvision::{tiny_network.NAME}", "MODEL.DECODER.BEAM_SIZE", "1"),
)


@pytest.mark.parametrize("language", ["german", "japanese"])
def test_the_commands_that_it_prints_train(tmp_path, monkeypatch, capsys, language):
    """From another directory than that of the file, with spaces and other letters in the paths."""
    data, work = tmp_path / "Röntgen 画像", tmp_path / "work here"
    write_reports(data, language)
    before = files_of(data)
    (work / "settings").mkdir(parents=True)
    monkeypatch.chdir(work)
    assert main(["init", "../Röntgen 画像", "--output", "settings/mein lauf.yaml", FAST]) == 0
    output = capsys.readouterr().out
    (line,) = (each for each in output.splitlines() if "virtex pretrain" in each)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = shlex.split(line)[1:]
    words[words.index("settings/mein lauf.yaml")] = str(work / "settings" / "mein lauf.yaml")
    subprocess.run(
        [sys.executable, "-m", "virtex", *words, "--config-override", *SMALL],
        cwd=elsewhere,
        check=True,
        capture_output=True,
    )
    assert list(elsewhere.glob("runs/mein lauf/checkpoint_*.pth"))
    assert files_of(data) == before


def test_flags_of_the_layout_come_first(tmp_path, monkeypatch, capsys):
    names = write_images(tmp_path / "data", 20)
    rows = [("image", "caption", "Notiz"), *((name, "a dog", "ein alter Hund") for name in names)]
    write_table(tmp_path / "data" / "t.csv", rows)
    monkeypatch.chdir(tmp_path)
    flags = ["--caption-column", "Notiz", "--val-share", "0.5", "--format", "table"]
    assert main(["init", "data", FAST, *flags]) == 0
    data = load_config(tmp_path / "run.yaml").data
    assert (data.columns.caption, data.val_share, data.format) == ("Notiz", 0.5, "table")
    assert main(["init", "data", "--caption-column", "Notes", "--force"]) == 2
    assert "no column 'Notes'" in capsys.readouterr().err


def test_files_are_neither_overwritten_nor_written_into_the_data(tmp_path, monkeypatch, capsys):
    names = write_images(tmp_path / "data", 20)
    write_table(tmp_path / "data" / "t.csv", [("image", "caption"), *((n, "a dog") for n in names)])
    monkeypatch.chdir(tmp_path / "data")
    assert main(["init", "."]) == 2
    assert "nothing is written into data" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(["init", "data", FAST, "--dry-run"]) == 0
    assert "_BASE_: recipes/small" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert main(["init", "data", FAST]) == 0
    written = files_of(tmp_path)
    assert main(["init", "data"]) == 2
    assert "run.yaml and" in (error := capsys.readouterr().err)
    assert "--force" in error
    assert files_of(tmp_path) == written
    assert main(["init", "data", FAST, "--force"]) == 0
    assert {path: content for path, (content, _) in files_of(tmp_path).items()} == {
        path: content for path, (content, _) in written.items()
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "does not exist"),
        (["s3://bucket/x"], "is an address"),
        (["data"], "is empty"),
        (["data", "--output", "data"], "is a directory"),
    ],
)
def test_mistakes_are_one_message(tmp_path, monkeypatch, capsys, arguments, said):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["init", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_memory_is_measured(tmp_path, monkeypatch, capsys):
    names = write_images(tmp_path / "data", 20)
    write_table(tmp_path / "data" / "t.csv", [("image", "caption"), *((n, "a dog") for n in names)])
    monkeypatch.chdir(tmp_path)
    assert main(["init", "data", "--dry-run"]) == 0
    assert "BATCH_SIZE: 8" in capsys.readouterr().out
