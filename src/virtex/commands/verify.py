"""`virtex verify`: whether an exported backbone gives the features that it should."""

import argparse

from virtex.commands.arguments import local_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "directory", type=local_path, metavar="DIR", help="directory that `virtex export` wrote"
    )


def run(arguments: argparse.Namespace) -> int:
    """Load the export by each library that reads it; returns 1 if a fingerprint differs."""
    from virtex.exporting.verification import verify

    found = verify(arguments.directory)
    print(*(one.line for one in found), sep="\n")
    return int(any(one.problem is not None for one in found))
