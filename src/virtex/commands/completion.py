"""`virtex completion`: a script that completes commands and options in a shell."""

import argparse
import importlib
import pkgutil
from pathlib import Path

from virtex.errors import UserError

_SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex completion`."""
    parser.add_argument("shell", choices=_SHELLS, help="shell for which to print the script")
    parser.epilog = (
        "For bash: virtex completion bash > ~/.local/share/bash-completion/completions/virtex. For "
        "zsh, write to the file _virtex in a directory of $fpath."
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the script for the options that all commands have now."""
    try:
        import shtab
    except ImportError as error:
        raise UserError(
            "virtex completion needs shtab, which is not installed: "
            "pip install 'virtex-pretraining[completion]'"
        ) from error
    print(shtab.complete(_every_option(), arguments.shell))
    return 0


def _every_option() -> argparse.ArgumentParser:
    """The whole command line, of which a command reads only its own part."""
    parser = argparse.ArgumentParser(prog="virtex")
    parser.add_argument("--version", action="store_true")
    subparsers = parser.add_subparsers()
    for name in command_names():
        module = importlib.import_module(f"virtex.commands.{name}")
        summary = str(module.__doc__).splitlines()[0].partition(": ")[2]
        module.add_arguments(subparsers.add_parser(name, help=summary))
    return parser


def command_names() -> list[str]:
    """The commands of one word: the modules beside this one that run."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return [
        name
        for name in names
        if "_" not in name and hasattr(importlib.import_module(f"virtex.commands.{name}"), "run")
    ]
