"""The command `virtex`, with a module of `virtex.commands` for each sub-command.

Only the module of the sub-command in use is imported, so that `--help` is quick.
"""

import argparse
import atexit
import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from virtex._version import __version__
from virtex.errors import UserError

COMMANDS = {
    "init": "look at your data, and write a vocabulary and the settings of a first run",
    "doctor": "report everything that is wrong with data, configuration and machine",
    "pretrain": "pretrain a visual backbone on image captions",
    "slurm": "submit pretraining to a SLURM cluster, with automatic requeueing",
    "sweep": "pretrain on several percentages of the images, with several random seeds",
    "compare": "compare runs by the mean and standard deviation of their metrics over seeds",
    "tokenizer": "train a SentencePiece vocabulary on captions",
    "config": "print a resolved configuration, or its JSON schema",
    "pack": "pack images and captions into tar shards, for DATA.FORMAT shards",
    "index": "index tar shards that others have written, before a run needs the indexes",
    "synthesize": "generate a synthetic data set of captioned scenes",
    "quickstart": "generate scenes, pretrain on them and evaluate the result, in minutes",
    "caption": "generate captions for images",
    "score": "score captions against reference captions with BLEU, ROUGE-L and CIDEr-D",
    "attention": "visualize the attention of a model for each word of a caption",
    "embed": "compute the features of images by a trained backbone",
    "export": "export a backbone to timm, transformers, torchvision, ONNX or detectron2",
    "verify": "check that an exported backbone gives the features that it should",
    "evaluate": "evaluate backbones on other data, by k-NN, linear classifiers and more",
    "completion": "print a script that completes commands and options in bash, zsh or tcsh",
}
NESTED = {
    ("evaluate", "finetune"): "fine-tune a backbone, or a linear layer on it, on labelled images",
}
"""Commands of two words, whose options are their own."""
HIDDEN = {
    "evaluate-scenes": "evaluate the captions and features of a checkpoint on held-out scenes",
}
"""Commands of earlier releases that `virtex --help` does not list."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="virtex", description="Train visual backbones from captions."
    )
    parser.add_argument("--version", action="version", version=f"virtex {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparsers.add_parser(name, help=summary, add_help=False)
    for name in HIDDEN:
        subparsers.add_parser(name, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return the exit status.

    0 is success, 1 a failed run, 2 wrong input, 75 a run that was stopped by a signal and saved,
    130 an interrupt.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        _parser().print_help(sys.stderr)
        return 2
    known, rest = _parser().parse_known_args(arguments[:1])
    words, rest = [known.command], rest + arguments[1:]
    summary = (COMMANDS | HIDDEN)[known.command]
    if (known.command, *rest[:1]) in NESTED:
        words.append(rest.pop(0))
        summary = NESTED[known.command, words[1]]
    name = " ".join(words)
    command = importlib.import_module(f"virtex.commands.{'_'.join(words).replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"virtex {name}", description=f"{summary[0].upper()}{summary[1:]}."
    )
    command.add_arguments(parser)
    try:
        status: int = command.run(parser.parse_args(rest))
        sys.stdout.flush()
    except UserError as error:
        print(f"virtex {name}: error: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        # The reader of the output, such as `head`, has closed it.
        _discard_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _discard_output()
        print(f"virtex {name}: error: the disk of the output is full", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        # Registered last, so called first: an interrupt while Python exits has no effect.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    return status


def _discard_output() -> None:
    """Redirect standard output to nowhere, so that Python can flush the rest of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
