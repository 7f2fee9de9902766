"""What all commands have in common: help, addresses, output that nobody reads to its end."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from virtex import __version__, load
from virtex.cli import main
from virtex.config.loading import load as load_settings
from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer

ADDRESS = "s3://bucket/run"
CHECKPOINT = ("--checkpoint", "c.pth")
PRETRAIN = ("pretrain", "--config", "c.yaml")


def virtex(*arguments, **options):
    command = [sys.executable, "-m", "virtex", *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, **options)


def test_the_command_alone_prints_its_help(capsys):
    assert main([]) == 2
    printed = capsys.readouterr().err
    assert "usage: virtex" in printed
    assert "train a visual backbone" in printed


@pytest.mark.parametrize(
    "words",
    [
        ("pretrain", "--config", ADDRESS),
        (*PRETRAIN, "--serialization-dir", ADDRESS),
        (*PRETRAIN, "--resume-from", ADDRESS),
        (*PRETRAIN, "--init-from", ADDRESS),
        ("pack", "--from", "coco", ADDRESS, "out"),
        ("pack", "--from", "coco", "coco", ADDRESS),
        ("caption", ADDRESS, *CHECKPOINT),
        ("caption", "a.jpg", "--checkpoint", ADDRESS),
        ("caption", "a.jpg", *CHECKPOINT, "--config", ADDRESS),
        ("caption", "a.jpg", *CHECKPOINT, "--tokenizer", ADDRESS),
        ("caption", "a.jpg", *CHECKPOINT, "--output", ADDRESS),
        ("attention", ADDRESS, *CHECKPOINT),
        ("attention", "a.jpg", *CHECKPOINT, "--output", ADDRESS),
        ("tokenizer", ADDRESS, "--output", "v.model"),
        ("tokenizer", "a.csv", "--output", ADDRESS),
        ("config", ADDRESS),
        ("score", ADDRESS, "r.json"),
        ("score", "p.json", ADDRESS),
        ("score", "p.json", "r.json", "--output", ADDRESS),
        ("score", "p.json", "r.json", "--per-image", ADDRESS),
        ("score", "p.json", "r.json", "--meteor-jar", ADDRESS),
        ("compare", "runs/a", ADDRESS),
        ("synthesize", ADDRESS),
        ("quickstart", ADDRESS),
        ("quickstart", "run", "--config", ADDRESS),
        ("evaluate", "linear", "--data", ADDRESS, *CHECKPOINT),
        ("evaluate-scenes", "--scenes", ADDRESS, *CHECKPOINT),
        ("evaluate-scenes", "--scenes", "scenes", *CHECKPOINT, "--output", ADDRESS),
        ("sweep", "--config", ADDRESS, "--directory", "d", "--percentages", "1"),
        ("sweep", "--config", "c.yaml", "--directory", ADDRESS, "--percentages", "1"),
        ("sweep", "--config", "c", "--directory", "d", "--percentages", "1", "--slurm", ADDRESS),
        ("slurm", "--time", "9", "--folder", ADDRESS, "--", "--config", "c.yaml"),
        ("slurm", "--time", "9", "--", "--config", "c.yaml", "--serialization-dir", ADDRESS),
    ],
    ids=" ".join,
)
def test_an_address_is_refused_where_only_paths_work(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert f"'{ADDRESS}' is an address; expected a path" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "key",
    ["DATA.CACHE_DIR", "DATA.TOKENIZER_MODEL", "DATA.SUBSET_MANIFEST", "MODEL.VISUAL.PRETRAINED"],
)
def test_an_address_is_refused_in_settings_that_are_paths(tmp_path, capsys, key):
    config = tmp_path / "c.yaml"
    config.write_text("{}")
    assert main(["config", str(config), key, ADDRESS]) == 2
    message = capsys.readouterr().err
    assert key in message
    assert "a path on a local" in message


def test_an_address_is_refused_in_python(tmp_path):
    for read in (load, lambda path: load_settings(dict, path, []), Tokenizer.from_file):
        with pytest.raises(UserError, match="is an address"):
            read(tmp_path.__class__(ADDRESS))


def test_output_that_is_not_read_to_its_end_ends_quietly():
    """As by `head`; the reader is gone before anything is written."""
    command = [sys.executable, "-m", "virtex", "config", "--json-schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_output_to_a_full_disk_is_named():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ended = virtex("config", "--json-schema", stdout=full)
    assert ended.returncode == 1
    assert ended.stderr == "virtex config: error: the disk of the output is full\n"


AT_EXIT = """
import os, signal, sys, weakref
from virtex.cli import main

class Held:
    pass

held = Held()
weakref.finalize(held, os.kill, os.getpid(), signal.SIGINT)
sys.exit(main(["config", "--json-schema"]))
"""


@pytest.mark.cold
def test_an_interrupt_while_a_finished_command_exits_prints_no_traceback():
    ended = subprocess.run(
        [sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_version_is_that_of_the_project(capsys):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"virtex {__version__}\n"
    assert __version__ == project["version"]
