"""`virtex completion`: shells get the commands and options that exist."""

import subprocess
import sys

import pytest

from virtex.cli import COMMANDS, main
from virtex.commands.completion import command_names


def test_every_command_is_completed():
    assert set(command_names()) == set(COMMANDS)


def test_bash_completes_commands_and_their_options(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "virtex"
    script.write_text(capsys.readouterr().out)
    line = (
        f'source {script}; COMP_WORDS=(virtex "$@"); COMP_CWORD=$#; '
        "_shtab_virtex; printf '%s\\n' \"${COMPREPLY[@]}\""
    )

    def completed(*words):
        done = subprocess.run(
            ["bash", "-c", line, "bash", *words], capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert completed("pre") == ["pretrain"]
    assert completed("pretrain", "--num-gpus") == ["--num-gpus-per-machine"]
    assert completed("completion", "z") == ["zsh"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script_with_the_commands(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)


def test_without_shtab_the_error_names_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'virtex-pretraining[completion]'" in capsys.readouterr().err
