"""The flags that the published evaluation scripts share, in terms of the commands of today."""

import argparse
import shlex
import sys
from pathlib import Path

from virtex.cli import main
from virtex.config.loading import load
from virtex.config.schema import Config
from virtex.errors import UserError

PAGE = "See docs/coming-from-1.4.md for what has changed."
_WITHOUT_FILE = {"random": "random", "imagenet": "torchvision"}
"""Values of `--weight-init` that need no checkpoint, by the names of today."""


def script(description: str) -> argparse.ArgumentParser:
    """The parser of a published script, with the flags of all of them."""
    parser = argparse.ArgumentParser(description=description, epilog=PAGE)
    parser.add_argument("--config", help="YAML configuration of the pretraining")
    parser.add_argument("--config-override", nargs="*", default=[], help="no longer accepted")
    parser.add_argument("--checkpoint-path", help="checkpoint to evaluate")
    parser.add_argument("--num-gpus-per-machine", type=int, default=0, help="0 uses the CPU")
    parser.add_argument("--cpu-workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--serialization-dir", type=Path, help="directory for results")
    parser.set_defaults(weight_init="virtex")
    return parser


def downstream_script(description: str) -> argparse.ArgumentParser:
    """As `script`, with the flags of classification on other data."""
    parser = script(description)
    parser.add_argument("--down-config", required=True, help="YAML file, or downstream/NAME")
    parser.add_argument("--down-config-override", nargs="*", default=[], metavar="KEY VALUE")
    parser.add_argument("--weight-init", choices=(*_WITHOUT_FILE, "torchvision", "virtex"))
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; exits with status 2 for those that no longer apply or are missing."""
    given = parser.parse_args()
    if given.config_override:
        parser.error("--config-override: write the settings to the YAML file of --config instead")
    if given.checkpoint_path is None and given.weight_init not in _WITHOUT_FILE:
        parser.error("--checkpoint-path is required")
    return given


def weights(given: argparse.Namespace) -> list[str]:
    """The words for the weights to evaluate."""
    return ["--checkpoint", _WITHOUT_FILE.get(given.weight_init, given.checkpoint_path)]


def device(given: argparse.Namespace) -> list[str]:
    """The words for the device, of which there is one."""
    return ["--device", "cuda" if given.num_gpus_per_machine else "cpu"]


def settings(path: str | None, overrides: list[str]) -> Config:
    """The settings of a YAML file, or the defaults; exits with status 2 if they are wrong."""
    try:
        return load(Config, Path(path), overrides) if path else Config()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_status) from None


def run(*words: str) -> int:
    """Print a command of today and run it; returns its exit status."""
    print(f"running: virtex {shlex.join(words)}", file=sys.stderr, flush=True)
    return main(words)
